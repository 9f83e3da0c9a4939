"""MONAI Label's datastore over a DICOM archive: an image is a series, named by its SeriesInstanceUID.

Images stay in the archive and pass through the cache. Labels are files of this server's; a final one also goes to the archive
as DICOM SEG, unless that is switched off. A SEG that cannot be stored never costs the label.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import traceback
import zipfile
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from lib.datastore.conversion import nifti_of
from lib.datastore.label_files import LabelFiles
from lib.datastore.listing import Listing
from lib.datastore.seg import make_seg
from medsegr.dicom.archive import Archive
from medsegr.dicom.cache import SeriesCache
from medsegr.errors import MedSegRError
from medsegr.web.errors import Refusal

logger = logging.getLogger(__name__)
FINAL = DefaultLabelTag.FINAL.value
ELSEWHERE = "Images come from the DICOM archive and are removed there."


class DicomDatastore(Datastore):  # type: ignore[misc]
    """Ids of labels are those of their images, since an image has one label for each tag."""

    def __init__(
        self, archive: Archive, cache: SeriesCache, labels: LabelFiles, store_seg: bool = True
    ) -> None:
        self.archive, self.cache, self.labels, self.store_seg = archive, cache, labels, store_seg
        self.listing = Listing(archive)
        self._name, self._description = archive.name, "Series of a DICOM archive"
        self._converting = threading.Lock()
        self._told: dict[str, dict[str, Any]] = {}

    def name(self) -> str:
        """The archive's name."""
        return self._name

    def set_name(self, name: str) -> None:
        """Another name, until the next start."""
        self._name = name

    def description(self) -> str:
        """What this is."""
        return self._description

    def set_description(self, description: str) -> None:
        """Another description, until the next start."""
        self._description = description

    def list_images(self) -> list[str]:
        """Series that hold images."""
        return list(self.listing.series())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series in the archive that have a label with this tag (default: final)."""
        labelled = set(self.labels.images(label_tag or FINAL))
        return [uid for uid in self.list_images() if uid in labelled]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Series in the archive that have none."""
        labelled = set(self.labels.images(label_tag or FINAL))
        return [uid for uid in self.list_images() if uid not in labelled]

    def get_image_uri(self, image_id: str) -> str:
        """A file that stock clients can read: a NIfTI of the series' first stack, or its DICOM file where it is a picture."""
        series = self.cache.get(image_id)
        release = self.cache.hold(series)
        try:
            with self._converting:
                return str(nifti_of(series))
        finally:
            release()

    def get_image(self, image_id: str, params: Any = None) -> bytes:
        """The bytes of that file."""
        return Path(self.get_image_uri(image_id)).read_bytes()

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What the archive lists and what was noted."""
        listed = self.listing.series().get(image_id)
        known: dict[str, Any] = {"SeriesInstanceUID": image_id}
        if listed:
            known |= {
                "StudyInstanceUID": listed.study_uid,
                "Modality": listed.modality,
                "SeriesDescription": listed.description,
                "BodyPartExamined": listed.body_part,
                "PatientID": listed.patient_id,
            }
        return {key: value for key, value in known.items() if value} | self.labels.about_image(image_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note something about an image."""
        self.labels.note_image(image_id, info)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tag -> id of the label."""
        return {tag: image_id for tag in self.labels.tags() if self.labels.get(image_id, tag)}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """The label's id, "" where there is none."""
        return image_id if self.labels.get(image_id, tag) else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The label's file, "" where there is none."""
        label = self.labels.get(label_id, label_tag)
        return str(label.path) if label else ""

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> bytes:
        """The bytes of that file; raises `Refusal` 404 where there is none."""
        label = self.labels.get(label_id, label_tag)
        if label is None:
            raise Refusal(404, "This image has no label with this tag.")
        return label.path.read_bytes()

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What was saved with a label, {} where there is none."""
        label = self.labels.get(label_id, label_tag)
        return label.info if label else {}

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what is known about a label."""
        self.labels.update(label_id, label_tag, info)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label map; a final one is stored in the archive as well, and `told` says what came of that."""
        tag = str(getattr(label_tag, "value", label_tag))
        self._told.pop(image_id, None)
        label = self.labels.save(image_id, tag, Path(label_filename), label_info)
        if tag == FINAL and self.store_seg:
            told = self._store_seg(image_id, label.path, label_info)
            self.labels.update(image_id, tag, {"dicom_seg": told})
            self._told[image_id] = {"dicom_seg": told}
        return image_id

    def told(self, label_id: str) -> dict[str, Any]:
        """What the client that saved a label has to know besides: {"dicom_seg": {"stored", "series" or "reason"}}, or {}."""
        return self._told.pop(label_id, {})

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Forget a label; a SEG in the archive stays."""
        self.labels.remove(label_id, label_tag)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store a DICOM file in the archive; the id is its series, whatever was asked for. Raises `Refusal` 422."""
        try:
            dataset = dcmread(image_filename)
            uid = str(dataset.SeriesInstanceUID)
        except (InvalidDicomError, AttributeError, OSError) as error:
            raise Refusal(
                422, "A DICOM file that names its series is expected; the archive keeps nothing else."
            ) from error
        self.archive.store([dataset])
        self.listing.forget()
        self.labels.note_image(uid, image_info)
        return uid

    def remove_image(self, image_id: str) -> None:
        """Refused."""
        raise Refusal(403, ELSEWHERE)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Images with a final label: files to train on, or with `full_path` false their ids and the labels' names."""
        found = []
        for uid in self.get_labeled_images():
            label = self.labels.get(uid, FINAL)
            if label is None:
                continue
            image = self.get_image_uri(uid) if full_path else uid
            found.append({"image": image, "label": str(label.path) if full_path else label.path.name})
        return found

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A ZIP with the images that have a final label, those labels, and what is known about them."""
        handle, name = tempfile.mkstemp(prefix="medsegr-dataset-", suffix=".zip")
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as zipped:
            for pair in self.datalist()[: limit_cases or None]:
                image, label = Path(pair["image"]), Path(pair["label"])
                zipped.write(image, image.name)
                zipped.write(label, f"labels/{FINAL}/{label.name}")
        return name

    def refresh(self) -> None:
        """Ask the archive anew."""
        self.listing.forget()

    def status(self) -> dict[str, Any]:
        """Numbers for /info; cheap, since it is asked with every request."""
        return {
            "total": len(self.list_images()),
            "completed": len(self.get_labeled_images()),
            "label_tags": {tag: len(self.labels.images(tag)) for tag in self.labels.tags()},
            "train": self.datalist(full_path=False),
        }

    def json(self) -> dict[str, Any]:
        """Every image with its labels, in the form of MONAI Label's local datastore."""
        objects: dict[str, Any] = {
            uid: {"image": {"ext": "", "info": self.get_image_info(uid)}, "labels": {}}
            for uid in self.list_images()
        }
        for tag in self.labels.tags():
            for uid in self.labels.images(tag):
                label = self.labels.get(uid, tag)
                if label and uid in objects:
                    ext = label.path.name.removeprefix(f"{uid}.").partition(".")[2]
                    objects[uid]["labels"][tag] = {"ext": f".{ext}", "info": label.info}
        return {"name": self._name, "description": self._description, "objects": objects}

    def _store_seg(self, image_id: str, label: Path, info: dict[str, Any]) -> dict[str, Any]:
        try:
            with self.cache.lease(image_id) as series:
                dataset = make_seg(series.files, label, info)
            if dataset is None:
                return {"stored": False, "reason": "Nothing is present in the label."}
            self.archive.store([dataset])
        except MedSegRError as error:
            logger.warning("A final label was kept, but not stored as DICOM SEG: %s", error)
            return {"stored": False, "reason": str(error)}
        # Broad on purpose: whatever highdicom or pydicom make of odd images, the label is kept and the client is told.
        except Exception as error:  # noqa: BLE001
            kind, frames = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            logger.error("A final label was kept, but not stored as DICOM SEG: %s\n%s", kind, frames)
            return {
                "stored": False,
                "reason": f"The segmentation could not be made ({type(error).__name__}).",
            }
        self.listing.forget()
        return {"stored": True, "series": str(dataset.SeriesInstanceUID)}
