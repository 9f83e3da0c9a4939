"""Masks of a stack as one DICOM SEG that refers to the images they lie on (highdicom)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from medsegr import __version__
from medsegr.errors import ImageError
from medsegr.imaging.dicom_headers import frame_count
from medsegr.imaging.dicom_series import Stack

TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
          "AccessionNumber", "ReferringPhysicianName")  # fmt: skip
"""What highdicom copies and files from the wild lack; empty is allowed."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One structure: its name and concepts, and its mask [X, Y, Z] or [H, W] bool on the stack's grid."""

    name: str
    category: Code
    concept: Code
    mask: NDArray[np.bool_]


def segmentation(stack: Stack, segments: Sequence[Segment], description: str) -> Dataset:
    """A BINARY SEG with the segments in order, in a series of its own; raises `ImageError` where the images do not allow one."""
    sources = [dcmread(path, stop_before_pixels=True) for path in stack.paths]
    for source in sources:
        for key in TYPE_2:
            if key not in source:
                setattr(source, key, "")
    pixels = np.stack([_planes(stack, segment.mask, sources) for segment in segments], axis=-1)
    try:
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(n, segment) for n, segment in enumerate(segments, start=1)],
            series_instance_uid=generate_uid(),
            series_number=1000,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="medsegr",
            manufacturer_model_name="medsegr",
            software_versions=__version__,
            device_serial_number="0",
            series_description=description[:64],
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ImageError(
            f"These images cannot have a DICOM segmentation ({type(error).__name__}): they lack what the standard asks for, "
            "such as a position or a frame of reference."
        ) from error


def _planes(stack: Stack, mask: NDArray[np.bool_], sources: Sequence[Dataset]) -> NDArray[np.uint8]:
    """The mask as highdicom takes it, [N, rows, columns] in the order of the sources, or of the frames of the only one."""
    planes = np.asarray(mask[None] if mask.ndim == 2 else mask.transpose(2, 1, 0), np.uint8)
    frames = frame_count(sources[0])
    if frames == 1:
        return planes
    whole = np.zeros((frames, *planes.shape[1:]), np.uint8)
    for plane, slice_ in zip(planes, stack.slices, strict=True):
        whole[slice_.frame - 1] = plane
    return whole


def _described(number: int, segment: Segment) -> Any:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:64],
        segmented_property_category=segment.category,
        segmented_property_type=segment.concept,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="MedSeg-R",
            family=Code("123110", "DCM", "Artificial Intelligence"),
            version=__version__,
        ),
    )
