"""DICOM SEG, read: every segment of every segmentation in a folder becomes a target on the grid of the series it refers to.

The series is copied as DICOM, so that a SEG can be written back (`dicom_seg_writing`). Segments' coded concepts (DICOM PS3.3
C.8.20.2) have no place in MedSeg-QA; they are kept in `NAME.segments.json` beside the masks. PatientID goes into the file as
it is: nothing here removes names of patients.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medsegr.errors import ImageError, QAFileError
from medsegr.imaging import Picture, Volume, canonical_modality, read_image
from medsegr.imaging.dicom_geometry import numbers, orientation
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.formats.drafts import Shelf
from medsegr.qa.formats.labels import Mask
from medsegr.qa.formats.records import ReadOptions, modality, outlined, shipped_knowledge, split_of
from medsegr.qa.schema import Conversation, Target, Turn

MAX_SHIFT_MM = 0.1
MAX_TILT = 1e-3
SIDECAR = ".segments.json"


@dataclass(frozen=True)
class Series:
    """The images of one series, sorted along their normal as `imaging` sorts them (by number where they have no position)."""

    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]

    @classmethod
    def sort(cls, members: Sequence[tuple[Path, Dataset]]) -> Series:
        """From files and headers in any order."""
        cosines = orientation(members[0][1])
        places = [numbers(h.get("ImagePositionPatient"), 3) for _, h in members]
        if cosines is None or any(p is None for p in places):
            order = sorted(
                range(len(members)),
                key=lambda n: (int(members[n][1].get("InstanceNumber") or 0), members[n][0].name),
            )
        else:
            normal = np.cross(cosines[:3], cosines[3:])
            order = np.argsort(np.asarray(places, float) @ normal, kind="stable").tolist()
        return cls(tuple(members[n][0] for n in order), tuple(members[n][1] for n in order))


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each segment of each SEG in `source` (a folder, or one file with its images in `options.images`)."""
    found = headers_below(source)
    segs = [path for path, header in found if header.get("Modality") == "SEG"]
    if not segs:
        raise QAFileError(
            f"{source} holds no DICOM segmentation; a SEG file or a folder with one is expected."
        )
    if options.images is not None:
        found += headers_below(options.images)
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, header in found:
        if "Rows" in header and header.get("Modality") != "SEG":
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    knowledge, copied = shipped_knowledge(), dict[str, tuple[Series, str, Picture | Volume]]()
    for path in segs:
        yield from _Segmentation(path, shelf, options, knowledge).conversations(series, copied)


class _Segmentation:
    """One SEG file on its way into MedSeg-QA."""

    def __init__(self, path: Path, shelf: Shelf, options: ReadOptions, knowledge: KnowledgeBase) -> None:
        self.path, self.shelf, self.options, self.knowledge = path, shelf, options, knowledge
        try:
            self.seg = highdicom.seg.segread(path)
            frames = np.asarray(self.seg.pixel_array)
        # Broad on purpose: highdicom and pydicom raise almost any type on damaged files.
        except Exception as error:
            raise QAFileError(
                f"{path}: the segmentation cannot be read ({' '.join(str(error).split())[:160]})."
            ) from error
        frames = frames if frames.ndim == 3 else frames[None]
        if str(self.seg.SegmentationType) == "FRACTIONAL":
            frames = frames >= float(self.seg.MaximumFractionalValue) / 2
        self.frames: NDArray[Any] = frames.astype(bool)

    def conversations(
        self,
        series: Mapping[str, Sequence[tuple[Path, Dataset]]],
        copied: dict[str, tuple[Series, str, Picture | Volume]],
    ) -> Iterator[Conversation]:
        """A conversation for each label. `series`: the images found, by series; `copied`: those taken over, added to."""
        uid = self._series_uid()
        if uid not in series:
            raise QAFileError(
                f"{self.path}: the series {uid} that it refers to is not there; name its folder with --images."
            )
        if uid not in copied:
            images = Series.sort(series[uid])
            name = self.shelf.name(str(images.headers[0].get("SeriesDescription") or "series"))
            relative = self.shelf.series(images.files, name)
            copied[uid] = images, relative, self._image(relative)
        images, relative, image = copied[uid]
        labels = self._labels(images)
        if not labels:
            raise QAFileError(f"{self.path}: every segment is empty; at least one pixel is expected.")
        name = self.shelf.name(self.path.stem)
        masks = ((label, self._mask(segments, images, image)) for label, segments in labels.items())
        placed = self.shelf.masks(masks, name, image.affine if isinstance(image, Volume) else None)
        self._write_sidecar(name, labels, placed)
        header = images.headers[0]
        for label, (mask, values) in zip(labels, placed, strict=True):
            target = Target(label, label, mask, values)
            dataset = self.options.dataset or "dicom"
            yield Conversation(
                id=f"{dataset}_{self.shelf.name(f'{name}_{label}')}",
                image=relative,
                modality=modality(
                    self.options, canonical_modality(str(header.get("Modality", ""))), str(self.path)
                ),
                dataset=dataset,
                patient_id=str(header.get("PatientID") or header.get("StudyInstanceUID") or name),
                split=split_of("", self.options),
                turns=(Turn(f"Outline the {label}.", outlined([label]), (target,), "explicit"),),
                licence=self.options.licence,
                licence_class=self.options.licence_class,
                spacing_mm=image.spacing_mm,
            )

    def _series_uid(self) -> str:
        for item in self.seg.get("ReferencedSeriesSequence") or []:
            return str(item.SeriesInstanceUID)
        raise QAFileError(f"{self.path}: it refers to no series (ReferencedSeriesSequence); one is expected.")

    def _image(self, relative: str) -> Picture | Volume:
        try:
            return read_image(self.shelf.root / relative)
        except ImageError as error:
            raise QAFileError(f"{self.path}: its series cannot be read: {error}") from error

    def _labels(self, images: Series) -> dict[str, list[int]]:
        """Segment numbers by label; several segments of one label are one target; empty ones are noted."""
        labels: dict[str, list[int]] = {}
        for number in self.seg.segment_numbers:
            if not any(self.frames[n].any() for n in self._frames_of(number)):
                self.shelf.notes["empty segments"] += 1
                continue
            said = str(self.seg.get_segment_description(number).segment_label)
            word = " ".join(said.replace("_", " ").split()) or f"segment {number}"
            known = self.knowledge.find(word)
            labels.setdefault(known[0].name if len(known) == 1 else word, []).append(number)
        return labels

    def _frames_of(self, segment: int) -> list[int]:
        groups = self.seg.PerFrameFunctionalGroupsSequence
        return [
            n
            for n, group in enumerate(groups)
            if int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber) == segment
        ]

    def _mask(self, segments: Sequence[int], images: Series, image: Picture | Volume) -> Mask:
        """The union of segments on the image's grid: [H, W] for a picture, [X, Y, Z] for a volume."""
        header = images.headers[0]
        shape = (len(images.files), int(header.Rows), int(header.Columns))
        if self.frames.shape[1:] != shape[1:]:
            raise QAFileError(
                f"{self.path}: frames are {self.frames.shape[1:]}, but the series is {shape[1:]}; "
                "the same grid is expected."
            )
        planes = np.zeros(shape, bool)
        for number in (frame for segment in segments for frame in self._frames_of(segment)):
            planes[self._slice_of(number, images)] |= self.frames[number]
        if isinstance(image, Picture):
            return np.asarray(planes[0])
        return np.ascontiguousarray(np.transpose(planes, (2, 1, 0)))

    def _slice_of(self, frame: int, images: Series) -> int:
        """Index of the image that lies where a frame lies; raises `QAFileError` where none does."""
        if len(images.files) == 1 and orientation(images.headers[0]) is None:
            return 0
        shared = self.seg.SharedFunctionalGroupsSequence[0]
        group = self.seg.PerFrameFunctionalGroupsSequence[frame]
        place = _attribute((group, shared), "PlanePositionSequence", "ImagePositionPatient", 3)
        cosines = _attribute((group, shared), "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        spots = np.asarray(
            [numbers(h.get("ImagePositionPatient"), 3) or (np.inf,) * 3 for h in images.headers]
        )
        own = orientation(images.headers[0])
        if place is None or cosines is None or own is None:
            raise QAFileError(
                f"{self.path}: frame {frame + 1} or its series says no position; positions are expected."
            )
        distance = np.linalg.norm(spots - np.asarray(place), axis=1)
        nearest = int(np.argmin(distance))
        if distance[nearest] > MAX_SHIFT_MM or np.abs(np.subtract(cosines, own)).max() > MAX_TILT:
            raise QAFileError(
                f"{self.path}: frame {frame + 1} lies {distance[nearest]:.2f} mm from the nearest image of its series, or is "
                "turned against it; the same grid is expected."
            )
        return nearest

    def _write_sidecar(
        self, name: str, labels: Mapping[str, Sequence[int]], placed: Sequence[tuple[str, tuple[int, ...]]]
    ) -> None:
        rows = []
        for (label, segments), (mask, values) in zip(labels.items(), placed, strict=True):
            about = self.seg.get_segment_description(segments[0])
            rows.append(
                {
                    "label": label,
                    "mask": Path(mask).name,
                    "values": list(values),
                    "segment_label": str(about.segment_label),
                    "type": _code(about.segmented_property_type),
                    "category": _code(about.segmented_property_category),
                }
            )
        path = self.shelf.place(f"{self.shelf.folder}/masks/{name}{SIDECAR}")
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def headers_below(source: Path) -> list[tuple[Path, Dataset]]:
    """Headers of the DICOM files in a folder and below it, or of one file; other files are passed over."""
    found: list[tuple[Path, Dataset]] = []
    for path in [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file()):
        try:
            found.append((path, pydicom.dcmread(path, stop_before_pixels=True)))
        except (InvalidDicomError, OSError, EOFError):
            continue
    return found


def _attribute(groups: Sequence[Dataset], sequence: str, key: str, count: int) -> tuple[float, ...] | None:
    for group in groups:
        for item in group.get(sequence) or []:
            return numbers(item.get(key), count)
    return None


def _code(concept: Any) -> dict[str, str]:
    return {
        "value": str(concept.value),
        "scheme": str(concept.scheme_designator),
        "meaning": str(concept.meaning),
    }
