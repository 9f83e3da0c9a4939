"""What is fitted once a model is trained, on patients kept out of training: its confidence, and when it denies what is asked for
by name (`medsegr.training.fit_denial`).

The confidence is a logistic curve from the mask decoder's quality score and the probability of the answer's words to
P(Dice >= 0.7). Half of its questions ask by facts that were kept out as well: a model is surer of what it was told than of
what it has to work out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medsegr.evaluation.metrics import dice
from medsegr.files import write_whole
from medsegr.model.checkpoint import read_config, read_meta
from medsegr.predictor import Predictor
from medsegr.qa.schema import Turn
from medsegr.training.fit_denial import fit_denial
from medsegr.training.images import Case

GOOD_DICE = 0.7
FACTS_KEPT = 0.08
"""Share of the training facts that are kept for the confidence."""


def kept_for_calibration(case: Case, share: float) -> bool:
    """Whether this patient is in the calibration share; depends on nothing but set and patient."""
    return _fraction(f"{case.dataset}/{case.patient_id}") < share


def fact_kept(fact: str | None, share: float = FACTS_KEPT) -> bool:
    """Whether this fact is kept for the confidence; depends on nothing but its id."""
    return fact is not None and _fraction(f"fact/{fact}") < share


def without_kept_facts(case: Case) -> Case:
    """The case without the conversations that ask by a fact kept for the confidence; as it is if nothing would be left."""
    left = tuple(c for c in case.conversations if not any(fact_kept(turn.fact) for turn in c.turns))
    return replace(case, conversations=left) if left else case


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def fit_curve(scores: Sequence[tuple[float, float]], good: Sequence[bool]) -> tuple[float, float, float]:
    """Slope, offset and weight of P(good) = sigmoid(slope * quality + weight * words + offset) for scores (quality, words);
    identity in the quality where only one outcome was seen."""
    if len(set(good)) < 2:
        return 1.0, 0.0, 0.0
    fitted = LogisticRegression(C=1e3).fit(np.asarray(scores), np.asarray(good))
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0]), float(fitted.coef_[0, 1])


def finding_scores(
    predictor: Predictor, cases: Sequence[Case], per_case: int = 8, seed: int = 1
) -> tuple[list[tuple[float, float]], list[bool]]:
    """Ask each case first questions, `per_case` at most: by names, by facts that were kept, and about what is absent. The scores
    of every single finding and whether its Dice is good (never, for something absent)."""
    scores: list[tuple[float, float]] = []
    good: list[bool] = []
    rng = random.Random(seed)
    for case in cases:
        predictor.set_image(case.rgb)
        for turn in _questions(case, per_case, rng):
            values = [v for target in turn.targets for v in target.value]
            truth: NDArray[np.bool_] = np.isin(case.labels, values)
            findings = predictor.ask(turn.question).findings
            if len(findings) == 1:
                scores.append(findings[0].scores)
                good.append(bool(values) and dice(findings[0].mask, truth) >= GOOD_DICE)
    return scores, good


def _questions(case: Case, count: int, rng: random.Random) -> list[Turn]:
    """Two fifths by name, two fifths by kept facts (or any, where too few were drawn), the rest about what is absent."""
    first = [c.turns[0] for c in case.conversations]
    by_name = [t for t in first if t.kind == "explicit"]
    described = [t for t in first if t.kind == "implicit"]
    described.sort(key=lambda t: not fact_kept(t.fact))  # the kept ones first
    absent = [t for t in first if t.kind.startswith("absent")]
    share = count * 2 // 5
    named = rng.sample(by_name, min(share, len(by_name)))
    kept = [t for t in described if fact_kept(t.fact)]
    told = rng.sample(kept, min(share, len(kept))) or described[:1]
    lacking = rng.sample(absent, min(count - 2 * share, len(absent)))
    return [*named, *told, *lacking]


def calibrate(
    directory: Path, cases: Sequence[Case], device: str = "cpu"
) -> tuple[tuple[float, float, float], int]:
    """Slope, offset and weight of the words, and the number of findings behind them, for the checkpoint in `directory`."""
    scores, good = finding_scores(Predictor.from_pretrained(directory, device), cases)
    return fit_curve(scores, good), len(scores)


def recalibrate(directory: Path, cases: Sequence[Case], device: str = "cpu") -> dict[str, Any]:
    """Fit denial and then, with it, the confidence of the checkpoint in `directory` on `cases`, and write both into its
    config.json; its weights and their hashes stay. Returns what meta.json keeps of it."""
    _change_config(directory, denial=())
    denial = fit_denial(Predictor.from_pretrained(directory, device), cases)
    _change_config(directory, denial=denial.rule)
    curve, count = calibrate(directory, cases, device)
    _change_config(directory, calibration=curve)
    record = {
        "patients_kept_out": len({case.patient_id for case in cases}),
        "findings": count,
        **dict(zip(("slope", "offset", "words"), curve, strict=True)),
        "denial": asdict(denial),
    }
    meta = read_meta(directory)
    write_whole(directory / "meta.json", _json({**meta, "calibration": record}))
    return record


def _change_config(directory: Path, **fields: tuple[float, ...]) -> None:
    """Put these fields of `ModelConfig` into config.json; raises `CheckpointError` for a directory that is no checkpoint."""
    changed = {**read_config(directory).to_json(), **fields}
    path = directory / "config.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    write_whole(path, _json({**whole, "model": changed}))


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
