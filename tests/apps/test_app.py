"""Parts of the app's wiring that need no server: what happens when a label cannot be saved."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from live_server import ROOT
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile

APP = ROOT / "apps" / "medsegr"


class Refusing:
    """A datastore that keeps no labels."""

    def save_label(self, *_args: Any) -> str:
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, "The datastore is read-only.")


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's `main.py`, loaded as MONAI Label does: with its folder on the path."""
    monkeypatch.syspath_prepend(str(APP))
    spec = importlib.util.spec_from_file_location("app_main", APP / "main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_batch_inference_leaves_no_file_when_its_label_cannot_be_saved(
    main: ModuleType, tmp_path: Path
) -> None:
    label = tmp_path / "label.png"
    label.write_bytes(b"x")
    app = object.__new__(main.MedSegRApp)
    app._infers = {"medsegr": lambda request: (str(label), {})}
    app.images = SimpleNamespace(resolve=lambda image: ImageFile(image, tmp_path))
    app._datastore = Refusing()
    request = {"model": "medsegr", "image": "a"}
    assert app.infer(request)["file"] == str(label) and label.exists()
    with pytest.raises(MONAILabelException):
        app.infer({**request, "save_label": True})
    assert not label.exists()


def test_batch_inference_knows_the_stacks_of_a_series(main: ModuleType, tmp_path: Path) -> None:
    asked: list[ImageFile] = []

    def ask(_options: Any, image: ImageFile, **_: Any) -> Any:
        asked.append(image)
        raise Refusal(422, "Enough.")

    task = importlib.import_module("lib.infers.medsegr").MedSegRInfer(SimpleNamespace(ask=ask), 3)
    app = object.__new__(main.MedSegRApp)
    app._infers = {"medsegr": task}
    series: Any = ImageFile("1.2", tmp_path, ("one", "other"), hold=lambda: lambda: None)  # type: ignore[arg-type]
    app.images = SimpleNamespace(resolve=lambda image: series)
    with pytest.raises(Refusal, match="Enough"):
        app.infer({"model": "medsegr", "image": "1.2", "image_file": "/etc/passwd"})
    assert asked == [series]


def test_a_label_that_the_datastore_refuses_is_a_400(
    main: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = importlib.import_module("lib.routes")
    given: list[Any] = []

    def router(*arguments: Any) -> APIRouter:
        given.append(arguments[3] if len(arguments) > 4 else None)
        return APIRouter()

    monkeypatch.setattr(routes, "infer_router", router)
    monkeypatch.setattr(routes, "ask_router", router)
    service = SimpleNamespace(targets=(), store=SimpleNamespace(database=None))
    routes.install(FastAPI(), service, SimpleNamespace(find=None, resolve=None), {}, Refusing())
    with pytest.raises(Refusal, match="read-only") as caught:
        given[1]("a", tmp_path / "label.png", "original", {})
    assert caught.value.status == 400
