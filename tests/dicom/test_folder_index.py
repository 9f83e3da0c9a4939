"""A folder of DICOM files: what is listed, what is noticed, what is left alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.frames import read_frames
from medsegr.dicom.stow import Failure
from medsegr.phantom import make_torso, write_series


def copy(name: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(str(get_testdata_file(name)), path))


def uid_of(path: Path, key: str = "SOPInstanceUID") -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True, force=True)[key].value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two series in nested folders, among things that are no DICOM instances."""
    root = tmp_path / "studies"
    copy("CT_small.dcm", root / "a" / "b" / "ct")
    copy("MR_small.dcm", root / "mr.dcm")
    copy("dicomdirtests/DICOMDIR", root / "DICOMDIR")
    (root / "notes.txt").write_text("not an image")
    (root / "empty.dcm").touch()
    (root / "noise.dcm").write_bytes(os.urandom(5000))
    (root / "cut.dcm").write_bytes(Path(str(get_testdata_file("MR_small_implicit.dcm"))).read_bytes()[:300])
    copy("CT_small.dcm", root / ".hidden" / "ct.dcm")
    return root


def folder_of(root: Path, tmp_path: Path) -> DicomFolder:
    return DicomFolder(root, tmp_path / "index", rescan_s=0.0)


def fresh(folder: DicomFolder) -> set[str]:
    """SOP UIDs once the next scan is due."""
    folder._due = 0.0
    return set(folder.index().instances)


def test_instances_are_found_at_any_depth_and_nothing_else_is(root: Path, tmp_path: Path) -> None:
    index = folder_of(root, tmp_path).index()
    ct, mr = root / "a" / "b" / "ct", root / "mr.dcm"
    assert {header.path for header in index.headers} == {ct, mr}
    header = index.instances[uid_of(ct)]
    assert (header["Modality"], header["PatientID"], header["Rows"], header.frames) == (
        "CT",
        "1CT1",
        "128",
        1,
    )
    assert [h.path for h in index.find(header.study)] == [ct]
    assert [h.path for h in index.find(header.study, header.series, header.sop)] == [ct]
    assert index.find(header.study, uid_of(mr, "SeriesInstanceUID")) == ()
    assert index.find("1.2.3") == ()


def test_files_without_preamble_are_found(tmp_path: Path) -> None:
    path = copy("ExplVR_LitEndNoMeta.dcm", tmp_path / "studies" / "plan.dcm")
    assert fresh(folder_of(path.parent, tmp_path)) == {uid_of(path)}


def test_new_changed_and_removed_files_are_noticed_without_a_restart(root: Path, tmp_path: Path) -> None:
    folder = folder_of(root, tmp_path)
    ct, mr = uid_of(root / "a" / "b" / "ct"), uid_of(root / "mr.dcm")
    assert fresh(folder) == {ct, mr}
    new = copy("rtdose.dcm", root / "new" / "dose.dcm")
    assert fresh(folder) == {ct, mr, uid_of(new)}
    (root / "mr.dcm").unlink()
    assert fresh(folder) == {ct, uid_of(new)}
    dataset = pydicom.dcmread(new)
    dataset.PatientID = "somebody else"
    dataset.save_as(new)
    fresh(folder)
    assert folder.index().instances[uid_of(new)]["PatientID"] == "somebody else"
    shutil.rmtree(root)
    assert fresh(folder) == set()


def test_the_users_folder_is_not_touched(root: Path, tmp_path: Path) -> None:
    def state() -> dict[Path, tuple[str, int]]:
        return {
            path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in root.rglob("*")
            if path.is_file()
        }

    before = state()
    folder = folder_of(root, tmp_path)
    folder.index()
    with folder.upload_folder() as name:
        folder.store_files([copy("rtdose.dcm", Path(name) / "0.dcm")])
    assert len(fresh(folder)) == 3
    assert state() == before


def test_links_are_followed_only_within_the_folder(root: Path, tmp_path: Path) -> None:
    outside = copy("rtdose.dcm", tmp_path / "outside" / "dose.dcm")
    (root / "file-link.dcm").symlink_to(outside)
    (root / "folder-link").symlink_to(outside.parent)
    (root / "circle").symlink_to(root)
    (root / "twice.dcm").symlink_to(root / "mr.dcm")
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    index = folder_of(root, tmp_path).index()
    assert {header.path for header in index.headers} == {root / "a" / "b" / "ct", root / "mr.dcm"}


def test_an_instance_that_lies_there_twice_is_listed_once(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "mr.dcm", root / "z.dcm")
    index = folder_of(root, tmp_path).index()
    assert [h.path.name for h in index.headers if h["Modality"] == "MR"] == ["mr.dcm"]


def test_instances_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = write_series(make_torso(3, shape=(24, 24, 12)), tmp_path / "studies")
    paths[0].rename(paths[0].with_name("zzz.dcm"))
    (members,) = folder_of(tmp_path / "studies", tmp_path).index().series.values()
    assert [int(header["InstanceNumber"]) for header in members] == list(range(1, 13))


def test_what_is_stored_is_listed_and_survives_a_restart(root: Path, tmp_path: Path) -> None:
    folder = folder_of(root, tmp_path)
    with folder.upload_folder() as name:
        dose = copy("rtdose.dcm", Path(name) / "0.dcm")
        uid, data = uid_of(dose), dose.read_bytes()
        outcome = folder.store_files([dose])
    assert [(one.sop, one.failure) for one in outcome] == [(uid, None)]
    stored = folder.index().instances[uid].path
    assert stored.is_relative_to(tmp_path / "index")
    assert stored.read_bytes() == data
    assert uid in folder_of(root, tmp_path).index().instances
    assert not list(folder.incoming.iterdir())


def test_what_cannot_be_stored_is_named(root: Path, tmp_path: Path) -> None:
    folder = folder_of(root, tmp_path)
    with folder.upload_folder() as name:
        place = Path(name)
        same = copy("MR_small.dcm", place / "same.dcm")
        other = pydicom.dcmread(same)
        other.PatientID = "another"
        other.save_as(place / "other.dcm")
        (place / "noise.dcm").write_bytes(b"\0" * 200)
        outcome = folder.store_files([same, place / "other.dcm", place / "noise.dcm"])
        dose = copy("rtdose.dcm", place / "dose.dcm")
        (strange,) = folder.store_files([dose], study="1.2.3")
    assert [one.failure for one in outcome] == [None, Failure.DUPLICATE, Failure.NOT_UNDERSTOOD]
    assert strange.failure is Failure.MISMATCH
    assert len(fresh(folder)) == 2


def test_an_index_folder_inside_the_studies_is_not_listed_twice(root: Path, tmp_path: Path) -> None:
    folder = DicomFolder(root, root / "index")
    with folder.upload_folder() as name:
        folder.store_files([copy("rtdose.dcm", Path(name) / "0.dcm")])
        assert len(fresh(folder)) == 3


def test_reading_never_waits_for_a_scan_but_the_first(root: Path, tmp_path: Path) -> None:
    folder = folder_of(root, tmp_path)
    folder.index()
    began, held = threading.Event(), threading.Event()

    def slow() -> bool:
        began.set()
        held.wait(10)
        return False

    folder._scanners[0].scan = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=fresh, args=(folder,))
    thread.start()
    assert began.wait(10)
    start = time.perf_counter()
    assert len(folder.index().headers) == 2
    assert time.perf_counter() - start < 1
    held.set()
    thread.join()


def test_a_folder_of_hundreds_of_files_is_indexed_quickly(tmp_path: Path) -> None:
    write_series(make_torso(4, shape=(16, 16, 340)), tmp_path / "studies")
    folder = folder_of(tmp_path / "studies", tmp_path)
    began = time.perf_counter()
    assert len(folder.index().headers) == 340
    first = time.perf_counter() - began
    began = time.perf_counter()
    fresh(folder)
    again = time.perf_counter() - began
    assert first < 10, f"{first:.2f} s"
    assert again < 1, f"{again:.2f} s"


@pytest.mark.data
def test_real_studies_are_listed_and_every_frame_is_the_stored_one(data_dir: Path, tmp_path: Path) -> None:
    index = folder_of(data_dir / "dicom", tmp_path).index()
    assert len(index.studies) == 3
    assert {header["Modality"] for header in index.headers} == {"CT", "MR", "SEG"}
    for header in [members[0] for members in index.series.values()]:
        dataset = pydicom.dcmread(header.path)
        if header["Modality"] != "SEG":
            assert read_frames(header.path, [1]) == [dataset.pixel_array.tobytes()]
