"""DICOM SEG, written with highdicom: the masks of a DICOM series as one segmentation beside a copy of the series.

Concepts come from the `.segments.json` that reading left beside a mask, else from SNOMED CT as pydicom lists it, else from the
private scheme 99MEDSEGR. The format has no questions and no answers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from medsegr import __version__
from medsegr.errors import QAFileError
from medsegr.qa.formats.dicom_seg import SIDECAR, Series, headers_below
from medsegr.qa.formats.drafts import Shelf
from medsegr.qa.formats.records import Item, Report, WriteOptions, by_image, image_targets
from medsegr.qa.schema import Target

SCHEME = "99MEDSEGR"
STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ABNORMAL_WORDS = frozenset(
    {"tumour", "tumor", "lesion", "hemorrhage", "haemorrhage", "oedema", "edema", "ulcer", "necrosis"}
    | {"cyst", "nodule", "polyp", "infection"}
)
FAMILY = Code("123110", "DCM", "Artificial Intelligence")
TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
          "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/NAME/seg.dcm` and `out/NAME/series/` for each DICOM image; raises `QAFileError` where highdicom refuses one."""
    report = Report()
    names = Shelf(out, "")
    kept = 0
    for image, members in by_image(items).items():
        found = [(p, h) for p, h in headers_below(image) if "Rows" in h and h.get("Modality") != "SEG"]
        if not found:
            report.dropped["conversations about images that are not DICOM"] += len(members)
            continue
        kept += sum(len(item.conversation.turns) for item in members)
        targets = image_targets(members, report)
        if not targets:
            continue
        series = Series.sort(found)
        folder = out / names.name(image.stem)
        (folder / "series").mkdir(parents=True)
        for number, file in enumerate(series.files, start=1):
            shutil.copyfile(file, folder / "series" / f"{number:04d}.dcm")
        segmentation(members[0], series, targets).save_as(folder / "seg.dcm", write_like_original=False)
        report.count += 1
    if kept:
        report.dropped["questions and answers"] += kept
    return report


def segmentation(item: Item, series: Series, targets: Mapping[str, Target]) -> Dataset:
    """A BINARY segmentation with one segment for each target, in order; raises `QAFileError`."""
    sources = [_completed(dcmread(path)) for path in series.files]
    planes = []
    for target in targets.values():
        mask = item.target_mask(target)
        plane = mask[None] if mask.ndim == 2 else np.transpose(mask, (2, 1, 0))
        expected = (len(sources), int(sources[0].Rows), int(sources[0].Columns))
        if plane.shape != expected:
            raise QAFileError(
                f"{item.where}: mask '{target.mask}' is {plane.shape}, but its series is {expected}."
            )
        planes.append(plane)
    pixels: NDArray[np.uint8] = np.stack(planes, axis=-1).astype(np.uint8)
    try:
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(n, item, t) for n, t in enumerate(targets.values(), start=1)],
            series_instance_uid=generate_uid(),
            series_number=1000,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="medsegr",
            manufacturer_model_name="medsegr",
            software_versions=__version__,
            device_serial_number="0",
            series_description="MedSeg-QA masks",
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise QAFileError(
            f"{item.where}: no segmentation can be made of '{item.conversation.image}' ({reason})."
        ) from error


def _completed(dataset: Dataset) -> Dataset:
    """The image with attributes that highdicom copies and files from the wild lack: empty, as DICOM's type 2 allows."""
    for key in TYPE_2:
        if key not in dataset:
            setattr(dataset, key, "")
    if "FrameOfReferenceUID" not in dataset and "ImagePositionPatient" in dataset:
        dataset.FrameOfReferenceUID = dataset.StudyInstanceUID
    return dataset


def _description(number: int, item: Item, target: Target) -> Any:
    kept = _kept_codes(item.root / target.mask, target)
    reviewed = item.conversation.review.status in {"accepted", "edited"}
    name = kept["segment_label"] if kept else target.label
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=_as_code(kept["category"]) if kept else category(target.label),
        segmented_property_type=_as_code(kept["type"]) if kept else concept(target.label),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        if reviewed
        else highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=None
        if reviewed
        else highdicom.AlgorithmIdentificationSequence(name="MedSeg-QA", family=FAMILY, version=__version__),
    )


def _kept_codes(mask: Path, target: Target) -> Mapping[str, Any] | None:
    """The concepts that reading a SEG left beside its masks, None where there are none for this target."""
    for path in sorted(mask.parent.glob(f"*{SIDECAR}")):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise QAFileError(
                f"{path} cannot be read ({error}); the concepts of segments are expected."
            ) from error
        for row in rows:
            if row.get("mask") == mask.name and row.get("values") == list(target.value):
                return dict(row)
    return None


def _as_code(row: Mapping[str, str]) -> Code:
    return Code(row["value"], row["scheme"], row["meaning"])


def concept(label: str) -> Code:
    """The SNOMED CT concept whose meaning is `label` (without side, or in the singular), else a private code of 99MEDSEGR."""
    snomed: Any = codes.SCT
    words = label.replace("-", " ").split()
    bare = [w for w in words if w.lower() not in {"left", "right"}]
    for candidate in (words, bare, [*bare[:-1], bare[-1].removesuffix("s")] if bare else []):
        keyword = "".join(w[:1].upper() + w[1:].lower() for w in candidate)
        found = getattr(snomed, keyword, None) if keyword in snomed.dir(keyword) else None
        if isinstance(found, Code):
            return found
    return Code("_".join(words)[:16], SCHEME, label[:64])


def category(label: str) -> Code:
    """Anatomical structure, or morphologically abnormal structure for tumours, bleedings and the like."""
    return ABNORMAL if ABNORMAL_WORDS & set(label.lower().split()) else STRUCTURE
