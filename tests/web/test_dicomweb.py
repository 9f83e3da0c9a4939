"""A folder of DICOM files over HTTP, asked by `dicomweb_client` as any viewer would ask a PACS."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicom_server import served
from dicomweb_client import DICOMwebClient
from fastapi import FastAPI
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medsegr.dicom.folder import DicomFolder
from medsegr.phantom import make_torso, write_series
from medsegr.web.dicomweb import closed_router, dicomweb_router

NAMES = (
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "rtdose.dcm",
    "waveform_ecg.dcm",
    "liver_1frame.dcm",
)
MAX_UPLOAD = 300_000


class Server:
    """Where it is, its files, and a client of each kind."""

    def __init__(self, url: str, folder: DicomFolder) -> None:
        self.url, self.folder = f"{url}/proxy/dicom", folder
        self.client = DICOMwebClient(f"{self.url}/wado", qido_url_prefix=None)

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(
            f"{self.url}/{path}", headers={k.replace("_", "-"): v for k, v in headers.items()}, timeout=30
        )

    def path(self, name: str) -> str:
        """The WADO path of the instance that a test file holds."""
        header = file(name)
        return f"wado/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}"


def file(name: str) -> Dataset:
    return pydicom.dcmread(str(get_testdata_file(name)))


def uids(dataset: Dataset) -> tuple[str, str, str]:
    return dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID


@pytest.fixture(scope="module")
def torso(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(make_torso(5, shape=(32, 24, 6)), tmp_path_factory.mktemp("torso"))


@pytest.fixture
def server(tmp_path: Path, torso: list[Path]) -> Iterator[Server]:
    root = tmp_path / "studies"
    shutil.copytree(torso[0].parent, root / "torso")
    for name in NAMES:
        shutil.copy(str(get_testdata_file(name)), root / name)
    folder = DicomFolder(root, tmp_path / "index", rescan_s=0.0)
    app = FastAPI()
    app.include_router(dicomweb_router(folder, max_upload=MAX_UPLOAD))
    app.include_router(closed_router())
    with served(app) as url:
        yield Server(url, folder)


def test_a_client_finds_studies_series_and_instances(server: Server, torso: list[Path]) -> None:
    known = [file(name) for name in NAMES] + [pydicom.dcmread(torso[0])]
    found = [Dataset.from_json(one) for one in server.client.search_for_studies()]
    assert {one.StudyInstanceUID for one in found} == {one.StudyInstanceUID for one in known}
    (phantom,) = server.client.search_for_studies(
        search_filters={"PatientName": "phantom*", "ModalitiesInStudy": "CT"}
    )
    phantom = Dataset.from_json(phantom)
    assert (phantom.PatientID, phantom.NumberOfStudyRelatedInstances) == ("PHANTOM-5", 6)
    (series,) = server.client.search_for_series(phantom.StudyInstanceUID)
    series = Dataset.from_json(series)
    assert (series.Modality, series.SeriesDescription) == ("CT", "Portal venous phantom")
    instances = server.client.search_for_instances(phantom.StudyInstanceUID, series.SeriesInstanceUID)
    assert [Dataset.from_json(one).InstanceNumber for one in instances] == [1, 2, 3, 4, 5, 6]
    assert len(server.client.search_for_instances(limit=4, offset=1)) == 4
    assert server.client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert "00081110" not in server.client.search_for_series()[0]


def test_what_ohif_asks_for_is_understood(server: Server) -> None:
    query = "limit=101&offset=0&fuzzymatching=true&includefield=00081030,00080060&PatientName=*ct1*&StudyDate=19900101-20301231"
    reply = server.get(f"qido/studies?{query}", Accept="application/dicom+json")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/dicom+json"
    assert [one["00100010"]["Value"][0]["Alphabetic"] for one in reply.json()] == ["CompressedSamples^CT1"]
    ignored = server.get("qido/studies?EchoTime=3")
    assert len(ignored.json()) == len(NAMES) + 1
    assert "EchoTime" in ignored.headers["warning"]


@pytest.mark.parametrize("root", ["qido", "wado"])
def test_metadata_are_the_header_without_bulk(server: Server, torso: list[Path], root: str) -> None:
    study, series, _ = uids(pydicom.dcmread(torso[0]))
    replies = [
        server.get(f"{root}/studies/{study}{path}/metadata").json() for path in ("", f"/series/{series}")
    ]
    assert replies[0] == replies[1]
    for path, found in zip(torso, replies[0], strict=True):
        header, found = pydicom.dcmread(path, stop_before_pixels=True), Dataset.from_json(found)
        del found.AvailableTransferSyntaxUID
        assert found == header
    ct = Dataset.from_json(server.client.retrieve_instance_metadata(*uids(file("CT_small.dcm"))))
    assert "PixelData" not in ct
    assert ct.PixelSpacing == file("CT_small.dcm").PixelSpacing


def test_bulk_data_are_where_the_metadata_say(server: Server) -> None:
    ct = file("CT_small.dcm")
    found = server.client.retrieve_instance_metadata(*uids(ct))
    address = server.url.removesuffix("/proxy/dicom") + found["00431029"]["BulkDataURI"]
    assert server.client.retrieve_bulkdata(address) == [ct[0x0043, 0x1029].value]
    single = requests.get(address, headers={"Accept": "application/octet-stream"}, timeout=30)
    assert single.content == ct[0x0043, 0x1029].value
    ecg = server.client.retrieve_instance_metadata(*uids(file("waveform_ecg.dcm")))
    nested = ecg["54000100"]["Value"][1]["54001010"]["BulkDataURI"]
    address = server.url.removesuffix("/proxy/dicom") + nested
    assert server.client.retrieve_bulkdata(address) == [
        file("waveform_ecg.dcm").WaveformSequence[1].WaveformData
    ]
    for place in ("00100010", "54000100/7/54001010", "54000100", "x/../y", "00431029/0/00431029"):
        assert server.get(f"{server.path('waveform_ecg.dcm')}/bulkdata/{place}").status_code == 404


def test_frames_are_native_pixels(server: Server) -> None:
    mr, dose = file("MR_small.dcm"), file("rtdose.dcm")
    (frame,) = server.client.retrieve_instance_frames(*uids(file("MR_small_RLE.dcm")), [1])
    assert np.array_equal(np.frombuffer(frame, "<i2").reshape(64, 64), mr.pixel_array)
    frames = server.client.retrieve_instance_frames(*uids(dose), [15, 2])
    assert [np.frombuffer(f, "<u4").reshape(10, 10).tolist() for f in frames] == [
        dose.pixel_array[14].tolist(),
        dose.pixel_array[1].tolist(),
    ]
    (colour,) = server.client.retrieve_instance_frames(*uids(file("SC_rgb_jpeg_dcmtk.dcm")), [1])
    assert (
        np.abs(np.frombuffer(colour, np.uint8).reshape(100, 100, 3)[5, 50].astype(int) - (255, 0, 0)).max()
        < 8
    )
    described = server.client.retrieve_instance_metadata(*uids(file("SC_rgb_jpeg_dcmtk.dcm")))
    assert described["00280004"]["Value"] == ["RGB"]


def test_frames_say_what_they_are_to_ohif(server: Server) -> None:
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    reply = server.get(f"{server.path('MR_small_RLE.dcm')}/frames/1", Accept=accept)
    assert reply.headers["content-type"].startswith(
        'multipart/related; type="application/octet-stream"; boundary='
    )
    assert b"Content-Type: application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1\r\n" in reply.content
    assert reply.headers["cache-control"] == "no-store"


def test_a_client_with_a_codec_gets_frames_as_they_are_stored(server: Server) -> None:
    jpeg = (("image/jpeg", "1.2.840.10008.1.2.4.50"),)
    (frame,) = server.client.retrieve_instance_frames(
        *uids(file("SC_rgb_jpeg_dcmtk.dcm")), [1], media_types=jpeg
    )
    assert frame[:2] == b"\xff\xd8"
    assert server.get(f"{server.path('CT_small.dcm')}/frames/1", Accept="image/jpeg").status_code == 406


def test_whole_instances_series_and_studies(server: Server, torso: list[Path]) -> None:
    study, series, _ = uids(pydicom.dcmread(torso[0]))
    expected = [pydicom.dcmread(path) for path in torso]
    assert server.client.retrieve_study(study) == expected
    assert server.client.retrieve_series(study, series) == expected
    seg = file("liver_1frame.dcm")
    assert server.client.retrieve_instance(*uids(seg)) == seg
    single = server.get(server.path("CT_small.dcm"), Accept="application/dicom")
    assert single.content == Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    native = server.client.retrieve_instance(
        *uids(file("MR_small_RLE.dcm")), media_types=(("application/dicom", "1.2.840.10008.1.2.1"),)
    )
    assert np.array_equal(native.pixel_array, file("MR_small.dcm").pixel_array)


def test_what_is_stored_can_be_searched_and_retrieved(server: Server, torso: list[Path]) -> None:
    study = pydicom.dcmread(torso[0]).StudyInstanceUID
    new = [file("liver_1frame.dcm"), file("rtdose_1frame.dcm")]
    for dataset in new:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, generate_uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    reply = server.client.store_instances(new, study)
    assert [item.ReferencedSOPInstanceUID for item in reply.ReferencedSOPSequence] == [
        d.SOPInstanceUID for d in new
    ]
    assert "FailedSOPSequence" not in reply
    assert server.client.retrieve_instance(*uids(new[0])) == new[0]
    (found,) = server.client.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert Dataset.from_json(found).ModalitiesInStudy == ["CT", "RTDOSE", "SEG"]
    assert len(list(server.folder.root.rglob("*.dcm"))) == len(NAMES) + len(torso)


def body_of(*parts: bytes, boundary: str = "xYz") -> bytes:
    text = b"".join(
        b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), part) for part in parts
    )
    return text + b"--%s--" % boundary.encode()


def post(server: Server, body: bytes, content_type: str, path: str = "stow/studies") -> requests.Response:
    return requests.post(
        f"{server.url}/{path}", data=body, headers={"Content-Type": content_type}, timeout=30
    )


def test_what_cannot_be_stored_is_refused_in_words(server: Server) -> None:
    kind = 'multipart/related; type="application/dicom"; boundary=xYz'
    ct, new = (
        Path(str(get_testdata_file(name))).read_bytes() for name in ("CT_small.dcm", "SC_rgb_small_odd.dcm")
    )
    mixed = post(server, body_of(new, b"noise" * 100), kind)
    assert mixed.status_code == 202
    assert mixed.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert len(mixed.json()["00081199"]["Value"]) == 1
    assert post(server, body_of(ct), kind, "stow/studies/1.2.3").status_code == 409
    refusals = {
        415: post(server, body_of(ct), "multipart/form-data; boundary=xYz"),
        400: post(server, body_of(ct)[:-20], kind),
        413: post(server, body_of(bytes(MAX_UPLOAD)), kind),
    }
    refusals[413.5] = requests.post(  # without a length, chunk by chunk
        f"{server.url}/stow/studies",
        data=iter([bytes(100_000)] * 4),
        headers={"Content-Type": kind},
        timeout=30,
    )
    for status, reply in refusals.items():
        assert reply.status_code == int(status)
        assert reply.json()["detail"].endswith(".")
    for body, words in ((b"", "middle"), (b"no boundary here", "boundary"), (body_of(), "no file")):
        reply = post(server, body, kind)
        assert reply.status_code == 400
        assert words in reply.json()["detail"]
    assert post(server, body_of(ct), 'multipart/related; type="application/dicom"').status_code == 400
    assert not list(server.folder.incoming.iterdir())
    assert len(server.folder.index().headers) == 13


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("qido/studies?PatientNam=x", 400),
        ("qido/studies?limit=many", 400),
        ("qido/studies/1.2.3/series", 404),
        ("qido/studies/x..y/series", 400),
        ("wado/studies/1.2.3/metadata", 404),
        ("wado/studies/1.2.3", 404),
        ("wado/studies/..%2f..%2fetc/metadata", 404),
        ("wado", 404),
        ("ups/studies", 404),
        ("studies", 404),
        ("qido/patients", 404),
    ],
)
def test_wrong_requests_get_a_sentence(server: Server, path: str, status: int) -> None:
    reply = server.get(path)
    assert reply.status_code == status, reply.text
    assert reply.json()["detail"].endswith(".")


def test_wrong_frames_and_media_types_get_a_sentence(server: Server) -> None:
    path = server.path("rtdose.dcm")
    expected = {"16": 404, "0": 404, "x": 400, "1,": 400, "1;2": 400, "²": 400}
    for frames, status in expected.items():
        assert server.get(f"{path}/frames/{frames}").status_code == status, frames
    assert server.get(f"{path}/metadata", Accept="text/html").status_code == 406
    assert (
        server.get(f"{path}/metadata", Accept='multipart/related; type="application/dicom+xml"').status_code
        == 406
    )
    assert server.get(path, Accept="image/png").status_code == 406
    for weight in ("0.1", "\xb2", "x", "."):
        assert server.get("qido/studies", Accept=f"text/html, */*;q={weight}").status_code == 200, weight
    assert server.get(f"{server.path('waveform_ecg.dcm')}/frames/1").status_code == 404


def test_a_file_that_has_just_gone_is_a_404(server: Server) -> None:
    path = server.path("CT_small.dcm")
    server.get(f"{path}/metadata")
    server.folder._due = time.monotonic() + 60
    (server.folder.root / "CT_small.dcm").unlink()
    assert server.get(path).status_code == 404
    assert server.get(f"{path}/frames/1").status_code == 404
    assert server.get(f"{path}/metadata").json() == []


def test_many_readers_at_once_get_their_own_answers(server: Server, torso: list[Path]) -> None:
    expected = {path: pydicom.dcmread(path).pixel_array.astype("<u2").tobytes() for path in torso}
    wrong: list[Path] = []

    def read(path: Path) -> None:
        for _ in range(5):
            if server.client.retrieve_instance_frames(*uids(pydicom.dcmread(path)), [1]) != [expected[path]]:
                wrong.append(path)

    threads = [threading.Thread(target=read, args=(path,)) for path in torso]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_names_in_other_scripts_and_broken_values_stay_json(server: Server) -> None:
    dataset = file("CT_small.dcm")
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 100", "Müller^Jörg"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.add_new(0x00189306, "FD", float("nan"))  # Single Collimation Width
    dataset.save_as(server.folder.root / "nan.dcm")
    reply = server.get(f"wado/studies/{dataset.StudyInstanceUID}/metadata")
    listed = json.loads(reply.text, parse_constant=pytest.fail)
    found = next(one for one in listed if one["00080018"]["Value"] == [dataset.SOPInstanceUID])
    assert found["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert found["00189306"]["Value"] == [None]
    assert found["00080005"]["Value"] == ["ISO_IR 192"]
