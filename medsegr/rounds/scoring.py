"""Scores of a model on a round's cases, by free generation: the ledger's validation pictures, and the regression latents that
ship with a checkpoint. Champion and challenger are asked the same questions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medsegr.answering import Prepared
from medsegr.errors import CheckpointError
from medsegr.evaluation.metrics import dice
from medsegr.imaging import Picture
from medsegr.imaging.resizing import resize_labels
from medsegr.model.encoder import Trunk
from medsegr.model.medsegr import MedSegR
from medsegr.predictor import Predictor
from medsegr.qa import phrasing
from medsegr.qa.facts import Concept
from medsegr.qa.schema import Turn
from medsegr.rounds.denials import denials
from medsegr.rounds.examples import MIN_PIXELS, Drawn, concept_of, named_again
from medsegr.rounds.features import FeatureCase
from medsegr.rounds.gate import Scored

PER_PICTURE = 8
"""Questions by name about one regression picture."""
ABSENT_PER_PICTURE = 1
REMEMBERED = 2
"""Questions about a structure that no regression picture shows."""


@dataclass(frozen=True, eq=False)
class Question:
    """One question of the gate: about a picture (or a regression picture `latent`), with the mask [H, W] bool that answers it,
    empty where the structure is not present."""

    kind: str
    label: str
    patient: str
    text: str
    truth: NDArray[np.bool_]
    picture: Picture | None = None
    latent: FeatureCase | None = None


@dataclass(frozen=True, eq=False)
class Answered:
    """What one model made of a question: Dice (1 for a right "not present"), whether it outlined anything, and its mask."""

    dice: float
    emitted: bool
    mask: NDArray[np.bool_]


class LatentPredictor(Predictor):
    """A predictor that can also be asked about a picture of which nothing but maps is left."""

    def set_trunk(self, trunk: Trunk, side: int) -> None:
        """Take the maps (B = 1) of a picture of `side` x `side` pixels in place of an image."""
        if not isinstance(self.model, MedSegR):
            raise CheckpointError("Latents fit the embedded model only; this checkpoint is a large preset's.")
        maps = {n: getattr(trunk, n).to(self.device).float() for n in Trunk.__dataclass_fields__}
        with torch.inference_mode():
            features = self.model.encoder.read(Trunk(**maps))
        self._current = (Prepared([features], None), Picture(np.zeros((side, side), np.uint8), None, None))


def case_questions(
    drawn: Sequence[Drawn], concepts: Mapping[str, Concept], side: int, seed: int
) -> list[Question]:
    """By name, one question for every structure that the validation pictures are corrected for; absent ones as well. `side` is
    that of the model's square."""
    found = []
    for one in drawn:
        rng = random.Random(f"{seed}/{one.name}")
        picture = Picture(one.rgb, one.modality, None)
        for name, mask in one.masks.items():
            concept = concept_of(name, concepts)
            study = phrasing.study_name(concept.region, one.modality or "") if concept.region else "image"
            text = phrasing.explicit_question(rng, concept, study)
            if 0 < resize_labels(mask.astype(np.uint8), side).sum() < MIN_PIXELS:
                continue  # too small on the model's square to be asked for
            kind = "corrected" if mask.any() else "absent_corrected"
            found.append(Question(kind, name, one.patient_key, text, mask, picture))
    return found


def validation_patients(questions: Sequence[Question]) -> dict[str, int]:
    """Patients of each corrected structure that is there to be outlined."""
    found: dict[str, set[str]] = {}
    for question in questions:
        if question.kind == "corrected":
            found.setdefault(question.label, set()).add(question.patient)
    return {label: len(patients) for label, patients in found.items()}


def regression_questions(
    latents: Sequence[FeatureCase],
    seed: int,
    most: int = 0,
    concepts: Mapping[str, Concept] | None = None,
    names: Sequence[str] = (),
) -> list[Question]:
    """First questions by name about the regression pictures, a few of each; `most` pictures (0: all). What is asked of absent
    structures is made up to `ABSENT_PER_PICTURE` with structures `names` that `concepts` say cannot be there."""
    rng = random.Random(seed)
    found = []
    for latent in latents[: most or len(latents)]:
        by_label, absent = _asked_by_name(latent, concepts or {}, seed)
        more = denials(latent.case, concepts or {}, names, ABSENT_PER_PICTURE - len(absent), rng)
        absent += [c.turns[0] for c in more]
        picked = rng.sample(sorted(by_label), min(PER_PICTURE, len(by_label)))
        found += [_of_latent("regression", latent, by_label[name]) for name in picked]
        nothing = np.zeros(latent.labels.shape, np.bool_)
        for turn in absent[:ABSENT_PER_PICTURE]:
            found.append(
                Question(
                    "absent", turn.absent[0], latent.case.patient_id, turn.question, nothing, None, latent
                )
            )
    return found


def remembered_questions(
    latents: Sequence[FeatureCase], judged: Sequence[Question], concepts: Mapping[str, Concept], seed: int
) -> list[Question]:
    """Questions by name about replay pictures, `REMEMBERED` of each structure that no question `judged` asks for: what no
    regression picture shows is trained on, and would still show that it is lost."""
    count = Counter({question.label: REMEMBERED for question in judged if question.kind == "regression"})
    found = []
    for latent in latents:
        for name, turn in sorted(_asked_by_name(latent, concepts, seed)[0].items()):
            if count[name] < REMEMBERED:
                count[name] += 1
                found.append(_of_latent("remembered", latent, turn))
    return found


def _asked_by_name(
    latent: FeatureCase, concepts: Mapping[str, Concept], seed: int
) -> tuple[dict[str, Turn], list[Turn]]:
    """First questions by name about what a picture shows, by structure, and about what it lacks."""
    turns = [c.turns[0] for c in named_again(latent.case, concepts, 1, seed).conversations]
    by_label: dict[str, Turn] = {}
    for turn in turns:
        if turn.kind == "explicit" and len(turn.targets) == 1:
            by_label.setdefault(turn.targets[0].label, turn)
    return by_label, [t for t in turns if t.kind.startswith("absent") and t.fact is None and t.absent]


def _of_latent(kind: str, latent: FeatureCase, turn: Turn) -> Question:
    target = turn.targets[0]
    truth = np.isin(latent.labels.numpy(), target.value)
    return Question(kind, target.label, latent.case.patient_id, turn.question, truth, None, latent)


def answer(
    checkpoint: Path,
    questions: Sequence[Question],
    device: str = "cpu",
    on_step: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """Ask the model of `checkpoint` all questions."""
    predictor = LatentPredictor.from_pretrained(checkpoint, device)
    assert isinstance(predictor, LatentPredictor)
    found: list[Answered] = []
    shown: object = None
    for n, question in enumerate(questions):
        source = question.picture or question.latent
        if source is not shown:
            if question.picture is not None:
                predictor.set_image(question.picture)
            elif question.latent is not None:
                predictor.set_trunk(question.latent.trunk, question.truth.shape[0])
            shown = source
        findings = predictor.ask(question.text).findings
        mask = np.zeros(question.truth.shape, np.bool_)
        for finding in findings:
            mask |= finding.mask
        emitted = bool(mask.any())
        value = dice(mask, question.truth) if question.truth.any() else float(not emitted)
        found.append(Answered(float(value), emitted, mask))
        if on_step:
            on_step(n + 1, len(questions))
    return found


def compared(
    questions: Sequence[Question], champion: Sequence[Answered], challenger: Sequence[Answered]
) -> list[Scored]:
    """Both models' answers side by side."""
    return [
        Scored(
            q.kind,
            q.label,
            q.patient,
            a.dice,
            b.dice,
            a.emitted,
            b.emitted,
            q.latent.case.dataset if q.latent else "",
        )
        for q, a, b in zip(questions, champion, challenger, strict=True)
    ]
