"""The pictures of docs/: taken of what a reader sees, with the weights that ship and a computed body.

`make screenshots` writes them to docs/images (MEDSEGR_SCREENSHOTS names another folder); otherwise they only have to show
something.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from medsegr.evaluation.metrics import dice
from medsegr.phantom.study import write_multiframe, write_radiograph, write_series
from medsegr.phantom.torso import Torso, make_torso
from medsegr.web.login.tokens import TokenFile
from tests.system.ask_page import Answer, AskPage
from tests.system.ohif_page import ENTER
from tests.system.servers import MedSegRServer

pytestmark = pytest.mark.system
LIVER = "Where is the liver in this scan?"
KIDNEYS = "And which organs filter the blood and make urine?"
BOTH_KIDNEYS = ("left kidney", "right kidney")
READER = "ada"
COLOURS, MAX_BYTES = 256, 400_000
BLANK = 0.97
"""A picture of which more than this share has one colour shows nothing."""
BRUSH_MM = 5
STROKE = [(-163.0, 36.0), (-146.0, 25.0), (-124.0, 24.0), (-103.0, 33.0), (-93.0, 46.0)]
"""Along the front of the kidney on the left of the image, which the answer leaves out; pixels from the centre."""
BRUSH = """
const {activeViewportId} = window.services.viewportGridService.getState();
const group = window.services.toolGroupService.getToolGroupForViewport(activeViewportId);
window.cornerstoneTools.utilities.segmentation.setBrushSizeForToolGroup(group.id, arguments[0]);
"""


@dataclass(frozen=True)
class Ward:
    """A server of three studies with a login for one reader; `torso` is the body of the study `uid`."""

    server: MedSegRServer
    token: str
    torso: Torso
    uid: str


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, medsegr_server: Callable[..., MedSegRServer]) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    torso = make_torso(7)
    first = pydicom.dcmread(write_series(torso, folder / "studies" / "ct")[0], stop_before_pixels=True)
    write_radiograph(make_torso(8), folder / "studies" / "cr.dcm")
    write_multiframe(make_torso(9), folder / "studies" / "multi-frame.dcm")
    tokens = TokenFile(folder / "tokens.jsonl")
    token = tokens.add(READER, days=1)
    server = medsegr_server(folder / "studies", conf={"login": str(tokens.path)})
    return Ward(server, token, torso, str(first.StudyInstanceUID))


@pytest.fixture
def snap(browser: Any, tmp_path: Path) -> Callable[[str], None]:
    """Takes a picture of the page as a small PNG, and checks that it shows something."""
    folder = Path(os.environ.get("MEDSEGR_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> None:
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        counts = [count for count, _ in picture.getcolors(picture.width * picture.height)]
        assert max(counts) < BLANK * sum(counts), f"{name} is blank"
        path = folder / f"{name}.png"
        picture.quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
        assert path.stat().st_size < MAX_BYTES

    return take


def log_in(page: AskPage, token: str, where: str) -> None:
    """Open a page of the server, with the token if it is asked for."""
    page.driver.get(f"{page.root}{where}")
    page.until(lambda: page.all("#token, #root *"), "the login or the viewer is there")
    if page.all("#token"):
        page.find("#token").send_keys(token, ENTER)
        page.until(lambda: not page.all("#token"), "the token is good")


def agreement(ward: Ward, answer: Answer, *organs: str) -> float:
    """Dice of an answer's first finding against the body's exact masks."""
    server = replace(ward.server, headers={"Authorization": f"Bearer {ward.token}"})
    truth = np.logical_or.reduce([ward.torso.mask(organ) for organ in organs])
    return dice(server.mask(answer.turn, 1).transpose(2, 1, 0), truth)


def test_the_login_page_and_the_study_list(ward: Ward, browser: Any, snap: Callable[[str], None]) -> None:
    page = AskPage(browser, ward.server.url)
    browser.get(f"{page.root}/ohif/")
    page.until(lambda: page.all("#token"), "a token is asked for")
    snap("viewer-login")
    log_in(page, ward.token, "/ohif/")
    page.until(lambda: "PHANTOM-7" in page.text(), "the studies are listed")
    if page.clickable("Confirm and Hide"):
        page.click("Confirm and Hide")
    page.until(lambda: "PHANTOM-9" in page.text(), "all of them are")
    page.find(f"[data-cy='studyRow-{ward.uid}']").click()
    page.until(lambda: "MedSeg-R: ask the image" in page.text(), "the modes are offered")
    snap("viewer-studies")


def test_an_answer_and_its_correction(ward: Ward, browser: Any, snap: Callable[[str], None]) -> None:
    page = AskPage(browser, ward.server.url)
    log_in(page, ward.token, "/ohif/")
    page.open(ward.uid)
    liver, kidneys = (page.ask(question) for question in (LIVER, KIDNEYS))
    assert agreement(ward, liver, "liver") > 0.8 and agreement(ward, kidneys, *BOTH_KIDNEYS) > 0.7
    page.find(".medsegr-panel .turn.current .name").click()
    snap("viewer-answer")
    page.tool("Brush")
    page.run(BRUSH, BRUSH_MM)
    page.stroke(STROKE)
    page.until(lambda: "edited" in page.last(), "the stroke is noticed")
    assert "Correction saved" in page.submit()
    snap("viewer-correcting")
