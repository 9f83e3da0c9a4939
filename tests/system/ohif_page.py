"""OHIF in a browser, through what a user sees and, for label maps, straight from cornerstone's memory."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WAIT_S = 180
TAB, ENTER, ESCAPE, ALT, CONTROL = "\ue004", "\ue007", "\ue00c", "\ue00a", "\ue009"

DRAWN = """
const engines = window.cornerstone?.getRenderingEngines?.() ?? [];
const viewports = engines.flatMap((engine) => engine.getViewports());
return viewports.length > 0 && viewports.every((viewport) => {
  const canvas = viewport.canvas;
  if (!canvas?.width || !canvas.height) return false;
  const {data} = canvas.getContext('2d', {willReadFrequently: true}).getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.length; i += 4) if (data[i] > 20 || data[i + 1] > 20 || data[i + 2] > 20) return true;
  return false;
});
"""

LABEL_MAPS = """
const {cache, metaData} = window.cornerstone;
const {segmentation} = window.cornerstoneTools;
const encode = (bytes) => {
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
};
const planeOf = (imageId, values, rows, columns) => {
  const image = cache.getImage(imageId);
  const source = image?.referencedImageId ?? imageId;
  const instance = metaData.get('instance', source) ?? {};
  const found = /[?&]frame=(\\d+)|\\/frames\\/(\\d+)/.exec(source);
  return {
    sop: instance.SOPInstanceUID ?? null,
    frame: Number(found?.[1] ?? found?.[2] ?? 1),
    position: metaData.get('imagePlaneModule', source)?.imagePositionPatient?.map(Number) ?? null,
    rows, columns, data: encode(Uint8Array.from(values)),
  };
};
return segmentation.state.getSegmentations().map((one) => {
  const data = one.representationData.Labelmap ?? {};
  const volume = data.volumeId ? cache.getVolume(data.volumeId) : null;
  const ids = data.imageIds ?? volume?.imageIds ?? [];
  const planes = ids.map((id, k) => {
    const image = cache.getImage(id);
    if (image) {
      const values = image.voxelManager?.getScalarData?.() ?? image.getPixelData();
      return planeOf(id, values, image.rows, image.columns);
    }
    const [columns, rows] = volume.dimensions;
    const whole = volume.voxelManager.getCompleteScalarDataArray();
    return planeOf(id, whole.slice(k * rows * columns, (k + 1) * rows * columns), rows, columns);
  });
  const segments = Object.values(one.segments ?? {}).filter(Boolean)
    .map((s) => ({index: s.segmentIndex, label: s.label}));
  return {id: one.segmentationId, label: one.label ?? '', segments, planes};
});
"""

FOCUSED = """
const at = document.activeElement;
const words = at?.getAttribute('aria-label') ?? at?.labels?.[0]?.innerText ?? at?.innerText ?? '';
return words.trim();
"""

CLICKABLE = """
const [name] = arguments;
const shown = (e) => e.offsetParent !== null || e.getClientRects().length > 0;
const says = (e) => [e.getAttribute('aria-label'), e.getAttribute('title'), e.innerText]
  .some((text) => text?.trim().toLowerCase() === name.toLowerCase());
const all = [...document.querySelectorAll('button, [role=button], [role=tab], [role=menuitem], a, label, summary')];
return all.filter((e) => shown(e) && says(e)).pop() ?? null;
"""


CENTRE_OF = f"""
const box = (function () {{ {CLICKABLE} }}).apply(null, arguments)?.getBoundingClientRect();
return box ? [box.left + box.width / 2, box.top + box.height / 2] : null;
"""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One segmentation of OHIF: names of its segments, and each plane [rows, columns] by the image it lies on."""

    id: str
    label: str
    segments: dict[int, str]
    planes: dict[tuple[str, int], NDArray[np.uint8]]
    positions: dict[tuple[str, int], tuple[float, ...] | None]

    def of(self, index: int) -> dict[tuple[str, int], NDArray[np.bool_]]:
        """Where one segment is, {(SOPInstanceUID, frame): [rows, columns] bool}."""
        return {plane: values == index for plane, values in self.planes.items()}


class OhifPage:
    """One tab. With MEDSEGR_SCREENSHOTS (a folder) `snap` leaves pictures of it there."""

    def __init__(self, driver: Any, root: str) -> None:
        self.driver, self.root = driver, root.rstrip("/")

    def open(self, study: str, mode: str = "medsegr", viewer: str = "/ohif") -> OhifPage:
        """Open a study in a mode and wait until its images are drawn. `viewer`: "" for an OHIF served at the root."""
        self.driver.get(f"{self.root}{viewer}/{mode}?StudyInstanceUIDs={study}")
        self.until(lambda: self.run(DRAWN), "images are drawn")
        return self

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", css))

    def text(self, css: str = "body") -> str:
        return str(self.find(css).text)

    def until(self, check: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
        """Poll until `check` gives something; what it gave."""
        from selenium.common.exceptions import (
            JavascriptException,
            NoSuchElementException,
            StaleElementReferenceException,
            TimeoutException,
        )
        from selenium.webdriver.support.ui import WebDriverWait

        passing = (NoSuchElementException, StaleElementReferenceException, JavascriptException)
        try:
            return WebDriverWait(self.driver, seconds, 0.1, passing).until(lambda _: check())
        except TimeoutException:
            message = f"not within {seconds:.0f} s: {what}; the page says: {self.text()[:1500]}"
            raise AssertionError(message) from None

    def clickable(self, name: str) -> Any:
        """The innermost visible button (tab, link, …) whose text, ARIA label or title is `name`, or None."""
        return self.run(CLICKABLE, name)

    def click(self, name: str) -> None:
        """Press a button by what it is called."""
        self.until(lambda: self.clickable(name), f"there is a button “{name}”").click()

    def press(self, name: str, held_s: float = 0.12) -> None:
        """Press a button as a hand does: the mouse goes there, down, and up a little later."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        box = self.until(lambda: self.run(CENTRE_OF, name), f"there is a button “{name}”")
        builder = ActionBuilder(self.driver)
        builder.pointer_action.move_to_location(int(box[0]), int(box[1]))
        builder.pointer_action.pointer_down().pause(held_s).pointer_up()
        builder.perform()

    def keys(self, *keys: str) -> None:
        """To whatever has the focus, as a keyboard does."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, held: str, key: str) -> None:
        """Press a key while another is held."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def focused(self) -> str:
        """What the element with the focus is called."""
        return str(self.run(FOCUSED))

    def tab_to(self, name: str, most: int = 60) -> None:
        """Press Tab until the element of this name has the focus."""
        for _ in range(most):
            if self.focused() == name:
                return
            self.keys(TAB)
        raise AssertionError(f"Tab does not lead to “{name}”; the focus is on “{self.focused()}”.")

    def label_maps(self) -> list[LabelMap]:
        """Every segmentation that cornerstone holds, its planes named by the images they lie on."""
        return [_label_map(found) for found in self.run(LABEL_MAPS)]

    def console(self) -> list[str]:
        """Errors that the page's console showed since the last call."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def snap(self, name: str) -> None:
        if folder := os.environ.get("MEDSEGR_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def _label_map(found: Any) -> LabelMap:
    planes, positions = {}, {}
    for plane in found["planes"]:
        values = np.frombuffer(base64.b64decode(plane["data"]), np.uint8)
        name = (str(plane["sop"]), int(plane["frame"]))
        assert name not in planes, f"two planes of a label map lie on {name}"
        planes[name] = values.reshape(plane["rows"], plane["columns"])
        positions[name] = tuple(plane["position"]) if plane["position"] else None
    segments = {int(s["index"]): str(s["label"]) for s in found["segments"]}
    return LabelMap(found["id"], found["label"], segments, planes, positions)
