"""Ask in OHIF, on a real PACS: the answer appears, and OHIF's label map is the server's mask, image by image.

Truth is threefold: what cornerstone holds, what the server gives, and the grey values of the DICOM files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system import studies
from tests.system.ask_page import BOX, Answer, AskPage
from tests.system.masks import check_drawn, same
from tests.system.ohif_page import ALT, CONTROL, ENTER
from tests.system.orthanc import Orthanc
from tests.system.servers import SEEING, MedSegRServer
from tests.system.studies import Study

pytestmark = pytest.mark.system
QUESTION = "Where are the liver, the gallbladder and the spleen?"
Archive = Callable[[str], Study]


@pytest.fixture(scope="module")
def archive(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Writes a study of `studies.py` by its name and stores it in the PACS, once."""
    known: dict[str, Study] = {}

    def store(name: str) -> Study:
        if name not in known:
            known[name] = getattr(studies, name)(tmp_path_factory.mktemp(name))
            orthanc.upload(known[name].paths)
        return known[name]

    return store


@pytest.fixture(scope="module")
def server(orthanc: Orthanc, medsegr_server: Callable[..., MedSegRServer]) -> MedSegRServer:
    return medsegr_server(orthanc.url, factory=SEEING)


@pytest.fixture
def page(browser: Any, server: MedSegRServer) -> AskPage:
    return AskPage(browser, server.url)


@pytest.mark.parametrize(
    "name",
    [
        "axial_ct",
        "sagittal_mr",
        "reversed_ct",
        "shuffled_ct",
        "oblique_mr",
        "single_cr",
        "colour_photograph",
        "multi_frame_us",
        "enhanced_ct",
        "untagged_ct",
    ],
)
def test_the_mask_in_ohif_is_the_servers(
    page: AskPage, server: MedSegRServer, archive: Archive, name: str
) -> None:
    study = archive(name)
    page.open(study.uid)
    answer = page.ask(QUESTION)
    page.snap(f"ask-{name}")
    assert answer.text == "Found liver and gallbladder and spleen."
    check_drawn(page, server, answer, study.series[0])


@pytest.mark.parametrize("name", ["axial_ct", "sagittal_mr", "oblique_mr"])
def test_the_panel_joins_the_stock_mode(
    page: AskPage, server: MedSegRServer, archive: Archive, name: str
) -> None:
    study = archive(name)
    page.open(study.uid, "monai-label")
    answer = page.ask(QUESTION)
    page.snap(f"stock-mode-{name}")
    check_drawn(page, server, answer, study.series[0])


def test_each_view_of_a_series_gets_its_own_answer(
    page: AskPage, server: MedSegRServer, archive: Archive
) -> None:
    """Two radiographs of different size in one series: what is asked about one is drawn on that one."""
    study = archive("two_views")
    page.open(study.uid)
    asked = page.shown()
    answer = page.ask("Where is the liver?")
    expected = study.series[0].expected("liver")
    assert same(page.drawn("liver"), {asked: expected[asked]})
    turn = server.get(f"/medsegr/turns/{answer.turn}").json()
    given = server.mask_by_instance(answer.turn, 1, study.series[0].uid, turn["options"]["stack"])
    assert same(given, {asked: expected[asked]})


def test_one_slice_is_answered_alone(page: AskPage, archive: Archive) -> None:
    study = archive("reversed_ct")
    page.open(study.uid)
    asked = page.shown()
    page.ask("Where is the spleen?", scope="this")
    expected = study.series[0].expected("spleen")
    assert expected[asked].any() and same(page.drawn("spleen"), {asked: expected[asked]})


def test_a_phrase_leads_to_its_slice(page: AskPage, archive: Archive) -> None:
    """A click on what the answer names shows the image on which it is largest."""
    study = archive("axial_ct")
    page.open(study.uid)
    page.ask("Where is the liver?")
    page.all(".turn .finding .name")[-1].click()
    expected = study.series[0].expected("liver")
    largest = max(expected, key=lambda plane: int(expected[plane].sum()))
    page.until(lambda: page.shown() == largest, "the largest slice is shown")


def test_a_follow_up_keeps_the_context_and_the_first_mask(
    page: AskPage, server: MedSegRServer, archive: Archive
) -> None:
    study = archive("axial_ct")
    page.open(study.uid)
    page.anew()
    page.ask("Where is the spleen?")
    first = page.maps_of("spleen")
    second = page.ask("Show it again")  # the predictor repeats what the last question named
    assert second.text == "Found spleen."
    turn = server.get(f"/medsegr/turns/{second.turn}").json()
    assert [(t["question"], t["answer"]) for t in turn["history"]] == [
        ("Where is the spleen?", "Found spleen.")
    ]
    now = page.maps_of("spleen")
    assert len(now) == 2 * len(first) and [one.id for one in now[: len(first)]] == [one.id for one in first]
    assert all(same(one.of(1), other.of(1)) for one, other in zip(first, now, strict=False))
    check_drawn(page, server, second, study.series[0], ("spleen",))


def test_what_is_not_present_is_an_answer_without_a_mask(page: AskPage, archive: Archive) -> None:
    page.open(archive("axial_ct").uid)
    before = len(page.label_maps())
    answer = page.ask("nothing")
    assert answer.text == "Not present." and "Not present" in page.last()
    assert not any(mask.any() for one in page.label_maps()[before:] for mask in one.planes.values())


def test_what_was_not_learnt_is_said(page: AskPage, archive: Archive) -> None:
    page.open(archive("axial_ct").uid)
    page.ask("an unheard thing")
    assert "Not trained for this" in page.last()


def test_a_question_can_be_cancelled(page: AskPage, server: MedSegRServer, archive: Archive) -> None:
    study = archive("axial_ct")
    page.open(study.uid)
    page.scope("series")
    maps = len(page.label_maps())
    page.send("slowly 60 liver")
    page.until(lambda: "Answering" in page.last(), "the question is being answered")
    page.press("Cancel")
    page.until(lambda: "You cancelled this question." in page.last(), "the end is said", 10)
    assert len(page.label_maps()) == maps
    answer = page.ask("Where is the spleen?")
    check_drawn(page, server, answer, study.series[0], ("spleen",))


def test_a_server_killed_in_mid_question_loses_no_text(
    page: AskPage, server: MedSegRServer, archive: Archive
) -> None:
    study = archive("axial_ct")
    page.open(study.uid)
    page.anew()
    kept = page.ask("Where is the spleen?")
    page.scope("series")
    page.send("slowly 3 liver")
    page.until(lambda: "Answering" in page.last(), "the question is being answered")
    server.kill()
    page.until(lambda: page.clickable("Ask again"), "the loss is noticed")
    assert "slowly 3 liver" in page.last() and "The server does not answer" in page.text(".medsegr-panel")
    page.write("Typed while it was away")
    shown = page.shown()
    page.scroll(1)
    page.until(lambda: page.shown() != shown, "viewing goes on")
    page.snap("server-away")
    server.restart()
    page.until(lambda: page.all(".medsegr-panel .light.ready"), "its return is noticed")
    before = page.count()
    page.click("Ask again")
    answer = page.answered(before)
    check_drawn(page, server, answer, study.series[0], ("liver",))
    assert page.find(BOX).get_attribute("value") == "Typed while it was away"
    assert server.get(f"/medsegr/turns/{kept.turn}").json()["answer"] == kept.text


def test_two_readers_at_once_do_not_meet(
    page: AskPage, server: MedSegRServer, archive: Archive, browse: Callable[[], Any]
) -> None:
    """Each gets his own answer, history and masks, on the same study."""
    study = archive("axial_ct")
    other = AskPage(browse(), server.url)
    for reader in (page, other):
        reader.open(study.uid)
        reader.anew()
        reader.scope("series")
    page.send("slowly 8 liver")
    page.until(lambda: "Answering" in page.last(), "the first is being answered")
    other.send("slowly 1 spleen")
    other.until(lambda: "ahead of yours" in other.last(), "the second waits")
    mine, theirs = page.answered(), other.answered()
    assert mine.text == "Found liver." and theirs.text == "Found spleen."
    page.send("again")
    other.send("again")
    mine, theirs = page.answered(1), other.answered(1)
    assert mine.text == "Found liver." and theirs.text == "Found spleen."
    assert not page.maps_of("spleen") and not other.maps_of("liver")
    assert same(other.drawn("spleen"), study.series[0].expected("spleen"))
    clients = {server.get(f"/medsegr/turns/{one.turn}").json()["client_id"] for one in (mine, theirs)}
    assert len(clients) == 2


def test_a_brushed_correction_is_stored_as_ohif_shows_it(
    page: AskPage, server: MedSegRServer, archive: Archive
) -> None:
    study = archive("reversed_ct")
    page.open(study.uid)
    answer = page.ask("Where are the liver and the spleen?")
    brush_and_check(page, server, answer)
    check_stored(page, server, answer, study.series[0])


def brush_and_check(page: AskPage, server: MedSegRServer, answer: Answer) -> None:
    """Brush, eraser and undo change the first finding on the image shown, and nothing else; then submit."""
    at, original, other = page.shown(), page.drawn("liver"), page.drawn("spleen")
    page.paint()
    brushed = page.drawn("liver")
    assert (brushed[at] & ~original[at]).any() and not (original[at] & ~brushed[at]).any()
    page.paint("Eraser")
    erased = page.drawn("liver")
    assert (brushed[at] & ~erased[at]).any()
    page.click("Undo")
    page.until(lambda: same(page.drawn("liver"), brushed), "the last stroke is taken back")
    assert all(np.array_equal(brushed[plane], original[plane]) for plane in original if plane != at)
    spleen = page.drawn(
        "spleen"
    )  # a pixel has one label in a map: what is painted over is no spleen any more
    assert all(np.array_equal(spleen[plane], other[plane] & ~brushed[plane]) for plane in other)
    page.snap("brushed")
    assert "Correction saved (liver" in page.submit()


def check_stored(page: AskPage, server: MedSegRServer, answer: Answer, series: studies.Series) -> None:
    """The one correction of the turn holds what OHIF shows; the turn keeps what was answered."""
    (listed,) = server.get("/medsegr/corrections", params={"turn": answer.turn}).json()
    assert (listed["verdict"], listed["turn_id"]) == ("edited", answer.turn)
    assert [finding["label"] for finding in listed["findings"]] == ["liver", "spleen"]
    for k, label in enumerate(("liver", "spleen"), 1):
        stored = server.correction_by_instance(listed["id"], k, series.uid)
        assert same(stored, page.drawn(label)), f"another {label} was stored than OHIF shows"
        assert stored.keys() == series.expected(label).keys()
    check_answer_kept(server, answer, series)


def check_answer_kept(server: MedSegRServer, answer: Answer, series: studies.Series) -> None:
    given = server.mask_by_instance(answer.turn, 1, series.uid)
    assert same(given, series.expected("liver"))


def test_what_was_missed_is_painted_under_a_new_name(
    page: AskPage, server: MedSegRServer, archive: Archive
) -> None:
    study = archive("single_cr")
    page.open(study.uid)
    answer = page.ask("nothing")
    page.click("Draw what was missed")
    page.until(lambda: page.focused() == "Name of what was missed", "the name can be typed")
    page.keys("surgical clip", ENTER)
    page.until(lambda: page.maps_of("surgical clip"), "there is a segment to paint")
    page.paint()
    page.submit()
    (listed,) = server.get("/medsegr/corrections", params={"turn": answer.turn}).json()
    assert [(f["n"], f["label"]) for f in listed["findings"]] == [(None, "surgical clip")]
    stored = server.correction_by_instance(listed["id"], 1, study.series[0].uid)
    assert same(stored, page.drawn("surgical clip")) and any(mask.any() for mask in stored.values())


def test_with_the_keyboard_alone(page: AskPage, server: MedSegRServer, archive: Archive) -> None:
    """Ask, accept, ask again, correct the text: no mouse after the study is open."""
    study = archive("axial_ct")
    page.open(study.uid)
    page.anew()
    page.chord(ALT, "q")
    page.until(lambda: page.focused() == "Question", "the question box has the focus")
    page.keys("Where is the liver?", ENTER)
    accepted = page.answered()
    page.chord(ALT, "a")
    page.until(lambda: "Accepted." in page.last(), "it is accepted")
    page.chord(ALT, "q")
    page.keys("Where is the spleen?", ENTER)
    corrected = page.answered(1)
    page.tab_to("Edit text")
    page.keys(ENTER)
    page.until(lambda: page.focused() == "The answer as it should read", "the text can be edited")
    page.chord(CONTROL, "a")
    page.keys("The spleen is enlarged.")
    page.tab_to("Keep text")
    page.keys(ENTER)
    page.until(lambda: "The spleen is enlarged." in page.last(), "the text is kept")
    page.chord(ALT, "s")
    page.until(lambda: "Correction saved" in page.last(), "it is saved")
    page.snap("keyboard")
    (first,) = server.get("/medsegr/corrections", params={"turn": accepted.turn}).json()
    (second,) = server.get("/medsegr/corrections", params={"turn": corrected.turn}).json()
    assert (first["verdict"], second["verdict"]) == ("accepted", "edited")
    assert second["answer"] == "The spleen is enlarged."


@pytest.fixture(scope="module")
def server_311(
    orthanc: Orthanc, ohif_311: Path, medsegr_server: Callable[..., MedSegRServer]
) -> MedSegRServer:
    return medsegr_server(orthanc.url, factory=SEEING, conf={"ohif": str(ohif_311)})


@pytest.mark.parametrize("name", ["axial_ct", "reversed_ct", "sagittal_mr", "single_cr", "colour_photograph"])
def test_the_same_on_ohif_from_npm(
    browser: Any, server_311: MedSegRServer, archive: Archive, name: str
) -> None:
    study = archive(name)
    page = AskPage(browser, server_311.url)
    page.open(study.uid, viewer="")
    answer = page.ask(QUESTION)
    page.snap(f"npm-{name}")
    check_drawn(page, server_311, answer, study.series[0])


def test_a_correction_on_ohif_from_npm(browser: Any, server_311: MedSegRServer, archive: Archive) -> None:
    study = archive("axial_ct")
    page = AskPage(browser, server_311.url)
    page.open(study.uid, viewer="")
    answer = page.ask("Where are the liver and the spleen?")
    brush_and_check(page, server_311, answer)
    check_stored(page, server_311, answer, study.series[0])


@pytest.fixture(scope="module")
def folder_server(
    tmp_path_factory: pytest.TempPathFactory, medsegr_server: Callable[..., MedSegRServer]
) -> tuple[MedSegRServer, dict[str, Study]]:
    """A folder of DICOM files and nothing else: no PACS."""
    folder = tmp_path_factory.mktemp("dicom-folder")
    names = ("axial_ct", "sagittal_mr", "single_cr", "enhanced_ct", "two_views")
    written = {name: getattr(studies, name)(folder / name) for name in names}
    return medsegr_server(folder, factory=SEEING), written


@pytest.mark.parametrize("name", ["axial_ct", "sagittal_mr", "single_cr", "enhanced_ct"])
def test_a_folder_of_dicom_files_needs_no_pacs(
    browser: Any, folder_server: tuple[MedSegRServer, dict[str, Study]], name: str
) -> None:
    server, written = folder_server
    page = AskPage(browser, server.url)
    page.open(written[name].uid)
    answer = page.ask(QUESTION)
    check_drawn(page, server, answer, written[name].series[0])
    page.paint()
    page.submit()
    (listed,) = server.get("/medsegr/corrections", params={"turn": answer.turn}).json()
    stored = server.correction_by_instance(listed["id"], 1, written[name].series[0].uid)
    assert same(stored, page.drawn("liver"))
