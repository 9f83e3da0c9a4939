"""The measured part of a model card: figures of `medsegr evaluate`, target by target, and where the training images come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegr.errors import MedSegRError
from medsegr.files import write_whole

BEGIN, END = "<!-- figures: written by `medsegr card` -->", "<!-- /figures -->"


def add_figures(checkpoint: Path, metrics: Path, data: Path | None = None) -> None:
    """Put the figures of a `metrics.json`, and the citations of the sets in `data`, into the checkpoint's card.md, in place of
    those that are there. Raises `MedSegRError` where the figures are of another checkpoint."""
    found = _read(metrics)
    meta, card = _read(checkpoint / "meta.json"), checkpoint / "card.md"
    if found.get("checkpoint") != meta.get("version"):
        raise MedSegRError(
            f"{metrics} has the figures of {found.get('checkpoint')}; those of {meta.get('version')} are expected."
        )
    text = card.read_text(encoding="utf-8")
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        text = before.rstrip() + rest.partition(END)[2]
    parts = [BEGIN, figures(found)]
    if data is not None:
        parts.append(citations(data, tuple(meta["data"]["images"])))
    parts.append(END)
    write_whole(card, f"{text.rstrip()}\n\n" + "\n\n".join(parts) + "\n")


def figures(metrics: Mapping[str, Any]) -> str:
    """Markdown: overall figures, confidence bins, one row per target."""
    explicit, implicit, bins = metrics["explicit"], metrics["implicit"], metrics["calibration"]["bins"]
    lines = [
        "## Figures",
        "",
        f"By free generation on {metrics['questions']} questions about {sum(metrics['images'].values())} images of "
        f"{metrics['patients']} patients of the split `{metrics['split']}` (`medsegr evaluate`); 95 % intervals over patients.",
        "",
        "| figure | by name | by a fact that training never saw |",
        "| --- | --- | --- |",
        f"| mean Dice (targets, then sets) | {_of(explicit)} | {_of(implicit)} |",
        *(
            f"| {words} | {explicit[name]:.3f} | {implicit[name]:.3f} |"
            for name, words in (
                ("named_right", "named exactly right"),
                ("chose_target", "overlaps the asked target most, where there are several"),
                ("t_acc", "outlines something where something is there"),
            )
        ),
        "",
        f'"Not present" rightly said of a structure asked for by name: {_share(metrics, "n_acc_elsewhere")} of another body '
        f"region, {_share(metrics, 'n_acc_same_set')} of the same set.",
        "",
        f"Confidence (the chance of a Dice of 0.7): expected calibration error {metrics['calibration']['ece']:.3f}.",
        "",
        "| stated confidence | findings | mean stated | share that was good |",
        "| --- | --- | --- | --- |",
        *(
            f"| {b['low']:.1f} to {b['high']:.1f} | {b['n']} | {b['confidence']:.2f} | {b['accuracy']:.2f} |"
            for b in bins
            if b["n"]
        ),
        "",
        "| target | images | Dice by name | Dice by a held-out fact |",
        "| --- | --- | --- | --- |",
        *(_target(name, group) for name, group in sorted(metrics["by_target"].items()) if name),
    ]
    return "\n".join(lines)


def citations(data: Path, sets: Sequence[str]) -> str:
    """Markdown: what each set of the folder `data` asks to be cited."""
    rows = []
    for name in sets:
        path = data / name / "dataset.json"
        if path.is_file():
            told = _read(path)
            rows.append(f"| {name} | {told.get('original', '')} | {told.get('citation', '')} |")
    return "\n".join(
        ["## Where the images come from", "", "| set | original | cite |", "| --- | --- | --- |", *rows]
    )


def _target(name: str, group: Mapping[str, Any]) -> str:
    cells = [_estimate(group["figures"].get(f"dice_{kind}")) for kind in ("explicit", "implicit")]
    return f"| {name} | {group['images']} | {cells[0]} | {cells[1]} |"


def _estimate(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("value") is None:
        return ""
    interval = "" if found.get("low") is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    return f"{found['value']:.2f}{interval}"


def _of(figure: Mapping[str, Any]) -> str:
    return f"{figure['dice']:.3f} [{figure['dice_low']:.3f}, {figure['dice_high']:.3f}]"


def _share(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics.get(name)
    return "not asked" if value is None else f"{value:.3f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedSegRError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise MedSegRError(f"{path} holds a {type(found).__name__}; a JSON object is expected.")
    return found
