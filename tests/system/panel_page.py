"""The reasoning panel in a browser, beside a viewer that only pretends: what a reader sees and does."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

WAIT_S = 30
ENTER, ESCAPE, TAB, ALT, SHIFT, SPACE, UP = "\ue007", "\ue00c", "\ue004", "\ue00a", "\ue008", " ", "\ue013"
BOX = "#medsegr-question"
CONTRAST = """
const parse = (text) => {
  const numbers = text.match(/[\\d.]+(?:e-?\\d+)?/g).map(Number);
  const scale = text.startsWith("color(srgb") ? 255 : 1;
  return [...numbers.slice(0, 3).map((v) => v * scale), numbers[3] ?? 1];
};
const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
const luminance = (colour) => {
  const [r, g, b] = colour.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reduceRight((below, layer) => over(layer, below), [0, 0, 0, 1]);
};
const found = [];
const judge = (words, colour, node) => {
  const behind = ground(node);
  const [high, low] = [luminance(over(parse(colour), behind)), luminance(behind)].sort((a, b) => b - a);
  found.push([words.trim().slice(0, 60), (high + 0.05) / (low + 0.05)]);
};
const panel = document.querySelector(".medsegr-panel");
const walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const [words, node] = [walker.currentNode.data, walker.currentNode.parentElement];
  const seen = words.trim() && node.checkVisibility() && !node.closest(".for-ears");
  if (seen) judge(words, getComputedStyle(node).color, node);
}
for (const field of panel.querySelectorAll("textarea, input")) {
  if (!field.checkVisibility()) continue;
  judge(field.placeholder || field.value || "x", getComputedStyle(field, field.value ? null : "::placeholder").color, field);
}
return found;
"""


class PanelPage:
    """The page in one browser. With MEDSEGR_SCREENSHOTS (a folder) it leaves pictures of itself there."""

    def __init__(self, driver: Any, site: str) -> None:
        self.driver, self.site = driver, site

    def open(self, series: str, **query: str | int) -> PanelPage:
        """Open the page on a series, forgetting what this tab knew before."""
        self.driver.get(
            f"{self.site}/panel/fake_viewer.js"
        )  # of the same origin, and without a panel that would save again
        self.js("sessionStorage.clear()")
        self.driver.get(f"{self.site}/panel/panel_page.html?{urlencode({'series': series, **query})}")
        self.until(lambda: self.js("return Boolean(window.fake)"), "the panel is mounted")
        self.until(lambda: self.all(".light.ready"), "the server is ready")
        return self

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def text(self, css: str = ".medsegr-panel") -> str:
        """All text under the first match, hidden or not; "" where there is none."""
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def until(self, check: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, 0.05, (StaleElementReferenceException,))
        try:
            waiting.until(lambda _: check())
        except TimeoutException:
            sentence = f"not within {seconds:.0f} s: {what}; the page says: {self.text('body')[:2000]}"
            raise AssertionError(sentence) from None

    def keys(self, *keys: str, held: str | None = None) -> None:
        """To whatever has the focus, as a keyboard does."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver)
        if held:
            chain.key_down(held)
        chain.send_keys(*keys)
        if held:
            chain.key_up(held)
        chain.perform()

    def click(self, css: str, words: str = "") -> None:
        """Click the last match that contains `words`, once there is one."""
        self.until(lambda: self._press(css, words), f"{css} {words!r} can be clicked")

    def _press(self, css: str, words: str) -> bool:
        script = """
          const all = [...document.querySelectorAll(arguments[0])];
          const found = all.filter((e) => e.innerText.includes(arguments[1]) && !e.disabled);
          found.at(-1)?.click();
          return found.length > 0;
        """
        return bool(self.js(script, css, words))

    def scope(self, kind: str) -> None:
        """this, range or series."""
        self.js("document.querySelector(`[data-key=scope-${arguments[0]}]`).click()", kind)

    def write(self, question: str) -> None:
        self.find(BOX).send_keys(question)

    def send(self, question: str) -> None:
        """Type a question and press Enter; does not wait."""
        self.write(question)
        self.find(BOX).send_keys(ENTER)

    def ask(self, question: str) -> str:
        """Ask and wait until the answer is there and drawn; returns the turn's id."""
        before = len(self.all(".turn"))
        self.send(question)
        self.until(lambda: len(self.all(".turn.is-done")) > before, "the answer is there")
        count = self.js("return window.medsegr?.panel?.timings.length ?? 0")
        self.until(
            lambda: self.js("return window.medsegr?.panel?.timings.length ?? 0") >= max(count, 1),
            "it is drawn",
        )
        self.until(lambda: "Drawing…" not in self.text(".turn.current"), "it is drawn")
        return str(self.last_id())

    def last_id(self) -> str | None:
        """The id of the newest turn, as this tab keeps it."""
        script = """
          const key = Object.keys(sessionStorage).find((name) => name.startsWith("medsegr.conversation."));
          return JSON.parse(sessionStorage.getItem(key)).turns.at(-1)?.id ?? null;
        """
        found = self.js(script)
        return None if found is None else str(found)

    def last(self) -> str:
        """All that the newest turn says."""
        turns = self.all(".turn")
        return str(turns[-1].text) if turns else ""

    def planes(self, handle: int, n: int) -> dict[tuple[str, int], NDArray[np.bool_]]:
        """What the viewer holds of a segment: {(SOPInstanceUID, frame): raster [pixels] bool}."""
        script = """
          const { planes } = window.fake.segments.of(...arguments);
          return [...planes].map(([name, plane]) => [name, btoa(String.fromCharCode(...plane))]);
        """
        found: dict[tuple[str, int], NDArray[np.bool_]] = {}
        for name, data in self.js(script, handle, n):
            sop, frame = name.split("|")
            found[sop, int(frame)] = np.frombuffer(base64.b64decode(data), np.uint8) != 0
        return found

    def paint(self, handle: int, n: int, sop: str, start: int, stop: int, value: int = 1) -> None:
        """A stroke of the viewer's brush (or eraser) over pixels [start, stop) of one image."""
        self.js("window.fake.segments.edit(...arguments)", handle, n, f"{sop}|1", start, stop, value)

    def faint(self) -> list[tuple[str, float]]:
        """Texts whose contrast with what is behind them is below 4.5:1 (WCAG 2.2, 1.4.3)."""
        found = self.js(CONTRAST)
        assert len(found) > 10
        return [(words, round(ratio, 2)) for words, ratio in found if ratio < 4.5]

    def snap(self, name: str) -> None:
        if folder := os.environ.get("MEDSEGR_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"panel-{name}.png"))

    def complaints(self) -> list[str]:
        """What the browser's console calls an error, failed requests apart."""
        lines = [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
        return [line for line in lines if "Failed to load resource" not in line]
