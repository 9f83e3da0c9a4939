"""Image ids become files only through the datastore and the sessions."""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from live_server import ROOT
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.utils.sessions import Sessions

from medsegr.web.errors import Refusal

UID = "1.2.840.1"


@pytest.fixture(scope="module")
def images() -> ModuleType:
    """The app's module, loaded from its file."""
    spec = importlib.util.spec_from_file_location(
        "app_images", ROOT / "apps" / "medsegr" / "lib" / "images.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pacs(DICOMWebDatastore):
    """A DICOMweb datastore whose server has one series and whose converter fails."""

    def __init__(self, folder: Path) -> None:
        self._datastore = SimpleNamespace(image_path=lambda: str(folder))
        self.folder = folder

    def get_image_uri(self, image_id: str) -> str:
        if image_id == UID:
            (self.folder / UID).mkdir(exist_ok=True)
            (self.folder / UID / "0.dcm").write_bytes(b"x")
        raise RuntimeError("two sizes in one series")


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


def test_a_series_is_its_dicom_files_even_if_it_cannot_be_converted(
    images: ModuleType, tmp_path: Path
) -> None:
    found = images.Images(Pacs(tmp_path), None)
    assert found.find(UID).path == tmp_path / UID
    for other in ("1.2.3", "..", "1..2", "1/2", "1" * 65, "x"):
        assert refused(found.find, other) == 404


def test_a_session_is_found_by_its_id(images: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    sessions = Sessions(str(tmp_path / "sessions"))
    name, _ = sessions.add_session(str(tmp_path / "a.png"))
    found = images.Images(LocalDatastore(str(tmp_path), extensions=["*.png"]), sessions)
    assert found.find("", name).path.name == "a.png" and found.find("", name).id == f"session-{name}"
    for other in ("0" * 36, "../" * 12, ".." + "-" * 34):
        assert refused(found.find, "", other) == 404


class SlowPacs(Pacs):
    """Writes its series file by file, and only if there is nothing yet, as MONAI Label does."""

    def get_image_uri(self, image_id: str) -> str:
        series = self.folder / image_id
        if not series.exists():
            series.mkdir()
            for n in range(5):
                (series / f"{n}.dcm").write_bytes(b"x")
                time.sleep(0.05)
        return str(series)


def test_a_second_user_waits_until_a_series_is_complete(images: ModuleType, tmp_path: Path) -> None:
    found = images.Images(SlowPacs(tmp_path), None)

    def count(_: int) -> int:
        return len(list(found.find(UID).path.iterdir()))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(count, range(3))) == [5, 5, 5]
