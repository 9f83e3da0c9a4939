"""`report.html`: one page that needs nothing else, with every figure of `metrics.json`, its interval, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medsegr.evaluation.bootstrap import DRAWS, MIN_PATIENTS
from medsegr.evaluation.case import Case
from medsegr.evaluation.examples import examples, legend
from medsegr.evaluation.figures import BY_NAME, FIGURES, Figure
from medsegr.files import write_whole
from medsegr.qa.schema import Conversation

TEMPLATE = "report.html.jinja"
GROUPS = (
    ("by_kind", "By kind of question"),
    ("by_turn", "By turn of the conversation"),
    ("by_modality", "By modality"),
    ("by_set", "By set"),
    ("by_target", "By target (questions about one structure)"),
)


@dataclass(frozen=True)
class Cell:
    """A figure as text: the value, its interval ("" where there is none) and the number of cases."""

    value: str
    interval: str
    n: int


@dataclass(frozen=True)
class Sheet:
    """A table: `figures` are its columns after the group's name, questions and patients; None is an empty cell."""

    key: str
    title: str
    figures: tuple[Figure, ...]
    rows: tuple[tuple[str, int, int, tuple[Cell | None, ...]], ...]


def sheet(key: str, title: str, groups: Mapping[str, Any]) -> Sheet:
    """A table of groups as `summarise` makes them; a figure that applies to none of them has no column."""
    used = tuple(f for f in FIGURES if any(f.name in g["figures"] for g in groups.values()))
    rows = tuple(
        (name, g["n"], g["patients"], tuple(_cell(f, g["figures"].get(f.name)) for f in used))
        for name, g in groups.items()
    )
    return Sheet(key, title, used, rows)


def render(
    metrics: Mapping[str, Any],
    cases: Sequence[Case],
    conversations: Sequence[Conversation],
    root: Path,
    out: Path,
) -> str:
    """The page. `root`: where images are; `out`: where the drawn masks are."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["figure"] = number
    return environment.get_template(TEMPLATE).render(
        metrics=metrics,
        overall=sheet("overall", "All questions", {"all": metrics["overall"]}),
        sheets=[sheet(key, title, metrics[key]) for key, title in GROUPS],
        examples=examples(cases, conversations, root, out),
        legend=legend(),
        figures=FIGURES,
        draws=DRAWS,
        min_patients=MIN_PATIENTS,
    )


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    cases: Sequence[Case],
    conversations: Sequence[Conversation],
    root: Path,
) -> None:
    """Write the page into the run's folder."""
    write_whole(path, render(metrics, cases, conversations, root, path.parent))


def number(value: float, digits: int = 3) -> str:
    """A figure with so many decimals, a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def interval(low: float, high: float, digits: int = 3) -> str:
    """ "0.812–0.907", empty where there is no interval."""
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f}–{high:.{digits}f}"


def figure_text(group: Mapping[str, Any], name: str) -> str:
    """A group's figure with its interval below, a dash where it does not apply."""
    cell = _cell(BY_NAME[name], group["figures"].get(name))
    return "–" if cell is None else f"{cell.value}\n{cell.interval}" if cell.interval else cell.value


def _cell(figure: Figure, found: Mapping[str, float] | None) -> Cell | None:
    if found is None:
        return None
    digits = figure.digits
    return Cell(
        number(found["value"], digits), interval(found["low"], found["high"], digits), int(found["n"])
    )
