"""The PACS proxy in front of a real Orthanc with a password, asked by a client that knows none."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from fastapi import FastAPI
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medsegr.web.dicom_proxy import proxy_router
from tests.system.orthanc import Orthanc
from tests.web.dicom_server import served

pytestmark = pytest.mark.system
OCTETS = ("application/octet-stream",)


class Pacs:
    """Orthanc as the app describes it to the proxy."""

    def __init__(self, orthanc: Orthanc) -> None:
        self.url, self.auth = orthanc.url, orthanc.auth

    def path(self, service: str) -> str:
        return ""

    def headers(self) -> Mapping[str, str]:
        login = ":".join(self.auth or ()).encode()
        return {"Authorization": "Basic " + base64.b64encode(login).decode()}


@pytest.fixture
def url(orthanc_with_login: Orthanc) -> Iterator[str]:
    files = ("CT_small.dcm", "MR_small.dcm")
    orthanc_with_login.upload(Path(str(get_testdata_file(name))) for name in files)
    app = FastAPI()
    app.include_router(proxy_router(Pacs(orthanc_with_login)))
    with served(app) as here:
        yield here


def test_a_viewer_reads_and_stores_through_the_server(url: str) -> None:
    client = DICOMwebClient(f"{url}/proxy/dicom/wado")
    ct = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    uids = (ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID)
    (found,) = client.search_for_studies(search_filters={"PatientID": "1CT1"})
    assert Dataset.from_json(found).StudyInstanceUID == ct.StudyInstanceUID
    assert len(client.search_for_instances(*uids[:2])) == 1
    assert client.retrieve_instance(*uids).PixelData == ct.PixelData
    assert client.retrieve_instance_frames(*uids, [1], media_types=OCTETS) == [ct.PixelData]
    new = pydicom.dcmread(str(get_testdata_file("rtdose.dcm")))
    new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    reply = DICOMwebClient(f"{url}/proxy/dicom/stow").store_instances([new])
    assert reply.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == new.SOPInstanceUID
    assert client.retrieve_instance(new.StudyInstanceUID, new.SeriesInstanceUID, new.SOPInstanceUID) == new


def test_its_addresses_lead_through_the_server(url: str) -> None:
    client = DICOMwebClient(f"{url}/proxy/dicom/wado")
    ct = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    uids = (ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID)
    (found,) = client.search_for_studies(search_filters={"PatientID": "1CT1"})
    assert found["00081190"]["Value"] == [f"/proxy/dicom/wado/studies/{ct.StudyInstanceUID}"]
    addresses = [
        e["BulkDataURI"] for e in client.retrieve_instance_metadata(*uids).values() if "BulkDataURI" in e
    ]
    assert addresses
    assert all(address.startswith("/proxy/dicom/wado/studies/") for address in addresses)
    place = next(address for address in addresses if "00431029" in address)
    assert client.retrieve_bulkdata(url + place, media_types=OCTETS) == [ct[0x0043, 0x1029].value]
