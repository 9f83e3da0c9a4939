"""The app serves its folder of studies as DICOMweb, in front of MONAI Label's own proxy."""

from __future__ import annotations

import pydicom
from dicomweb_client import DICOMwebClient
from live_server import Server
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid


def test_a_folder_is_a_pacs_to_viewers(server: Server) -> None:
    client = DICOMwebClient(f"{server.url}/proxy/dicom/wado")
    ct = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    (study,) = client.search_for_studies(search_filters={"PatientID": "1CT1"})
    assert study["0020000D"]["Value"] == [ct.StudyInstanceUID]
    assert client.retrieve_instance_frames(
        ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID, [1]
    ) == [ct.PixelData]
    assert ct.StudyInstanceUID not in server.logs()


def test_uploads_go_to_the_servers_state_and_not_among_the_studies(server: Server) -> None:
    before = set((server.folder / "studies").rglob("*.dcm"))
    seg = pydicom.dcmread(str(get_testdata_file("liver_1frame.dcm")))
    seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    client = DICOMwebClient(f"{server.url}/proxy/dicom/stow")
    client.store_instances([seg])
    assert client.retrieve_instance(seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPInstanceUID) == seg
    assert set((server.folder / "studies").rglob("*.dcm")) == before
    assert list((server.folder / "state" / "dicom").rglob(f"{seg.SOPInstanceUID}.dcm"))


def test_the_stock_proxy_is_out_of_reach(server: Server) -> None:
    for path in (
        "/proxy/dicom/studies",
        "/proxy/dicom/wado/system",
        "/proxy/dicom/qido/%2e%2e/etc",
        "/proxy/x",
    ):
        for ask in (server.get, server.post):
            reply = ask(path)
            assert reply.status_code in {400, 404}, path
            assert reply.json()["detail"].endswith(".")
