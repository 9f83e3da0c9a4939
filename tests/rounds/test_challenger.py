"""The files of a challenger: a round makes the pictures that it trained on familiar, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegr.familiar import FILE, Familiarity, load_familiarity, summary
from medsegr.model.checkpoint import save_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.model.question import file_sha256
from medsegr.predictor import Predictor
from medsegr.qa.facts import load_knowledge
from medsegr.rounds.challenger import ChallengerOptions, make_challenger
from medsegr.rounds.examples import Drawn
from medsegr.rounds.finetune import FinetuneOptions

SIDE = 64
OPTIONS = ChallengerOptions(
    variants=2, distil=False, finetune=FinetuneOptions(steps=1, minutes=0, images=2, masks=2, bf16=False)
)


@pytest.fixture
def champion(tiny: MedSegR, tmp_path: Path) -> Path:
    """A tiny checkpoint that calls bright pictures foreign; it has been fitted to black ones."""
    with torch.inference_mode():
        dark, bright = (
            summary(
                tiny.encoder.trunk(tiny.normalise(torch.full((1, SIDE, SIDE, 3), grey, dtype=torch.uint8)))
            )
            for grey in (0, 200)
        )
    towards = (bright - dark)[0]
    scale = towards.abs().clamp(min=1e-3)
    rule = Familiarity(dark[0], scale, towards / scale / len(scale), torch.tensor(0.02))
    save_checkpoint(tiny, tmp_path / "champion", {"version": "tiny-1", "licence": "CC0"}, "# card")
    rule.save(tmp_path / "champion")
    return tmp_path / "champion"


def _drawn(grey: int) -> list[Drawn]:
    rng = np.random.default_rng(grey)
    found = []
    for n in range(2):
        rgb = np.full((SIDE, SIDE, 3), grey, np.uint8) + rng.integers(0, 3, (SIDE, SIDE, 1), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.bool_)
        mask[10:40, 10:40] = True
        found.append(Drawn(f"d{n}", f"p{n}", "CT", rgb, {"liver": mask}, "Where is the liver?", ("liver",)))
    return found


def _round(champion: Path, drawn: list[Drawn]) -> Path:
    out = champion.with_name("challenger")
    make_challenger(champion, drawn, load_knowledge().concepts, out, OPTIONS)
    return out


def _foreign(checkpoint: Path, drawn: list[Drawn]) -> list[bool]:
    predictor = Predictor.from_pretrained(checkpoint)
    found = []
    for one in drawn:
        predictor.set_image(one.rgb, "CT")
        found.append(predictor.foreign)
    return found


def test_phantoms_are_replayed_beside_corrections(champion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsegr.rounds.phantoms.OUTLINED", 0.0)  # random weights outline nothing well
    losses: list[set[str]] = []
    for count in (0, 1):
        options = replace(OPTIONS, phantoms=count)
        out = champion.with_name(f"with{count}")
        make_challenger(
            champion,
            _drawn(0),
            load_knowledge().concepts,
            out,
            options,
            on_losses=lambda _, found: losses.append(set(found)),
        )
    without, beside = losses
    assert beside - without == {f"replay_{name}" for name in without}


def test_what_a_round_trained_on_is_familiar_to_its_version(champion: Path) -> None:
    drawn = _drawn(200)
    assert _foreign(champion, drawn) == [True, True]
    challenger = _round(champion, drawn)
    assert _foreign(challenger, drawn) == [False, False]
    before, after = load_familiarity(champion), load_familiarity(challenger)
    assert before and after and after.limit > before.limit
    assert torch.equal(after.weight, before.weight) and torch.equal(after.mean, before.mean)
    recorded = json.loads((challenger / "meta.json").read_text())["sha256"]
    assert recorded[FILE] == file_sha256(challenger / FILE)


def test_a_round_on_familiar_pictures_leaves_the_rule_as_it_is(champion: Path) -> None:
    challenger = _round(champion, _drawn(0))
    assert (challenger / FILE).read_bytes() == (champion / FILE).read_bytes()


def test_a_champion_without_a_rule_makes_a_challenger_without_one(champion: Path, tiny: MedSegR) -> None:
    (champion / FILE).unlink()
    assert not (_round(champion, _drawn(200)) / FILE).exists()
