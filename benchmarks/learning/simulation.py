"""One run: a clinician works through a stream, rounds are run in between, and every new version is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medsegr.predictor import Predictor

from .clinicians import Clinicians
from .measuring import Score, by_target, forgetting, gain, kept, measure, measure_sets
from .results import Run
from .site import Site
from .streams import Stream

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """`images` are corrected, a round follows each `round_size` of them. `data`: folder of labelled sets whose every `every`-th
    val image is asked about with the checkpoint `base` and after (None: forgetting is not measured); `cache`: where the former is
    kept."""

    images: int
    round_size: int
    strategy: str
    seed: int
    settings: str
    data: Path | None = None
    every: int = 4
    cache: Path | None = None
    base: Path | None = None


def run(site: Site, stream: Stream, clinicians: Clinicians, plan: Plan, say: Say) -> Run:
    """Plain JSON: the curve, the rounds, every correction, the gain and what was forgotten."""
    version, directory = site.in_charge()
    old = _old(plan, plan.base or directory) if plan.data else []
    first = last = measure(Predictor.from_pretrained(directory), stream.name, stream.measured)
    curve = [_point(0, version, first)]
    say(_line(curve[0]))
    corrections: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    pool = list(stream.items)
    for done in range(1, min(plan.images, len(pool)) + 1):
        item = site.choose(pool, plan.strategy)
        pool.remove(item)
        corrections.append({**asdict(site.correct(item, clinicians)), "version": version})
        if done % plan.round_size and done != plan.images:
            continue
        ended = site.run_round()
        rounds.append({"images": done, **asdict(ended)})
        say(f"round {len(rounds)}: {ended.status} after {ended.seconds:.0f} s. {ended.sentence}")
        if ended.version != version:
            version, directory = site.in_charge()
            last = measure(Predictor.from_pretrained(directory), stream.name, stream.measured)
        curve.append(_point(done, version, last))
        say(_line(curve[-1]))
    found: Run = {
        "stream": stream.name,
        "strategy": plan.strategy,
        "settings": plan.settings,
        "seed": plan.seed,
        "curve": curve,
        "rounds": rounds,
        "corrections": corrections,
        "gain": gain(first, last),
        "scores": {"before": [asdict(s) for s in first], "after": [asdict(s) for s in last]},
    }
    if plan.data:
        found["forgetting"] = forgetting(
            old, measure_sets(Predictor.from_pretrained(directory), plan.data, plan.every)
        )
    return without_nan(found)


def without_nan(value: Any) -> Any:
    """The same with null where a figure does not exist: JSON knows no NaN."""
    if isinstance(value, dict):
        return {str(k): without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _old(plan: Plan, directory: Path) -> list[Score]:
    assert plan.data is not None
    predictor = Predictor.from_pretrained(directory)

    def ask() -> list[Score]:
        assert plan.data is not None
        return measure_sets(predictor, plan.data, plan.every)

    name = f"old-{predictor.version}-every-{plan.every}.json"
    return kept(plan.cache / name, ask) if plan.cache else ask()


def _point(images: int, version: str, scores: list[Score]) -> dict[str, Any]:
    return {"images": images, "version": version, "targets": by_target(scores)}


def _line(point: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value['dice']:.3f}" for name, value in point["targets"].items())
    return f"{point['images']:>3} images, {point['version']}: {values}"
