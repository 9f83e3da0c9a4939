"""MONAI Label's datastore over a folder of DICOM files: the whole interface, on real files."""

from __future__ import annotations

import importlib
import json
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from live_server import ROOT
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom import dcmread

from medsegr.dicom.cache import SeriesCache
from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.folder_archive import FolderArchive
from medsegr.errors import ImageError
from medsegr.imaging import read_image, write_label_map
from medsegr.phantom import make_torso
from medsegr.phantom.study import write_radiograph, write_series
from medsegr.web.errors import Refusal

FINAL = DefaultLabelTag.FINAL


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A CT of a small phantom."""
    return write_series(make_torso(seed=1, shape=(40, 36, 6)), tmp_path / "studies")


@pytest.fixture
def datastore(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    module = importlib.import_module("lib.datastore.dicom")
    labels = importlib.import_module("lib.datastore.label_files").LabelFiles(tmp_path / "labels")
    archive = FolderArchive(DicomFolder(tmp_path / "studies", tmp_path / "index"))
    return module.DicomDatastore(archive, SeriesCache(archive, tmp_path / "cache"), labels)


@pytest.fixture
def uid(files: list[Path]) -> str:
    return str(dcmread(files[0]).SeriesInstanceUID)


@pytest.fixture
def label(tmp_path: Path, files: list[Path]) -> Path:
    """A label map with the values 2 and 5 in lopsided corners."""
    image = read_image(files[0].parent)
    values = np.zeros(image.shape, np.uint8)  # type: ignore[union-attr]
    values[3:9, 4:7, 1:3] = 5
    values[20:22, 10:30, 4] = 2
    write_label_map(tmp_path / "label.nrrd", values, image)
    return tmp_path / "label.nrrd"


INFO = {"label_info": [{"name": "liver", "idx": 5}, {"name": "left kidney", "idx": 2}], "client_id": "me"}


def test_an_image_is_a_series(datastore: Any, uid: str, files: list[Path]) -> None:
    assert datastore.list_images() == [uid] == datastore.get_unlabeled_images()
    assert datastore.get_image_info(uid)["Modality"] == "CT"
    nifti = Path(datastore.get_image_uri(uid))
    image = read_image(files[0].parent)
    np.testing.assert_array_equal(np.asarray(nib.load(nifti).dataobj), image.voxels)  # type: ignore[union-attr, attr-defined]
    assert datastore.get_image_uri(uid) == str(nifti)
    datastore.update_image_info(uid, {"note": 1})
    assert datastore.get_image_info(uid)["note"] == 1


def test_a_final_label_is_seen_at_once_and_stored_as_seg(
    datastore: Any, uid: str, label: Path, files: list[Path], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in files}
    assert datastore.save_label(uid, str(label), FINAL, INFO) == uid
    assert datastore.get_labeled_images() == [uid] and datastore.get_unlabeled_images() == []
    status = datastore.status()
    assert (status["total"], status["completed"], status["label_tags"]) == (1, 1, {"final": 1})
    told = datastore.told(uid)["dicom_seg"]
    assert told["stored"] and datastore.told(uid) == {}
    (path,) = (tmp_path / "index" / "stored").rglob("*.dcm")
    seg = highdicom.seg.Segmentation.from_dataset(pydicom.dcmread(path))
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == ["left kidney", "liver"]
    sources = sorted(files, key=lambda p: dcmread(p).ImagePositionPatient[2])
    planes = seg.get_pixels_by_source_instance([dcmread(p).SOPInstanceUID for p in sources],
                                               assert_missing_frames_are_empty=True)  # fmt: skip
    values = read_image(label).voxels  # type: ignore[union-attr]
    for n, value in ((1, 2), (2, 5)):
        np.testing.assert_array_equal(planes[..., n - 1].transpose(2, 1, 0) > 0, values == value)
    assert datastore.list_images() == [uid]  # the SEG is no image
    assert {path: path.read_bytes() for path in files} == before


def test_a_label_can_be_read_changed_and_forgotten(datastore: Any, uid: str, label: Path) -> None:
    datastore.save_label(uid, str(label), "original", INFO)
    assert datastore.get_labeled_images() == [] and datastore.get_labeled_images("original") == [uid]
    assert datastore.get_label(uid, "original") == label.read_bytes()
    assert datastore.get_label_info(uid, "original")["client_id"] == "me"
    datastore.update_label_info(uid, "original", {"score": 1})
    assert datastore.get_label_info(uid, "original")["score"] == 1
    assert datastore.get_labels_by_image_id(uid) == {"original": uid}
    datastore.save_label(uid, str(label), "original", {"client_id": "you"})
    assert datastore.get_label_info(uid, "original")["client_id"] == "you"
    assert len(list(Path(datastore.get_label_uri(uid, "original")).parent.glob("*.nrrd"))) == 1
    datastore.remove_label(uid, "original")
    assert datastore.get_label_by_image_id(uid, "original") == "" == datastore.get_label_uri(uid, "original")


def test_a_label_survives_an_archive_that_takes_no_seg(
    datastore: Any, uid: str, label: Path, tmp_path: Path
) -> None:
    (tmp_path / "index").mkdir(exist_ok=True)
    (tmp_path / "index" / "incoming").write_text("in the way")
    datastore.list_images()
    datastore.save_label(uid, str(label), FINAL, INFO)
    assert datastore.get_labeled_images() == [uid]
    told = datastore.told(uid)["dicom_seg"]
    assert not told["stored"] and told["reason"].endswith(".")


def test_an_empty_label_makes_no_seg(datastore: Any, uid: str, files: list[Path], tmp_path: Path) -> None:
    image = read_image(files[0].parent)
    write_label_map(tmp_path / "empty.nrrd", np.zeros(image.shape, np.uint8), image)  # type: ignore[union-attr]
    datastore.save_label(uid, str(tmp_path / "empty.nrrd"), FINAL, INFO)
    assert datastore.told(uid)["dicom_seg"] == {"stored": False, "reason": "Nothing is present in the label."}


def test_a_label_of_one_of_several_views_is_put_on_no_other(
    datastore: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two radiographs of one size in one series: nothing in the label's file tells which one it was drawn on."""
    first = write_radiograph(make_torso(seed=2, shape=(40, 36, 12)), tmp_path / "studies" / "view1.dcm")
    view = dcmread(first)
    view.SOPInstanceUID = view.file_meta.MediaStorageSOPInstanceUID = f"{view.SOPInstanceUID[:-1]}{0}1"
    view.InstanceNumber = 2
    view.save_as(tmp_path / "studies" / "view2.dcm")
    datastore.archive.folder.store_files([])  # looks at the folder again
    uid = str(view.SeriesInstanceUID)
    values = np.zeros((view.Rows, view.Columns), np.uint8)
    values[3:9, 4:20] = 5
    write_label_map(tmp_path / "view.nrrd", values, read_image(first))
    seen = []

    def segmentation(stack: Any, *_: Any) -> pydicom.Dataset:
        seen.append(stack.slices[0].sop_uid)
        raise ImageError("Enough.")

    monkeypatch.setattr(importlib.import_module("lib.datastore.seg"), "segmentation", segmentation)
    datastore.save_label(uid, str(tmp_path / "view.nrrd"), FINAL, INFO)
    assert "2 images of the series" in datastore.told(uid)["dicom_seg"]["reason"] and not seen
    datastore.save_label(uid, str(tmp_path / "view.nrrd"), FINAL, INFO | {"stack": 2})
    datastore.save_label(uid, str(tmp_path / "view.nrrd"), FINAL, INFO | {"params": {"stack": 1}})
    assert seen == [view.SOPInstanceUID, dcmread(first).SOPInstanceUID]


def test_lists_to_train_on_and_take_away(datastore: Any, uid: str, label: Path) -> None:
    datastore.save_label(uid, str(label), FINAL, INFO)
    (pair,) = datastore.datalist()
    assert Path(pair["image"]).is_file() and Path(pair["label"]).read_bytes() == label.read_bytes()
    with zipfile.ZipFile(datastore.get_dataset_archive(None)) as zipped:
        assert len(zipped.namelist()) == 2
    assert json.loads(json.dumps(datastore.json()))["objects"][uid]["labels"]["final"]["ext"] == ".nrrd"


def test_what_is_not_for_this_server_to_do(datastore: Any, uid: str, label: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="archive"):
        datastore.remove_image(uid)
    with pytest.raises(Refusal, match="DICOM"):
        datastore.add_image("x", str(label), {})
    for bad in ("../x", "1/2", "x"):
        with pytest.raises(Refusal):
            datastore.save_label(bad, str(label), FINAL, {})
    with pytest.raises(Refusal, match="tag"):
        datastore.save_label(uid, str(label), "../../x", {})
    assert not list(tmp_path.glob("labels/**/*.nrrd"))


def test_a_slow_archive_is_asked_by_one_while_the_others_go_on(datastore: Any, uid: str) -> None:
    listing, asked, answer = datastore.listing, threading.Event(), threading.Event()
    assert list(listing.series()) == [uid]
    known = listing.archive.series()

    class Slow:
        def series(self) -> Any:
            asked.set()
            assert answer.wait(20)
            return known

    listing.archive = Slow()
    listing.forget()
    asking = threading.Thread(target=listing.series)
    asking.start()
    assert asked.wait(20)
    began = time.monotonic()
    assert datastore.list_images() == [uid] and time.monotonic() - began < 2
    answer.set()
    asking.join(20)
