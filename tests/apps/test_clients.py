"""The app through the eyes of its clients: MONAI Label's own, stock OHIF, stock Slicer, and ours."""

from __future__ import annotations

import json
import time
from email.parser import BytesParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
import SimpleITK as sitk
from live_server import AFFINE, Server

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore:.*cgi.*:DeprecationWarning")]
STUDIES = {"pic", "photo", "ct", "vol", "big"}
KEYS = {"turn_id", "answer", "findings", "label_names", "model_version", "weights_licence", "latencies",
        "outcome", "image", "stack"}  # fmt: skip
OHIF = {
    "result_extension": ".nrrd",
    "result_dtype": "uint8",
    "result_compress": False,
    "restore_label_idx": False,
}


def on_grid_of(labels: sitk.Image, image: Path) -> bool:
    """Whether a mask has size, origin, spacing and direction of the image, as ITK (hence Slicer) reads both."""
    grid = sitk.ReadImage(str(image))
    return labels.GetSize() == grid.GetSize() and all(
        np.allclose(a, b, atol=1e-4)
        for a, b in (
            (labels.GetOrigin(), grid.GetOrigin()),
            (labels.GetSpacing(), grid.GetSpacing()),
            (labels.GetDirection(), grid.GetDirection()),
        )
    )


def parts(reply: requests.Response) -> dict[str, bytes]:
    head = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + reply.content)
    return {
        p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
        for p in message.get_payload()
    }


def test_info_suits_stock_clients(server: Server) -> None:
    info = server.info
    assert isinstance(info["labels"], list) and "config" not in info
    assert {name: model["dimension"] for name, model in info["models"].items()} == {
        "medsegr": 3,
        "medsegr_2d": 2,
    }
    for model in info["models"].values():
        assert model["type"] == "segmentation" and next(iter(model["config"])) == "question"
        assert sorted(model["labels"].values()) == list(range(1, len(model["labels"]) + 1))
    assert info["datastore"]["total"] == 5


@pytest.mark.parametrize(
    ("image", "file"), [("pic", "pic.png"), ("photo", "photo.jpeg"), ("vol", "vol.nii.gz")]
)
def test_monai_labels_own_client(server: Server, tmp_path: Path, image: str, file: str) -> None:
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="tester")
    name, params = client.infer("medsegr", image, {"question": "Where are the liver and the spleen?"})
    assert set(params) == KEYS
    labels = sitk.ReadImage(name)
    assert on_grid_of(labels, server.folder / "studies" / file) or file.endswith("jpeg")
    assert labels.GetSize() == sitk.ReadImage(str(server.folder / "studies" / file)).GetSize()
    values = set(np.unique(sitk.GetArrayFromImage(labels)))
    assert values <= {0, *params["label_names"].values()}
    if server.fake:
        assert params["label_names"] == {"liver": 1, "spleen": 2} and values == {0, 1, 2}


def test_a_request_as_stock_ohif_posts_it(server: Server, tmp_path: Path) -> None:
    reply = server.infer("medsegr?image=vol&output=image", {**OHIF, "question": "Show the spleen"})
    assert reply.status_code == 200
    path = tmp_path / "mask.nrrd"
    path.write_bytes(reply.content)
    labels = sitk.ReadImage(str(path))
    assert (
        on_grid_of(labels, server.folder / "studies" / "vol.nii.gz") and labels.GetPixelID() == sitk.sitkUInt8
    )
    values = set(np.unique(sitk.GetArrayFromImage(labels)))
    ids = server.info["models"]["medsegr"]["labels"]
    assert values <= {0, *ids.values()}
    if server.fake:
        assert values == {0, ids["spleen"]}


def test_a_request_as_stock_slicer_posts_it(server: Server, tmp_path: Path) -> None:
    params = {
        "question": "Show the spleen",
        "slices": "all",
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
    }
    found = parts(server.infer("medsegr?image=vol", {**params, "client_id": "user-xyz"}))
    reply = json.loads(found["params"])
    (tmp_path / "mask.nrrd").write_bytes(found["image"])
    labels = sitk.ReadImage(str(tmp_path / "mask.nrrd"))
    assert on_grid_of(labels, server.folder / "studies" / "vol.nii.gz")
    assert set(reply) == KEYS
    assert sorted(reply["label_names"].values()) == list(range(1, len(reply["findings"]) + 1))
    if server.fake:
        assert reply["label_names"] == {"spleen": 1}
        assert set(np.unique(sitk.GetArrayFromImage(labels))) == {0, 1}
    assert server.get(f"/medsegr/turns/{reply['turn_id']}").json()["client_id"] == "user-xyz"


def test_nothing_found_is_an_empty_mask_not_none(server: Server, tmp_path: Path) -> None:
    if not server.fake:
        pytest.skip("what is found depends on the checkpoint")
    reply = server.infer("medsegr?image=vol&output=image", {**OHIF, "question": "nothing"})
    (tmp_path / "mask.nrrd").write_bytes(reply.content)
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "mask.nrrd"))).any()


def test_a_single_dicom_image_is_measured_in_mm(server: Server, tmp_path: Path) -> None:
    found = parts(server.infer("medsegr?image=ct", {"question": "liver", "result_extension": ".nrrd"}))
    (tmp_path / "mask.nrrd").write_bytes(found["image"])
    assert sitk.ReadImage(str(tmp_path / "mask.nrrd")).GetSize()[:2] == (128, 128)
    for finding in json.loads(found["params"])["findings"]:
        assert "area_mm2" in finding
        if server.fake:
            assert finding["area_mm2"] == pytest.approx(9 * 0.661468**2, abs=1e-3)


def test_a_series_can_be_uploaded_as_a_session(server: Server, tmp_path: Path) -> None:
    files = []
    for n in range(4):
        dataset = pydicom.dcmread(server.folder / "studies" / "ct.dcm")
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{n}", n
        dataset.ImagePositionPatient = [0, 0, 5 * n]
        dataset.save_as(tmp_path / f"{n}.dcm")
        files.append(("files", (f"{n}.dcm", (tmp_path / f"{n}.dcm").read_bytes())))
    session = requests.put(f"{server.url}/session/", files=files, timeout=30).json()["session_id"]
    query = f"medsegr?session_id={session}"
    found = parts(server.infer(query, {"question": "liver", "result_extension": ".nrrd"}))
    (tmp_path / "mask.nrrd").write_bytes(found["image"])
    mask = sitk.ReadImage(str(tmp_path / "mask.nrrd"))
    assert mask.GetSize() == (128, 128, 4) and mask.GetSpacing()[2] == pytest.approx(5)


def test_a_session_image_can_be_asked_about(server: Server) -> None:
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server.url, client_id="tester")
    session = client.create_session(str(server.folder / "studies" / "vol.nii.gz"))["session_id"]
    reply = server.infer(f"medsegr?session_id={session}&output=json", {"question": "liver"})
    assert reply.status_code == 200
    turn = server.get(f"/medsegr/turns/{reply.json()['turn_id']}").json()
    assert turn["image_id"] == f"session-{session}"


def test_each_findings_own_mask_is_whole_and_on_the_grid(server: Server, tmp_path: Path) -> None:
    reply = server.infer("medsegr?image=vol&output=json", {"question": "liver and spleen"}).json()
    for finding in reply["findings"]:
        url = f"/medsegr/turns/{reply['turn_id']}/masks/{finding['n']}"
        (tmp_path / "m.nii.gz").write_bytes(server.get(url, params={"format": "nifti"}).content)
        mask = nib.load(tmp_path / "m.nii.gz")
        voxels = int(np.asarray(mask.dataobj).sum())
        assert np.allclose(mask.affine, AFFINE, atol=1e-4)
        volume_ml = voxels * abs(np.linalg.det(AFFINE[:3, :3])) / 1000
        assert finding["volume_ml"] == pytest.approx(volume_ml, abs=1e-3)


def test_the_viewer_and_stock_routes_still_work(server: Server) -> None:
    assert "<html" in server.get("/ohif/").text.lower()
    assert server.get("/ohif/app-config.js").status_code == 200
    assert set(server.get("/datastore/?output=all").json()["objects"]) == STUDIES
    chosen = server.post(
        "/activelearning/random", json={}
    )  # nothing, where other tests have just opened all images
    assert chosen.status_code == 200 and (not chosen.json() or chosen.json()["id"] in STUDIES)
    unknown = server.post("/activelearning/nonsense", json={})
    assert unknown.status_code == 400 and "nonsense" in unknown.json()["detail"]


@pytest.mark.slow
def test_batch_inference_saves_labels_and_logs_no_question(server: Server) -> None:
    params = {"question": "liver Marimba", "save_label": True}
    assert server.post("/batch/infer/medsegr_2d", json=params).status_code == 200
    end = time.monotonic() + 120
    while (status := server.get("/batch/infer").json())["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert status["status"] == "DONE", server.logs()[-3000:]
    assert server.get("/datastore/label/info?label=vol&tag=original").json()["model"] == "medsegr_2d"
    assert "Marimba" not in server.logs()
