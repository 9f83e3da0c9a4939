"""What an answer says that only the masks can tell: which of two structures is larger, how many pieces there are, where one lies.

The language model chooses the form of an answer and names the structures; the numbers, sides and positions are measured here and
said in a sentence of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegr.qa.facts import Concept
from medsegr.reply import Finding, Measured

COMPARING, COUNTING, LOCATING = "Comparing", "Counting", "Locating"
"""First words of the answers that a measurement completes, see `medsegr.qa.abilities`."""
EQUAL = 0.05
"""Two sizes that differ by less than this share of the larger one are called alike."""
PIECE = 0.05
"""A piece smaller than this share of the median piece of its mask is a speck and does not count."""
MIDDLE = 0.04
"""A centre this near to the middle line, as a share of the image's side, lies on neither side of it."""
RADIOLOGICAL = frozenset({"CT", "MR", "XR"})
SIDED_REGIONS = frozenset({"abdomen", "brain", "chest", "jaw"})
"""Regions whose images are shown as if the patient faced the viewer: his left is on the right."""


def measured(
    marked: str,
    findings: Sequence[Finding],
    sizes: Sequence[str] = (),
    modality: str | None = None,
    concept: Concept | None = None,
    plurals: Collection[str] = (),
) -> Measured | None:
    """What the masks add to the answer `marked` (with its markup): the measurement that it announces, else where its only finding
    lies in a picture. None where there is nothing to add.

    sizes: the findings' sizes in words, in their order, said with a comparison; concept: what is known of the only finding;
    plurals: the structures whose names are plural.
    """
    if marked.startswith(COMPARING) and len({finding.phrase for finding in findings}) == len(findings) == 2:
        return compare(findings, sizes, plurals)
    if len(findings) != 1:
        return None
    mask = findings[0].mask
    if marked.startswith(COUNTING):
        return _counted(mask)
    if mask.ndim != 2:
        return None
    if marked.startswith(LOCATING):
        return Measured(
            "side", side(mask), place_sentence(mask, concept, _patient(side(mask), modality, concept))
        )
    return Measured("place", side(mask), place_sentence(mask, concept))


def compare(
    findings: Sequence[Finding], sizes: Sequence[str] = (), plurals: Collection[str] = ()
) -> Measured:
    """Which of two findings covers more, by their masks; "are larger" where its name is one of `plurals`."""
    counts = [int(np.count_nonzero(f.mask)) for f in findings]
    first, second = (f.phrase for f in findings)
    value = larger({first: counts[0], second: counts[1]})
    said = f": {sizes[0]} and {sizes[1]}" if len(sizes) == 2 else ""
    if value == "equal":
        return Measured("comparison", value, f"They are about the same size{said}.")
    if value == second and said:
        said = f": {sizes[1]} against {sizes[0]}"
    elif said:
        said = f": {sizes[0]} against {sizes[1]}"
    verb = "are" if value in plurals else "is"
    return Measured("comparison", value, f"The {value} {verb} larger{said}.")


def larger(counts: dict[str, int]) -> str:
    """The name with the larger of two counts, or "equal"."""
    (first, a), (second, b) = counts.items()
    if abs(a - b) <= EQUAL * max(a, b):
        return "equal"
    return first if a > b else second


def count(mask: NDArray[Any]) -> int:
    """Connected pieces of a mask [H, W] or [X, Y, Z] (touching corners connect), specks left out."""
    pieces, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if number < 2:
        return int(number)
    sizes = np.bincount(pieces.ravel())[1:]
    return int(np.count_nonzero(sizes >= PIECE * np.median(sizes)))


def _counted(mask: NDArray[Any]) -> Measured:
    number = count(mask)
    if number == 1:
        return Measured("count", "1", "It is outlined as one piece.")
    return Measured("count", str(number), f"{number} separate pieces are outlined.")


def centre(mask: NDArray[Any]) -> tuple[float, float]:
    """(row, column) of a mask's centroid [H, W] as offsets from the image's middle, -0.5 to 0.5; the mask is not empty."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return float(rows.mean() + 0.5) / height - 0.5, float(columns.mean() + 0.5) / width - 0.5


def side(mask: NDArray[Any]) -> str:
    """left, right or middle: the half of the image [H, W] in which the mask's centroid lies, as the viewer sees it."""
    offset = centre(mask)[1]
    return "middle" if abs(offset) <= MIDDLE else "left" if offset < 0 else "right"


def place_sentence(mask: NDArray[Any], concept: Concept | None = None, more: str = "") -> str:
    """Where the mask [H, W] lies in the image, as the viewer sees it, and `more`."""
    row = centre(mask)[0]
    height = "" if abs(row) <= MIDDLE else "upper" if row < 0 else "lower"
    across = side(mask)
    verb = "Here they lie" if concept and concept.plural else "Here it lies"
    return f"{verb} in the {f'{height} {across}'.strip()} of the image{more}."


def _patient(across: str, modality: str | None, concept: Concept | None) -> str:
    """The patient's side, for a structure on one side of an image that radiologists display in one way."""
    known = modality in RADIOLOGICAL and concept is not None and concept.region in SIDED_REGIONS
    if not known or across == "middle":
        return ""
    return f": the patient's {'right' if across == 'left' else 'left'}, in the usual radiological display"
