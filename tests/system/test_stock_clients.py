"""Stock OHIF and the stock Slicer client, unchanged, against this server and a real PACS."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from tests.system import studies
from tests.system.masks import same
from tests.system.ohif_page import CONTROL, LabelMap, OhifPage
from tests.system.orthanc import Orthanc
from tests.system.seeing_predictor import RANGES
from tests.system.servers import SEEING, MedSegRServer

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:.*cgi.*:DeprecationWarning")]
REPLIES = "return performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/info/')).length"
BOX = """
const row = [...document.querySelectorAll('.optionsForm tr')].find((r) => r.cells[0]?.innerText.trim() === arguments[0]);
const box = row?.querySelector('input');
"""
FOCUS = f"{BOX} box?.focus(); return Boolean(box) && document.activeElement === box;"
BOX_HOLDS = f"{BOX} return box?.value === arguments[1];"


@pytest.fixture(scope="module")
def study(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> studies.Study:
    written = studies.axial_ct(tmp_path_factory.mktemp("axial"))
    orthanc.upload(written.paths)
    orthanc.upload(
        studies.sagittal_mr(tmp_path_factory.mktemp("sagittal")).paths
    )  # a next sample after the first is labelled
    return written


@pytest.fixture(scope="module")
def server(
    orthanc: Orthanc, study: studies.Study, medsegr_server: Callable[..., MedSegRServer]
) -> MedSegRServer:
    return medsegr_server(orthanc.url, factory=SEEING)


class StockPanel(OhifPage):
    """MONAI Label's own panel in OHIF."""

    def connect(self, url: str) -> None:
        """Name the server and press refresh; the panel needs it twice, as the first press uses the old address. Each reply is
        waited for: one that comes late takes back what was typed into the options meanwhile."""
        from selenium.webdriver import ActionChains

        self.find("#monailabelServerURL").click()
        typing = ActionChains(self.driver).key_down(CONTROL).send_keys("a").key_up(CONTROL)
        typing.send_keys(f"{url}/").perform()
        for _ in range(2):
            replies = self.run(REPLIES)
            self.find(".settingsTable .actionButton").click()
            self.until(lambda known=replies: self.run(REPLIES) > known, "the panel has a reply")
        self.until(lambda: "MedSeg-R" in self.text(".monaiLabelPanel"), "the panel is connected")

    def set_option(self, key: str, value: str) -> None:
        """Type into the options dialog. A click does not focus its boxes; Tab does, but how many lead there hangs on what else
        is shown, so the box is focused straight away, and again where the dialog, which opens slowly, took the focus back."""
        self.click("Options / Configurations")
        self.until(lambda: self.all(".optionsForm"), "the options are shown")
        self.until(lambda: self._typed(key, value), f"{value!r} is typed into the box of {key!r}")
        self.click("Confirm")
        self.until(lambda: not self.all(".optionsForm"), "the options are closed")

    def _typed(self, key: str, value: str) -> bool:
        from selenium.webdriver import ActionChains

        if self.run(FOCUS, key):
            marked = ActionChains(self.driver).key_down(CONTROL).send_keys("a").key_up(CONTROL)
            marked.send_keys(value).perform()
        return bool(self.run(BOX_HOLDS, key, value))

    def run_segmentation(self) -> LabelMap:
        """Press Run; the label map once something is in it."""
        self.find("button[title='Run Segmentation']").click()
        return self.until(self._filled, "a label map is drawn")

    def _filled(self) -> LabelMap | None:
        return next((m for m in self.label_maps() if any(p.any() for p in m.planes.values())), None)


def test_stock_ohif_asks_through_its_options(
    server: MedSegRServer, study: studies.Study, browser: Any
) -> None:
    page = StockPanel(browser, server.url)
    page.open(study.uid, "monai-label")
    page.connect(server.url)
    page.set_option("question", "Where are the liver and the spleen?")
    drawn = page.run_segmentation()
    page.snap("stock-ohif")
    (turn,) = server.turns(study.series[0].uid)
    assert turn["question"] == "Where are the liver and the spleen?"
    for label in ("liver", "spleen"):
        index = next(i for i, name in drawn.segments.items() if name == label)
        shown, expected = drawn.of(index), study.series[0].expected(label)
        assert shown.keys() == expected.keys()
        assert all(np.array_equal(shown[plane], expected[plane]) for plane in expected)
    assert sum(p.astype(bool).sum() for p in drawn.planes.values()) == sum(
        m.sum() for label in ("liver", "spleen") for m in study.series[0].expected(label).values()
    )


def test_stock_ohif_gets_an_empty_map_when_nothing_is_present(
    server: MedSegRServer, study: studies.Study, browser: Any
) -> None:
    page = StockPanel(browser, server.url)
    page.open(study.uid, "monai-label")
    page.connect(server.url)
    page.set_option("question", "nothing")
    before = len(server.turns(study.series[0].uid))
    page.find("button[title='Run Segmentation']").click()
    page.until(lambda: len(server.turns(study.series[0].uid)) > before, "the question is answered")
    page.until(lambda: "Failed" not in page.text(), "no failure is shown", 5)
    assert not any(plane.any() for found in page.label_maps() for plane in found.planes.values())


def test_stock_ohif_without_a_question_shows_everything_by_its_name(
    server: MedSegRServer, study: studies.Study, browser: Any
) -> None:
    page = StockPanel(browser, server.url)
    page.open(study.uid, "monai-label")
    page.connect(server.url)
    drawn = page.run_segmentation()
    assert set(drawn.segments.values()) >= set(RANGES)
    index = {name: i for i, name in drawn.segments.items()}
    liver, gallbladder = (study.series[0].expected(name) for name in ("liver", "gallbladder"))
    for plane in liver:  # one map: a smaller finding lies over a larger one
        assert np.array_equal(drawn.of(index["gallbladder"])[plane], gallbladder[plane])
        assert np.array_equal(drawn.of(index["liver"])[plane], liver[plane] & ~gallbladder[plane])


def slicer_client() -> ModuleType | None:
    """Slicer's copy of the client in the monailabel wheel."""
    root = Path(sys.prefix) / "monailabel" / "plugins" / "slicer" / "MONAILabel" / "MONAILabelLib"
    spec = importlib.util.spec_from_file_location("slicer_client", root / "client.py")
    if spec is None or spec.loader is None or not (root / "client.py").is_file():
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("copy", ["monailabel.client", "Slicer's"])
def test_the_stock_slicer_flow(
    server: MedSegRServer, study: studies.Study, tmp_path: Path, copy: str
) -> None:
    """Next sample, run, organ names, save: what Slicer's module does with its client."""
    from monailabel.client import client as own

    module = own if copy == "monailabel.client" else slicer_client()
    if module is None:
        pytest.skip("this monailabel wheel has no Slicer plugin")
    series = study.series[0]
    client = module.MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id=f"slicer-{copy[:5]}")
    info = client.info()
    assert info["name"].startswith("MedSeg-R")
    sample = client.next_sample("random", {})
    if sample:
        assert sample["id"]
    else:  # what somebody opened a moment ago, or has judged, is offered to nobody
        refused = server.get("/medsegr/next")
        assert refused.status_code == 404 and "opened" in refused.json()["detail"]
    params = {"question": "Show the spleen", "result_extension": ".nrrd", "result_dtype": "uint8"}
    name, reply = client.infer("medsegr", series.uid, params)
    assert reply["label_names"] == {"spleen": 1} and reply["answer"] == "Found spleen."
    labels = sitk.ReadImage(str(name))
    grid = sitk.ReadImage([str(path) for path in series.paths])
    assert labels.GetSize() == grid.GetSize()
    for one, other in (
        (labels.GetOrigin(), grid.GetOrigin()),
        (labels.GetSpacing(), grid.GetSpacing()),
        (labels.GetDirection(), grid.GetDirection()),
    ):
        assert np.allclose(one, other, atol=1e-3)
    shown = sitk.GetArrayFromImage(labels)
    assert np.array_equal(shown == 1, np.stack(list(series.expected("spleen").values())))
    saved = client.save_label(series.uid, str(name), params={"label_info": [{"name": "spleen", "idx": 1}]})
    assert saved["image"] == series.uid
    check_linked(server, series, reply["turn_id"])
    with pytest.raises(module.MONAILabelClientException, match="value 1"):
        client.save_label(series.uid, str(name), params={"label_info": [{"name": "spleen", "idx": 2}]})
    assert len(server.get("/medsegr/corrections", params={"turn": reply["turn_id"]}).json()) == 1


def check_linked(server: MedSegRServer, series: studies.Series, turn: str) -> None:
    """The saved label is a correction of the answer that this client had."""
    (linked,) = server.get("/medsegr/corrections", params={"turn": turn}).json()
    assert linked["image_id"] == series.uid and [f["label"] for f in linked["findings"]] == ["spleen"]
    assert same(server.correction_by_instance(linked["id"], 1, series.uid), series.expected("spleen"))
