"""Masks in OHIF: every voxel of every finding lies on the image it was made on, as cornerstone's memory and the screen
show it; edits with OHIF's brush come back; a new answer leaves earlier ones alone.

The order of a mask's slices is shuffled here against the files', so only pairing by identity can pass.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.system import studies
from tests.system.ohif_page import LabelMap, OhifPage
from tests.system.orthanc import Orthanc
from tests.system.servers import SEEING
from tests.system.studies import Plane, Series, Study

pytestmark = pytest.mark.system
ORGANS = ("liver", "spleen", "gallbladder")  # the gallbladder lies within the liver
Masks = dict[Plane, NDArray[np.bool_]]

BYTES = "const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
DRAW = (
    BYTES
    + """
const [turn, done] = arguments;
for (const finding of turn.findings) finding.mask.data = bytes(finding.mask.data);
const start = performance.now();
const {segments} = window.medsegr;
if (!window.edits) { window.edits = []; segments.onEdited((handle, n) => window.edits.push([handle.turnId, n])); }
segments.draw(turn).then(
  (handle) => { (window.handles ??= {})[turn.id] = handle; window.turns = {...window.turns, [turn.id]: turn};
    done({ms: performance.now() - start}); },
  (error) => done({error: error.message}));
"""
)
READ = """
const [id, n, done] = arguments;
const text = (data) => {
  let found = '';
  for (let i = 0; i < data.length; i += 8192) found += String.fromCharCode(...data.subarray(i, i + 8192));
  return btoa(found);
};
window.medsegr.segments.read(window.handles[id], n).then(
  ({planes}) => done([...planes].map(([name, data]) => [name, text(data)])), (error) => done({error: error.message}));
"""
SHOW = """
const [sop, frame, done] = arguments;
const {viewer} = window.medsegr;
viewer.jumpTo(viewer.active().seriesUid, sop, frame).then(
  () => setTimeout(() => done(null), 400), (error) => done(error.message));
"""
TINTED = """
const [points] = arguments;
const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
const image = viewport.getImageData();
const context = viewport.canvas.getContext('2d', {willReadFrequently: true});
const ratio = viewport.canvas.width / viewport.canvas.clientWidth;
return points.map(([row, column]) => {
  const [x, y] = viewport.worldToCanvas(image.imageData.indexToWorld([column, row, 0]));
  const [r, g, b] = context.getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data;
  return Math.max(r, g, b) - Math.min(r, g, b);
});
"""
COLOURED = """
return window.cornerstone.getRenderingEngines()[0].getViewports().slice(0, 2).every(({canvas}) => {
  const {data} = canvas.getContext('2d', {willReadFrequently: true}).getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i + 2] - data[i] > 40 && data[i + 1] > 90) found++;
  return found > 50;
});
"""
VOLUMES = """
const {cache} = window.cornerstone;
const [positions] = arguments;
return window.cornerstoneTools.segmentation.state.getSegmentations().map((one) => {
  const volume = cache.getVolume(one.representationData.Labelmap.volumeId);
  const [columns, rows] = volume.dimensions;
  return positions.map((position) => {
    const k = Math.round(volume.imageData.worldToIndex(position)[2]);
    let text = '';
    for (let j = 0; j < rows; j++) for (let i = 0; i < columns; i++) text += volume.voxelManager.getAtIJK(i, j, k);
    return text;
  });
});
"""
BRUSH = """
const [tool, radius] = arguments;
const {toolGroupService} = window.services;
const commands = window.medsegr.segments.services.commandsManager;
commands.runCommand('setToolActive', {toolName: tool});
commands.runCommand('setBrushSize', {toolNames: [tool], value: radius});
return window.cornerstone.getRenderingEngines()[0].getViewports()
  .map((v) => toolGroupService.getToolGroupForViewport(v.id)?.getActivePrimaryMouseButtonTool());
"""
PANEL = """
const [name] = arguments;
const {panelService} = window.services;
panelService.activatePanel(panelService.getPanels('right').find((panel) => panel.name === name).id, true);
"""


@dataclass(frozen=True)
class Viewer:
    """A page and what is drawn on it by this test."""

    page: OhifPage

    def draw(self, turn: dict[str, Any]) -> float:
        """Draw a turn; the milliseconds it took."""
        reply = self.page.driver.execute_async_script(DRAW, turn)
        assert "error" not in reply, reply["error"]
        return float(reply["ms"])

    def read(self, turn: str, n: int, shape: tuple[int, ...]) -> Masks:
        """What the plugin reads back of a finding."""
        reply = self.page.driver.execute_async_script(READ, turn, n)
        assert isinstance(reply, list), reply
        planes = {}
        for name, text in reply:
            sop, frame = name.split("|")
            values = np.frombuffer(base64.b64decode(text), np.uint8)
            assert set(np.unique(values)) <= {0, 1}
            planes[sop, int(frame)] = values.reshape(shape).astype(bool)
        return planes

    def tints(self, points: list[list[int]], check: Callable[[float], bool]) -> bool:
        """Whether the saturation of the pixels at `points` (row, column) is on the screen as `check` wants it."""
        return all(check(tint) for tint in self.page.run(TINTED, points))

    def show(self, plane: Plane) -> None:
        """Jump to an image with the plugin's own `jumpTo`, and look that the viewer is there."""
        assert self.page.driver.execute_async_script(SHOW, *plane) is None
        active = self.page.run("return window.medsegr.viewer.active()")
        assert (active["sopUid"], active["frame"]) == plane

    def labelled(self, organ: str, which: int = 0) -> tuple[LabelMap, int]:
        """The label map that has a segment of this name, and its index; `which` of them counts from the oldest."""
        found = [(m, i) for m in self.page.label_maps() for i, label in m.segments.items() if label == organ]
        return found[which]

    def mask(self, organ: str, which: int = 0) -> Masks:
        """Where cornerstone's own memory has an organ, by image."""
        label_map, index = self.labelled(organ, which)
        return label_map.of(index)


def turn_of(series: Series, organs: tuple[str, ...], turn: str = "first", seed: int = 5) -> dict[str, Any]:
    """A turn as the panel makes it from the server's replies, its slices in a shuffled order."""
    order = np.random.default_rng(seed).permutation(len(series.images))
    images = [series.images[k] for k in order]
    findings = []
    for n, organ in enumerate(organs, 1):
        masks = series.expected(organ)
        data = np.stack([masks[image.sop, image.frame] for image in images]).astype(np.uint8)
        sizes = list(data.shape[::-1])
        findings.append(
            {"n": n, "label": organ, "mask": {"sizes": sizes, "data": base64.b64encode(data).decode()}}
        )
    instances = [{"sop": image.sop, "frame": image.frame} for image in images]
    shape = [*series.images[0].values.shape[1::-1], len(images)]
    stacks = [
        {"n": 1, "modality": series.modality, "body_part": None, "shape": shape, "instances": instances}
    ]
    return {
        "id": turn,
        "series": {"series": series.uid, "stacks": stacks},
        "stack": 1,
        "findings": findings,
    }


def assert_same(found: Masks, expected: Masks, what: str) -> None:
    """Both ways: no image without a partner, no voxel more or less, and not empty."""
    assert found.keys() == expected.keys(), what
    assert any(mask.any() for mask in expected.values()), f"{what}: the expected mask is empty"
    for plane, mask in expected.items():
        assert np.array_equal(found[plane], mask), f"{what} on {plane}: {(found[plane] != mask).sum()} voxels"


def assert_on_screen(viewer: Viewer, series: Series, organ: str) -> None:
    """On every image that the organ touches, and on one that it does not, pixels are tinted where the mask is."""
    expected = series.expected(organ)
    touched = [plane for plane, mask in expected.items() if mask.sum() > 100]
    for plane in [touched[0], touched[-1], *[p for p, m in expected.items() if not m.any()][:1]]:
        viewer.show(plane)
        inside, others = expected[plane], sum(series.expected(o)[plane] for o in ORGANS)
        core = inside.copy()  # three pixels from any edge, where smoothing cannot reach
        away = others == 0
        for _ in range(3):
            core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
            away[1:-1, 1:-1] &= away[:-2, 1:-1] & away[2:, 1:-1] & away[1:-1, :-2] & away[1:-1, 2:]
        core[:4] = core[-4:] = core[:, :4] = core[:, -4:] = False
        away[:4] = away[-4:] = away[:, :4] = away[:, -4:] = False
        pick = np.random.default_rng(1)
        tinted = [pick.permutation(np.argwhere(where))[:12].tolist() for where in (core, away)]
        for points, check in zip(tinted, (lambda t: t > 25, lambda t: t < 15), strict=True):
            viewer.page.until(partial(viewer.tints, points, check), f"{organ} on {plane}")


@pytest.fixture(scope="module")
def server(orthanc: Orthanc, medsegr_server: Callable[..., Any]) -> Any:
    """The app on the PACS."""
    return medsegr_server(orthanc.url, factory=SEEING)


@pytest.fixture
def open_study(server: Any, browser: Any, orthanc: Orthanc) -> Iterator[Callable[..., Viewer]]:
    """Upload a study and open it in a mode."""
    browser.set_script_timeout(120)

    def open_it(study: Study, mode: str = "medsegr", url: str = server.url, viewer: str = "/ohif") -> Viewer:
        orthanc.upload(study.paths)
        page = OhifPage(browser, url).open(study.uid, mode, viewer)
        page.until(lambda: page.run("return Boolean(window.medsegr?.viewer.active())"), "the plugin is there")
        page.run("delete window.edits; delete window.handles;")
        return Viewer(page)

    yield open_it


MAKERS = {
    "axial CT": studies.axial_ct,
    "numbers against positions": studies.reversed_ct,
    "numbers without order": studies.shuffled_ct,
    "sagittal": studies.sagittal_mr,
    "oblique": studies.oblique_mr,
    "single CR": studies.single_cr,
    "colour": studies.colour_photograph,
    "frames without positions": studies.multi_frame_us,
    "frames with positions": studies.enhanced_ct,
    "no positions at all": studies.untagged_ct,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_masks_lie_on_the_images_they_were_made_on(
    kind: str, tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    study = MAKERS[kind](tmp_path)
    series = study.series[0]
    viewer = open_study(study)
    viewer.draw(turn_of(series, ORGANS))
    shape = series.images[0].values.shape[:2]
    for n, organ in enumerate(ORGANS, 1):
        assert_same(viewer.mask(organ), series.expected(organ), organ)
        assert_same(viewer.read("first", n, shape), series.expected(organ), f"{organ}, read back")
    places = viewer.labelled("liver")[0].positions
    for image in series.images:
        if image.position and kind != "frames with positions":  # of those OHIF 3.10 mixes up what it knows
            assert places[image.sop, image.frame] == pytest.approx(image.position, abs=1e-4)
    if kind != "colour":  # where the image itself is not grey, a tint cannot be told
        for organ in ("spleen", "liver"):
            assert_on_screen(viewer, series, organ)
    viewer.page.snap(f"segments-{kind.replace(' ', '-')}")


def test_findings_that_meet_have_layers_names_and_colours_of_their_own(
    tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    viewer = open_study(studies.axial_ct(tmp_path))
    series = studies.axial_ct(tmp_path).series[0]
    viewer.draw(turn_of(series, ORGANS))
    maps = viewer.page.label_maps()
    assert [set(m.segments.values()) for m in maps] == [{"liver", "spleen"}, {"gallbladder"}]
    colours = viewer.page.run(
        "return [1, 2, 3].map((n) => window.medsegr.segments.colour(window.handles.first, n))"
    )
    assert len(set(colours)) == 3
    viewer.page.run(PANEL, "panelSegmentationWithTools")
    viewer.page.until(lambda: viewer.page.text().count("liver") >= 2, "OHIF's panel names layer and segments")
    assert "spleen" in viewer.page.text() and "Segmentation Tools" in viewer.page.text()
    viewer.page.snap("segments-panel")


def test_a_new_answer_touches_nothing_that_is_there(
    tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    study = studies.axial_ct(tmp_path)
    series = study.series[0]
    viewer = open_study(study)
    viewer.draw(turn_of(series, ("liver",)))
    before = viewer.page.label_maps()
    viewer.draw(turn_of(series, ("gallbladder", "liver"), "second", seed=9))
    after = viewer.page.label_maps()
    assert len(after) == 3 and [m.id for m in after[:1]] == [m.id for m in before]
    for plane, values in before[0].planes.items():
        assert np.array_equal(after[0].planes[plane], values)
    assert_same(viewer.mask("liver", 1), series.expected("liver"), "the second liver")
    viewer.page.run("window.medsegr.segments.undoDrawing(window.handles.second)")
    assert [m.id for m in viewer.page.label_maps()] == [m.id for m in before]
    assert_same(viewer.read("first", 1, (72, 88)), series.expected("liver"), "the first, after all")


def stroke(viewer: Viewer, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag with the left button over the first viewport; parts of its shorter side from the centre."""
    from selenium.webdriver import ActionChains

    canvas = viewer.page.find("canvas.cornerstone-canvas")
    side = min(canvas.size["width"], canvas.size["height"])
    (x0, y0), (x1, y1) = ((round(x * side), round(y * side)) for x, y in (start, end))
    chain = ActionChains(viewer.page.driver, duration=60)
    chain.move_to_element_with_offset(canvas, x0, y0).click_and_hold()
    for part in np.linspace(0.1, 1, 8):
        chain.move_to_element_with_offset(canvas, round(x0 + part * (x1 - x0)), round(y0 + part * (y1 - y0)))
    chain.release().perform()


def assert_told(viewer: Viewer, n: int) -> None:
    """The panel heard of an edit of finding `n`, and of no other."""
    told = viewer.page.until(
        lambda: viewer.page.run("return window.edits.splice(0)"), f"finding {n} is edited"
    )
    assert all(one == ["first", n] for one in told), told


def hide_notice(viewer: Viewer) -> None:
    """OHIF's notice lies over the lower part of the image."""
    for name in ("Confirm and Hide", "Confirm and hide"):
        if button := viewer.page.clickable(name):
            button.click()


def brush_and_eraser(viewer: Viewer, series: Series) -> None:
    """Edit with OHIF's brush, read what it left, take the strokes back one by one."""
    expected = series.expected("spleen")
    viewer.draw(turn_of(series, ORGANS))
    hide_notice(viewer)
    viewer.page.run("window.medsegr.segments.select(window.handles.first, 2)")
    assert "CircularBrush" in viewer.page.run(BRUSH, "CircularBrush", 6)
    shape = series.images[0].values.shape[:2]
    stroke(viewer, (-0.15, 0.3), (-0.05, 0.3))  # where no organ is
    assert_told(viewer, 2)
    shown, read = viewer.mask("spleen"), viewer.read("first", 2, shape)
    assert_same(read, shown, "the edited spleen")
    grown = [plane for plane in expected if (shown[plane] & ~expected[plane]).any()]
    assert len(grown) == 1 and (shown[grown[0]] >= expected[grown[0]]).all()
    viewer.page.run(BRUSH, "CircularEraser", 4)
    stroke(viewer, (-0.13, 0.3), (-0.07, 0.3))
    assert_told(viewer, 2)
    erased = viewer.mask("spleen")
    assert erased[grown[0]].sum() < shown[grown[0]].sum()
    assert_same(viewer.read("first", 2, shape), erased, "the spleen after erasing")
    viewer.page.snap("segments-brush")
    undo = "return window.medsegr.segments.undo()?.ns ?? null"
    assert viewer.page.run(undo) == [2]
    assert_same(viewer.mask("spleen"), shown, "the spleen before erasing")
    assert viewer.page.run(undo) == [2]
    assert_same(viewer.mask("spleen"), expected, "the spleen before the brush")
    assert viewer.page.run(undo) is None
    assert_same(viewer.mask("liver"), series.expected("liver"), "the liver all the while")


def test_edits_with_the_brush_come_back_and_can_be_undone(
    tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    study = studies.axial_ct(tmp_path)
    brush_and_eraser(open_study(study), study.series[0])


def test_what_was_missed_is_a_new_segment_and_a_removed_one_is_empty(
    tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    study = studies.multi_frame_us(tmp_path)
    series = study.series[0]
    viewer = open_study(study)
    viewer.draw(turn_of(series, ("liver", "spleen")))
    hide_notice(viewer)
    driver = viewer.page.driver
    n = driver.execute_async_script(
        "const [done] = arguments; window.medsegr.segments.addEmpty({...window.turns.first, findings: []}, 'cyst').then(done)"
    )
    assert n == 3
    assert "CircularBrush" in viewer.page.run(BRUSH, "CircularBrush", 5)
    stroke(viewer, (-0.2, 0.1), (-0.1, 0.1))
    assert_told(viewer, 3)
    assert_same(viewer.read("first", 3, (84, 100)), viewer.mask("cyst"), "the new segment")
    viewer.page.run(
        "const {segments} = window.medsegr; segments.rename(window.handles.first, 3, 'simple cyst');"
        "segments.remove(window.handles.first, 1)"
    )
    assert viewer.mask("simple cyst") and not any(
        m.any() for m in viewer.read("first", 1, (84, 100)).values()
    )
    assert "liver" not in viewer.labelled("spleen")[0].segments.values()
    assert_same(viewer.mask("spleen"), series.expected("spleen"), "the other one")


def test_the_stock_mode_has_the_panel_and_shows_masks_in_its_volumes(
    tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    for maker in (studies.reversed_ct, studies.oblique_mr):
        study = maker(tmp_path / maker.__name__)
        series = study.series[0]
        viewer = open_study(study, "monai-label")
        viewer.draw(turn_of(series, ORGANS))
        shape = series.images[0].values.shape[:2]
        planes = viewer.page.run(VOLUMES, [image.position for image in series.images])
        for layer, label_map in zip(planes, viewer.page.label_maps(), strict=True):
            for index, organ in label_map.segments.items():
                for image, text in zip(series.images, layer, strict=True):
                    found = np.array([int(c) for c in text]).reshape(shape) == index
                    assert np.array_equal(found, series.expected(organ)[image.sop, image.frame]), organ
        for n, organ in enumerate(ORGANS, 1):
            assert_same(viewer.read("first", n, shape), series.expected(organ), organ)
        names = viewer.page.run("return window.services.panelService.getPanels('right').map((p) => p.name)")
        assert names == ["monailabel", "ask"]
        coloured = partial(viewer.page.run, COLOURED)
        viewer.page.until(coloured, "the liver's blue is on two of the three cuts")
        viewer.page.snap(f"segments-stock-{maker.__name__}")


def test_edits_in_a_volume_come_back_too(tmp_path: Path, open_study: Callable[..., Viewer]) -> None:
    study = studies.axial_ct(tmp_path)
    brush_and_eraser(open_study(study, "monai-label"), study.series[0])


def test_one_large_slice_is_drawn_at_once(tmp_path: Path, open_study: Callable[..., Viewer]) -> None:
    study = studies.large_ct(tmp_path)
    assert open_study(study).draw(turn_of(study.series[0], ORGANS)) <= 500


def test_a_mask_that_does_not_fit_is_refused_before_anything_is_drawn(
    tmp_path: Path, open_study: Callable[..., Viewer]
) -> None:
    study = studies.axial_ct(tmp_path)
    viewer = open_study(study)
    other = turn_of(studies.sagittal_mr(tmp_path / "other", n=12).series[0], ("liver",))
    turn = {**turn_of(study.series[0], ("liver",)), "findings": other["findings"]}
    stacks = turn["series"]["stacks"]
    stacks[0]["instances"] = stacks[0]["instances"][:6]
    reply = viewer.page.driver.execute_async_script(DRAW, turn)
    assert reply["error"] == "The mask of “liver” is not of the size of the viewer's images."
    assert not viewer.page.label_maps()


def test_the_same_in_ohif_of_npm(
    tmp_path: Path,
    ohif_311: Path,
    orthanc: Orthanc,
    medsegr_server: Callable[..., Any],
    open_study: Callable[..., Viewer],
) -> None:
    other = medsegr_server(orthanc.url, factory=SEEING, conf={"ohif": str(ohif_311)})
    for maker in (studies.reversed_ct, studies.single_cr, studies.multi_frame_us):
        study = maker(tmp_path / maker.__name__)
        series = study.series[0]
        viewer = open_study(study, url=other.url, viewer="")
        viewer.draw(turn_of(series, ORGANS))
        for organ in ORGANS:
            assert_same(viewer.mask(organ), series.expected(organ), organ)
        assert_on_screen(viewer, series, "spleen")
        viewer.page.snap(f"segments-npm-{maker.__name__}")
    study = studies.axial_ct(tmp_path / "brush")
    brush_and_eraser(open_study(study, url=other.url, viewer=""), study.series[0])
