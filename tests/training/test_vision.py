"""Vision steps: truth straight from the label maps, unlabelled is not absent, mirrored teeth change sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import PRESETS
from medsegr.model.tokens import train_tokenizer
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.training.augment import NONE, Augmentation
from medsegr.training.batches import Sampler, Sampling, augmented, shown
from medsegr.training.images import Case, LabelTable
from medsegr.training.vision import dice_by_set, make_vision_batch

SIDE = 64
TARGETS = ("liver", "spleen", "nerve")


def _case(values: dict[str, tuple[int, ...]], exhaustive: bool, dataset: str = "toy", there: int = 1) -> Case:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[10:30, 4:24] = there
    rgb = np.repeat((labels > 0)[..., None] * 200, 3, axis=2).astype(np.uint8)
    shown = frozenset(name for name, numbers in values.items() if there in numbers)
    return Case("a", dataset, "p", False, False, rgb, labels, (), shown, frozenset(), values, exhaustive)


@pytest.fixture
def model() -> MedSegR:
    config = replace(PRESETS["tiny"], question_encoder="scratch", targets=TARGETS)
    return MedSegR(config, train_tokenizer(["Where is the liver?"]))


def _batch(model: MedSegR, cases: list[Case]):  # noqa: ANN202
    sampling = Sampling(images=4, masks=8, click=1.0)
    return make_vision_batch(model, Sampler(cases, 0), sampling, NONE, torch.Generator().manual_seed(0))


def test_every_structure_of_the_set_is_asked_for_where_its_labels_are_exhaustive(model: MedSegR) -> None:
    batch, sets = _batch(model, [_case({"liver": (1,), "spleen": (2,)}, exhaustive=True)])
    assert sets == ["toy"] * 4
    assert batch.image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and batch.target.tolist() == [0, 1] * 4
    bright = batch.pixels[:, 0, ::2, ::2] > 0
    for row, target, mask in zip(batch.image, batch.target, batch.truth, strict=True):
        assert torch.equal(mask, bright[row] if target == 0 else torch.zeros_like(mask))


def test_unlabelled_is_not_absent(model: MedSegR) -> None:
    batch, _ = _batch(model, [_case({"liver": (1,), "spleen": (2,)}, exhaustive=False)])
    assert set(batch.target.tolist()) == {0}
    assert batch.present[0].tolist() == [1, -1, 0], "shown, unknown, and never drawn in images of this kind"


def test_a_union_of_labels_is_asked_for_only_where_all_of_it_was_drawn(model: MedSegR) -> None:
    """The conversations leave out what may be half drawn; the label map alone would not tell."""
    part = replace(_case({"liver": (1, 2), "spleen": (1,)}, exhaustive=False), present=frozenset({"spleen"}))
    assert set(_batch(model, [part])[0].target.tolist()) == {1}


def test_a_structure_too_small_to_be_drawn_is_not_called_absent(model: MedSegR) -> None:
    case = _case({"liver": (1,), "spleen": (2,)}, exhaustive=True)
    case.labels[41, 41] = 2  # lost at half resolution
    assert set(_batch(model, [case])[0].target.tolist()) == {0}


def test_a_step_that_shows_nothing_is_drawn_again(model: MedSegR) -> None:
    cases = [_case({}, False, "healthy"), _case({"liver": (1,)}, True)]
    sampling = Sampling(images=1, masks=4)
    sampler = Sampler(cases, 0)
    for _ in range(8):
        batch, sets = make_vision_batch(model, sampler, sampling, NONE, torch.Generator().manual_seed(0))
        assert sets == ["toy"] and len(batch.truth) == 1


def test_pairs_count_by_the_root_of_their_number(model: MedSegR) -> None:
    batch, _ = _batch(model, [_case({"liver": (1,), "spleen": (2,)}, exhaustive=True)])
    assert batch.weight.tolist() == pytest.approx([2**-0.5] * 8)


def test_clicks_lie_inside_the_prompted_truth(model: MedSegR) -> None:
    batch, _ = _batch(model, [_case({"liver": (1,)}, exhaustive=True)])
    assert len(batch.prompted) == 8
    for index, point in zip(batch.prompted, batch.points[:, 0], strict=True):
        assert batch.truth[index, int(point[1]) // 2, int(point[0]) // 2]


def test_the_vision_part_learns_and_the_language_part_hears_nothing(model: MedSegR) -> None:
    torch.manual_seed(0)
    cases = [_case({"liver": (1,)}, True), _case({"nerve": (1,)}, True, "other")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = last = 0.0
    for _ in range(12):
        batch, sets = _batch(model, cases)
        losses = model.forward_vision(batch, LossWeights())
        dice = dice_by_set(batch, sets, losses["pair_dice"])
        assert set(dice) <= {"toy", "other"} and all(0 <= v <= 1 for v in dice.values())
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        first, last = first or losses["loss"].item(), losses["loss"].item()
    assert last < 0.8 * first
    assert all(p.grad is None for p in model.context.parameters())
    assert model.grounding.names.weight.grad is not None


def _turn(kind: str, targets: tuple[Target, ...], absent: tuple[str, ...] = ()) -> Turn:
    return Turn("?", "No." if absent else "The <p>x</p> [SEG].", targets, kind=kind, absent=absent)


def _table(values: dict[str, tuple[int, ...]], absent: tuple[str, ...] = ()) -> LabelTable:
    table = LabelTable()
    turns = [_turn("explicit", (Target(name, name, "m.png", v),)) for name, v in values.items()]
    turns += [_turn("absent_same_set", (), absent)] if absent else []
    table.add(Conversation("c", "i.png", "XR", "toy", "p", "train", tuple(turns)))
    return table


def test_a_set_that_declares_its_own_structure_absent_is_exhaustive() -> None:
    assert _table({"liver": (1,)}, ("liver",)).exhaustive
    assert not _table({"liver": (1,)}).exhaustive
    assert not _table({"liver": (1,)}, ("breast tumour",)).exhaustive


def test_mirrored_teeth_change_sides_and_lungs_beside_a_heart_are_never_mirrored() -> None:
    teeth = {"upper left canine": (1,), "upper right canine": (2,), "canines": (1, 2)}
    swap = _table(teeth).swap()
    assert swap is not None and swap[:4].tolist() == [0, 2, 1, 3]
    assert _table({"left lung": (1,), "right lung": (2,), "heart": (3,)}).swap() is None
    assert _table({"left ventricle": (1,), "right ventricle": (2,), "left ear": (3,)}).swap() is None
    case = replace(_case(teeth, True), swap=swap)
    mirrored = 0
    for seed in range(12):
        ranges = Augmentation(degrees=1e-6, scale=0, shift=0, contrast=0, brightness=0, noise=0)
        _, labels = augmented([case], ranges, torch.Generator().manual_seed(seed), swap=True)
        turned = bool((labels == 2).any())
        expected = np.where(case.labels[:, ::-1] == 1, 2, 0) if turned else case.labels
        assert (labels[0].numpy() == expected).mean() > 0.97
        mirrored += turned
    assert 0 < mirrored < 12


def test_shown_reads_the_label_map(model: MedSegR) -> None:
    case = _case({"liver": (1,), "spleen": (2, 3)}, exhaustive=True, there=3)
    assert shown([case], torch.from_numpy(case.labels[None]), TARGETS).tolist() == [[0, 1, 0]]
