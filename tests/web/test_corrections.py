"""`/medsegr/corrections`: what is taken, what is refused, and that a refusal leaves nothing."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from correction_forms import AFFINE, PICTURE, VOLUME, block, files_under, finished, form, nrrd
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from medsegr.rounds.corrections import CorrectionStore
from medsegr.rounds.store import NewTurn, TurnStatus, TurnStore
from medsegr.web.corrections import corrections_router
from medsegr.web.forms import FormLimits
from medsegr.web.login.identity import SCOPE_KEY, User
from medsegr.web.routes import ask_router
from medsegr.web.service import Service

TWO = {"liver": block(VOLUME, 3), "spleen": block(VOLUME, 5)}


class Known:
    """In front of the routes as a login is: the header `x-user` names the user."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope.get("headers", [])).get(b"x-user", b"").decode()
        more = {SCOPE_KEY: User(name, admin=name == "chief")} if name else {}
        await self.app({**scope, **more}, receive, send)


@pytest.fixture
def store(service: Service) -> TurnStore:
    return service.store


@pytest.fixture
def client(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The routes of turns and corrections; their temporary files must be gone after every test."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    app = FastAPI()
    app.include_router(ask_router(service, lambda image, session: None, {"medsegr": False}))
    limits = FormLimits(file_bytes=100_000, total_bytes=150_000, files=4)
    app.include_router(
        corrections_router(service.store, CorrectionStore(service.store.database), limits=limits)
    )
    with TestClient(Known(app)) as made:
        yield made
    assert list(temporary.iterdir()) == []


def header(client: TestClient, turn_id: str) -> bytes:
    """The header text of the empty mask on the image's grid."""
    reply = client.get(f"/medsegr/turns/{turn_id}/masks/0")
    assert reply.status_code == 200
    return reply.content.split(b"\n\n", 1)[0]


def send(client: TestClient, correction: Any, user: str = "", **masks: bytes) -> Any:
    headers = {"x-user": user} if user else {}
    return client.post("/medsegr/corrections", files=form(correction, **masks), headers=headers)


def stored_mask(client: TestClient, correction_id: str, k: int, folder: Path) -> np.ndarray:
    """Mask k as ITK reads it: [X, Y, Z], or [H, W] of a picture."""
    path = folder / "read.nrrd"
    path.write_bytes(client.get(f"/medsegr/corrections/{correction_id}/masks/{k}").content)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
    return values.T if values.ndim == 3 else values


def refused(client: TestClient, reply: Any, status: int, words: str = "") -> None:
    """The reply is one sentence, and nothing was stored."""
    assert reply.status_code == status, reply.text
    detail = reply.json()["detail"]
    assert words in detail and detail.endswith(".") and "\n" not in detail
    assert client.get("/medsegr/corrections").json() == []


def test_an_edit_is_stored_voxel_by_voxel(client: TestClient, store: TurnStore, tmp_path: Path) -> None:
    turn = finished(store, TWO)
    grid = header(client, turn)
    rng = np.random.default_rng(3)
    edited, new = rng.random(VOLUME.shape) > 0.5, rng.random(VOLUME.shape) > 0.9
    body = {
        "turn_id": turn,
        "verdict": "edited",
        "reason": "Too small.",
        "answer": "The liver is larger.",
        "client_id": "ohif-1",
        "findings": [
            {"n": 2, "label": "spleen", "mask": "m1"},
            {"n": None, "label": "Zyste, 3. Segment (neu)", "mask": "m2"},
            {"n": 1, "label": "left liver", "mask": None},
        ],
    }
    reply = send(client, body, m1=nrrd(edited, grid), m2=nrrd(new, grid, packed=False))
    assert reply.status_code == 201, reply.text
    made = reply.json()
    assert (made["turn_id"], made["verdict"], made["image_id"]) == (turn, "edited", "vol")
    assert made["findings"] == [
        {"n": 2, "label": "spleen", "present": True, "voxels": int(edited.sum())},
        {"n": None, "label": "Zyste, 3. Segment (neu)", "present": True, "voxels": int(new.sum())},
        {"n": 1, "label": "left liver", "present": True, "voxels": 27},
    ]
    assert (made["editor"], made["client_id"], made["origin"]) == ("anonymous", "ohif-1", "panel")
    assert (made["reason"], made["answer"], made["model_version"]) == (
        "Too small.",
        "The liver is larger.",
        "v7",
    )
    for k, wanted in enumerate((edited, new, TWO["liver"]), start=1):
        assert np.array_equal(stored_mask(client, made["id"], k, tmp_path), wanted)
    assert client.get(f"/medsegr/corrections/{made['id']}").json() == made
    assert client.get("/medsegr/corrections", params={"image": "vol", "turn": turn}).json() == [made]
    assert client.get("/medsegr/corrections", params={"image": "pic"}).json() == []
    nifti = client.get(f"/medsegr/corrections/{made['id']}/masks/1", params={"format": "nifti"}).content
    image = nib.Nifti1Image.from_bytes(gzip.decompress(nifti))
    assert np.array_equal(np.asarray(image.dataobj) > 0, edited) and np.allclose(image.affine, AFFINE)


def test_a_finding_that_is_not_mentioned_stays_and_an_empty_mask_is_not_present(
    client: TestClient, store: TurnStore, tmp_path: Path
) -> None:
    turn = finished(store, TWO)
    empty = nrrd(np.zeros(VOLUME.shape, bool), header(client, turn))
    body = {"turn_id": turn, "verdict": "edited", "findings": [{"n": 2, "label": "spleen", "mask": "m1"}]}
    made = send(client, body, m1=empty).json()
    assert made["findings"] == [
        {"n": 2, "label": "spleen", "present": False, "voxels": 0},
        {"n": 1, "label": "liver", "present": True, "voxels": 27},
    ]
    assert np.array_equal(stored_mask(client, made["id"], 2, tmp_path), TWO["liver"])


def test_accepting_keeps_every_finding(client: TestClient, store: TurnStore, tmp_path: Path) -> None:
    turn = finished(store, TWO)
    own = [{"n": n, "label": label, "mask": None} for n, label in enumerate(TWO, start=1)]
    for findings in ([], own):
        body = {"turn_id": turn, "verdict": "accepted", "answer": "Found it.", "findings": findings}
        made = send(client, body).json()
        assert [(f["n"], f["label"], f["voxels"]) for f in made["findings"]] == [
            (1, "liver", 27),
            (2, "spleen", 125),
        ]
        assert made["answer"] is None and made["reason"] is None
        assert np.array_equal(stored_mask(client, made["id"], 2, tmp_path), TWO["spleen"])


def test_rejecting_needs_a_reason_and_no_masks(client: TestClient, store: TurnStore) -> None:
    turn = finished(store, TWO)
    body = {"turn_id": turn, "verdict": "rejected", "findings": [{"n": 1, "label": "liver", "mask": None}]}
    refused(client, send(client, body), 422, "reason")
    refused(client, send(client, {**body, "reason": "  "}), 422, "reason")
    made = send(client, {**body, "reason": "Wrong organ."}).json()
    assert (made["verdict"], made["reason"], made["findings"]) == ("rejected", "Wrong organ.", [])


def test_what_was_not_found_can_be_drawn(client: TestClient, store: TurnStore, tmp_path: Path) -> None:
    turn = finished(store, {}, PICTURE, "pic")
    mask = np.zeros(PICTURE.shape, bool)
    mask[2, 3:20] = True
    body = {"turn_id": turn, "verdict": "edited", "findings": [{"label": "tooth", "mask": "m1"}]}
    made = send(client, body, m1=nrrd(mask, header(client, turn))).json()
    assert made["findings"] == [{"n": None, "label": "tooth", "present": True, "voxels": 17}]
    assert np.array_equal(stored_mask(client, made["id"], 1, tmp_path), mask)
    assert send(client, {"turn_id": turn, "verdict": "accepted"}).json()["findings"] == []


def test_a_reversed_nifti_of_the_same_volume_is_put_right(
    client: TestClient, store: TurnStore, tmp_path: Path
) -> None:
    turn = finished(store, TWO)
    mask = np.random.default_rng(5).random(VOLUME.shape) > 0.5
    image = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.float32), AFFINE))
    assert not np.allclose(image.affine, AFFINE)
    body = {"turn_id": turn, "verdict": "edited", "findings": [{"n": 1, "label": "liver", "mask": "m1"}]}
    made = send(client, body, m1=gzip.compress(image.to_bytes())).json()
    assert np.array_equal(stored_mask(client, made["id"], 1, tmp_path), mask)


def one(**more: Any) -> dict[str, Any]:
    """A correction of finding 1 with the mask m1; TURN stands for a turn's id."""
    finding = {"n": 1, "label": "liver", "mask": "m1"}
    return {"turn_id": "TURN", "verdict": "edited", "findings": [finding], **more}


GOOD, SECOND = {"n": 1, "label": "liver", "mask": "m1"}, {"n": 2, "label": "spleen", "mask": None}
RULES: dict[str, tuple[Any, tuple[str, ...], int, str]] = {
    "not JSON": ("{", (), 400, "JSON"),
    "a list": ("[]", (), 400, "object"),
    "no turn": ({"verdict": "accepted"}, (), 422, "turn_id"),
    "another verdict": (one(verdict="maybe"), ("m1",), 422, "verdict"),
    "unknown turn": (one(turn_id="0" * 32), ("m1",), 404, "No turn"),
    "unknown field": (one(masks=[]), ("m1",), 422, "masks"),
    "nothing edited": (one(findings=[SECOND]), (), 422, "Nothing was edited"),
    "the same text": (one(findings=[], answer="Found it."), (), 422, "Nothing was edited"),
    "accepted with a mask": (one(verdict="accepted"), ("m1",), 422, "accepted"),
    "accepted with a name": (one(verdict="accepted", findings=[{"n": 1, "label": "x"}]), (), 422, "accepted"),
    "accepted with a text": (one(verdict="accepted", findings=[], answer="No."), (), 422, "accepted"),
    "accepted with a file": (one(verdict="accepted", findings=[]), ("m1",), 422, "no finding names"),
    "spare part": (one(), ("m1", "m2"), 422, "no finding names"),
    "missing part": (one(), (), 422, "`m1`"),
    "a part for two": (one(findings=[GOOD, {**SECOND, "mask": "m1"}]), ("m1",), 422, "same part"),
    "n twice": (one(findings=[GOOD, {**GOOD, "mask": None}]), ("m1",), 422, "twice"),
    "n too large": (one(findings=[{**GOOD, "n": 3}]), ("m1",), 422, "2 findings"),
    "n zero": (one(findings=[{**GOOD, "n": 0}]), ("m1",), 422, "n"),
    "n a word": (one(findings=[{**GOOD, "n": "1"}]), ("m1",), 422, "n"),
    "new without mask": (one(findings=[GOOD, {"n": None, "label": "new"}]), ("m1",), 422, "no mask"),
    "no label": (one(findings=[{**GOOD, "label": "  "}]), ("m1",), 422, "1 to 64"),
    "long label": (one(findings=[{**GOOD, "label": "x" * 65}]), ("m1",), 422, "1 to 64"),
    "label with a line break": (one(findings=[{**GOOD, "label": "a\nb"}]), ("m1",), 422, "printable"),
    "label with markup": (one(findings=[{**GOOD, "label": "mass [SEG]"}]), ("m1",), 422, "`[SEG]`"),
    "half a character": (json.dumps(one(reason="\ud800")), ("m1",), 422, "surrogate"),
    "endless reason": (one(reason="x" * 2001), ("m1",), 422, "reason"),
    "endless answer": (one(answer="x" * 8001), ("m1",), 422, "answer"),
    "a part that is a path": (one(findings=[{**GOOD, "mask": "../m1"}]), (), 422, "mask"),
    "65 findings": (one(findings=[{"label": "x", "mask": "m1"}] * 65), ("m1",), 422, "findings"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "parts", "status", "words"), RULES.values(), ids=RULES.keys())
def test_corrections_that_break_a_rule_leave_nothing(
    client: TestClient, store: TurnStore, body: Any, parts: tuple[str, ...], status: int, words: str
) -> None:
    turn = finished(store, TWO)
    mask = nrrd(TWO["spleen"], header(client, turn))
    text = (body if isinstance(body, str) else json.dumps(body)).replace("TURN", turn)
    reply = send(client, text, **dict.fromkeys(parts, mask))
    refused(client, reply, status, words)
    assert files_under(store.folder / "corrections") == []


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m1.nrrd", content)
    return buffer.getvalue()


def test_masks_that_are_damaged_hostile_or_elsewhere_leave_nothing(
    client: TestClient, store: TurnStore
) -> None:
    turn = finished(store, TWO)
    grid = header(client, turn)
    good, raw = nrrd(TWO["spleen"], grid), nrrd(TWO["spleen"], grid, packed=False)
    moved = grid.replace(b"space origin: (0,0,0)", b"space origin: (0,0,1.5)")
    assert moved != grid
    half = nib.Nifti1Image(np.full(VOLUME.shape, 0.5, np.float32), AFFINE).to_bytes()
    bomb = grid + b"\n\n" + gzip.compress(bytes(2**26))
    cases = {
        "truncated": (good[:-9], "cannot be decoded"),
        "truncated raw": (raw[:-1], "cannot be decoded"),
        "detached": (raw.replace(b"\n\n", b"\ndata file: /etc/passwd\n\n", 1), "another file"),
        "another place": (nrrd(TWO["spleen"], moved), "0, 0, 1.5"),
        "another size": (nrrd(TWO["spleen"], grid.replace(b"16 18 7", b"18 16 7")), "another grid"),
        "fewer slices": (nrrd(TWO["spleen"][..., :6], grid.replace(b"16 18 7", b"16 18 6")), "16 x 18 x 6"),
        "bomb": (bomb, "more data than its header says"),
        "zip": (zipped(good), "unsupported kind"),
        "nothing": (b"", "unsupported kind"),
        "fractions": (half, "whole numbers"),
        "a picture": (b"\xff\xd8\xff\xe0" + bytes(100), "unsupported kind"),
    }
    for name, (content, words) in cases.items():
        body = {**one(turn_id=turn), "findings": [{**SECOND, "mask": "m2"}, GOOD]}
        reply = send(client, body, m1=content, m2=good)
        refused(client, reply, 422, words)
        assert "`m1`" in reply.json()["detail"], name
    assert files_under(store.folder / "corrections") == []


def test_turns_without_an_answer_cannot_be_corrected(client: TestClient, store: TurnStore) -> None:
    turn = store.add(NewTurn("vol", "?"))
    refused(client, send(client, {"turn_id": turn, "verdict": "accepted"}), 409, "queued")
    store.close(turn, TurnStatus.CANCELLED, "Cancelled.")
    refused(client, send(client, {"turn_id": turn, "verdict": "accepted"}), 409, "cancelled")


def test_users_correct_and_see_what_is_theirs(client: TestClient, store: TurnStore) -> None:
    anns, bobs = finished(store, TWO, editor="ann"), finished(store, TWO, editor="bob")
    reply = send(client, {"turn_id": bobs, "verdict": "accepted"}, user="ann")
    refused(client, reply, 403)
    missing = send(client, {"turn_id": "0" * 32, "verdict": "accepted"}, user="ann")
    assert (missing.status_code, missing.text) == (403, reply.text)  # nothing is revealed
    own = send(client, {"turn_id": anns, "verdict": "accepted"}, user="ann").json()
    other = send(client, {"turn_id": bobs, "verdict": "accepted"}, user="bob").json()
    assert (own["editor"], other["editor"]) == ("ann", "bob")
    chiefs = send(client, {"turn_id": bobs, "verdict": "accepted"}, user="chief").json()
    assert chiefs["editor"] == "chief"

    def seen(path: str, user: str) -> Any:
        return client.get(f"/medsegr/corrections{path}", headers={"x-user": user})

    assert [c["id"] for c in seen("", "ann").json()] == [own["id"]]
    assert [c["id"] for c in seen(f"?turn={bobs}", "ann").json()] == []
    assert {c["id"] for c in seen("", "chief").json()} == {own["id"], other["id"], chiefs["id"]}
    for path in (f"/{other['id']}", f"/{other['id']}/masks/1"):
        assert (seen(path, "ann").status_code, seen(path, "bob").status_code, seen(path, "chief").status_code) == (
            403, 200, 200,
        )  # fmt: skip
    assert seen(f"/{'0' * 32}", "ann").json() == seen(f"/{other['id']}", "ann").json()


def test_corrections_that_do_not_exist_are_404(client: TestClient, store: TurnStore) -> None:
    made = send(client, {"turn_id": finished(store, TWO), "verdict": "accepted"}).json()
    for path, status in (
        ("/x", 404), (f"/{'0' * 32}", 404), (f"/{made['id']}/masks/3", 404), (f"/{made['id']}/masks/0", 404),
        (f"/{made['id']}/masks/one", 422), (f"/{made['id']}/masks/1?format=exe", 422), ("?limit=0", 422),
    ):  # fmt: skip
        reply = client.get(f"/medsegr/corrections{path}")
        assert reply.status_code == status and reply.json()["detail"].endswith(".")


def test_what_is_no_form_or_too_large_is_refused_while_it_streams_in(
    client: TestClient, store: TurnStore, tmp_path: Path
) -> None:
    turn = finished(store, TWO)
    refused(client, client.post("/medsegr/corrections", json={"turn_id": turn}), 415, "form")
    refused(client, client.post("/medsegr/corrections", files={"m1": ("m1", b"x")}), 422, "`correction`")
    reply = send(client, one(turn_id=turn), m1=bytes(100_001))
    refused(client, reply, 413, "100000 bytes")
    reply = send(client, one(turn_id=turn), m1=bytes(90_000), m2=bytes(90_000))
    refused(client, reply, 413, "150000 bytes")
    twice = [*form(one(turn_id=turn), m1=b"x"), ("m1", ("m1", b"y"))]
    refused(client, client.post("/medsegr/corrections", files=twice), 422, "same name")
    refused(
        client, send(client, one(turn_id=turn), **{f"m{n}": b"x" for n in range(5)}), 400, "Too many files"
    )
    refused(client, send(client, json.dumps(one(turn_id=turn, reason="x" * 2**20)), m1=b"x"), 413, "")

    sent = 0
    head = b'--b\r\nContent-Disposition: form-data; name="m1"; filename="m1"\r\n\r\n'

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield head
        while sent < 10_000_000:
            sent += 10_000
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}  # no length: it is counted while it comes
    reply = client.post("/medsegr/corrections", content=endless(), headers=headers)
    refused(client, reply, 413)
    for content in (head + b"x", b"--b\r\nnonsense", b"", head.replace(b"name", b"nome") + b"x\r\n--b--\r\n"):
        reply = client.post("/medsegr/corrections", content=content, headers=headers)
        assert reply.status_code in (400, 422) and reply.json()["detail"].endswith(".")
    reply = client.post("/medsegr/corrections", content=b"x", headers={"content-type": "multipart/form-data"})
    refused(client, reply, 400, "boundary")


def test_two_users_at_once_do_not_mix(client: TestClient, store: TurnStore, tmp_path: Path) -> None:
    turns = {user: finished(store, TWO, editor=user) for user in ("ann", "bob")}
    reply = client.get(f"/medsegr/turns/{turns['ann']}/masks/0", headers={"x-user": "ann"})
    grid = reply.content.split(b"\n\n", 1)[0]

    def correct(n: int) -> tuple[str, int, str, int]:
        user, mask = ("ann", "bob")[n % 2], np.zeros(VOLUME.shape, bool)
        mask.flat[: n + 1] = True
        made = send(client, one(turn_id=turns[user]), user=user, m1=nrrd(mask, grid)).json()
        return user, n + 1, made["id"], made["findings"][0]["voxels"]

    with ThreadPoolExecutor(8) as pool:
        for user, count, id_, voxels in pool.map(correct, range(16)):
            stored = CorrectionStore(store.database)
            assert voxels == count and stored.get(id_).editor == user
            assert stored.get(id_).turn_id == turns[user] and stored.mask(id_, 1).mask.sum() == count
