"""Image ids become files only through the datastore and the sessions."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from live_server import ROOT
from monailabel.datastore.local import LocalDatastore
from monailabel.utils.sessions import Sessions
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medsegr.dicom.archive import ArchiveError, SeriesInfo, UnknownSeries
from medsegr.dicom.cache import SeriesCache
from medsegr.web.errors import Refusal
from medsegr.web.requests import AskOptions

UID = "1.2.840.1"


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's module, imported as the server does."""
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    return importlib.import_module("lib.images")


def dicom_datastore(archive: Any, folder: Path) -> Any:
    """The app's datastore over an archive."""
    module = importlib.import_module("lib.datastore.dicom")
    labels = importlib.import_module("lib.datastore.label_files").LabelFiles(folder / "labels")
    return module.DicomDatastore(archive, SeriesCache(archive, folder / "series"), labels)


class Shelf:
    """An archive with one series of two radiographs of different size; `away` makes it fail."""

    name, local, away = "shelf", False, False

    def series(self) -> list[SeriesInfo]:
        return [SeriesInfo(UID, "1.2", "CR", n_instances=2)]

    def instances(self, series_uid: str) -> frozenset[str]:
        if self.away:
            raise ArchiveError("The archive is away.")
        if series_uid != UID:
            raise UnknownSeries("The archive has no series of this UID.")
        return frozenset({"1.2.3.1", "1.2.3.2"})

    def fetch(self, series_uid: str, into: Path) -> list[Path]:
        for n, shape in ((1, (7, 5)), (2, (9, 4))):
            dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
            for key in ("ImagePositionPatient", "ImageOrientationPatient"):
                del dataset[key]
            dataset.Modality, dataset.SOPInstanceUID, dataset.InstanceNumber = "CR", f"1.2.3.{n}", n
            dataset.Rows, dataset.Columns = shape
            dataset.PixelData = bytes(2 * shape[0] * shape[1])
            dataset.save_as(into / f"{n}.dcm")
        return list(into.iterdir())

    def store(self, datasets: object) -> None:
        raise NotImplementedError


def refused(find: Any, *ids: str) -> int:
    with pytest.raises(Refusal) as caught:
        find(*ids)
    assert str(caught.value).endswith(".")
    return caught.value.status


def test_a_folder_knows_its_files_only(images: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    found = images.Images(LocalDatastore(str(tmp_path), extensions=["*.png"]), None)
    assert found.find("a").path == tmp_path / "a.png" and found.find("a").id == "a"
    for other in ("c", "a.png", str(tmp_path / "a.png"), "../x", "/etc/passwd"):
        assert refused(found.find, other) == 404
    (tmp_path / "b.png").unlink()
    assert refused(found.find, "b") == 404
    assert refused(found.find, "") == 400
    assert refused(found.find, "a", "0" * 36) == 404  # sessions are off


def test_a_series_is_its_dicom_files_and_stacks(images: ModuleType, tmp_path: Path) -> None:
    found = images.Images(dicom_datastore(Shelf(), tmp_path), None)
    image = found.find(UID)
    assert image.id == UID and len(list(image.path.iterdir())) == 2
    assert [stack.shape for stack in image.stacks] == [(7, 5), (9, 4)]
    chosen, slices = image.chosen(AskOptions(instance="1.2.3.2", slices="this"))
    assert (chosen.n, slices) == (2, None) and chosen.path.name == "2.dcm"
    assert image.chosen(AskOptions())[0].n == 1
    for options, status in (
        (AskOptions(instance="1.2.3.9"), 404),
        (AskOptions(instance="1.2.3.1", frame=2), 404),
        (AskOptions(slices="this"), 422),
    ):
        assert refused(image.chosen, options) == status
    for other in ("1.2.3", "..", "1..2", "1/2", "1" * 65, "x"):
        assert refused(found.find, other) == 404


def test_an_archive_that_is_away_is_a_bad_gateway(images: ModuleType, tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.away = True
    assert refused(images.Images(dicom_datastore(shelf, tmp_path), None).find, UID) == 502


def test_a_session_is_found_by_its_id(images: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    sessions = Sessions(str(tmp_path / "sessions"))
    name, _ = sessions.add_session(str(tmp_path / "a.png"))
    found = images.Images(LocalDatastore(str(tmp_path), extensions=["*.png"]), sessions)
    assert found.find("", name).path.name == "a.png" and found.find("", name).id == f"session-{name}"
    for other in ("0" * 36, "../" * 12, ".." + "-" * 34):
        assert refused(found.find, "", other) == 404
