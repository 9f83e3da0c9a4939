"""Seconds for a first question and a follow-up on a 512 x 512 image, warm, in one run.

    python benchmarks/latency.py [--checkpoint DIR] [--repeats 15]

A first question pays for reading the file, the image encoder, the language model's prefix and the answer; a follow-up for the
answer and its masks alone. Every first question gets an image with other pixels, so no cache can help it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medsegr import Predictor
from medsegr.imaging import to_rgb
from medsegr.phantom import make_torso

FIRST = "Which organ here makes bile and clears toxins from the blood?"
FOLLOW_UP = "And the spleen?"


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


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.checkpoint)
    first, follow_up = [], []
    with tempfile.TemporaryDirectory() as folder:
        for n, path in enumerate(pictures(Path(folder), options.repeats + 3)):
            began = time.perf_counter()
            predictor.set_image(path, "CT")
            reply = predictor.ask(FIRST)
            answered = time.perf_counter()
            again = predictor.ask(FOLLOW_UP, [(FIRST, reply.text)])
            done = time.perf_counter()
            if n >= 3:
                first.append(answered - began)
                follow_up.append(done - answered)
    a, b = float(np.median(first)), float(np.median(follow_up))
    print(f"threads {torch.get_num_threads()}, {options.repeats} repeats, medians")
    print(f"first question  {a:.3f} s (max {max(first):.3f})   {reply.text}")
    print(f"follow-up       {b:.3f} s (max {max(follow_up):.3f})   {again.text}")
    print(f"follow-up / first {b / a:.2f}")


if __name__ == "__main__":
    main()
