"""`PUT /datastore/label`: refused before anything is saved, linked to the last answer, whole or not at all."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from correction_forms import AFFINE, PICTURE, VOLUME, block, files_under, finished, label_form
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydicom.data import get_testdata_file

from medsegr.rounds.corrections import Correction, CorrectionStore
from medsegr.rounds.store import NewTurn, TurnStore
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile
from medsegr.web.label_upload import LabelKeeper, label_router, read_grids
from medsegr.web.masks import Geometry

LABELS = np.random.default_rng(7).integers(0, 4, VOLUME.shape).astype(np.uint8)
NAMES = [
    {"name": "liver", "idx": 1},
    {"name": "Spleen", "idx": 2},
    {"name": "new", "idx": 3},
    {"name": "gone", "idx": 9},
]


class Shelf:
    """Stands for MONAI Label's datastore: keeps files by tag and name, and tells the app."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told, self.broken = folder, [], False
        self.infos: list[dict[str, Any]] = []

    def save(self, image: str, path: Path, tag: str, info: dict[str, Any]) -> str:
        if self.broken:
            raise Refusal(502, "The archive is away.")
        target = self.folder / tag / (image + path.name.removeprefix("label"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        self.infos.append(info)
        return f"label-of-{image}"

    def saved(self, image: str, label: str) -> dict[str, Any]:
        self.told.append((image, label))
        return {"training": "started"}


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[TurnStore]:
    store = TurnStore(tmp_path / "state")
    yield store
    store.dispose()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "labels")


@pytest.fixture
def client(
    turns: TurnStore, shelf: Shelf, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    files = {"pic": studies / "pic.png", "vol": studies / "vol.nii.gz", "series": studies / "series"}

    def find(image: str) -> ImageFile:
        if image not in files:
            raise Refusal(404, "There is no such image.")
        return ImageFile(image, files[image])

    app = FastAPI()
    keeper = LabelKeeper(shelf.save, shelf.saved)
    app.include_router(label_router(turns, CorrectionStore(turns.database), find, keeper))
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made
    assert list(temporary.iterdir()) == []


def nifti(values: np.ndarray = LABELS, affine: np.ndarray = AFFINE) -> bytes:
    return nib.Nifti1Image(values, affine).to_bytes()


def put(
    client: TestClient, image: str, content: bytes, name: str = "label.nii", tag: str = "", **params: Any
) -> Any:
    query = {"image": image, **({"tag": tag} if tag else {})}
    return client.put("/datastore/label", params=query, files=label_form(content, name, **params))


def recorded(turns: TurnStore) -> list[Correction]:
    return CorrectionStore(turns.database).corrections()


def refused(reply: Any, turns: TurnStore, shelf: Shelf, status: int, words: str = "") -> None:
    assert reply.status_code == status, reply.text
    assert words in reply.json()["detail"] and reply.json()["detail"].endswith(".")
    assert recorded(turns) == [] and files_under(turns.folder / "corrections") == []
    assert files_under(shelf.folder) == [] and shelf.told == []


def test_a_label_is_saved_as_it_came_and_recorded(client: TestClient, turns: TurnStore, shelf: Shelf) -> None:
    turn = finished(turns, {"spleen": block(VOLUME, 2), "liver": block(VOLUME, 3)}, client="slicer-1")
    reply = put(client, "vol", nifti(), "x.nii", label_info=NAMES, client_id="slicer-1", comment="ok")
    assert (reply.status_code, reply.json()) == (
        200,
        {"image": "vol", "label": "label-of-vol", "training": "started"},
    )
    assert (shelf.folder / "final" / "vol.nii").read_bytes() == nifti() and shelf.told == [
        ("vol", "label-of-vol")
    ]
    assert shelf.infos[0]["label_info"] == NAMES and shelf.infos[0]["comment"] == "ok"
    (stored,) = recorded(turns)
    assert (stored.turn_id, stored.image_id, stored.client_id, stored.editor) == (
        turn,
        "vol",
        "slicer-1",
        "anonymous",
    )
    assert (stored.verdict, stored.origin, stored.model_version) == ("edited", "datastore", "v7")
    assert stored.findings == [
        {"n": 2, "label": "liver", "present": True, "voxels": int((LABELS == 1).sum())},
        {"n": 1, "label": "Spleen", "present": True, "voxels": int((LABELS == 2).sum())},
        {"n": None, "label": "new", "present": True, "voxels": int((LABELS == 3).sum())},
        {"n": None, "label": "gone", "present": False, "voxels": 0},
    ]
    for k in (1, 2, 3):
        mask = CorrectionStore(turns.database).mask(stored.id, k)
        assert np.array_equal(mask.mask, k == LABELS) and Geometry.from_json(mask.geometry) == VOLUME


def test_a_label_follows_the_last_answer_of_its_image_and_client(
    client: TestClient, turns: TurnStore
) -> None:
    first = finished(turns, {}, client="c1")
    finished(turns, {}, client="c2")
    finished(turns, {}, image="other", client="c1")
    finished(turns, {}, client="c1", editor="ann")
    turns.add(NewTurn("vol", "still running", (), "anonymous", "c1"))
    for client_id in ("c1", "c3", None):
        assert put(client, "vol", nifti(), label_info=NAMES, client_id=client_id).status_code == 200
    assert [c.turn_id for c in recorded(turns)] == [first, None, None]


def test_a_label_may_have_names_as_a_reply_has_them(client: TestClient, turns: TurnStore) -> None:
    values = (LABELS > 1).astype(np.uint8)
    assert put(client, "vol", nifti(values), label_names={"liver": 1, "tooth (2)": 2}).status_code == 200
    assert [(f["label"], f["present"]) for f in recorded(turns)[0].findings] == [
        ("liver", True),
        ("tooth (2)", False),
    ]


def test_an_empty_map_needs_no_names(client: TestClient, turns: TurnStore) -> None:
    assert put(client, "vol", nifti(np.zeros(VOLUME.shape, np.uint8))).status_code == 200
    assert (
        put(client, "vol", nifti(np.zeros(VOLUME.shape, np.uint8)), label_info=NAMES[:1]).status_code == 200
    )
    assert [[f["present"] for f in c.findings] for c in recorded(turns)] == [[], [False]]


@pytest.mark.parametrize("back", [(0,), (1, 2), (0, 1, 2)])
def test_a_reversed_map_is_kept_on_the_images_own_grid(
    client: TestClient, turns: TurnStore, shelf: Shelf, studies: Path, back: tuple[int, ...]
) -> None:
    affine = AFFINE.copy()
    for axis in back:
        affine[:3, 3] += affine[:3, axis] * (VOLUME.shape[axis] - 1)
        affine[:3, axis] *= -1
    assert (
        put(client, "vol", nifti(np.flip(LABELS, back).copy(), affine), label_info=NAMES).status_code == 200
    )
    kept = sitk.ReadImage(str(shelf.folder / "final" / "vol.nii.gz"))
    image = sitk.ReadImage(str(studies / "vol.nii.gz"))
    assert kept.GetOrigin() == image.GetOrigin() and kept.GetDirection() == image.GetDirection()
    assert np.array_equal(sitk.GetArrayFromImage(kept).T, LABELS)
    stored = recorded(turns)[0]
    assert np.array_equal(CorrectionStore(turns.database).mask(stored.id, 2).mask, LABELS == 2)


def test_headerless_bytes_of_stock_ohif_become_a_file_on_the_grid(
    client: TestClient, turns: TurnStore, shelf: Shelf
) -> None:
    reply = put(client, "vol", LABELS.tobytes(order="F"), "label.bin", label_info=NAMES)
    assert reply.status_code == 200
    kept = nib.load(shelf.folder / "final" / "vol.nii.gz")
    assert np.array_equal(np.asarray(kept.dataobj), LABELS) and np.allclose(kept.affine, AFFINE)
    stored = recorded(turns)[0]
    assert np.array_equal(CorrectionStore(turns.database).mask(stored.id, 1).mask, LABELS == 1)
    assert put(client, "vol", LABELS.tobytes()[:-1], "label.bin", label_info=NAMES).status_code == 422


def test_a_picture_takes_a_png(client: TestClient, turns: TurnStore, shelf: Shelf) -> None:
    values = np.zeros(PICTURE.shape, np.uint8)
    values[3:9, 20:] = 1
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    reply = put(client, "pic", buffer.getvalue(), "label.png", tag="draft-1", label_info=NAMES[:1])
    assert reply.status_code == 200
    assert (shelf.folder / "draft-1" / "pic.png").read_bytes() == buffer.getvalue()
    assert np.array_equal(CorrectionStore(turns.database).mask(recorded(turns)[0].id, 1).mask, values == 1)


@pytest.mark.parametrize(
    ("image", "content", "params", "status", "words"),
    [
        ("nowhere", nifti(), {"label_info": NAMES}, 404, "no such image"),
        ("../vol", nifti(), {"label_info": NAMES}, 404, ""),
        ("", nifti(), {"label_info": NAMES}, 404, ""),
        ("vol", b"", {"label_info": NAMES}, 422, "unsupported"),
        ("vol", nifti()[:-1], {"label_info": NAMES}, 422, "less data"),
        ("vol", nifti(affine=np.eye(4)), {"label_info": NAMES}, 422, "another grid"),
        ("pic", nifti(), {"label_info": NAMES}, 422, "30 x 20 pixels"),
        ("vol", nifti(LABELS.astype(np.float32) / 2), {"label_info": NAMES}, 422, "whole numbers"),
        ("vol", nifti(LABELS.astype(np.int16) * 100), {"label_info": NAMES}, 422, "0 to 255"),
        ("vol", nifti(-LABELS.astype(np.int16)), {"label_info": NAMES}, 422, "0 to 255"),
        ("vol", nifti(), {}, 422, "does not name"),
        ("vol", nifti(), {"label_info": NAMES[:2]}, 422, "the value 3"),
        ("vol", nifti(), {"label_info": "liver"}, 422, "list"),
        ("vol", nifti(), {"label_info": ["liver"]}, 422, "idx"),
        ("vol", nifti(), {"label_info": [{"name": "liver"}]}, 422, "idx"),
        ("vol", nifti(), {"label_info": [{"name": "liver", "idx": True}]}, 422, "idx"),
        ("vol", nifti(), {"label_info": [{"name": "", "idx": 1}]}, 422, "name"),
        ("vol", nifti(), {"label_info": [{"name": "a\nb", "idx": 1}]}, 422, "name"),
        ("vol", nifti(), {"label_info": [{"name": "</p> mass", "idx": 1}]}, 422, "`</p>`"),
        ("vol", nifti(), {"label_info": [*NAMES, {"name": "LIVER", "idx": 4}]}, 422, "twice"),
        ("vol", nifti(), {"label_info": [*NAMES, {"name": "other", "idx": 1}]}, 422, "twice"),
        ("vol", nifti(), {"label_info": NAMES, "client_id": 3}, 422, "client_id"),
    ],
)
def test_bad_labels_are_refused_before_anything_is_saved(
    client: TestClient,
    turns: TurnStore,
    shelf: Shelf,
    image: str,
    content: bytes,
    params: Any,
    status: int,
    words: str,
) -> None:
    refused(put(client, image, content, **params), turns, shelf, status, words)


def test_bad_forms_are_refused(client: TestClient, turns: TurnStore, shelf: Shelf) -> None:
    for tag in ("../../x", "a/b", "x" * 65, "é"):
        refused(put(client, "vol", nifti(), tag=tag, label_info=NAMES), turns, shelf, 422, "tag")
    for files in (
        [("params", (None, "{}"))],
        [("params", (None, "{}")), ("other", ("x", b"x"))],
        [("params", (None, "{"))] + label_form(nifti())[1:],
        [("params", (None, "[]"))] + label_form(nifti())[1:],
    ):
        reply = client.put("/datastore/label?image=vol", files=files)
        refused(reply, turns, shelf, reply.status_code)
        assert reply.status_code in (400, 422)
    refused(client.put("/datastore/label?image=vol", json={}), turns, shelf, 415)


def test_a_label_that_the_datastore_does_not_keep_is_no_correction(
    client: TestClient, turns: TurnStore, shelf: Shelf
) -> None:
    shelf.broken = True
    refused(put(client, "vol", nifti(), label_info=NAMES), turns, shelf, 502, "away")
    shelf.broken = False
    assert put(client, "vol", nifti(), label_info=NAMES).status_code == 200 and len(recorded(turns)) == 1


def test_a_full_disk_is_noticed_before_the_datastore_is_touched(
    client: TestClient, turns: TurnStore, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        refused(put(client, "vol", nifti(), label_info=NAMES), turns, shelf, 500, "OSError")


def test_a_correction_that_cannot_be_recorded_is_told(
    client: TestClient, turns: TurnStore, shelf: Shelf
) -> None:
    file = turns.folder / "medsegr.sqlite"
    trigger = "create trigger no before insert on corrections begin select raise(abort, 'no'); end"
    with sqlite3.connect(file) as raw:
        raw.execute(trigger)
    reply = put(client, "vol", nifti(), label_info=NAMES)
    assert reply.status_code == 500 and "send it once more" in reply.json()["detail"]
    assert recorded(turns) == [] and files_under(turns.folder / "corrections") == [] and shelf.told == []
    with sqlite3.connect(file) as raw:
        raw.execute("drop trigger no")
    assert put(client, "vol", nifti(), label_info=NAMES).status_code == 200
    assert len(recorded(turns)) == 1 and len(files_under(shelf.folder)) == 1


def series(folder: Path) -> None:
    """Three CT slices and a localiser of another size, as a CT series comes from a scanner."""
    folder.mkdir()
    for n in range(4):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n}"
        dataset.InstanceNumber = n
        dataset.ImagePositionPatient = [-100, -100, 5 * n]
        if n == 3:
            dataset.Rows, dataset.PixelData = 64, dataset.PixelData[: 64 * 128 * 2]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.save_as(folder / f"{n}.dcm")


def test_a_series_takes_labels_on_each_of_its_stacks(
    client: TestClient, turns: TurnStore, shelf: Shelf, studies: Path
) -> None:
    series(studies / "series")
    grids = read_grids(ImageFile("series", studies / "series"))
    assert [grid.shape for grid in grids] == [(128, 128, 3), (128, 64, 1)]
    for grid, name in zip(grids, ("body", "scout"), strict=True):
        values = np.zeros(grid.shape, np.uint8)
        values[2:9, 3] = 1
        content = nifti(values, np.asarray(grid.affine))
        assert put(client, "series", content, label_info=[{"name": name, "idx": 1}]).status_code == 200
    shapes = [
        (c.findings[0]["label"], CorrectionStore(turns.database).mask(c.id, 1).mask.shape)
        for c in recorded(turns)
    ]
    assert shapes == [("body", (128, 128, 3)), ("scout", (128, 64, 1))]


def test_a_label_on_another_stack_corrects_no_answer_about_this_one(
    client: TestClient, turns: TurnStore, shelf: Shelf, studies: Path
) -> None:
    series(studies / "series")
    body, scout = read_grids(ImageFile("series", studies / "series"))
    turn = finished(turns, {"body": block(scout, 2)}, scout, image="series")
    told = {"label_info": [{"name": "body", "idx": 1}], "client_id": "c1"}
    for grid in (body, scout):
        values = np.zeros(grid.shape, np.uint8)
        values[2:9, 3] = 1
        assert put(client, "series", nifti(values, np.asarray(grid.affine)), **told).status_code == 200
    assert [c.turn_id for c in recorded(turns)] == [None, turn]


def test_params_reach_no_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    put(client, "vol", nifti(), label_info=[{"name": "Xylophone", "idx": 1}], question="Xylophone")
    assert "Xylophone" not in caplog.text and json.dumps("Xylophone") not in caplog.text
