"""The server as a client of a PACS: over our own DICOMweb routes, behind a login of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dicom_server import served
from fastapi import FastAPI, Request, Response
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medsegr.dicom.archive import ArchiveError, UnknownSeries
from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.pacs import Pacs, PacsLogin
from medsegr.web.dicomweb import dicomweb_router

TOKEN = "first-token"


@pytest.fixture
def held(tmp_path: Path) -> Path:
    folder = tmp_path / "held"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        (folder / name).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    return folder


@pytest.fixture
def accepted() -> set[str]:
    """What the PACS takes as `Authorization`."""
    return {f"Bearer {TOKEN}"}


@pytest.fixture
def url(held: Path, accepted: set[str], tmp_path: Path) -> Iterator[str]:
    app = FastAPI()

    @app.middleware("http")
    async def login(request: Request, forward: object) -> Response:
        if request.headers.get("authorization") not in accepted:
            return Response("no", status_code=401)
        return await forward(request)  # type: ignore[operator]

    app.include_router(dicomweb_router(DicomFolder(held, tmp_path / "index"), ()))
    with served(app) as root:
        yield root


def pacs(url: str, login: PacsLogin) -> Pacs:
    paths = {name: f"proxy/dicom/{name}" for name in ("qido", "wado", "stow")}
    return Pacs(url, login, paths, timeout_s=(2.0, 10.0))


def test_series_are_listed_and_downloaded_as_they_are(url: str, held: Path, tmp_path: Path) -> None:
    archive = pacs(url, PacsLogin(token=TOKEN))
    originals = [dcmread(path) for path in sorted(held.iterdir())]
    found = {series.uid: series for series in archive.series()}
    assert {d.SeriesInstanceUID: d.Modality for d in originals} == {u: s.modality for u, s in found.items()}
    for original in originals:
        series = found[original.SeriesInstanceUID]
        assert (series.study_uid, series.patient_id) == (original.StudyInstanceUID, original.PatientID)
        assert archive.instances(series.uid) == {original.SOPInstanceUID}
        into = tmp_path / str(series.modality)
        into.mkdir()
        (path,) = archive.fetch(series.uid, into)
        assert (dcmread(path).pixel_array == original.pixel_array).all()


def test_a_new_instance_is_stored(url: str, held: Path) -> None:
    archive = pacs(url, PacsLogin(token=TOKEN))
    dataset = dcmread(held / "CT_small.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    archive.store([dataset])
    assert "1.2.3.4.5" in archive.instances(dataset.SeriesInstanceUID)
    assert len(list(held.iterdir())) == 2  # not among the user's files


def test_a_token_that_is_renewed_in_its_file_is_used_from_then_on(
    url: str, accepted: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    archive = pacs(url, PacsLogin(token_file=file))
    assert len(archive.series()) == 2
    accepted.clear()
    accepted.add("Bearer second-token")
    with pytest.raises(ArchiveError, match="status 401"):
        archive.series()
    file.write_text("second-token")
    assert len(archive.series()) == 2
    file.unlink()
    with pytest.raises(ArchiveError, match="token"):
        archive.series()


def test_a_user_and_a_password(url: str, accepted: set[str]) -> None:
    accepted.add("Basic dXNlcjpwYXNz")  # user:pass
    assert len(pacs(url, PacsLogin("user", "pass")).series()) == 2
    with pytest.raises(ArchiveError, match="login"):
        pacs(url, PacsLogin("user", "other")).series()
    assert "pass" not in repr(PacsLogin("user", "pass"))


def test_what_is_not_there_and_who_is_not_there(url: str, tmp_path: Path) -> None:
    archive = pacs(url, PacsLogin(token=TOKEN))
    for uid in ("1.2.3", "..", ""):
        with pytest.raises(UnknownSeries):
            archive.fetch(uid, tmp_path)
    with pytest.raises(ArchiveError, match="cannot be reached"):
        Pacs("http://127.0.0.1:9/dicom-web").series()
    assert Pacs("http://user:secret@pacs.example/dicom-web/").name == "http://pacs.example/dicom-web"
