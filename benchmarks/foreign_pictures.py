"""Are pictures refused that are no medical images, and no others? Photographs and patterns, then medical images.

    python benchmarks/foreign_pictures.py [--checkpoint embedded] [--data DIR]

Foreign: every photograph that the installed scikit-image carries as a file and a few of scikit-learn and matplotlib, each
asked three questions; "refused or empty" is a reply without an outline. The medical pictures among scikit-image's are apart.
Patterns are made here (the rule was fitted against patterns too, not against these). With --data: the share refused of
validation images, and of other scanners' images in `volumes/`, `dicom/` and `corrections/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, read_image, to_rgb, volume_intensity_range
from medsegr.predictor import Predictor
from medsegr.qa.folders import read_labelled_sets
from medsegr.reply import Outcome

QUESTIONS = (
    "What can you see here?",
    "Outline the liver.",
    "Show me the structure that may be benign or malignant.",
)
MEDICAL = ("cell.png", "ihc.png", "retina.jpg", "microaneurysms.png", "phantom.png")
ALSO = (("sklearn", "datasets/images"), ("matplotlib", "mpl-data/sample_data"))
SIDE = 384
Rgb = NDArray[np.uint8]


def skimage_pictures(medical: bool) -> Iterator[tuple[str, Rgb]]:
    """Pictures of the installed scikit-image: the medical ones, or all others."""
    yield from _pictures("skimage", "data", lambda name: (name in MEDICAL) == medical)


def other_photographs() -> Iterator[tuple[str, Rgb]]:
    """Photographs that two other installed packages carry."""
    for package, folder in ALSO:
        yield from _pictures(package, folder, lambda name: name.endswith(".jpg"))


def _pictures(package: str, folder: str, wanted: object) -> Iterator[tuple[str, Rgb]]:
    assert callable(wanted)
    root = Path(str(files(package))) / folder
    for path in sorted(root.iterdir()):
        if path.suffix in (".png", ".jpg") and wanted(path.name):
            picture = read_image(path)
            if isinstance(picture, Picture):
                yield path.name, to_rgb(picture.pixels, None)


def patterns() -> Iterator[tuple[str, Rgb]]:
    """Noise, flat fields, gradients and the like."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    planes = {
        "noise": rng.random((SIDE, SIDE)),
        "coloured noise": rng.random((SIDE, SIDE, 3)),
        "coarse noise": np.kron(rng.random((12, 12)), np.ones((32, 32))),
        "black": np.zeros((SIDE, SIDE)),
        "grey": np.full((SIDE, SIDE), 0.5),
        "white": np.ones((SIDE, SIDE)),
        "gradient across": x,
        "gradient down": y,
        "glow": np.clip(1 - 1.4 * np.hypot(x - 0.5, y - 0.5), 0, 1),
        "checks": ((x * 8).astype(int) + (y * 8).astype(int)) % 2,
        "stripes": 0.5 + 0.5 * np.sin(60 * x),
    }
    for name, plane in planes.items():
        yield name, to_rgb((255 * plane).astype(np.uint8), None)


def validation_pictures(data: Path) -> Iterator[tuple[str, Rgb]]:
    """Every validation image of the labelled sets, under the name of its set."""
    for source in read_labelled_sets(data / "train"):
        for image in source.images:
            picture = read_image(image.image, source.modality) if image.split == "val" else None
            if isinstance(picture, Picture):
                yield f"val {source.name}", to_rgb(picture.pixels, source.modality)


def other_pictures(data: Path, most: int = 30) -> Iterator[tuple[str, Rgb]]:
    """Some slices and pictures of each folder of other data."""
    for folder in sorted(p for kind in ("volumes", "dicom", "corrections") for p in (data / kind).glob("*")):
        found = sorted(p for p in folder.rglob("*") if p.is_file() and "masks" not in p.parts)
        for path in found[:: max(1, len(found) // most)]:
            try:
                image = read_image(path)
            except ImageError:  # a label map, a SEG, a JSON file
                continue
            if isinstance(image, Picture):
                yield (
                    f"{folder.parent.name} {folder.name}",
                    to_rgb(image.pixels, image.modality, image.body_part),
                )
                continue
            yield from (
                (f"{folder.parent.name} {folder.name}", rgb)
                for rgb in _slices(image, 20 if len(found) < 4 else 3)
            )


def _slices(volume: Volume, count: int) -> Iterator[Rgb]:
    scale = volume_intensity_range(volume)
    for share in np.linspace(0.2, 0.8, count):
        pixels = volume.slice_pixels(int(share * volume.n_slices))
        yield to_rgb(pixels, volume.modality, volume.body_part, scale)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.checkpoint)
    console, table = Console(), Table("pictures", "questions", "refused", "refused or empty", "outlined in")
    groups = {
        "photographs of scikit-image": list(skimage_pictures(False)),
        "other photographs": list(other_photographs()),
        "patterns": list(patterns()),
        "medical pictures of scikit-image": list(skimage_pictures(True)),
    }
    for title, pictures in groups.items():
        replies = [(name, ask(predictor, rgb, q)) for name, rgb in pictures for q in QUESTIONS]
        refused = np.mean([r is Outcome.FOREIGN for _, r in replies])
        drawn = [name for name, r in replies if r is Outcome.FOUND]
        names = ", ".join(dict.fromkeys(drawn)) or "-"
        table.add_row(
            title, str(len(replies)), f"{refused:.3f}", f"{1 - len(drawn) / len(replies):.3f}", names
        )
    console.print(table)
    if options.data:
        report_data(predictor, options.data, console)


def ask(predictor: Predictor, rgb: Rgb, question: str) -> Outcome:
    """What the reply to one question about a picture amounts to."""
    predictor.set_image(rgb)
    return predictor.ask(question).outcome


def report_data(predictor: Predictor, data: Path, console: Console) -> None:
    """Print the share of medical images that are refused, by set and for all validation images together."""
    found: dict[str, list[bool]] = {}
    for pictures in (validation_pictures(data), other_pictures(data)):
        for name, rgb in pictures:
            predictor.set_image(rgb)
            found.setdefault(name, []).append(predictor.foreign)
    table = Table("medical images", "images", "refused")
    for name, refused in found.items():
        table.add_row(name, str(len(refused)), f"{np.mean(refused):.3f}")
    everything = [r for name, refused in found.items() if name.startswith("val ") for r in refused]
    table.add_row("all validation images", str(len(everything)), f"{np.mean(everything):.4f}", style="bold")
    console.print(table)


if __name__ == "__main__":
    main()
