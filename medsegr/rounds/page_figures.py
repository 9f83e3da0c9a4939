"""The drawings of a round's page as SVG: a bar with its interval per target, and the learning curve. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

BAR_WIDTH, BAR_HEIGHT, MARGIN = 240.0, 22.0, 10.0
ENDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""How far an axis of differences may reach to either side."""
CHART_WIDTH, CHART_HEIGHT = 640.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 14.0, 10.0, 40.0
DASHES = ("", "7 4", "2 4", "9 3 2 3")
COLOURS = 6
"""Colours of the style sheet, `--line-0` and on; with `DASHES` two dozen lines differ."""


@dataclass(frozen=True)
class Axis:
    """Differences from `-end` to `end`, shared by all bars of a page; `ticks` are (position in pixels, text)."""

    end: float
    ticks: tuple[tuple[float, str], ...]
    width: float = BAR_WIDTH
    height: float = BAR_HEIGHT

    def x(self, value: float) -> float:
        """Where a difference lies, in pixels; what lies outside is drawn at the rim."""
        share = (min(max(value, -self.end), self.end) + self.end) / (2 * self.end)
        return round(MARGIN + share * (self.width - 2 * MARGIN), 1)


@dataclass(frozen=True)
class Curve:
    """A line of the chart: `path` is SVG path data, `places` its points, `colour` 0..5, `dash` an SVG dash array."""

    name: str
    path: str
    places: tuple[tuple[float, float, str], ...]
    last: str
    colour: int
    dash: str


@dataclass(frozen=True)
class Chart:
    """Dice from 0 to 1 over `x`; ticks are (position in pixels, text)."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: float = CHART_WIDTH
    height: float = CHART_HEIGHT
    left: float = LEFT
    right: float = CHART_WIDTH - RIGHT
    bottom: float = CHART_HEIGHT - BOTTOM


def axis_of(values: Sequence[float]) -> Axis:
    """The smallest axis that holds all values; NaN counts for nothing."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    end = next((e for e in ENDS if largest <= e), ENDS[-1])
    bare = Axis(end, ())
    texts = {-end: f"\N{MINUS SIGN}{end:g}", 0.0: "0", end: f"+{end:g}"}
    return Axis(end, tuple((bare.x(value), text) for value, text in texts.items()))


def bar_of(difference: float, low: float, high: float, axis: Axis, kind: str) -> str:
    """A bar from 0 to the difference with its interval over it; `kind` is a class of the style sheet. Without an interval
    the bar stands alone, without a difference the axis does."""
    return "".join(_bar(difference, low, high, axis, kind))


def _bar(difference: float, low: float, high: float, axis: Axis, kind: str) -> Iterator[str]:
    middle, zero = axis.height / 2, axis.x(0)
    yield f'<svg class="bar {kind}" width="{axis.width:g}" height="{axis.height:g}" aria-hidden="true">'
    yield f'<line class="zero" x1="{zero:g}" y1="0" x2="{zero:g}" y2="{axis.height:g}"/>'
    if math.isfinite(difference):
        at = axis.x(difference)
        left, wide = min(zero, at), abs(at - zero)
        yield f'<rect class="fill" x="{left:g}" y="{middle - 5:g}" width="{wide:g}" height="10"/>'
        if math.isfinite(low) and math.isfinite(high):
            a, b = axis.x(low), axis.x(high)
            yield f'<path class="interval" d="M{a:g} {middle - 4:g}v8M{a:g} {middle:g}H{b:g}M{b:g} {middle - 4:g}v8"/>'
        yield f'<circle class="dot" cx="{at:g}" cy="{middle:g}" r="3.5"/>'
    yield "</svg>"


def chart_of(series: Mapping[str, Sequence[tuple[float, float]]]) -> Chart:
    """The learning curve of `series`: name -> (x, Dice), x ascending and finite."""
    xs = [x for points in series.values() for x, _ in points]
    first, last = min(xs), max(xs)
    span = (last - first) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / span * (CHART_WIDTH - LEFT - RIGHT)
        down = TOP + (1 - min(max(y, 0.0), 1.0)) * (CHART_HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    curves = []
    for n, (name, points) in enumerate(series.items()):
        places = [place(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        marks = tuple((*p, f"{name}: {y:.3f} at {x:g}") for p, (x, y) in zip(places, points, strict=True))
        dash = DASHES[n // COLOURS % len(DASHES)]
        curves.append(Curve(name, path, marks, f"{points[-1][1]:.3f}", n % COLOURS, dash))
    known = sorted(set(xs))
    shown = known if len(known) <= 9 else [known[i * (len(known) - 1) // 8] for i in range(9)]
    return Chart(
        tuple(curves),
        tuple((place(x, 0)[0], f"{x:g}") for x in shown),
        tuple((place(first, y)[1], f"{y:.1f}") for y in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    )
