"""Seconds from Ask to the first visible mask in OHIF, embedded model, 512 x 512 slice, CPU: the server's part apart from
transfer and drawing in the browser.

    python benchmarks/first_mask.py [--runs 9] [--checkpoint embedded] [--server-bar 2.0] [--browser-bar 0.5]

Starts Orthanc, a real server on it and headless Chromium with the OHIF of the monailabel wheel (needs what `make test-system`
installs). Every run asks about another slice, so no cache holds its image: the server's part begins with fetching it from the
PACS. Times are the page's own clock: Ask pressed, answer complete (server), mask fetched (transfer), last image rendered after
that (drawing). Exits 1 when a maximum misses its bar.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the page objects of the system tests

from medsegr.imaging import Volume  # noqa: E402
from medsegr.phantom import Torso, make_torso, write_series  # noqa: E402
from medsegr.phantom.study import derived_uid  # noqa: E402
from tests.system.ask_page import Answer, AskPage  # noqa: E402
from tests.system.browsers import start_browser  # noqa: E402
from tests.system.orthanc import start_orthanc  # noqa: E402
from tests.system.servers import make_server  # noqa: E402

QUESTION = "Where is the liver?"
SETTLED_S = 1.0
LISTEN = """
window.rendered = [];
document.addEventListener('CORNERSTONE_IMAGE_RENDERED', () => window.rendered.push(performance.now()), {capture: true});
"""


def slice_of(seed: int) -> Torso:
    """One 512 x 512 slice through the liver of the phantom `seed`."""
    torso = make_torso(seed, shape=(512, 512, 3), spacing_mm=(0.7, 0.7, 75.0))
    k = int(np.argmax(torso.mask("liver").sum(axis=(0, 1))))
    affine = torso.volume.affine.copy()
    affine[2, 3] += k * 75.0
    affine[2, 2] = 5.0
    volume = Volume(torso.volume.voxels[:, :, k : k + 1], affine, "CT", "ABDOMEN")
    return Torso(volume, torso.labels[:, :, k : k + 1], seed)


def main() -> None:
    """Print median and maximum of each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--server-bar", type=float, default=2.0, help="seconds")
    parser.add_argument("--browser-bar", type=float, default=0.5, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medsegr-first-mask-") as scratch:
        parts = measure(Path(scratch), options.runs, options.checkpoint)
    print(f"{options.runs} runs, seconds: median, maximum")
    for name, values in parts.items():
        print(f"  {name:24} {statistics.median(values):6.3f} {max(values):6.3f}")
    server, browser = parts["server"], parts["transfer and drawing"]
    sys.exit(int(max(server) > options.server_bar or max(browser) > options.browser_bar))


def measure(scratch: Path, runs: int, checkpoint: str) -> dict[str, list[float]]:
    """Seconds of every run, by part."""
    orthanc = start_orthanc(scratch / "orthanc")
    for seed in range(runs + 1):
        orthanc.upload(write_series(slice_of(seed), scratch / "studies" / str(seed)))
    server = make_server(scratch / "server", orthanc.url, conf={"checkpoint": checkpoint})
    browser = start_browser(scratch / "profile")
    parts: dict[str, list[float]] = {
        name: [] for name in ("server", "transfer", "drawing", "transfer and drawing", "all")
    }
    try:
        server.start().wait()
        for seed in range(runs + 1):
            page = AskPage(browser, server.url).open(str(derived_uid("study", seed, f"PHANTOM-{seed}")))
            page.run(LISTEN)
            answer = page.ask(QUESTION)
            time.sleep(SETTLED_S)
            if seed:  # the first one warms up the browser's shaders and the server's files
                for name, seconds in seconds_of(page, answer).items():
                    parts[name].append(seconds)
    finally:
        browser.quit()
        server.stop()
        orthanc.stop()
    return parts


def seconds_of(page: AskPage, answer: Answer) -> dict[str, float]:
    """The parts of one question."""
    marks = answer.marks
    assert any(mask.any() for mask in page.drawn("liver").values()), "no liver was drawn"
    visible = max(
        [at for at in page.run("return window.rendered") if at > marks["fetched"]] or [marks["drawn"]]
    )
    return {
        "server": (marks["done"] - marks["asked"]) / 1000,
        "transfer": (marks["fetched"] - marks["done"]) / 1000,
        "drawing": (visible - marks["fetched"]) / 1000,
        "transfer and drawing": (visible - marks["done"]) / 1000,
        "all": (visible - marks["asked"]) / 1000,
    }


if __name__ == "__main__":
    main()
