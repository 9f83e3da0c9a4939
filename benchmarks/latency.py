"""Seconds for a first question and a follow-up on a 512 x 512 image, warm, in one run.

    python benchmarks/latency.py [--checkpoint DIR] [--repeats 15]
    git worktree add EARLIER COMMIT && python benchmarks/latency.py --against EARLIER

A first question pays for reading the file, the image encoder, the language model's prefix and the answer; a follow-up for the
answer and its masks alone. Every first question gets an image with other pixels, so no cache can help it. `--against` asks the
shipped checkpoint of another source tree by turns with this one's, three times each, and prints the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import medsegr
from medsegr import Predictor
from medsegr.imaging import to_rgb
from medsegr.phantom import make_torso

FIRST = "Which organ here makes bile and clears toxins from the blood?"
FOLLOW_UP = "And the spleen?"
ROUNDS = 3


def pictures(folder: Path, count: int) -> list[Path]:
    """`count` different 512 x 512 gray PNGs of phantom slices through the upper abdomen."""
    torso = make_torso(seed=3)
    plane = int(np.argmax(torso.mask("liver").sum(axis=(0, 1))))
    paths = []
    for n in range(count):
        rgb = to_rgb(torso.volume.slice_pixels(plane + n % 3), "CT")
        image = Image.fromarray(rgb[..., 0]).resize((512, 512), Image.Resampling.BILINEAR)
        pixels = np.asarray(image).copy()
        pixels[0, n] = 255
        paths.append(folder / f"{n}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def measure(checkpoint: str, repeats: int) -> tuple[list[float], list[float], tuple[str, str]]:
    """Seconds of first questions and of follow-ups, and the last answers."""
    predictor = Predictor.from_pretrained(checkpoint)
    first, follow_up, texts = [], [], ("", "")
    with tempfile.TemporaryDirectory() as folder:
        for n, path in enumerate(pictures(Path(folder), repeats + 3)):
            began = time.perf_counter()
            predictor.set_image(path, "CT")
            reply = predictor.ask(FIRST)
            answered = time.perf_counter()
            again = predictor.ask(FOLLOW_UP, [(FIRST, reply.text)])
            done = time.perf_counter()
            texts = reply.text, again.text
            if n >= 3:
                first.append(answered - began)
                follow_up.append(done - answered)
    return first, follow_up, texts


def elsewhere(tree: Path, repeats: int) -> tuple[list[float], list[float]]:
    """The same by this script in a process of its own, with the package in `tree`."""
    command = [sys.executable, __file__, "--repeats", str(repeats), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if Path(found["package"]).parents[1] != tree.resolve():
        raise SystemExit(f"{tree} is no source tree of medsegr: {found['package']} was used.")
    return found["first"], found["follow_up"]


def compare(earlier: Path, repeats: int) -> None:
    """Print both and the ratios."""
    here = Path(__file__).resolve().parent.parent
    seconds: dict[Path, tuple[list[float], list[float]]] = {here: ([], []), earlier: ([], [])}
    for _ in range(ROUNDS):
        for tree, kept in seconds.items():
            for values, more in zip(kept, elsewhere(tree, repeats), strict=True):
                values.extend(more)
    print(f"threads {torch.get_num_threads()}, {ROUNDS} x {repeats} repeats by turns, medians")
    for which, name in enumerate(("first question", "follow-up")):
        now, before = (float(np.median(seconds[tree][which])) for tree in (here, earlier))
        print(f"{name:<16}{now:.3f} s, earlier {before:.3f} s, ratio {now / before:.2f}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--against", type=Path, metavar="TREE", help="source tree of an earlier version")
    parser.add_argument("--json", action="store_true", help="print every measurement, for --against")
    options = parser.parse_args()
    if options.against:
        compare(options.against.resolve(), options.repeats)
        return
    first, follow_up, texts = measure(options.checkpoint, options.repeats)
    if options.json:
        print(json.dumps({"package": medsegr.__file__, "first": first, "follow_up": follow_up}))
        return
    a, b = float(np.median(first)), float(np.median(follow_up))
    print(f"threads {torch.get_num_threads()}, {options.repeats} repeats, medians")
    print(f"first question  {a:.3f} s (max {max(first):.3f})   {texts[0]}")
    print(f"follow-up       {b:.3f} s (max {max(follow_up):.3f})   {texts[1]}")
    print(f"follow-up / first {b / a:.2f}")


if __name__ == "__main__":
    main()
