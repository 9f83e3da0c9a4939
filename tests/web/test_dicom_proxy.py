"""A small real PACS with a password (our own folder routes), a server in front of it, and clients that know no password."""

from __future__ import annotations

import base64
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
import requests
from dicom_server import served
from dicomweb_client import DICOMwebClient
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from medsegr.dicom.folder import DicomFolder
from medsegr.web.dicom_proxy import mapped_url, proxy_router, rewritten
from medsegr.web.dicomweb import closed_router, dicomweb_router

SECRET = "Basic " + base64.b64encode(b"medsegr:geheim").decode()
NAMES = ("CT_small.dcm", "MR_small.dcm", "rtdose.dcm")


@dataclass
class Pacs:
    """As the app describes its PACS to the proxy."""

    url: str
    login: Mapping[str, str] = field(default_factory=lambda: {"Authorization": SECRET})
    below: Mapping[str, str] = field(default_factory=dict)

    def path(self, service: str) -> str:
        return self.below.get(service, "")

    def headers(self) -> Mapping[str, str]:
        return self.login


def needs_password(request: Request) -> None:
    if request.headers.get("authorization") != SECRET:
        raise HTTPException(401, "no", {"WWW-Authenticate": "Basic"})


def odd_pacs(seen: list[Request]) -> FastAPI:
    """Answers that a well-behaved PACS gives seldom."""
    app = FastAPI()

    @app.get("/dicom-web/studies/1.1/metadata")
    def addresses(request: Request) -> Response:
        seen.append(request)
        root = str(request.base_url) + "dicom-web"
        bulk = {
            "00431029": {
                "vr": "OB",
                "BulkDataURI": f"{root}/studies/1.1/series/1.2/instances/1.3/bulk/00431029",
            }
        }
        return JSONResponse([bulk], media_type="application/dicom+json")

    @app.get("/dicom-web/studies/1.1/series/1.2/instances/1.3/bulk/00431029")
    def bulk() -> Response:
        return Response(b"bulk data", media_type="application/octet-stream")

    @app.get("/dicom-web/studies/6.1/rendered")
    def report() -> Response:
        return Response("<script>alert(1)</script>", media_type="text/html")

    @app.get("/dicom-web/studies/2.1/metadata")
    def slow() -> Response:
        time.sleep(3)
        return JSONResponse([])

    @app.get("/dicom-web/studies/3.1")
    def breaks() -> Response:
        def body() -> Iterator[bytes]:
            yield b"begun"
            raise ConnectionError("gone")

        return StreamingResponse(body(), media_type="multipart/related")

    @app.get("/dicom-web/studies/4.1")
    def elsewhere() -> Response:
        return RedirectResponse("http://169.254.169.254/latest")

    @app.get("/dicom-web/studies/5.1")
    def fails() -> Response:
        return Response("java.lang.NullPointerException at ...", 500)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    def anything(request: Request, path: str) -> Response:
        seen.append(request)
        return JSONResponse({"path": path})

    return app


def front(pacs: Pacs, **more: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(pacs, **more))
    app.include_router(closed_router())
    return app


@pytest.fixture
def folder(tmp_path: Path) -> DicomFolder:
    root = tmp_path / "studies"
    root.mkdir()
    for name in NAMES:
        shutil.copy(str(get_testdata_file(name)), root / name)
    return DicomFolder(root, tmp_path / "index", rescan_s=0.0)


@pytest.fixture
def url(folder: DicomFolder) -> Iterator[str]:
    """The server in front of a PACS that holds `folder`."""
    app = FastAPI()
    app.include_router(dicomweb_router(folder, [Depends(needs_password)]))
    with served(app) as there, served(front(Pacs(f"{there}/proxy/dicom/wado/"))) as here:
        assert requests.get(f"{there}/proxy/dicom/wado/studies", timeout=10).status_code == 401
        yield f"{here}/proxy/dicom"


@pytest.fixture
def odd() -> Iterator[tuple[str, list[Request]]]:
    """The server in front of the odd PACS, and the requests that reached it."""
    seen: list[Request] = []
    timeout = httpx.Timeout(1.0)
    with served(odd_pacs(seen)) as there, served(front(Pacs(f"{there}/dicom-web"), timeout=timeout)) as here:
        yield f"{here}/proxy/dicom", seen


def test_a_viewer_reads_and_stores_without_a_password(url: str, folder: DicomFolder) -> None:
    client = DICOMwebClient(f"{url}/wado")
    ct = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    uids = (ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID)
    assert len(client.search_for_studies()) == 3
    (found,) = client.search_for_studies(search_filters={"PatientID": "1CT1"})
    assert found["0020000D"]["Value"] == [ct.StudyInstanceUID]
    assert client.retrieve_instance(*uids) == ct
    assert client.retrieve_instance_frames(*uids, [1]) == [ct.PixelData]
    bulk = client.retrieve_instance_metadata(*uids)["00431029"]["BulkDataURI"]
    assert client.retrieve_bulkdata(url.removesuffix("/proxy/dicom") + bulk) == [ct[0x0043, 0x1029].value]
    ct.SOPInstanceUID = ct.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for root in ("stow", "wado"):
        reply = DICOMwebClient(f"{url}/{root}").store_instances([ct])
        assert reply.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ct.SOPInstanceUID
    assert ct.SOPInstanceUID in folder.index().instances


def test_the_pacs_own_no_is_passed_on_in_words(url: str) -> None:
    reply = requests.get(f"{url}/wado/studies/1.2.3/metadata", timeout=10)
    assert reply.status_code == 404
    assert reply.json() == {"detail": "The PACS has no such study, series or instance."}
    assert requests.get(f"{url}/wado/studies", headers={"Accept": "text/html"}, timeout=10).status_code == 406


def test_uploads_are_bounded(folder: DicomFolder) -> None:
    app = FastAPI()
    app.include_router(dicomweb_router(folder))
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}
    with served(app) as there, served(front(Pacs(f"{there}/proxy/dicom/stow"), max_upload=1000)) as here:
        for data in (bytes(2000), iter([bytes(600)] * 3)):
            reply = requests.post(f"{here}/proxy/dicom/stow/studies", data=data, headers=kind, timeout=10)
            assert reply.status_code == 413


def test_addresses_of_the_pacs_lead_through_the_server(odd: tuple[str, list[Request]]) -> None:
    url, _ = odd
    (item,) = requests.get(f"{url}/qido/studies/1.1/metadata", timeout=10).json()
    address = item["00431029"]["BulkDataURI"]
    assert address == "/proxy/dicom/wado/studies/1.1/series/1.2/instances/1.3/bulk/00431029"
    assert requests.get(url.removesuffix("/proxy/dicom") + address, timeout=10).content == b"bulk data"


def test_a_page_of_the_pacs_is_no_page_of_the_server(odd: tuple[str, list[Request]]) -> None:
    url, _ = odd
    page = requests.get(f"{url}/wado/studies/6.1/rendered", timeout=10)
    assert page.text.startswith("<script>") and "sandbox" in page.headers["content-security-policy"]
    bulk = requests.get(f"{url}/wado/studies/1.1/series/1.2/instances/1.3/bulk/00431029", timeout=10)
    assert "content-security-policy" not in bulk.headers


def test_nothing_of_the_browsers_login_reaches_the_pacs(odd: tuple[str, list[Request]]) -> None:
    url, seen = odd
    browser = {
        "Authorization": "Bearer mine",
        "Cookie": "session=mine",
        "X-Forwarded-For": "1.2.3.4",
        "Referer": "x",
    }
    requests.get(f"{url}/wado/studies/1.1/metadata", headers=browser, timeout=10)
    (request,) = seen
    assert request.headers["authorization"] == SECRET
    assert not {"cookie", "x-forwarded-for", "referer"} & set(request.headers)


@pytest.mark.parametrize(
    "path",
    [
        "qido/../../../admin",
        "wado/studies/..%2f..%2fadmin",
        "wado/studies/%2e%2e/%2e%2e/admin",
        "wado/studies/.hidden",
        "wado//evil.example/studies",
        "wado/http://evil.example/studies",
        "wado/@evil.example/studies",
        "wado/studies/1.2%3f.evil",
        "wado/studies%5c..%5cadmin",
        "wado/studies/1.2%0d%0aX: y",
        "wado/instances/../system",
        "wado/system",
        "wado/changes",
        "other/studies",
        "wado/",
    ],
)
def test_only_dicomweb_is_forwarded(odd: tuple[str, list[Request]], path: str) -> None:
    url, seen = odd
    with httpx.Client() as client:
        address = httpx.URL(url).copy_with(raw_path=f"/proxy/dicom/{path}".encode())
        for method in ("GET", "POST", "PUT", "DELETE"):
            reply = client.request(method, address)
            assert reply.status_code in {404, 405}
    assert not seen


def test_stored_is_only_where_studies_are(odd: tuple[str, list[Request]]) -> None:
    url, seen = odd
    assert requests.post(f"{url}/wado/studies/1.1/series", data=b"x", timeout=10).status_code == 404
    assert not seen
    assert requests.post(f"{url}/stow/studies/1.1", data=b"x", timeout=10).json() == {
        "path": "dicom-web/studies/1.1"
    }


def test_a_slow_pacs_holds_up_nobody_else(odd: tuple[str, list[Request]]) -> None:
    url, _ = odd
    late: list[requests.Response] = []
    threads = [
        threading.Thread(
            target=lambda: late.append(requests.get(f"{url}/wado/studies/2.1/metadata", timeout=10))
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    began = time.perf_counter()
    assert requests.get(f"{url}/wado/studies/1.1/metadata", timeout=10).status_code == 200
    assert time.perf_counter() - began < 0.7
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in late} == {504}
    assert "too long" in late[0].json()["detail"]


def test_answers_that_would_mislead_are_told_in_words(odd: tuple[str, list[Request]]) -> None:
    url, _ = odd
    moved = requests.get(f"{url}/wado/studies/4.1", timeout=10, allow_redirects=False)
    assert (moved.status_code, "redirection" in moved.json()["detail"]) == (502, True)
    failed = requests.get(f"{url}/wado/studies/5.1", timeout=10)
    assert failed.status_code == 502
    assert failed.json()["detail"] == "The PACS refused the request with status 500."
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{url}/wado/studies/3.1", timeout=10)


def test_a_pacs_that_is_away_or_refuses_us_is_a_sentence(folder: DicomFolder) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}/dicom-web"
        with served(front(Pacs(nowhere))) as here:
            reply = requests.get(f"{here}/proxy/dicom/qido/studies", timeout=30)
    assert reply.status_code == 502
    assert "cannot be reached" in reply.json()["detail"]
    app = FastAPI()
    app.include_router(dicomweb_router(folder, [Depends(needs_password)]))
    with served(app) as there, served(front(Pacs(f"{there}/proxy/dicom/wado", {}))) as here:
        reply = requests.get(f"{here}/proxy/dicom/qido/studies", timeout=10)
    assert reply.status_code == 502
    assert "login" in reply.json()["detail"]
    assert "www-authenticate" not in reply.headers


def test_urls_are_mapped_only_if_they_are_the_pacs_resources() -> None:
    pacs = Pacs("https://pacs.hospital:8443/dcm/aets/A/rs", below={"wado": "w", "qido": "q"})
    root = "https://pacs.hospital:8443/dcm/aets/A/rs"
    expected = {
        f"{root}/w/studies/1.2/series/3": "/us/studies/1.2/series/3",
        f"{root}/studies/1.2?x=1": "/us/studies/1.2?x=1",
        f"{root}/bulkdata/ab/c": "/us/bulkdata/ab/c",
        "http://archive-7:8080/dcm/aets/A/rs/w/studies/1.2": "/us/studies/1.2",
        "/dcm/aets/A/rs/studies/1.2": "/us/studies/1.2",
        "http://archive-7:8080/dcm/aets/A/rs/bulkdata/ab": None,
        "https://pacs.hospital:8443/ui2": None,
        f"{root}/studies/../../x": None,
        "../bulk/1": None,
    }
    for address, mapped in expected.items():
        assert mapped_url(address, pacs, "/us") == (mapped or address), address


def test_only_strings_that_are_urls_are_rewritten() -> None:
    pacs = Pacs("http://p/dicom-web")
    body = b'{"a": "see http://p/dicom-web/studies/1", "b":"http:\\/\\/p\\/dicom-web\\/studies\\/1", "c": ["\\"http://p/dicom-web/studies/2"]}'
    assert rewritten(body, pacs, "/us") == (
        b'{"a": "see http://p/dicom-web/studies/1", "b":"/us/studies/1", "c": ["\\"http://p/dicom-web/studies/2"]}'
    )
