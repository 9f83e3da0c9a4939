"""Phantoms as replay: what the shipped network outlines well in computed bodies is asked for in rounds, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medsegr.model.checkpoint import load_checkpoint, resolve
from medsegr.model.medsegr import MedSegR
from medsegr.phantom import LABELS
from medsegr.qa.facts import load_knowledge
from medsegr.rounds.features import FeatureCase
from medsegr.rounds.phantoms import OUTLINED, PHANTOM, SLICES, phantom_slices
from medsegr.rounds.replay import dice_by_name

CONCEPTS = load_knowledge().concepts


@pytest.fixture(scope="module")
def shipped() -> MedSegR:
    """The network that ships."""
    return load_checkpoint(resolve("embedded")).model.eval()


@pytest.fixture(scope="module")
def slices(shipped: MedSegR) -> list[FeatureCase]:
    """Of one body."""
    return phantom_slices(shipped, CONCEPTS, 1, shipped.config.image_size, seed=1)


def _mask(one: FeatureCase, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.isin(one.labels.numpy(), one.case.values[name])


def test_the_shipped_network_knows_the_abdomen_of_a_body_of_nobody(slices: list[FeatureCase]) -> None:
    assert len(slices) == len(SLICES) and {one.case.dataset for one in slices} == {PHANTOM}
    shown = set().union(*(one.case.present for one in slices))
    assert {"liver", "right kidney", "left kidney", "aorta"} <= shown <= set(LABELS)


def test_what_is_asked_for_is_what_it_outlines_well(shipped: MedSegR, slices: list[FeatureCase]) -> None:
    for one in slices:
        masks = {name: _mask(one, name) for name in one.case.present}
        assert min(dice_by_name(shipped, one.trunk, masks).values()) >= OUTLINED
        asked = {target.label for c in one.case.conversations for turn in c.turns for target in turn.targets}
        assert asked == one.case.present


def test_organs_lie_on_their_sides_of_the_picture(slices: list[FeatureCase]) -> None:
    both = next(one for one in slices if {"left kidney", "right kidney"} <= one.case.present)
    right, left = (np.argwhere(_mask(both, f"{side} kidney"))[:, 1].mean() for side in ("right", "left"))
    assert right < left  # as a radiologist looks at the patient


def test_the_same_seed_gives_the_same_pictures_and_another_one_other_bodies(
    shipped: MedSegR, slices: list[FeatureCase]
) -> None:
    again, other = (
        phantom_slices(shipped, CONCEPTS, 1, shipped.config.image_size, seed=seed) for seed in (1, 2)
    )
    assert [one.case.conversations for one in again] == [one.case.conversations for one in slices]
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(again, slices, strict=True))
    assert {one.case.patient_id for one in other}.isdisjoint(one.case.patient_id for one in slices)


def test_a_model_that_outlines_nothing_well_gets_no_phantoms(tiny: MedSegR) -> None:
    assert phantom_slices(tiny, CONCEPTS, 1, 64, seed=1) == []
    tiny.config = replace(tiny.config, targets=("fovea", "optic disc"))
    assert phantom_slices(tiny, CONCEPTS, 1, 64, seed=1) == []
