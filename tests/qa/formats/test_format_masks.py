"""What the formats share: packing masks into label maps, polygons that are exact, COCO's run lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegr.errors import QAFileError
from medsegr.qa.formats.coco import decode, encode, run_lengths
from medsegr.qa.formats.drafts import Shelf
from medsegr.qa.formats.labels import pack
from medsegr.qa.formats.polygons import paint, trace


def area(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((8, 8), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_masks_that_overlap_or_share_a_value_go_to_different_maps() -> None:
    whole, part, apart = area((0, 0, 4, 4)), area((1, 1, 2, 2)), area((6, 6, 8, 8))
    masks = [(5, whole), (7, part), (9, apart), (5, apart)]
    maps, places = pack(masks)
    assert places == [0, 1, 0, 1]
    assert len(maps) == 2
    for (value, mask), place in zip(masks, places, strict=True):
        assert np.array_equal(maps[place] == value, mask)


def test_a_label_has_one_value_in_the_whole_file(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "qa_files")
    square = area((0, 0, 4, 4))
    first = shelf.masks([("liver", square), ("tumour", square)], "a")
    second = shelf.masks([("tumour", square), ("liver", ~square)], "b")
    assert first == [("qa_files/masks/a.png", (1,)), ("qa_files/masks/a_1.png", (2,))]
    assert second == [("qa_files/masks/b.png", (2,)), ("qa_files/masks/b.png", (1,))]


@pytest.mark.parametrize("seed", range(12))
def test_traced_polygons_paint_exactly_the_mask_and_nothing_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
    painted = np.zeros(mask.shape, int)
    for polygon in trace(mask):
        painted += paint(polygon, mask.shape)
    assert np.array_equal(painted, mask.astype(int))


def test_a_ring_is_two_or_more_polygons_and_a_square_is_one() -> None:
    assert len(trace(area((1, 1, 5, 5)))) == 1
    ring = area((1, 1, 6, 6)) & ~area((2, 2, 5, 5))
    assert len(trace(ring)) > 1


SQUARE = np.zeros((4, 5), bool)
SQUARE[1:3, 1:4] = True


def test_run_lengths_are_those_of_the_coco_api() -> None:
    """Columns first: 5 zeros, then 2, 2, 2, 2, 2, 5; '5220003' is what pycocotools 2.0.11 writes."""
    assert encode(SQUARE, "uncompressed") == {"size": [4, 5], "counts": [5, 2, 2, 2, 2, 2, 5]}
    assert encode(SQUARE, "compressed") == {"size": [4, 5], "counts": "5220003"}
    assert run_lengths("5220003", "x") == [5, 2, 2, 2, 2, 2, 5]
    assert encode(np.ones((2, 2), bool), "uncompressed")["counts"] == [0, 4]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rle", ["compressed", "uncompressed"])
def test_run_lengths_decode_to_the_mask(seed: int, rle: str) -> None:
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((6, 50)) < 0.4, 20, axis=0)
    code = encode(mask, rle)
    assert np.array_equal(decode(code, mask.shape, "x"), mask)
    if rle == "compressed":
        assert run_lengths(code["counts"], "x") == encode(mask, "uncompressed")["counts"]


def test_polygons_decode_to_their_union() -> None:
    mask = decode([[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 0, 1, 1, 0, 1]], (4, 5), "x")
    expected = SQUARE.copy()
    expected[0, 0] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [4, 5], "counts": "52"}, "RLE counts cover 7 pixels; 20 \\(4 x 5\\) are expected"),
        ({"size": [4, 5], "counts": [5, 2, 100]}, "RLE counts cover 107 pixels"),
        ({"size": [5, 4], "counts": "5220003"}, "RLE size is \\[5, 4\\], but its image is \\[4, 5\\]"),
        ({"size": [4, 5], "counts": "522 "}, "has the character ' '"),
        ({"size": [4, 5], "counts": "5P"}, "the RLE string is cut off"),
        ({"size": [4, 5], "counts": [5, -5, 20]}, "run lengths from 0"),
        ([[1, 1, 4]], "at least three pairs of x, y"),
        ([], "'segmentation' is empty"),
        (None, "found NoneType; a JSON object is expected"),
    ],
)
def test_damaged_segmentations_are_refused(segmentation: object, reason: str) -> None:
    with pytest.raises(QAFileError, match=reason):
        decode(segmentation, (4, 5), "ann")
