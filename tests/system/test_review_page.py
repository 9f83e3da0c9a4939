"""Two physicians review a file in a real browser: keys, reload in mid-work, verdicts kept apart, kappa printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medsegr import cli
from medsegr.qa.reader import read_qa
from tests.review_files import write_review_file, write_volume_file

pytestmark = pytest.mark.system
WAIT_S = 60


class Page:
    """The review page in one browser. With MEDSEGR_SCREENSHOTS (a folder) it leaves pictures of itself there."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def text(self, css: str) -> str:
        return self.find(css).text

    def until(self, check: Callable[[], object], what: str) -> None:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, WAIT_S, 0.1, (StaleElementReferenceException,))
        waiting.until(lambda _: check(), f"{what}; the page says: {self.text('body')[:1500]}")

    def keys(self, *keys: str) -> None:
        """To whatever has the focus, as a keyboard does."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def open(self, url: str, name: str | None = None) -> Page:
        self.driver.get(url)
        if name:
            self.until(lambda: self.find("#ask").is_displayed(), "the page asks for a name")
            self.keys(name, ENTER)
        self.until(lambda: self.find("#main").is_displayed(), "a conversation is shown")
        return self

    def at(self, position: str) -> None:
        self.until(lambda: self.text("#position") == position, f"conversation {position} is shown")
        self.until(self.pictures_are_there, "the image and its outlines are loaded")

    def pictures_are_there(self) -> bool:
        script = "return [...document.querySelectorAll('#stack img')].every((i) => i.complete && i.naturalWidth > 0)"
        return bool(self.driver.execute_script(script))

    def snap(self, name: str) -> None:
        if folder := os.environ.get("MEDSEGR_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


ENTER, ESCAPE, LEFT, RIGHT, TAB = "\ue007", "\ue00c", "\ue012", "\ue014", "\ue004"


def verdicts(file: Path) -> list[tuple[str, str, str]]:
    lines = (file.parent / f"{file.name}.reviews.jsonl").read_text().splitlines()
    return [(e["reviewer"], e["id"], e["verdict"]) for e in map(json.loads, lines)]


def test_two_physicians_review_a_file(
    tmp_path: Path, serve: Callable[..., str], browse: Callable[[], Any]
) -> None:
    file = write_review_file(tmp_path / "set")
    url = serve(file)
    ada_reviews(Page(browse()).open(url, "Ada"), file)
    bob_reviews(Page(browse()).open(url, "Bob"), file)
    result = CliRunner().invoke(cli.app, ["qa", "agreement", str(file)])
    row = next(line for line in result.output.splitlines() if "Ada and Bob" in line)
    # Ada: accept, edit, reject, accept. Bob: accept, accept, reject, accept. Observed 3/4; by chance
    # (2*3 + 1*0 + 1*1)/16 = 7/16; kappa (12 - 7)/(16 - 7) = 5/9.
    assert re.findall(r"[\d.]+", row) == ["4", "0.750", "0.556"]
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(cli.app, ["qa", "apply-reviews", str(file), str(out)])
    assert (
        "spleen" not in result.output.split("written")[0].split("accepted")[0]
    )  # Bob gave way to Ada's edit
    found = {c.id: c for c in read_qa(out)}
    assert [c.review.status for c in found.values()] == ["accepted", "edited", "rejected", "accepted"]
    assert found["spleen"].turns[0].question == "Outline the spleen, please."


def ada_reviews(page: Page, file: Path) -> None:
    """Accept, edit (with a refusal and a reload in mid-work), reject, accept."""
    page.at("1 of 4")
    assert [e.text for e in page.all("#legend li")] == ["liver", "right kidney", "left kidney"]
    assert [e.text for e in page.all(".question")] == [
        "Which organ here makes bile?",
        "Where are the kidneys?",
    ]
    assert page.all("mark")[0].text == "liver" and "[SEG]" not in page.text("#turns")
    page.snap("1-first")
    page.keys("m")
    page.until(lambda: not page.all("#stack .outline")[0].is_displayed(), "the outlines are hidden")
    page.keys("m", "a")
    page.at("2 of 4")
    assert verdicts(file) == [("Ada", "liver", "accept")]
    assert page.text("#counts").startswith("1 of 4")
    ada_edits(page)
    page.at("3 of 4")
    assert verdicts(file)[1:] == [("Ada", "spleen", "edit")]
    page.keys(LEFT)
    page.at("2 of 4")
    assert page.text(
        ".question"
    ) == "Outline the spleen, please." and "was: Outline the spleen." in page.text("#turns")
    assert page.text("#own").startswith("You edited")
    page.snap("3-own-edit")
    page.keys("n")
    page.at("3 of 4")
    page.keys("t", "outline is too large", ENTER, "r")
    page.at("4 of 4")
    assert "not present: hippocampus" in page.text("#turns")
    page.keys("a")
    page.until(lambda: page.text("#status") == "Saved. You have reviewed everything.", "the end is said")
    assert page.find("#accept").get_attribute("aria-pressed") == "true"
    page.snap("4-end")
    assert [v for _, _, v in verdicts(file)] == ["accept", "edit", "reject", "accept"]
    assert not [
        line
        for line in page.driver.get_log("browser")
        if line["level"] == "SEVERE" and "422" not in line["message"]
    ]


def ada_edits(page: Page) -> None:
    """Esc drops an edit; a bad one is refused; a reload brings an unsaved one back; Enter saves it with a note."""
    page.keys("e", "x", ESCAPE)
    assert page.text(".question") == "Outline the spleen."
    page.keys("e")
    area = page.find("textarea[name=answer]")
    area.clear()
    area.send_keys("The spleen.", ENTER)
    page.until(lambda: page.find("#error").is_displayed(), "the refusal is shown")
    assert page.text("#error") == "The edit cannot be kept: turn 1: the answer has 0 [SEG] for 1 targets."
    page.snap("2-refused-edit")
    page.keys(ESCAPE)
    page.keys("e", "\ue003", ", please.")  # Backspace over the full stop
    page.keys(TAB, TAB, "more polite")
    page.driver.refresh()
    page.until(lambda: page.all("textarea"), "the unsaved edit is back")
    page.at("2 of 4")
    assert page.find("textarea").get_attribute("value") == "Outline the spleen, please."
    assert page.find("#note").get_attribute("value") == "more polite"
    assert page.text("#reviewer") == "Ada"
    page.keys(ENTER)


def bob_reviews(page: Page, file: Path) -> None:
    """Sees nothing of Ada's until he has judged, then adopts her edit."""
    page.at("1 of 4")
    assert page.text("#colleagues") == "Ada 4 of 4"
    for position, key in (("1 of 4", "a"), ("2 of 4", "a"), ("3 of 4", "r"), ("4 of 4", "a")):
        page.at(position)
        assert not page.find("#others").is_displayed() and "please" not in page.text("main")
        page.keys(key)
    page.until(lambda: "reviewed everything" in page.text("#status"), "the end is said")
    for _ in range(2):
        position = page.text("#position")
        page.keys(LEFT)
        page.until(lambda was=position: page.text("#position") != was, "the page moves")
    page.at("2 of 4")
    assert "Ada edited" in page.text("#others") and "more polite" in page.text("#others")
    page.snap("5-the-other-verdict")
    page.find("#others button").click()
    assert page.find("textarea").get_attribute("value") == "Outline the spleen, please."
    page.keys(ENTER)
    page.until(lambda: verdicts(file)[-1] == ("Bob", "spleen", "edit"), "the adopted edit is saved")
    page.driver.refresh()
    page.until(
        lambda: page.text("#counts") == "4 of 4: 2 accepted, 1 edited, 1 rejected",
        "progress survives a reload",
    )


def test_a_volume_is_leafed_through(
    tmp_path: Path, serve: Callable[..., str], browse: Callable[[], Any]
) -> None:
    page = Page(browse()).open(serve(write_volume_file(tmp_path / "set"), "--reviewer", "Ada"))
    page.at("1 of 2")
    first = page.text("#slice-number")
    page.keys("]")
    page.until(lambda: page.text("#slice-number") != first, "the next slice is shown")
    page.until(page.pictures_are_there, "its pictures are loaded")
    page.snap("6-volume")
    page.keys(RIGHT)
    page.at("2 of 2")
    assert not page.find("#slices").is_displayed()
    page.snap("7-sagittal")
