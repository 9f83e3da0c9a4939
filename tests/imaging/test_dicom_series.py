"""A series' files become stacks, and plane k of a stack shows the instance that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_factory import dicom_image, save, write_ct_series

from medsegr.imaging import Picture, Volume, read_image
from medsegr.imaging.dicom_reading import read_stack
from medsegr.imaging.dicom_series import SliceRef, Stack, stacks

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
OBLIQUE = [0.8, 0.6, 0.0, -0.36, 0.48, 0.8]


def image(folder: Path, name: str, pixels: np.ndarray, modality: str = "CT", **attributes: Any) -> Path:
    """One file; its SOPInstanceUID is 1.2.3.NAME's number."""
    dataset = dicom_image(pixels, modality, **attributes)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{int(name)}"
    return save(dataset, folder / f"{name}.dcm")


def check_planes(stack: Stack) -> None:
    """Every plane of what is read is the pixel data of the instance that `slices` names there."""
    read = read_stack(stack)
    assert isinstance(read, Volume) and read.shape == stack.shape and read.slice_axis == 2
    for k, slice_ in enumerate(stack.slices):
        dataset = pydicom.dcmread(stack.sources[k])
        assert dataset.SOPInstanceUID == slice_.sop_uid
        frames = dataset.pixel_array if "NumberOfFrames" in dataset else dataset.pixel_array[None]
        expected = frames[slice_.frame - 1] * dataset.get("RescaleSlope", 1) + dataset.get(
            "RescaleIntercept", 0
        )
        np.testing.assert_array_equal(np.swapaxes(read.voxels[:, :, k], 0, 1), expected)


@pytest.mark.parametrize("cosines", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_planes_lie_along_the_normal_whatever_the_instance_numbers(
    tmp_path: Path, cosines: list[float], order: tuple[int, ...]
) -> None:
    normal = np.cross(cosines[:3], cosines[3:])
    for number, place in enumerate(order, start=1):
        image(
            tmp_path, str(number), VOXELS[place], PixelSpacing=[1, 1], InstanceNumber=number,
            ImageOrientationPatient=cosines, ImagePositionPatient=list(5.0 * place * normal),
        )  # fmt: skip
    (stack,) = stacks(tmp_path.iterdir())
    assert [int(s.sop_uid.rpartition(".")[2]) for s in stack.slices] == [order.index(k) + 1 for k in range(4)]
    assert stack.shape == (6, 5, 4) and stack.affine is not None
    check_planes(stack)
    whole = read_image(tmp_path)
    assert isinstance(whole, Volume) and np.array_equal(whole.voxels, read_stack(stack).voxels)  # type: ignore[union-attr]


def test_an_isotropic_sagittal_series_is_sliced_as_it_was_taken(tmp_path: Path) -> None:
    for n in range(4):
        image(
            tmp_path, str(n), VOXELS[n], "MR", PixelSpacing=[1, 1], InstanceNumber=n, SliceThickness=1,
            ImageOrientationPatient=SAGITTAL, ImagePositionPatient=[float(n), 0.0, 0.0],
        )  # fmt: skip
    volume = read_image(tmp_path)
    assert isinstance(volume, Volume) and volume.slice_axis == 2 and volume.n_slices == 4


def test_a_localiser_is_a_stack_of_its_own(tmp_path: Path) -> None:
    write_ct_series(tmp_path, VOXELS)
    image(
        tmp_path, "900", np.zeros((9, 8), np.int16), PixelSpacing=[1, 1],
        ImageOrientationPatient=SAGITTAL, ImagePositionPatient=[0.0, 0.0, 0.0],
    )  # fmt: skip
    first, second = stacks(tmp_path.iterdir())
    assert (len(first.slices), len(second.slices)) == (4, 1)
    assert second.slices == (SliceRef("1.2.3.900", 1),)
    assert first.index("1.2.3.900") is None and second.index("1.2.3.900") == 0
    assert read_image(tmp_path, stack=2).shape == (8, 9, 1)  # type: ignore[union-attr]


def test_echoes_at_the_same_place_are_stacks_of_their_own(tmp_path: Path) -> None:
    for echo in (0, 1):
        for n in range(3):
            image(
                tmp_path, str(10 * echo + n), VOXELS[n] + 100 * echo, "MR", InstanceNumber=10 * echo + n,
                PixelSpacing=[1, 1], ImageOrientationPatient=AXIAL, ImagePositionPatient=[0.0, 0.0, 4.0 * n],
            )  # fmt: skip
    found = stacks(tmp_path.iterdir())
    assert [[int(s.sop_uid[6:]) for s in stack.slices] for stack in found] == [[0, 1, 2], [10, 11, 12]]
    for stack in found:
        check_planes(stack)


def test_radiographs_are_pictures_of_their_own(tmp_path: Path) -> None:
    image(tmp_path, "1", np.zeros((7, 5), np.uint16), "CR", InstanceNumber=1)
    image(tmp_path, "2", np.ones((9, 4), np.uint16), "CR", InstanceNumber=2)
    image(tmp_path, "3", np.ones((7, 5), np.uint16), "CR", InstanceNumber=3)
    found = stacks(tmp_path.iterdir())
    assert [stack.shape for stack in found] == [(7, 5), (9, 4), (7, 5)]
    assert [stack.slices[0].sop_uid for stack in found] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    picture = read_stack(found[1])
    assert isinstance(picture, Picture) and picture.pixels.shape == (9, 4) and not found[1].is_volume


def test_frames_are_named_by_their_number(tmp_path: Path) -> None:
    path = image(tmp_path, "5", np.arange(24, dtype=np.uint8).reshape(4, 2, 3), "US")
    (stack,) = stacks([path])
    assert stack.slices == tuple(SliceRef("1.2.3.5", frame) for frame in (1, 2, 3, 4))
    check_planes(stack)


def test_colour_frames_are_one_stack(tmp_path: Path) -> None:
    pixels = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    (stack,) = stacks([image(tmp_path, "5", pixels, "US", SamplesPerPixel=3)])
    volume = read_stack(stack)
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.voxels[:, :, 2], np.swapaxes(pixels[2], 0, 1))


def test_slices_without_any_tag_of_their_place_follow_instance_numbers_then_names(tmp_path: Path) -> None:
    for n, number in ((1, 3), (2, 1), (3, 2)):
        image(tmp_path, str(n), VOXELS[n], InstanceNumber=number)
    (stack,) = stacks(tmp_path.iterdir())
    assert [s.sop_uid for s in stack.slices] == ["1.2.3.2", "1.2.3.3", "1.2.3.1"]
    check_planes(stack)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.InstanceNumber
        dataset.save_as(path)
    assert [s.sop_uid for s in stacks(tmp_path.iterdir())[0].slices] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


def test_the_same_instance_twice_counts_once_and_reports_do_not(tmp_path: Path) -> None:
    path = image(tmp_path, "1", VOXELS[0])
    (tmp_path / "copy.dcm").write_bytes(path.read_bytes())
    report = dicom_image(VOXELS[1], "SR")
    save(report, tmp_path / "report.dcm")
    (stack,) = stacks(tmp_path.iterdir())
    assert len(stack.slices) == 1
    assert stacks([]) == ()
