"""The reasoning panel against a real server, beside a pretended viewer: what is asked, drawn, corrected, kept and said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.system.panel_page import ALT, BOX, ENTER, SHIFT, SPACE, TAB, UP, PanelPage
from tests.system.panel_site import PanelSite
from tests.system.servers import SEEING, MedSegRServer
from tests.system.studies import Series, axial_ct

pytestmark = pytest.mark.system
QUESTION = "Where are the liver and the spleen?"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return axial_ct(tmp_path_factory.mktemp("studies") / "ct").series[0]


@pytest.fixture(scope="module")
def server(medsegr_server: Callable[..., MedSegRServer], study: Series) -> MedSegRServer:
    return medsegr_server(study.paths[0].parent, factory=SEEING)


@pytest.fixture
def site(server: MedSegRServer) -> Iterator[PanelSite]:
    made = PanelSite(server.url)
    yield made
    made.stop()


@pytest.fixture
def page(browser: Any, site: PanelSite, study: Series) -> Iterator[PanelPage]:
    browser.set_window_size(900, 1000)
    made = PanelPage(browser, site.url).open(study.uid, modality="CT", body="ABDOMEN")
    yield made
    assert made.complaints() == []


def stored(server: MedSegRServer, turn: str) -> dict[str, Any]:
    return dict(server.get(f"/medsegr/turns/{turn}").json())


def corrections(server: MedSegRServer, turn: str) -> list[dict[str, Any]]:
    return list(server.get("/medsegr/corrections", params={"turn": turn}).json())


def corrected_planes(
    server: MedSegRServer, correction: str, k: int, study: Series
) -> dict[tuple[str, int], Any]:
    """Mask k of a stored correction as {(SOPInstanceUID, frame): raster [pixels] bool}, by the server's own slices."""
    from tests.system.nrrd import read_nrrd

    reply = server.get(f"/medsegr/corrections/{correction}/masks/{k}", params={"format": "nrrd"})
    assert reply.status_code == 200, reply.text
    planes = read_nrrd(reply.content) != 0
    return {name: plane.ravel() for name, plane in zip(server.stack(study.uid), planes, strict=True)}


def same(ones: dict[Any, Any], others: dict[Any, Any]) -> bool:
    return ones.keys() == others.keys() and all(
        np.array_equal(ones[k].ravel(), others[k].ravel()) for k in ones
    )


def test_an_answer_is_coloured_measured_and_drawn(
    page: PanelPage, server: MedSegRServer, study: Series
) -> None:
    page.scope("series")
    turn = page.ask(QUESTION)
    assert page.text(".current .answer") == "Found liver and spleen."
    assert [
        (e.text, e.value_of_css_property("border-bottom-color")) for e in page.all(".current .phrase")
    ] == [
        ("liver", "rgba(221, 84, 84, 1)"),
        ("spleen", "rgba(84, 221, 122, 1)"),
    ]
    for n, label in ((1, "liver"), (2, "spleen")):
        expected = study.expected(label)
        assert same(page.planes(0, n), expected) and any(plane.any() for plane in expected.values())
    liver = study.expected("liver")
    voxels = sum(int(plane.sum()) for plane in liver.values())
    touched = [k for k, image in enumerate(study.images, 1) if liver[image.sop, image.frame].any()]
    said = page.text(".current .finding .facts")
    volume = stored(server, turn)["findings"][0]["volume_ml"]
    assert volume > 0 and voxels > 0 and f"{volume:.1f} ml" in said.replace(",", "")
    assert f"slices {touched[0]}–{touched[-1]}" in said and "uncertain, 50 %" in said
    page.snap("1-answer")
    times = page.js("return window.medsegr.panel.timings.at(-1)")
    assert times["turn"] == turn and times["asked"] < times["done"] < times["fetched"] < times["drawn"]
    assert page.faint() == []


def test_a_finding_is_shown_where_it_is_largest_and_walked_through(page: PanelPage, study: Series) -> None:
    page.scope("series")
    page.ask(QUESTION)
    spleen = study.expected("spleen")
    areas = {name: int(plane.sum()) for name, plane in spleen.items()}
    page.click(".current .phrase", "spleen")
    page.until(lambda: page.js("return window.fake.viewer.jumps.length"), "the viewer jumps")
    jump = page.js("return window.fake.viewer.jumps.at(-1)")
    assert areas[jump["sopUid"], jump["frame"]] == max(areas.values()) and jump["seriesUid"] == study.uid
    assert page.js("return window.fake.segments.selected") == {"handle": 0, "n": 2}
    page.until(lambda: "about: spleen" in page.text(".about"), "the next question is about it")
    at = page.js("return window.fake.viewer.at")
    page.click(".current .walk button", "▶")
    page.until(lambda: page.js("return window.fake.viewer.at") != at, "the next slice is shown")
    shown = study.images[page.js("return window.fake.viewer.at")]
    assert spleen[shown.sop, shown.frame].any()


def test_slices_are_the_viewers_numbers(
    browser: Any, site: PanelSite, server: MedSegRServer, study: Series
) -> None:
    """In a viewer that numbers the slices the other way round, "this" and "range" are still what it shows."""
    page = PanelPage(browser, site.url).open(study.uid, reverse=1)
    shown = [(image.sop, image.frame) for image in reversed(study.images)]

    def drawn_on(handle: int) -> set[tuple[str, int]]:
        return {name for name, plane in page.planes(handle, 1).items() if plane.any()}

    page.ask("the liver")
    at = page.js("return window.fake.viewer.at")
    assert drawn_on(0) == {shown[at]} and f"slice {at + 1}" in page.last()
    page.scope("range")
    page.until(lambda: page.all("[data-key=scope-from]"), "two numbers can be given")
    for which, number in (("from", 7), ("to", 10)):
        page.js(
            "const e = document.querySelector(`[data-key=scope-${arguments[0]}]`); e.value = arguments[1]; "
            "e.dispatchEvent(new Event('change'));",
            which,
            number,
        )
    page.ask("the liver once more")
    assert drawn_on(1) == set(shown[6:10]) & {n for n, p in study.expected("liver").items() if p.any()}
    assert "slices 7–10" in page.last()
    page.js(
        "const e = document.querySelector('[data-key=scope-to]'); e.value = 99; e.dispatchEvent(new Event('change'));"
    )
    page.send("the liver")
    page.until(lambda: "must lie between slices 1 and 12" in page.last(), "the range is refused in words")


def test_a_follow_up_keeps_the_context(page: PanelPage, server: MedSegRServer) -> None:
    first = page.ask("the liver")
    page.ask("the spleen")
    page.click(".turn:first-child .phrase", "liver")
    page.until(lambda: page.all(".about .chip"), "the finding is meant")
    page.snap("2-about")
    turn = page.ask("again please")
    assert page.last().startswith("again please") and "Found liver." in page.last()
    history = stored(server, turn)["history"]
    assert [h["question"] for h in history] == ["the spleen", "the liver"]
    assert history[1]["answer"] == stored(server, first)["answer"] == "Found liver."
    assert page.text(".about") == ""
    page.click(".turn:nth-child(2) .phrase", "spleen")
    page.click(".about button")
    turn = page.ask("again please")
    assert [h["question"] for h in stored(server, turn)["history"]] == [
        "the liver",
        "the spleen",
        "again please",
    ]
    drawn = page.js("return window.fake.segments.drawn.length")
    assert drawn == 4, "every answer has a segmentation of its own"
    page.click("button", "New conversation")
    page.until(lambda: not page.all(".turn"), "the conversation is gone")
    turn = page.ask("the spleen")
    assert stored(server, turn)["history"] == []


def test_not_present_is_an_answer(page: PanelPage, server: MedSegRServer) -> None:
    turn = page.ask("nothing")
    assert page.text(".current .outcome") == "Not present" and page.text(".current .answer") == "Not present."
    assert not page.all(".current .findings") and not page.all(".current .trouble")
    assert page.faint() == []
    page.keys("a", held=ALT)
    page.until(lambda: "Accepted." in page.last(), "it is accepted")
    assert [c["verdict"] for c in corrections(server, turn)] == ["accepted"]


def test_not_trained_is_an_answer_of_its_own(page: PanelPage) -> None:
    page.ask("an unheard thing")
    assert page.text(".current .outcome") == "Not trained for this" and not page.all(".current .trouble")
    assert page.faint() == []


def test_queue_progress_and_cancel(page: PanelPage, server: MedSegRServer, study: Series) -> None:
    body = {"image": study.uid, "question": "slowly 12 liver", "client_id": "somebody else"}
    other = threading.Thread(target=lambda: server.post("/medsegr/ask", json=body))
    other.start()
    time.sleep(0.5)
    page.scope("series")
    page.send("slowly 60 spleen")
    page.until(lambda: "One question is ahead of yours." in page.last(), "the place in the queue is told")
    page.until(lambda: "1 of 2 slices" in page.last(), "progress is told")
    assert page.js("return document.querySelector('.turn progress').value") == 0.5
    page.snap("3-progress")
    assert page.faint() == []
    turn = page.last_id()
    page.click(".waiting button", "Cancel")
    page.until(lambda: "You cancelled this question." in page.last(), "it is cancelled", 15)
    assert turn and stored(server, turn)["status"] == "cancelled"
    assert "slowly 60 spleen" in page.last(), "the question stays to be asked again"
    other.join()


def test_the_server_dies_in_mid_question(page: PanelPage, server: MedSegRServer) -> None:
    page.ask("the liver")
    page.send("slowly 20 spleen")
    page.until(lambda: "Answering" in page.last(), "it is being answered")
    page.write("and what about the gallb")
    server.kill()
    page.until(lambda: page.all(".turn.is-interrupted"), "the break is noticed")
    page.until(lambda: page.find(".hindrance").is_displayed(), "it is told")
    assert "The images stay as they are" in page.text(".hindrance") and "slowly 20 spleen" in page.last()
    assert page.find(BOX).get_attribute("value") == "and what about the gallb"
    page.snap("4-away")
    assert page.faint() == []
    page.driver.refresh()
    page.until(lambda: len(page.all(".turn")) == 2, "a reload brings the conversation back")
    assert page.find(BOX).get_attribute("value") == "and what about the gallb"
    server.restart()
    page.until(lambda: page.all(".light.ready"), "the panel finds the server by itself", 60)
    assert not page.find(".hindrance").is_displayed()
    page.click(".turn.is-interrupted button", "Ask again")
    page.until(lambda: page.all(".turn.is-running"), "the question is asked again with one click")
    page.click(".waiting button", "Cancel")
    page.until(lambda: page.all(".turn.is-cancelled"), "it is cancelled", 15)
    page.click(".turn.is-done button", "Show the masks")
    page.until(
        lambda: page.js("return window.fake.segments.drawn.length") == 1, "the old masks are drawn anew"
    )


def test_a_login_that_ended(page: PanelPage, site: PanelSite) -> None:
    page.write("is the liver")
    site.refuse = (401, "Log in first.")
    page.find(BOX).send_keys(" there?", ENTER)
    page.until(lambda: "Your login has ended." in page.text(".hindrance"), "it is told")
    link = page.find(".hindrance a").get_attribute("href")
    assert link.startswith(f"{site.url}/medsegr/login?next=%2Fpanel%2Fpanel_page.html%3Fseries%3D")
    assert "is the liver there?" in page.last()
    page.write("draft")
    page.snap("5-login")
    page.driver.refresh()
    page.until(lambda: page.all(".turn"), "the conversation is back")
    assert page.find(BOX).get_attribute("value") == "draft"
    site.refuse = None
    page.until(lambda: page.all(".light.ready"), "the new login is noticed")
    page.click(".turn.is-interrupted button", "Ask again")
    page.until(lambda: "Found liver." in page.last(), "the question is answered after all")


def test_refusals_are_told_in_the_servers_sentence(page: PanelPage, site: PanelSite) -> None:
    site.refuse = (429, "8 questions are waiting already; please ask again later.")
    page.send("<b>the liver</b>")
    page.until(lambda: "8 questions are waiting already" in page.last(), "busy is told")
    assert "<b>the liver</b>" in page.last() and not page.all(".turn b")
    site.refuse = None
    page.click(".turn button", "Ask again")
    page.until(lambda: page.all(".turn.is-done"), "it is answered")
    page.send("slowly 8 spleen")
    page.until(lambda: page.all(".turn.is-running"), "the next is being answered")
    page.send("refuse")
    page.until(lambda: "Wait for the answer" in page.text(), "one question at a time")
    page.until(lambda: len(page.all(".turn.is-done")) == 2, "it is answered")
    assert page.find(BOX).get_attribute("value") == "refuse"
    page.find(BOX).send_keys(ENTER)
    page.until(lambda: "The question cannot be answered." in page.last(), "a failure is told")


def test_keys_alone_from_question_to_correction(
    page: PanelPage, server: MedSegRServer, study: Series
) -> None:
    """Tab, Enter, Space, Alt+letter and nothing else; the viewer never hears what is typed."""
    page.js("document.getElementById('before').focus()")
    for _ in range(20):
        page.keys(TAB)
        if page.js("return document.activeElement.id") == BOX[1:]:
            break
    page.keys("the liver", ENTER)
    page.until(lambda: page.all(".turn.is-done"), "it is answered")
    turn = str(page.last_id())
    page.keys("a", held=ALT)
    page.until(lambda: "Accepted." in page.last(), "Alt+A accepts")
    assert page.js("return document.activeElement.id") == BOX[1:]
    page.keys(TAB, held=SHIFT)
    assert page.js("return Boolean(document.activeElement.closest('.medsegr-panel'))")
    focus_on(page, "Edit text", back=True)
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keys(SPACE)
    page.until(
        lambda: page.js("return document.activeElement.matches('.framed textarea')"), "the text can be edited"
    )
    page.keys(" It is large.")
    page.keys(TAB, ENTER)
    page.until(lambda: page.text(".current .answer") == "Found liver. It is large.", "the edit is kept")
    sop = study.images[6].sop
    page.paint(0, 1, sop, 0, 40)
    page.keys("s", held=ALT)
    page.until(lambda: "Correction saved (the text and liver)." in page.last(), "Alt+S submits")
    page.keys("r", held=ALT)
    page.until(
        lambda: page.js("return document.activeElement.matches('.framed .chip')"), "Alt+R asks for a reason"
    )
    page.snap("6-reject")
    page.keys(TAB, SPACE)
    page.until(lambda: page.all(".framed .chip[aria-pressed=true]"), "a reason is chosen")
    focus_on(page, "Send rejection")
    page.keys(ENTER)
    page.until(lambda: "Rejected (outline is off)." in page.last(), "it is rejected")
    made = corrections(server, turn)
    assert [c["verdict"] for c in made] == ["accepted", "edited", "rejected"]
    assert made[1]["answer"] == "Found liver. It is large." and made[2]["reason"] == "Outline is off"
    assert same(corrected_planes(server, made[1]["id"], 1, study), page.planes(0, 1))
    heard = set(page.js("return window.fake.keys"))
    assert heard <= {"Tab", "Alt", "Shift"}, "the viewer heard keys that were meant for the panel"
    page.keys("q", held=ALT)
    page.keys(UP)
    assert page.find(BOX).get_attribute("value") == "the liver", "arrow up brings the last question back"


def choose(page: PanelPage, label: str) -> None:
    page.click(".current .name", label)
    page.until(lambda: page.text(".finding.meant .name") == label, f"{label} is chosen")


def focus_on(page: PanelPage, caption: str, back: bool = False) -> None:
    for _ in range(25):
        page.keys(TAB, held=SHIFT if back else None)
        if page.js("return document.activeElement.innerText.startsWith(arguments[0])", caption):
            return
    raise AssertionError(f"“{caption}” cannot be reached with the keyboard.")


def test_a_correction_is_what_the_viewer_held(page: PanelPage, server: MedSegRServer, study: Series) -> None:
    """A mask painted, one emptied, one renamed, one new: stored voxel by voxel; refused uploads lose nothing."""
    page.scope("series")
    turn = page.ask("the liver, the gallbladder and the spleen")
    page.click(".verdicts .submit")
    page.until(lambda: "Nothing is changed yet" in page.last(), "there is nothing to submit")
    sops = [image.sop for image in study.images]
    page.paint(0, 1, sops[2], 100, 300)
    page.paint(0, 1, sops[11], 5, 9)
    page.until(lambda: page.text(".current .finding .tag") == "edited", "the edit shows")
    choose(page, "gallbladder")
    page.click(".finding.meant button", "Not there")
    page.until(lambda: "not there" in page.last(), "it is marked as absent")
    choose(page, "spleen")
    page.click(".finding.meant button", "Rename")
    page.until(lambda: page.all(".rename input"), "a name can be given")
    page.find(".rename input").clear()
    page.find(".rename input").send_keys("accessory spleen", ENTER)
    page.click(".current button", "Draw what was missed")
    page.until(lambda: page.all(".framed input"), "a name can be given")
    page.find(".framed input").send_keys("cyst", ENTER)
    page.until(lambda: "Drawn by you" in page.last(), "a finding was added")
    page.paint(0, 4, sops[5], 1000, 1010)
    page.snap("7-edited")
    assert page.faint() == []
    page.click(".verdicts .submit")
    page.until(
        lambda: "gallbladder has nothing drawn and will be stored as “not present”." in page.last(),
        "it is told",
    )
    assert corrections(server, turn) == []
    server.kill()
    page.click(".framed button", "Yes, submit")
    page.until(lambda: "Nothing is lost." in page.last(), "the failure is told")
    server.restart()
    page.click(".trouble button", "Try again")
    page.until(lambda: "Correction saved" in page.last(), "it is stored after all")
    page.snap("8-saved")
    (made,) = corrections(server, turn)
    assert made["verdict"] == "edited" and made["client_id"].startswith("ohif-")
    assert [f["label"] for f in made["findings"]] == ["liver", "gallbladder", "accessory spleen", "cyst"]
    painted = page.planes(0, 1)
    assert painted[sops[11], 1][5:9].all() and not same(painted, study.expected("liver"))
    assert same(corrected_planes(server, made["id"], 1, study), painted)
    assert not any(plane.any() for plane in corrected_planes(server, made["id"], 2, study).values())
    assert same(corrected_planes(server, made["id"], 3, study), study.expected("spleen"))
    cyst = corrected_planes(server, made["id"], 4, study)
    assert same(cyst, page.planes(0, 4)) and sum(int(p.sum()) for p in cyst.values()) == 10


def test_what_was_missed_is_drawn_into_an_empty_answer(
    page: PanelPage, server: MedSegRServer, study: Series
) -> None:
    turn = page.ask("nothing")
    page.click(".current button", "Draw what was missed")
    page.until(lambda: page.all(".framed input"), "a name can be given")
    page.find(".framed input").send_keys("left kidney", ENTER)
    page.until(lambda: "Drawn by you" in page.last(), "a finding was added")
    page.paint(0, 1, study.images[3].sop, 40, 90)
    page.click(".current button", "Undo")
    assert page.js("return window.fake.segments.undone") == 1
    page.paint(0, 1, study.images[3].sop, 40, 80)
    page.keys("a", held=ALT)
    page.until(
        lambda: "Correction saved (left kidney)." in page.last(), "accepting what was edited is a correction"
    )
    (made,) = corrections(server, turn)
    assert same(corrected_planes(server, made["id"], 1, study), page.planes(0, 1))
    assert made["findings"][0]["n"] is None and made["verdict"] == "edited"


def test_a_question_goes_on_while_another_panel_covers_it(page: PanelPage) -> None:
    page.write("draft")
    page.find(BOX).clear()
    page.send("slowly 1 liver")
    page.until(lambda: page.all(".turn.is-running"), "it is being answered")
    page.js("window.fake.cover()")
    assert not page.all(".medsegr-panel")
    time.sleep(2)
    page.js("window.fake.uncover()")
    page.until(lambda: "Found liver." in page.last(), "the answer is there")
    assert page.js("return window.fake.segments.drawn.length") == 1
    page.paint(0, 1, page.js("return window.fake.viewer.shown[6].sopUid"), 0, 9)
    page.keys("a", held=ALT)
    page.until(lambda: "Correction saved (liver)." in page.last(), "it can be judged")


def test_two_readers_do_not_meet(
    page: PanelPage, browse: Callable[[], Any], site: PanelSite, server: MedSegRServer, study: Series
) -> None:
    other = PanelPage(browse(), site.url).open(study.uid)
    page.send("slowly 1 liver")
    other.send("the spleen")
    page.until(lambda: "Found liver." in page.last(), "one is answered")
    other.until(lambda: "Found spleen." in other.last(), "so is the other")
    assert len(page.all(".turn")) == len(other.all(".turn")) == 1
    clients = {json.dumps(stored(server, str(one.last_id()))["client_id"]) for one in (page, other)}
    assert len(clients) == 2


def test_suggestions_fit_and_are_asked_with_one_click(page: PanelPage) -> None:
    page.until(lambda: len(page.all(".composer .chips button")) > 1, "questions are suggested")
    texts = [e.text for e in page.all(".composer .chips button")]
    assert "Outline the spleen." in texts and texts[-1] == "Outline every structure that you know."
    page.write("my draft")
    page.click(".composer .chips button", "Outline the spleen.")
    page.until(lambda: "Found spleen." in page.last(), "it is asked")
    assert page.find(BOX).get_attribute("value") == "my draft"


LEARNING = {
    "version": "v0007-1a2b3c4d", "corrections_since": 3, "missing": 2, "running": None,
    "last": {"id": 7, "status": "adopted", "sentence": "optic disc is better by 0.12."}, "can_rollback": True,
}  # fmt: skip
WHY = "Two ways of asking for liver gave outlines that overlap with Dice 0.41."


def test_learning_is_shown_and_a_rollback_requested_by_keys_alone(
    browser: Any, site: PanelSite, study: Series
) -> None:
    site.played = {
        "GET /medsegr/learning": (200, LEARNING),
        "GET /medsegr/next": (200, {"image": "1.2.9", "why": WHY, "strategy": "mixture", "study": "1.2"}),
        "POST /medsegr/models/rollback": (200, {"current": "v0006-5e6f7a8b"}),
        "POST /medsegr/skip": (200, {"image": "1.2.9", "skipped": True}),
        "POST /medsegr/opened": (200, {"image": study.uid, "minutes": 30}),
    }
    page = PanelPage(browser, site.url).open(study.uid, modality="CT", body="ABDOMEN")
    page.until(lambda: page.text(".learning summary") == "Learning: 3 new corrections", "it is shown")
    assert ("/medsegr/opened", {"image": study.uid}) in site.heard
    assert not page.find(".lesson").is_displayed(), "folded: the conversation needs the room"
    page.js("document.querySelector('.learning summary').focus()")
    page.keys(ENTER)
    page.until(lambda: page.find(".lesson").is_displayed(), "Enter unfolds it")
    assert "2 more cases are needed" in page.text(".lesson")
    assert page.text(".decision") == "Round 7 adopted: optic disc is better by 0.12."
    assert page.text(".version") == "v0007-1a2b3c4d"
    focus_on(page, "Request rollback")
    page.keys(ENTER)
    page.until(
        lambda: page.js("return document.activeElement.dataset.key") == "learning-reason", "a reason is asked"
    )
    page.keys(ENTER)
    assert ("/medsegr/models/rollback", {"reason": ""}) not in site.heard
    page.keys("worse on children")
    page.snap("9-rollback")
    assert page.faint() == []
    page.keys(ENTER)
    page.until(lambda: "Version v0006-5e6f7a8b is in charge again." in page.text(".lesson"), "it is told")
    assert ("/medsegr/models/rollback", {"reason": "worse on children"}) in site.heard
    assert "in charge again" in page.text("[aria-live]")
    page.click(".lesson button", "Next case")
    page.until(lambda: page.text(".case p") == WHY, "the reason is told")
    assert (
        page.find(".case a")
        .get_attribute("href")
        .endswith("?StudyInstanceUIDs=1.2&initialSeriesInstanceUID=1.2.9")
    )
    running = {"id": 8, "phase": "training", "done": 3, "total": 10}
    site.played["GET /medsegr/learning"] = (200, {**LEARNING, "running": running})
    page.click(".lesson button", "Skip it")
    page.until(lambda: page.all(".lesson button[data-key=learning-unskip]"), "a skip can be taken back")
    assert ("/medsegr/skip", {"image": "1.2.9", "undo": False}) in site.heard
    page.until(lambda: page.all(".round progress"), "a round is noticed", 40)
    assert page.js("return document.querySelector('.round progress').value") == 0.3
    page.snap("10-learning")
    assert page.faint() == [] and page.complaints() == []
    heard = set(page.js("return window.fake.keys"))
    assert heard <= {"Tab", "Alt", "Shift"}, "the viewer heard keys that were meant for the panel"


def test_who_is_no_administrator_asks_for_a_rollback_and_sees_the_request(
    browser: Any, site: PanelSite, study: Series
) -> None:
    reader = {**LEARNING, "administrator": False, "rollback_requests": [], "without_case": 1}
    asked = {"editor": "bob", "version": LEARNING["version"], "reason": "worse on children"}
    site.played = {
        "GET /medsegr/learning": (200, reader),
        "POST /medsegr/rollback-requests": (201, asked),
    }
    page = PanelPage(browser, site.url).open(study.uid, modality="CT", body="ABDOMEN")
    page.until(lambda: page.text(".learning summary") == "Learning: 3 new corrections", "it is shown")
    page.click(".learning summary")
    page.until(lambda: "1 correction cannot be learnt from yet" in page.text(".lesson"), "it is told")
    page.click(".lesson button", "Request rollback")
    page.until(lambda: page.all("[data-key=learning-reason]"), "a reason is asked")
    page.find("[data-key=learning-reason]").send_keys("worse on children")
    site.played["GET /medsegr/learning"] = (200, {**reader, "rollback_requests": [asked]})
    page.click(".lesson button", "Yes, ask them")
    page.until(lambda: "Your request is kept" in page.text(".lesson"), "it is told")
    assert ("/medsegr/rollback-requests", {"reason": "worse on children"}) in site.heard
    page.until(lambda: "a rollback is requested" in page.text(".learning summary"), "it stays seen")
    assert f"bob asks for the version before {LEARNING['version']}: worse on children" in page.text(".lesson")
    page.snap("11-rollback-request")
    assert page.faint() == [] and page.complaints() == []


def test_a_new_structure_may_be_described_in_a_few_words(
    browser: Any, site: PanelSite, study: Series
) -> None:
    said = {
        "names": ["Regenbogenhaut", " rainbow skin"],
        "location": "behind the cornea",
        "facts": ["surrounds the pupil"],
    }
    unsaid = {"names": [], "location": "", "facts": []}
    known = [
        {"name": "liver", "known": True, "knowledge": unsaid},
        {"name": "Iris", "known": False, "knowledge": unsaid},
    ]
    site.played = {
        "GET /medsegr/learning": (200, LEARNING),
        "GET /medsegr/labels": (200, {"labels": known, "described": ["optic disc"]}),
        "POST /medsegr/opened": (200, {"image": study.uid, "minutes": 30}),
        "POST /medsegr/labels": (409, {"detail": "The name, or one of `names`, means `lens` already."}),
    }
    page = PanelPage(browser, site.url).open(study.uid, modality="CT", body="ABDOMEN")

    def draw(name: str) -> None:
        page.ask("nothing")
        page.click(".current button", "Draw what was missed")
        page.until(lambda: page.all(".framed input"), "a name can be given")
        page.find(".current .framed input").send_keys(name, ENTER)
        page.until(lambda: "Drawn by you" in page.last(), "a finding was added")
        page.paint(len(page.all(".turn")) - 1, 1, study.images[3].sop, 40, 80)
        page.keys("s", held=ALT)
        page.until(lambda: f"Correction saved ({name})." in page.last(), "it is saved")

    def asks() -> int:
        return sum(path == "/medsegr/labels" and body is None for path, body in site.heard)

    draw("Optic Disc")
    page.until(lambda: asks() == 1, "the server is asked")
    assert page.text(".learning summary") == "Learning: 3 new corrections", "the knowledge base describes it"
    draw("iris")
    page.until(lambda: page.text(".learning summary") == "Learning: what is iris?", "it is asked for")
    assert "iris is new here" in page.text("[aria-live]")
    page.click(".learning summary")
    page.until(lambda: page.find(".lesson").is_displayed(), "it unfolds")
    page.click(".lesson button", "Tell it")
    page.until(lambda: "Fill in one of the three lines" in page.text(".lesson"), "nothing is no answer")
    for line, text in (("names", "Regenbogenhaut, rainbow skin,"), ("location", " behind the cornea"),
                       ("fact", "surrounds the pupil;")):  # fmt: skip
        page.find(f"[data-key=learning-describe-{line}]").send_keys(text)
    page.snap("11-describe")
    assert page.faint() == []
    page.keys(ENTER)
    page.until(lambda: "means `lens` already" in page.text(".lesson"), "a refusal is told")
    site.played["POST /medsegr/labels"] = (201, {"id": 7, "name": "iris"})
    page.click(".lesson button", "Tell it")
    page.until(lambda: "The next round learns what iris is." in page.text(".lesson"), "it is told")
    assert site.heard.count(("/medsegr/labels", {"name": "iris", **said})) == 2
    assert page.text(".learning summary") == "Learning: 3 new corrections" and page.complaints() == []
