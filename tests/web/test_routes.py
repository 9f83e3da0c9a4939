"""The routes over the fake predictor, without MONAI Label around them."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from medsegr.rounds.store import NewTurn, TurnStore
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile
from medsegr.web.infer import infer_router
from medsegr.web.routes import ask_router
from medsegr.web.service import Service
from medsegr.web.worker import ModelWorker

MODELS = {"medsegr": False, "medsegr_2d": True}


@pytest.fixture
def saved() -> list[tuple[str, str, dict[str, Any]]]:
    """What was saved as a label."""
    return []


@pytest.fixture
def client(
    service: Service, studies: Path, saved: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """An application with both routers; its temporary files must be gone after every test."""
    files = {"pic": studies / "pic.png", "vol": studies / "vol.nii.gz"}

    def find(image: str, session: str) -> ImageFile:
        if image not in files:
            raise Refusal(404, "There is no such image.")
        return ImageFile(image, files[image])

    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    app = FastAPI()
    app.include_router(ask_router(service, find, MODELS))
    app.include_router(infer_router(service, find, MODELS, lambda i, p, t, info: saved.append((i, t, info))))
    with TestClient(app) as made:
        yield made
    assert list(temporary.iterdir()) == []


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def parts(reply: Any) -> dict[str, bytes]:
    head = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + reply.content)
    return {
        p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
        for p in message.get_payload()
    }


def read_map(content: bytes, suffix: str, folder: Path) -> np.ndarray:
    path = folder / f"map{suffix}"
    path.write_bytes(content)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_ask_tells_what_happens_and_stores_the_turn(client: TestClient, tmp_path: Path) -> None:
    reply = client.post("/medsegr/ask", json={"image": "vol", "question": "liver and spleen"})
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    heard = events(reply.text)
    kinds = [kind for kind, _ in heard]
    assert kinds[0] == "queued" and kinds[-1] == "done" and "started" in kinds and "text" in kinds
    assert [data["n"] for kind, data in heard if kind == "finding"] == [1, 2]
    done = heard[-1][1]
    assert set(done) == {
        "turn_id", "answer", "findings", "label_names", "model_version", "weights_licence", "latencies",
        "outcome", "image", "stack",
    }  # fmt: skip
    assert done["label_names"] == {"liver": 1, "spleen": 2} and done["model_version"] == "fake-1"
    turn = client.get(f"/medsegr/turns/{done['turn_id']}").json()
    assert (turn["status"], turn["answer"], turn["image_id"]) == ("done", done["answer"], "vol")
    assert [t["id"] for t in client.get("/medsegr/turns", params={"image": "vol"}).json()] == [
        done["turn_id"]
    ]
    assert client.get("/medsegr/turns", params={"image": "pic"}).json() == []
    for n, size in ((1, 3), (2, 5)):
        url = f"/medsegr/turns/{done['turn_id']}/masks/{n}"
        mask = read_map(client.get(url).content, ".nrrd", tmp_path)
        assert mask.shape == (7, 18, 16) and mask.sum() == size**3 and mask[:size, :size, :size].all()
        (tmp_path / "m.nii.gz").write_bytes(client.get(url, params={"format": "nifti"}).content)
        nifti = nib.load(tmp_path / "m.nii.gz")
        assert np.asarray(nifti.dataobj).sum() == size**3 and np.allclose(
            nifti.affine, np.diag([-0.5, -0.5, 3, 1])
        )


def test_masks_and_turns_that_do_not_exist_are_404(client: TestClient) -> None:
    done = events(client.post("/medsegr/ask", json={"image": "pic", "question": "nothing"}).text)[-1][1]
    assert done["findings"] == []
    for url in (
        f"/medsegr/turns/{done['turn_id']}/masks/1",
        f"/medsegr/turns/{'0' * 32}",
        "/medsegr/turns/x",
    ):
        reply = client.get(url)
        assert reply.status_code == 404 and reply.json()["detail"].endswith(".")
    assert client.get(f"/medsegr/turns/{done['turn_id']}/masks/1?format=exe").status_code == 422
    assert client.get(f"/medsegr/turns/{done['turn_id']}/masks/one").status_code == 422
    assert client.get("/medsegr/turns?limit=0").status_code == 422
    assert client.delete(f"/medsegr/turns/{done['turn_id']}").status_code == 409
    assert client.delete(f"/medsegr/turns/{'0' * 32}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ("{}", 404),
        ('{"image": "elsewhere"}', 404),
        ('{"image": "pic", "model": "other"}', 404),
        ('{"image": "pic", "question": 3}', 422),
        (json.dumps({"image": "pic", "question": "q" * 2001}), 413),
        (json.dumps({"image": "pic", "question": "q" * 2_000_000}), 413),
        ('{"image": "\\ud800"}', 422),
    ],
)
def test_bad_questions_are_refused_before_anything_starts(client: TestClient, body: str, status: int) -> None:
    reply = client.post("/medsegr/ask", content=body)
    assert reply.status_code == status and reply.json()["detail"].endswith(".")
    assert client.get("/medsegr/turns").json() == []


def test_what_fails_later_is_an_event(client: TestClient) -> None:
    kind, data = events(client.post("/medsegr/ask", json={"image": "pic", "question": "refuse"}).text)[-1]
    assert (kind, data["status"], data["detail"]) == ("error", 422, "The question cannot be answered.")
    turn = client.get(f"/medsegr/turns/{data['turn_id']}").json()
    assert (turn["status"], turn["error"]) == ("failed", "The question cannot be answered.")


def test_health(make_worker: Callable[..., ModelWorker], tmp_path: Path) -> None:
    def state(service: Service, wanted: int) -> dict[str, Any]:
        app = FastAPI()
        app.include_router(ask_router(service, lambda image, session: ImageFile(image, tmp_path), MODELS))
        with TestClient(app) as client:
            assert client.get("/medsegr/healthz").json() == {"status": "alive"}
            end = time.monotonic() + 20
            while client.get("/medsegr/readyz").status_code != wanted and time.monotonic() < end:
                time.sleep(0.05)
            return client.get("/medsegr/readyz").json()

    service = Service(make_worker(), TurnStore(tmp_path / "a"), ("liver",))
    assert state(service, 503)["state"] == "stopped"
    service.worker.start()
    assert state(service, 200) == {"ready": True, "model_version": "fake-1", "weights_licence": "CC0"}
    service.close()
    broken = Service(make_worker("broken"), TurnStore(tmp_path / "b"), ("liver",))
    broken.worker.start()
    while broken.worker.state != "failed":
        time.sleep(0.05)
    assert state(broken, 503) == {
        "ready": False,
        "state": "failed",
        "detail": "The checkpoint is broken on purpose.",
    }


def infer(client: TestClient, query: str, params: Any = None, **more: Any) -> Any:
    data = {"params": params if isinstance(params, str) else json.dumps(params or {})}
    return client.post(f"/infer/{query}", data=data, **more)


def test_infer_gives_params_and_a_map_in_the_order_of_findings(client: TestClient, tmp_path: Path) -> None:
    reply = infer(
        client, "medsegr?image=pic", {"question": "spleen and gallbladder", "result_extension": ".nrrd"}
    )
    found = parts(reply)
    params = json.loads(found["params"])
    assert params["label_names"] == {"gallbladder": 1, "spleen": 2}
    labels = read_map(found["image"], ".nrrd", tmp_path)
    assert labels.shape == (20, 30)
    assert (labels[:4, :4] == 1).all() and (labels == 2).sum() == 25 - 16  # the smaller one lies on top


def test_infer_for_ohif_is_the_file_alone_with_the_ids_of_info(client: TestClient, tmp_path: Path) -> None:
    params = {
        "question": "spleen",
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
        "result_compress": False,
    }
    reply = infer(client, "medsegr?image=vol&output=image", params)
    labels = read_map(reply.content, ".nrrd", tmp_path)
    assert labels.shape == (7, 18, 16) and set(np.unique(labels)) == {0, 3}


def test_infer_without_findings_is_an_empty_map(client: TestClient, tmp_path: Path) -> None:
    found = parts(infer(client, "medsegr?image=vol", {"question": "nothing"}))
    assert not read_map(found["image"], ".nii.gz", tmp_path).any()
    assert json.loads(found["params"])["label_names"] == {}


def test_infer_about_one_slice(client: TestClient) -> None:
    reply = infer(client, "medsegr_2d?image=vol&output=json", {"question": "kidney", "slices": "2"}).json()
    assert reply["findings"][0]["slices"] == [2, 2]


def test_infer_takes_an_upload(client: TestClient, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((9, 11), np.uint8)).save(buffer, "PNG")
    found = parts(
        infer(client, "medsegr", {"question": "liver"}, files={"file": ("../../x.png", buffer.getvalue())})
    )
    assert read_map(found["image"], ".png", tmp_path).shape == (9, 11)
    assert client.get("/medsegr/turns").json()[0]["image_id"].startswith("upload-")


def test_infer_can_save_its_map(client: TestClient, saved: list) -> None:
    infer(
        client,
        "medsegr?image=pic&output=json",
        {"question": "liver", "save_label": True, "label_tag": "auto"},
    )
    ((image, tag, info),) = saved
    assert (image, tag) == ("pic", "auto") and info["params"]["label_names"] == {"liver": 1}
    assert not {"answer", "findings", "question"} & set(
        info["params"]
    )  # labels are everybody's, answers are not


@pytest.mark.parametrize(
    ("query", "params", "files", "status"),
    [
        ("other?image=pic", {}, None, 404),
        ("medsegr?image=/etc/passwd", {}, None, 404),
        ("medsegr?image=pic", "{", None, 400),
        ("medsegr?image=pic", "[1]", None, 400),
        ("medsegr?image=pic", {"question": "q" * 100_000}, None, 413),
        ("medsegr?image=pic&output=dicom_seg", {}, None, 422),
        ("medsegr?image=vol", {"result_extension": ".png"}, None, 422),
        ("medsegr?image=pic", {"question": "crash"}, None, 500),
        ("medsegr", {}, {"file": ("a.png", b"")}, 422),
        ("medsegr", {}, {"file": ("a.png", b"\x89PNG\r\n\x1a\n" + b"0" * 30)}, 422),
        ("medsegr", {}, {"file": ("a.nii.gz", b"")}, 422),
        ("medsegr", {}, {"file": ("a.nii", b"0" * 100)}, 422),
        ("medsegr", {}, {"file": ("a.exe", b"MZ")}, 422),
        ("wsi/medsegr?image=pic", {}, None, 404),
        ("wsi_v2/medsegr?image=pic", {}, None, 404),
    ],
)
def test_bad_requests_to_infer_are_one_sentence(
    client: TestClient, query: str, params: Any, files: Any, status: int
) -> None:
    reply = infer(client, query, params, files=files)
    assert reply.status_code == status
    assert set(reply.json()) == {"detail"} and reply.json()["detail"].endswith(".")
    assert infer(client, "medsegr?image=pic&output=json", {"question": "liver"}).status_code == 200


def test_a_defect_is_a_sentence_and_its_message_reaches_no_log(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(new: NewTurn) -> str:
        raise OSError(f"no room for {new.question}")

    monkeypatch.setattr(service.store, "add", full)
    for reply in (
        client.post("/medsegr/ask", json={"image": "pic", "question": "Xylophone"}),
        infer(client, "medsegr?image=pic", {"question": "Xylophone"}),
    ):
        assert reply.status_code == 500 and reply.json()["detail"].endswith(".")
        assert "OSError" in reply.json()["detail"] and "Xylophone" not in reply.text
    assert "test_routes.py" in caplog.text and "Xylophone" not in caplog.text
