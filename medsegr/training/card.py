"""The model card that every checkpoint carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medsegr.qa.schema import Conversation


def model_card(meta: dict[str, Any], conversations: Sequence[Conversation]) -> str:
    """Markdown: what it is for, what it was trained on, under which licences."""
    licences = {c.dataset: c.licence for c in conversations}
    rows = "\n".join(
        f"| {name} | {count} | {licences.get(name, '?')} |" for name, count in meta["data"]["images"].items()
    )
    stages = "\n".join(f"{n}. {_stage(run)}" for n, run in enumerate(_runs(meta["training"]), start=1))
    return f"""# MedSeg-R {meta["version"]}

**Research use only. Not a medical device, not a diagnosis.** Licence of the weights: {meta["licence"]}.

A reasoning-segmentation model: it reads one image and a question in English and writes a sentence and one mask per structure
it names. {meta["parameters"] / 1e6:.1f} million parameters of its own; a frozen all-MiniLM-L6-v2 (Apache-2.0) reads the
questions.

## Training data

{stages}

| set | images | licence |
| --- | --- | --- |
{rows}

Questions and answers were written by templates over a knowledge base that no physician has reviewed.

## Known limits

- It knows only the structures listed in `config.json`; of anything else it may name a wrong structure.
- Few patients per set, one or two hospitals each: expect worse results on other scanners, ages and diseases.
- The reason given in an answer is a general fact about the structure, not a finding read off this image.
- Volumes are read slice by slice.
"""


def _runs(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The run and all that its weights began with, first one first."""
    return [*(run for earlier in training.get("earlier", []) for run in _runs(earlier)), training]


def _stage(run: dict[str, Any]) -> str:
    """One line about a training run."""
    size = f" at {run['image_size']} px" if "image_size" in run else ""
    return (
        f"stage {run.get('stage', 'joint')}{size}: {run.get('steps', '?')} steps, "
        f"{run.get('images', '?')} image presentations, {run.get('minutes', '?')} minutes"
    )
