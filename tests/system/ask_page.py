"""OHIF with the reasoning panel, as a reader uses it: ask, look, paint with OHIF's brush, judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.system.ohif_page import CONTROL, DRAWN, ENTER, LabelMap, OhifPage
from tests.system.studies import Plane

BOX = "#medsegr-question"
ASK_TAB, TOOLS_TAB = "[data-cy=ask-btn]", "[data-cy=panelSegmentationWithTools-btn]"
TIMINGS = "return window.medsegr?.panel?.timings ?? []"
CENTRE = """
const [id] = arguments;
const viewport = window.cornerstone.getRenderingEngines().flatMap((e) => e.getViewports()).find((v) => v.id === id);
const box = viewport.element.getBoundingClientRect();
return [box.left + box.width / 2, box.top + box.height / 2];
"""
ACTIVE = "return window.services.viewportGridService.getState().activeViewportId"
TOOL = """
const {activeViewportId} = window.services.viewportGridService.getState();
return window.services.toolGroupService.getToolGroupForViewport(activeViewportId).getActivePrimaryMouseButtonTool() ?? '';
"""
DISPLAY_SET = """
const [series] = arguments;
return window.services.displaySetService.getDisplaySetsForSeries(series)[0].displaySetInstanceUID;
"""
SERIES = """
const {activeViewportId, viewports} = window.services.viewportGridService.getState();
const [uid] = viewports.get(activeViewportId).displaySetInstanceUIDs;
return window.services.displaySetService.getDisplaySetByUID(uid)?.SeriesInstanceUID;
"""
SHOWN = """
const id = window.services.viewportGridService.getState().activeViewportId;
const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
const imageId = viewport.getCurrentImageId();
const instance = window.cornerstone.metaData.get('instance', imageId);
const found = /[?&]frame=(\\d+)|\\/frames\\/(\\d+)/.exec(imageId);
return [instance.SOPInstanceUID, Number(found?.[1] ?? found?.[2] ?? 1)];
"""


@dataclass(frozen=True)
class Answer:
    """A finished turn: its id, what the panel says of it, and when (ms of the page) it was asked, done, fetched, drawn."""

    turn: str
    text: str
    marks: dict[str, float]


class AskPage(OhifPage):
    """The panel beside OHIF's viewports."""

    def open(self, study: str, mode: str = "medsegr", viewer: str = "/ohif") -> AskPage:
        super().open(study, mode, viewer)
        if self.clickable("Confirm and Hide"):
            self.click("Confirm and Hide")
        self.until(lambda: self.all(ASK_TAB) or self.all(BOX), "the panel is offered")
        if not self.all(BOX):
            self.find(ASK_TAB).click()
        self.until(lambda: self.all(".medsegr-panel .light.ready"), "the panel says that the server is ready")
        return self

    def scope(self, kind: str) -> None:
        """this, range or series; nothing to choose where there is one image."""
        self.run("document.querySelector(`[data-key=scope-${arguments[0]}]:not(:checked)`)?.click()", kind)

    def write(self, question: str) -> None:
        """Type into the question box, over what is in it."""
        self.find(BOX).click()
        self.chord(CONTROL, "a")
        self.keys(question)

    def send(self, question: str) -> None:
        """Type a question and press Enter; does not wait."""
        self.write(question)
        self.keys(ENTER)

    def ask(self, question: str, scope: str = "series") -> Answer:
        """Ask and wait until the answer stands in the panel and its masks are drawn."""
        self.scope(scope)
        before = len(self.run(TIMINGS))
        self.send(question)
        return self.answered(before)

    def answered(self, before: int = 0) -> Answer:
        """Wait for one more finished turn than `before`."""
        marks = self.until(lambda: self.run(TIMINGS)[before:], "the question is answered")[-1]
        assert marks["status"] == "done", f"{marks}; the panel says: {self.last()}"
        self.until(lambda: "Drawing…" not in self.last(), "the masks are drawn")
        text = self.all(".turn .answer")[-1].text
        numbers = {key: float(value) for key, value in marks.items() if isinstance(value, int | float)}
        return Answer(marks["turn"], text, numbers)

    def count(self) -> int:
        """How many turns of this page have ended."""
        return len(self.run(TIMINGS))

    def anew(self) -> None:
        """A new conversation, without what this tab asked before."""
        if self.all(".medsegr-panel .turn"):
            self.click("New conversation")

    def scroll(self, images: int) -> None:
        """Turn the wheel over the active viewport."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        x, y = self.run(CENTRE, self.run(ACTIVE))
        origin = ScrollOrigin.from_viewport(int(x), int(y))
        ActionChains(self.driver).scroll_from_origin(origin, 0, 100 * images).perform()

    def last(self) -> str:
        """All that the newest turn says."""
        turns = self.all(".medsegr-panel .turn")
        return str(turns[-1].text) if turns else ""

    def shown(self) -> Plane:
        """(SOPInstanceUID, frame) of the image in the active viewport."""
        sop, frame = self.run(SHOWN)
        return str(sop), int(frame)

    def drawn(self, label: str) -> dict[Plane, NDArray[np.bool_]]:
        """Where OHIF shows an organ, over all its label maps; each plane at most once."""
        found: dict[Plane, NDArray[np.bool_]] = {}
        for one in self.label_maps():
            for index, name in one.segments.items():
                if name == label:
                    for plane, mask in one.of(index).items():
                        found[plane] = found[plane] | mask if plane in found else mask
        return found

    def maps_of(self, label: str) -> list[LabelMap]:
        """The label maps that have a segment of this name, oldest first."""
        return [one for one in self.label_maps() if label in one.segments.values()]

    def tool(self, name: str) -> None:
        """Take one of OHIF's own tools (Brush, Eraser, Threshold), and come back to the panel."""
        self.find(TOOLS_TAB).click()
        self.until(lambda: self.all(f"[data-cy={name}]"), f"OHIF offers its {name}")
        self.find(f"[data-cy={name}]").click()
        self.until(lambda: name in self.run(TOOL), f"the mouse holds OHIF's {name}")
        self.find(ASK_TAB).click()
        self.until(lambda: self.all(BOX), "the panel is back")

    def paint(self, tool: str = "Brush") -> None:
        """A stroke with one of OHIF's tools across the middle of the image."""
        self.tool(tool)
        self.stroke([(-60.0, 20.0), (-20.0, 40.0), (30.0, 70.0), (60.0, 60.0)])

    def show_series(self, series: str) -> None:
        """Open a series of the study by a double click on its thumbnail, and wait until it is drawn."""
        from selenium.webdriver import ActionChains

        thumbnail = self.find(f"[id='thumbnail-{self.run(DISPLAY_SET, series)}']")
        self.run("arguments[0].scrollIntoView({block: 'center'})", thumbnail)
        ActionChains(self.driver).double_click(thumbnail).perform()
        self.until(lambda: self.run(SERIES) == series, "the series is in the viewport")
        self.until(lambda: self.run(DRAWN), "its images are drawn")

    def stroke(self, path: list[tuple[float, float]]) -> None:
        """Drag the mouse over the active viewport; offsets in CSS pixels from its centre."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        x, y = self.run(CENTRE, self.run(ACTIVE))
        builder = ActionBuilder(self.driver, duration=60)
        pointer = builder.pointer_action
        pointer.move_to_location(int(x + path[0][0]), int(y + path[0][1]))
        pointer.pause(0.3)
        pointer.pointer_down()
        for dx, dy in path[1:]:
            pointer.move_to_location(int(x + dx), int(y + dy))
        pointer.pointer_up()
        builder.perform()
        ActionChains(self.driver).pause(0.3).perform()

    def submit(self, verdict: str = "submit") -> str:
        """Press a button of the verdict (accept, submit); what the panel says once it is saved."""
        self.find(f".medsegr-panel .verdicts .{verdict}").click()
        self.until(lambda: "✓" in self.text(".medsegr-panel .turn.current .saved"), "the verdict is saved")
        return self.text(".medsegr-panel .turn.current .saved")
