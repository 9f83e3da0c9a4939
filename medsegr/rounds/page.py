"""One HTML page per round that needs nothing else: the decision, each target before and after, and cases as pictures.

The page holds pictures of patients: it belongs into the state folder, and is shown only to those who may see them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from medsegr.files import write_whole
from medsegr.rounds.page_figures import Axis, Chart, axis_of, bar_of, chart_of
from medsegr.rounds.page_pictures import LEGEND, picture

TEMPLATE = "page.html.jinja"
SHOWN = 8
"""Cases that are shown at most of those that got better, and of those that got worse."""
SAME = 0.005
"""Dice that differs by less is shown under neither."""

Kind = Literal["corrected", "old"]


@dataclass(frozen=True)
class TargetRow:
    """A target's mean Dice under champion (`before`) and challenger (`after`) on the same `cases`, and the mean difference
    with its 95 % interval (NaN where there are too few patients for one). `kind`: was it corrected in this round, or is it
    one of those that must not get worse?"""

    target: str
    cases: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    kind: Kind


@dataclass(frozen=True)
class CurvePoint:
    """A point of the learning curve: Dice `y` of `series` (a target, or a mean) after `x` corrections."""

    series: str
    x: float
    y: float


@dataclass(frozen=True, eq=False)
class Example:
    """A case: `rgb` [H, W, 3] uint8, the corrected mask and both answers [H, W] bool, Dice of both answers."""

    target: str
    before: float
    after: float
    rgb: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    before_mask: NDArray[np.bool_]
    after_mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RoundReport:
    """What a page shows. `status` is the round's in one word (`RoundStatus`), `decision` one sentence, `facts` are further
    lines (name, value) such as how many corrections were trained on; `curve_x` says what the curve counts."""

    number: int
    status: str
    champion: str
    challenger: str | None
    decision: str
    rows: Sequence[TargetRow] = ()
    curve: Sequence[CurvePoint] = ()
    examples: Sequence[Example] = ()
    facts: Sequence[tuple[str, str]] = ()
    curve_x: str = "corrections"


@dataclass(frozen=True)
class _Line:
    """A row as it is printed, with its bar (SVG)."""

    row: TargetRow
    before: str
    after: str
    difference: str
    interval: str
    verdict: str
    bar: str


@dataclass(frozen=True)
class _Card:
    """A case as it is shown: both answers, each beside the correction (data URIs, PNG)."""

    target: str
    before: str
    after: str
    difference: str
    before_picture: str
    after_picture: str


def write_page(path: Path, report: RoundReport) -> None:
    """Write the page as a whole file. Raises `ImageError` where an example's arrays do not fit together."""
    write_whole(path, render(report))


def render(report: RoundReport) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    better, worse = split_examples(report.examples)
    return environment.get_template(TEMPLATE).render(
        report=report,
        tables=list(_tables(report.rows)),
        chart=_chart(report),
        groups=[
            ("better", "Got better", [_card(e) for e in better[:SHOWN]], len(better)),
            ("worse", "Got worse", [_card(e) for e in worse[:SHOWN]], len(worse)),
        ],
        legend=LEGEND,
    )


def split_examples(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Those that got better and those that got worse, the largest change first; what stayed the same is in neither."""
    gain = [(e.after - e.before, e) for e in examples]
    better = sorted((g for g in gain if g[0] >= SAME), key=lambda g: -g[0])
    worse = sorted((g for g in gain if g[0] <= -SAME), key=lambda g: g[0])
    return [e for _, e in better], [e for _, e in worse]


def verdict(row: TargetRow) -> str:
    """What the interval says: "better" or "worse" where it leaves out 0, else "unsure"."""
    if row.low > 0:
        return "better"
    return "worse" if row.high < 0 else "unsure"


def number(value: float) -> str:
    """Three decimals; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """With its sign, a minus as it is typeset; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _tables(rows: Sequence[TargetRow]) -> Iterator[tuple[str, str, Axis, list[_Line]]]:
    """Each kind has an axis of its own: what is new gains much, what is old must hardly move."""
    titles: tuple[tuple[Kind, str], ...] = (("corrected", "Corrected targets"), ("old", "Old targets"))
    for kind, title in titles:
        mine = [row for row in rows if row.kind == kind]
        if mine:
            axis = axis_of([value for row in mine for value in (row.low, row.high, row.difference)])
            yield kind, title, axis, [_line(row, axis) for row in mine]


def _line(row: TargetRow, axis: Axis) -> _Line:
    known = not (math.isnan(row.low) or math.isnan(row.high))
    said = verdict(row)
    return _Line(
        row,
        number(row.before),
        number(row.after),
        signed(row.difference),
        f"{signed(row.low)} to {signed(row.high)}" if known else "too few patients",
        said,
        bar_of(row.difference, row.low, row.high, axis, said),
    )


def _card(example: Example) -> _Card:
    return _Card(
        example.target,
        number(example.before),
        number(example.after),
        signed(example.after - example.before),
        picture(example.rgb, example.truth, example.before_mask, example.after_mask, "before"),
        picture(example.rgb, example.truth, example.after_mask, example.before_mask, "after"),
    )


def _chart(report: RoundReport) -> Chart | None:
    series: dict[str, list[tuple[float, float]]] = {}
    for point in report.curve:
        if math.isfinite(point.x) and math.isfinite(point.y):
            series.setdefault(point.series, []).append((point.x, point.y))
    return chart_of({name: sorted(points) for name, points in series.items()}) if series else None
