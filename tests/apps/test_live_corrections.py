"""Corrections and label uploads on a real server, with MONAI Label's own client and datastore."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from live_server import AFFINE, Server

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore:.*cgi.*:DeprecationWarning")]
SHAPE = (32, 28, 9)
SECRET = "Xylophone"


def ask(server: Server, image: str, question: str, client_id: str) -> dict:
    reply = server.infer(f"medsegr?image={image}&output=json", {"question": question, "client_id": client_id})
    assert reply.status_code == 200, reply.text
    return reply.json()


def correct(server: Server, body: dict, **masks: bytes) -> requests.Response:
    parts = [(name, (f"{name}.nrrd", data)) for name, data in masks.items()]
    return server.post("/medsegr/corrections", files=[("correction", (None, json.dumps(body))), *parts])


def stored(server: Server, correction_id: str, k: int, folder: Path) -> np.ndarray:
    path = folder / f"{correction_id}_{k}.nrrd"
    path.write_bytes(server.get(f"/medsegr/corrections/{correction_id}/masks/{k}").content)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T > 0


def test_a_viewers_correction_goes_there_and_back(server: Server, tmp_path: Path) -> None:
    turn = ask(server, "vol", "the liver", "ohif")
    head = server.get(f"/medsegr/turns/{turn['turn_id']}/masks/0").content.split(b"\n\n", 1)[0]
    mask = np.random.default_rng(1).random(SHAPE) > 0.7
    sent = head + b"\n\n" + gzip.compress(mask.astype(np.uint8).tobytes(order="F"))
    findings = [{"n": None, "label": f"{SECRET} 1", "mask": "m1"}]
    body = {"turn_id": turn["turn_id"], "verdict": "edited", "answer": SECRET, "findings": findings}
    reply = correct(server, body, m1=sent)
    assert reply.status_code == 201, reply.text
    made = reply.json()
    assert made["findings"][0] == {
        "n": None,
        "label": f"{SECRET} 1",
        "present": True,
        "voxels": int(mask.sum()),
    }
    assert np.array_equal(stored(server, made["id"], 1, tmp_path), mask)
    listed = server.get(f"/medsegr/corrections?turn={turn['turn_id']}").json()
    assert [c["id"] for c in listed] == [made["id"]] and SECRET not in server.logs()


def test_a_bad_correction_is_a_sentence_and_leaves_nothing(server: Server) -> None:
    turn = ask(server, "vol", "the liver", "ohif")
    before = set(server.temporary.iterdir())
    body = {"turn_id": turn["turn_id"], "verdict": "edited", "findings": [{"label": "x", "mask": "m1"}]}
    for reply, status in (
        (correct(server, body, m1=b"NRRD0004\ndata file: /etc/passwd\n\n"), 422),
        (correct(server, body, m1=b""), 422),
        (correct(server, {**body, "turn_id": "0" * 32}, m1=b"x"), 404),
        (correct(server, {"turn_id": turn["turn_id"], "verdict": "rejected"}), 422),
    ):
        assert reply.status_code == status and reply.json()["detail"].endswith(".")
    assert server.get(f"/medsegr/corrections?turn={turn['turn_id']}").json() == []
    assert set(server.temporary.iterdir()) == before


def test_two_browsers_correct_at_once(server: Server, tmp_path: Path) -> None:
    turn = ask(server, "vol", "the spleen", "two")
    head = server.get(f"/medsegr/turns/{turn['turn_id']}/masks/0").content.split(b"\n\n", 1)[0]

    def one(n: int) -> tuple[int, str]:
        mask = np.zeros(SHAPE, np.uint8)
        mask.flat[:n] = 1
        sent = head + b"\n\n" + gzip.compress(mask.tobytes(order="F"))
        findings = [{"n": None, "label": f"user {n}", "mask": "m1"}]
        return n, correct(
            server, {"turn_id": turn["turn_id"], "verdict": "edited", "findings": findings}, m1=sent
        ).json()["id"]

    with ThreadPoolExecutor(4) as pool:
        for n, id_ in pool.map(one, range(1, 9)):
            assert stored(server, id_, 1, tmp_path).sum() == n
            assert server.get(f"/medsegr/corrections/{id_}").json()["findings"][0]["label"] == f"user {n}"


def test_monai_labels_client_saves_a_label_as_slicer_does(server: Server, tmp_path: Path) -> None:
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="slicer-7")
    file, params = client.infer(
        "medsegr", "vol", {"question": "liver and spleen", "result_extension": ".nrrd"}
    )
    labels = sitk.ReadImage(file)
    values = sitk.GetArrayFromImage(labels).T.copy()
    values[0, 0, :] = 3
    edited = sitk.GetImageFromArray(values.T)
    edited.CopyInformation(labels)
    sitk.WriteImage(edited, str(tmp_path / "edited.nrrd"), useCompression=True)
    names = [{"name": name, "idx": n} for name, n in params["label_names"].items()]
    info = [*names, {"name": "new one", "idx": 3}, {"name": "left out", "idx": 4}]
    reply = client.save_label("vol", str(tmp_path / "edited.nrrd"), params={"label_info": info})
    assert reply == {"image": "vol", "label": "vol"}
    kept = server.folder / "studies" / "labels" / "final" / "vol.nrrd"
    assert kept.read_bytes() == (tmp_path / "edited.nrrd").read_bytes()
    known = client.datastore()["objects"]["vol"]["labels"]["final"]["info"]
    assert known["label_info"] == info and known["client_id"] == "slicer-7"
    correction = server.get(f"/medsegr/corrections?turn={params['turn_id']}").json()[-1]
    assert (correction["origin"], correction["verdict"], correction["client_id"]) == (
        "datastore",
        "edited",
        "slicer-7",
    )
    assert [f["label"] for f in correction["findings"]] == [entry["name"] for entry in info]
    assert [f["n"] for f in correction["findings"]][-2:] == [None, None]
    assert not correction["findings"][-1]["present"]
    for k, entry in enumerate(info, start=1):
        assert np.array_equal(stored(server, correction["id"], k, tmp_path), values == entry["idx"])


def test_monai_labels_client_hears_why_a_label_is_refused(server: Server, tmp_path: Path) -> None:
    from monailabel.client import MONAILabelClient
    from monailabel.client.client import MONAILabelClientException

    client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="slicer-8")
    before = {p: p.read_bytes() for p in (server.folder / "studies").rglob("*") if p.is_file()}
    count = len(server.get("/medsegr/corrections?limit=1000").json())
    good, path = np.ones(SHAPE, np.uint8), tmp_path / "label.nii.gz"
    info = {"label_info": [{"name": "liver", "idx": 1}]}
    nib.save(nib.Nifti1Image(good, AFFINE), path)
    whole = path.read_bytes()
    for content, image, tag, params, words in (
        (whole, "nowhere", "", info, "no image of this id"),
        (whole[:-40], "vol", "", info, "cannot be decoded"),
        (whole, "big", "", info, "another grid"),
        (whole, "vol", "../../outside", info, "`tag`"),
        (whole, "vol", "", {"label_info": []}, "does not name"),
    ):
        path.write_bytes(content)
        with pytest.raises(MONAILabelClientException) as caught:
            client.save_label(image, str(path), tag, dict(params))
        assert words in str(caught.value.msg)
    assert {p: p.read_bytes() for p in (server.folder / "studies").rglob("*") if p.is_file()} == before
    assert len(server.get("/medsegr/corrections?limit=1000").json()) == count


def test_the_server_stays_quick_while_a_large_label_is_saved(server: Server, tmp_path: Path) -> None:
    """`big` has half a million voxels and forty labels: seconds of work, none of it on the event loop."""
    values = (np.arange(96 * 96 * 60) % 41).astype(np.uint8).reshape(96, 96, 60)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "big.nii")
    info = {"label_info": [{"name": f"part {n}", "idx": n} for n in range(1, 41)], "client_id": "large"}
    files = {"params": (None, json.dumps(info)), "label": ("big.nii", (tmp_path / "big.nii").read_bytes())}
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(requests.put, f"{server.url}/datastore/label?image=big", files=files, timeout=60)
        waits = []
        while not saving.done():
            waits.append(server.get("/medsegr/healthz").elapsed.total_seconds())
    assert saving.result().status_code == 200 and max(waits, default=0.0) < 1.0
