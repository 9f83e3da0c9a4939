"""From the answers of all rows to the table: means over sets, paired differences and ratios with intervals, as Markdown.

Everything here is a function of the answers alone. All rows answer the same questions, so each patient that the bootstrap draws
is drawn for both sides of a comparison.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medsegr.errors import MedSegRError
from medsegr.evaluation.averages import mean_within_then_over
from medsegr.evaluation.baselines.questions import SMALL_SET, Answer
from medsegr.evaluation.bootstrap import macro_interval, macro_ratio_interval
from medsegr.files import write_whole

APART = ("spinal_cord_mr",)
"""Its validation volume has a contrast that training never shows."""
START, END = "<!-- baselines: written by benchmarks/baselines.py -->", "<!-- /baselines -->"


@dataclass(frozen=True)
class Row:
    """One row of the table: `told` says what it is given to know the target by; `images` were seen in training, drawn with
    repetition; `parameters` are those trained."""

    name: str
    told: str
    images: int
    parameters: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval over patients (NaN: too few patients)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low != self.low:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def main_sets(answers: Sequence[Answer]) -> frozenset[str]:
    """The sets that make a mean: five images or more, and none of `APART`."""
    images: dict[str, set[str]] = defaultdict(set)
    for answer in answers:
        images[answer.dataset].add(answer.image)
    return frozenset(name for name, found in images.items() if len(found) >= SMALL_SET and name not in APART)


def mean_dice(answers: Sequence[Answer]) -> Figure:
    """Mean over the questions of a target (at least three), the targets of a set, then the main sets."""
    rows = _macro_rows(answers)
    value = mean_within_then_over((name, target, dice) for name, target, _, dice in rows)[0]
    return Figure(value, *macro_interval(rows))


def difference(one: Sequence[Answer], other: Sequence[Answer]) -> Figure:
    """Mean of one minus mean of the other, paired. Raises `MedSegRError` if they do not answer the same questions."""
    pairs = _paired(one, other)
    return mean_dice([replace(a, dice=a.dice - b.dice) for a, b in pairs])


def ratio(one: Sequence[Answer], other: Sequence[Answer]) -> Figure:
    """Mean of one over mean of the other, paired; NaN where the other is 0. Raises like `difference`."""
    pairs = _paired(one, other)
    above, below = [a for a, _ in pairs], [b for _, b in pairs]
    top, bottom = mean_dice(above).value, mean_dice(below).value
    value = top / bottom if bottom else float("nan")
    return Figure(value, *macro_ratio_interval(_macro_rows(above), _macro_rows(below)))


def _macro_rows(answers: Sequence[Answer]) -> list[tuple[str, str, str, float]]:
    kept = main_sets(answers)
    return [(a.dataset, a.target, a.patient, a.dice) for a in answers if a.dataset in kept]


def _paired(one: Sequence[Answer], other: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    found = {answer.question: answer for answer in other}
    if {answer.question for answer in one} != set(found) or len(one) != len(other):
        raise MedSegRError(
            "The rows to be compared answer different questions; remove the answers of the run and ask anew."
        )
    return [(answer, found[answer.question]) for answer in one]


def head(rows: Mapping[str, Row]) -> list[list[str]]:
    """One line a row: name, what it is told, images, millions of parameters, Dice, and our lead over it."""
    ours = rows["e"].answers
    return [
        [
            f"{key}. {row.name}",
            row.told,
            f"{row.images:,}",
            f"{row.parameters / 1e6:.1f}",
            str(mean_dice(row.answers)),
            "" if key == "e" else str(difference(ours, row.answers)),
        ]
        for key, row in sorted(rows.items())
    ]


def comparisons(rows: Mapping[str, Row]) -> list[list[str]]:
    """What the table is for, one line each: comparison and figure."""
    a, b, c, d, e = (rows[key].answers for key in "abcde")
    return [
        ["e - b: ahead of LISA's recipe", str(difference(e, b))],
        ["e - c: ahead of the cross-attention head", str(difference(e, c))],
        ["e / a: share of the specialists' Dice", str(ratio(e, a))],
        ["d - e: lost in understanding the question", str(difference(d, e))],
    ]


def by_set(rows: Mapping[str, Row]) -> Iterator[list[str]]:
    """One line a set: name, images, Dice of each row; sets that are no part of the mean say so."""
    kept = main_sets(rows["e"].answers)
    images: dict[str, set[str]] = defaultdict(set)
    for answer in rows["e"].answers:
        images[answer.dataset].add(answer.image)
    means = {
        key: mean_within_then_over(((x.dataset, x.target, x.dice) for x in row.answers), min_cases=1)[1]
        for key, row in sorted(rows.items())
    }
    for name in sorted(images):
        apart = "" if name in kept else " (apart)"
        yield [f"{name}{apart}", str(len(images[name])), *(f"{found[name]:.3f}" for found in means.values())]


HEAD = ("row", "told by", "images seen", "parameters, M", "explicit Dice", "e minus this row")
COMPARED = ("comparison", "95 % interval over patients")


def set_columns(rows: Mapping[str, Row]) -> tuple[str, ...]:
    """Header of `by_set`."""
    return ("set", "images", *sorted(rows))


def markdown(rows: Mapping[str, Row], note: str) -> str:
    """The three tables under a line about the run."""
    tables = [
        _table(HEAD, head(rows)),
        _table(COMPARED, comparisons(rows)),
        _table(set_columns(rows), list(by_set(rows))),
    ]
    return "\n\n".join([note, *tables]) + "\n"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *lines))


def around_marks(path: Path) -> tuple[str, str]:
    """What stands before and after the two marks of a Markdown file; raises `MedSegRError` if they are not there."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise MedSegRError(f"{path} lacks the lines '{START}' and '{END}'; expected a table between them.")
    return before, after


def put_between_marks(path: Path, text: str) -> None:
    """Replace what stands between the two marks; raises like `around_marks`."""
    before, after = around_marks(path)
    write_whole(path, f"{before}{START}\n\n{text}\n{END}{after}")
