"""The harness with a predictor whose masks are known: every number of a case worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from known_predictor import SIZE, Known, answer, conversation, mask, scored
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.evaluation.case import Case
from medsegr.evaluation.harness import evaluate
from medsegr.evaluation.overlap import chose_target
from medsegr.evaluation.truth import Scene
from medsegr.qa.schema import Slice, Target


def test_truth_is_the_union_of_a_targets_values(root: Path) -> None:
    both = Target("organs", "organs", "i0-mask.png", (1, 2))
    scene = Scene(conversation("i0", ("", "", "all")), root)
    assert np.array_equal(scene.mask(both), mask("liver", "spleen"))


def test_a_right_a_half_right_and_a_missed_answer(root: Path) -> None:
    right, half, missed = answer(
        root,
        conversation("i0", ("liver", "liver", "explicit")),
        conversation("i0", ("liver|liver", "liver+spleen", "multi")),
        conversation("i0", ("", "kidney", "explicit")),
    )
    assert (right.dice, right.iou, right.emitted, right.expected, right.empty) == (1.0, 1.0, 1, 1, False)
    assert right.named and right.confidence == pytest.approx(0.8) and right.target == "liver"
    assert (right.nsd, right.hd95, right.unit, right.intersection, right.union) == (1.0, 0.0, "px", 40, 40)
    assert half.dice == pytest.approx(2 * 40 / (40 + 80)) and half.iou == pytest.approx(0.5)
    assert not half.named and half.target == "liver + spleen" and half.chose is None
    assert (half.matched, half.nsd, half.hd95) == (0.5, None, None), "one of two targets was outlined"
    assert (missed.dice, missed.emitted, missed.empty, missed.confidence) == (0.0, 0, True, 0.0)
    assert (missed.nsd, missed.hd95, missed.mask) == (0.0, math.hypot(*SIZE), "")


def test_masks_under_each_others_names_match_nothing(root: Path) -> None:
    (swapped,) = answer(root, conversation("i0", ("liver+spleen|spleen+liver", "liver+spleen", "multi")))
    assert (swapped.dice, swapped.matched, swapped.named) == (1.0, 0.0, True)


def test_distances_are_in_mm_where_the_spacing_is_known(root: Path) -> None:
    (case,) = answer(root, conversation("i0", ("spleen|liver", "liver", "explicit"), spacing_mm=(2.0, 0.5)))
    # two boxes of 5 rows by 8 columns, 10 columns or 5 mm apart from edge to edge
    assert case.unit == "mm" and 2.0 < case.hd95 <= 5.0 and case.nsd < 1.0


def test_choice_looks_at_the_mask_and_not_at_the_name(root: Path) -> None:
    known = conversation("i0", ("liver+spleen", "liver+spleen", "multi"))
    rest = [
        conversation("i0", ("liver", "liver", "explicit")),
        conversation("i0", ("spleen|liver", "liver", "implicit")),
        conversation("i0", ("liver+spleen|liver+liver", "liver", "explicit")),
        conversation("i1", ("liver", "liver", "explicit")),
    ]
    cases = answer(root, known, *rest)
    assert [c.chose for c in cases] == [None, True, False, False, None], (
        "a tie is no choice; i1 knows one target only"
    )
    assert [c.named for c in cases[1:3]] == [True, True]


def test_choice_from_counts_is_the_choice_from_masks(root: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, SIZE).astype(np.uint8)
    Image.fromarray(labels).save(root / "i0-mask.png")
    targets = {
        n: Target(n, n, "i0-mask.png", v) for n, v in {"a": (1,), "b": (2, 3), "c": (4,), "d": (9,)}.items()
    }
    scene = Scene(conversation("i0", ("", "", "all")), root)
    truths = {n: scene.mask(t) for n, t in targets.items()}
    for _ in range(50):
        drawn = (rng.random(SIZE) < 0.2) & np.isin(labels, rng.integers(0, 5, 2))
        for name in targets:
            assert scene.chose(drawn, name, targets) == chose_target(drawn, name, truths)


def test_absent_structures(root: Path) -> None:
    kept_quiet, invented = answer(
        root,
        conversation("i0", ("", "", "absent_same_set")),
        conversation("i0", ("spleen", "", "absent_elsewhere")),
    )
    assert (kept_quiet.empty, kept_quiet.dice, kept_quiet.target) == (True, 1.0, "spleen")
    assert (kept_quiet.nsd, kept_quiet.matched) == (None, None)
    assert (invented.empty, invented.dice, invented.emitted, invented.union) == (False, 0.0, 1, 40)


def test_history_is_what_was_really_said_and_an_image_is_set_once(root: Path) -> None:
    known = Known()
    conversations = [
        conversation("i0", ("liver", "liver", "explicit"), ("spleen", "spleen", "explicit")),
        conversation("i0", ("kidney", "kidney", "explicit")),
        conversation("i1", ("liver", "liver", "explicit")),
    ]
    scored(root, conversations, known)
    assert known.images == [(0, "CT"), (1, "CT")]
    assert known.histories == [[], [("liver", "Answer to liver.")], [], []]


def test_a_few_conversations_at_once(root: Path) -> None:
    seen: list[Case] = []
    conversations = [conversation(f"i{n}", ("liver", "liver", "explicit")) for n in range(2)]
    cases = evaluate(Known(), conversations, root, seen.append)  # type: ignore[arg-type]
    assert seen == cases == answer(root, *conversations) and len(cases) == 2


def test_rewordings_are_asked_afresh_after_the_turns(root: Path) -> None:
    known = Known()
    c = conversation("i0", ("liver", "liver", "explicit"), ("spleen", "spleen", "explicit"))
    found = [s.case for s in scored(root, [c], known, rewordings={c.id: ("spleen|liver", "liver+")})]
    assert [(x.turn, x.wording, x.question) for x in found] == [
        (1, 1, "liver"), (2, 1, "spleen"), (1, 2, "spleen|liver"), (1, 3, "liver+"),
    ]  # fmt: skip
    assert [len(h) for h in known.histories] == [0, 1, 0, 0] and found[2].dice == 0.0


def test_skipped_conversations_still_tell_what_an_image_shows(root: Path) -> None:
    conversations = [
        conversation("i0", ("spleen", "spleen", "explicit")),
        conversation("i0", ("liver", "liver", "explicit")),
    ]
    (case,) = (s.case for s in scored(root, conversations, skip=1))
    assert (case.target, case.chose, case.mask) == ("liver", True, "masks/000001-0.png")


def test_answer_words_are_scored(root: Path) -> None:
    c = conversation("i0", ("liver", "liver", "explicit"))
    turn = replace(c.turns[0], answer="Answer to <p>liver</p> [SEG].")
    (case,) = answer(root, replace(c, turns=(turn,)))
    assert case.reference == "Answer to liver."
    assert (case.token_f1, case.rouge_l, case.bleu) == pytest.approx((1.0, 1.0, 1.0))


def test_the_right_kidney_on_the_image_right_is_a_wrong_side(root: Path) -> None:
    """The answer says "right kidney"; the spleen's place, true and drawn, is on the right of the image: the patient's left."""
    c = conversation("i0", ("spleen|right kidney", "spleen", "explicit"))
    label = replace(c.turns[0].targets[0], label="right kidney")
    question = replace(c.turns[0], question="spleen|right kidney", targets=(label,))
    (case,) = answer(root, replace(c, turns=(question,)))
    assert (case.places_truth, case.places_drawn) == (0.0, 0.0)


def test_a_slice_of_a_volume(root: Path) -> None:
    """[X, Y, Z] in RAS: the display runs from the patient's right to left and from front to back, so both axes are turned."""
    volume = np.zeros((20, 10, 3), np.int16)
    volume[12:, 6:, 1] = 1
    affine = np.diag([0.5, 2.0, 9.0, 1.0])
    for name in ("v.nii.gz", "v-mask.nii.gz"):
        nib.save(nib.Nifti1Image(volume, affine), root / name)
    c = conversation("i0", ("liver", "liver", "explicit"))
    target = replace(c.turns[0].targets[0], mask="v-mask.nii.gz")
    c = replace(c, image="v.nii.gz", turns=(replace(c.turns[0], targets=(target,)),), slice=Slice(2, 1))
    scene = Scene(c, root)
    assert scene.shape == (10, 20) and scene.spacing_mm == (2.0, 0.5)
    expected = np.zeros((10, 20), bool)
    expected[:4, :8] = True
    assert np.array_equal(scene.mask(target), expected)
    (case,) = answer(root, c)
    assert case.unit == "mm" and case.dice == pytest.approx(2 * 32 / (32 + 40))
    with pytest.raises(MedSegRError, match="no slice is named"):
        Scene(replace(c, slice=None), root)
    with pytest.raises(MedSegRError, match="along axis 0"):
        Scene(replace(c, slice=Slice(0, 1)), root)


def test_a_mask_of_another_size_or_a_broken_one_is_named(root: Path) -> None:
    c = conversation("i0", ("liver", "liver", "explicit"))
    Image.new("L", (3, 3)).save(root / "i0-mask.png")
    with pytest.raises(MedSegRError, match=r"i0-mask.png' has shape \(3, 3\); expected that of its image"):
        answer(root, c)
    (root / "i0-mask.png").write_text("no picture")
    with pytest.raises(MedSegRError, match="cannot be read"):
        answer(root, c)
