"""Pictures of volumes: the slice that is shown, its proportions, and masks that do not fit."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging import to_rgb
from medsegr.phantom import LABELS
from medsegr.qa.review.queue import ReviewQueue
from medsegr.qa.schema import Conversation, Slice, Target
from medsegr.web.review_pictures import Pictures, View, targets_of
from tests.review_files import torso, write_review_file, write_volume_file


@pytest.fixture(scope="module")
def volume_queue(tmp_path_factory: pytest.TempPathFactory) -> ReviewQueue:
    return ReviewQueue(write_volume_file(tmp_path_factory.mktemp("volume") / "set"))


@pytest.fixture
def pictures(volume_queue: ReviewQueue) -> Pictures:
    return Pictures(volume_queue.root)


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_volume_begins_where_most_of_the_target_is(volume_queue: ReviewQueue, pictures: Pictures) -> None:
    whole, phantom = volume_queue.conversations["whole"], torso()
    fullest = int(phantom.mask("liver").sum((0, 1)).argmax())
    assert pictures.view(whole) == View(1.0, 20, fullest)
    shown = decoded(pictures.image(whole, fullest))
    assert np.array_equal(shown, to_rgb(phantom.volume.slice_pixels(fullest), "CT", None)[..., 0])
    drawn = decoded(pictures.outline(whole, 0, fullest))[..., 3] > 0
    plane = phantom.volume.slice_from_volume(fullest, phantom.mask("liver"))
    assert drawn.mean() == pytest.approx(plane.mean(), rel=0.01)
    with pytest.raises(ImageError, match="Slice 20 does not exist"):
        pictures.image(whole, 20)


def test_a_sagittal_slice_has_the_head_up_and_its_proportions_in_mm(
    volume_queue: ReviewQueue, pictures: Pictures
) -> None:
    """Axis 0 at index 40: rows from head to feet (20 of 15 mm), columns from front to back (160 of 2.2 mm)."""
    sagittal, phantom = volume_queue.conversations["sagittal"], torso()
    view = pictures.view(sagittal)
    assert (view.aspect, view.slices, view.first) == (pytest.approx(160 * 2.2 / (20 * 15)), 1, 40)
    expected = phantom.volume.voxels[40].T[::-1]  # Y grows to the back already, Z to the head
    assert np.array_equal(decoded(pictures.image(sagittal, 40)), to_rgb(expected, "CT", None)[..., 0])
    drawn = decoded(pictures.outline(sagittal, 0, 40))[..., 3] > 0
    assert drawn.shape == (round(1024 / view.aspect), 1024)
    assert drawn.mean() == pytest.approx(phantom.mask("liver")[40].mean(), rel=0.02)


def test_a_slice_that_the_image_lacks_is_refused(
    volume_queue: ReviewQueue, pictures: Pictures, tmp_path: Path
) -> None:
    far = replace(volume_queue.conversations["sagittal"], slice=Slice(0, 160))
    with pytest.raises(ImageError, match="has no slice 160 along axis 0"):
        pictures.view(far)
    flat = ReviewQueue(write_review_file(tmp_path / "flat"))
    with pytest.raises(ImageError, match="expected a volume"):
        Pictures(flat.root).view(replace(flat.conversations["liver"], slice=Slice(2, 0)))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    queue = ReviewQueue(write_review_file(tmp_path / "set"))
    Image.fromarray(np.ones((20, 30), np.uint8)).save(queue.root / "masks" / "a.png")
    with pytest.raises(ImageError, match=r"shape \(20, 30\); the image shown is \(512, 512\)"):
        Pictures(queue.root).outline(queue.conversations["liver"], 0, 0)


def test_spacing_of_the_file_gives_the_proportions_of_a_picture(tmp_path: Path) -> None:
    queue = ReviewQueue(write_review_file(tmp_path / "set"))
    tall = replace(queue.conversations["liver"], spacing_mm=(1.4, 0.7))
    assert Pictures(queue.root).view(tall).aspect == pytest.approx(0.5)


def test_a_target_named_twice_has_one_colour(tmp_path: Path) -> None:
    queue = ReviewQueue(write_review_file(tmp_path / "set"))
    liver: Conversation = queue.conversations["liver"]
    again = replace(liver, turns=(*liver.turns, liver.turns[0]))
    assert [t.label for t in targets_of(again)] == ["liver", "right kidney", "left kidney"]
    assert targets_of(again)[0] == Target("liver", "liver", "masks/a.png", (LABELS["liver"],))
