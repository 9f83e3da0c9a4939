"""The page of a round: what it says, what its pictures show, and that it needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import ImageError
from medsegr.rounds.page import (
    CurvePoint,
    Example,
    RoundReport,
    TargetRow,
    render,
    split_examples,
    write_page,
)
from medsegr.rounds.page_figures import axis_of, bar_of, chart_of
from medsegr.rounds.page_pictures import AFTER, BEFORE, TRUTH, picture, window

NAN = float("nan")
ROWS = (
    TargetRow("optic disc", 12, 0.1, 0.85, 0.75, 0.6, 0.85, "corrected"),
    TargetRow("liver", 30, 0.9, 0.8, -0.1, -0.15, -0.05, "old"),
    TargetRow("spleen <b>", 3, 0.7, 0.71, 0.01, NAN, NAN, "old"),
)


def square(top: int, left: int, side: int, size: int = 100) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def example(before: float, after: float, target: str = "optic disc") -> Example:
    grey = np.full((100, 100, 3), 90, np.uint8)
    return Example(target, before, after, grey, square(40, 40, 20), square(40, 40, 5), square(42, 42, 20))


def report() -> RoundReport:
    curve = (CurvePoint("optic disc", 0, 0.1), CurvePoint("optic disc", 20, 0.85), CurvePoint("mean", 5, NAN))
    examples = (example(0.1, 0.9), example(0.8, 0.3, "cup"), example(0.5, 0.5, "same"))
    decision = "Adopted: the lower bound for optic disc is above 0."
    facts = (("corrections trained on", "20"),)
    return RoundReport(7, "adopted", "v0003-1", "v0004-2", decision, ROWS, curve, examples, facts)


def read(uri: str) -> NDArray[np.uint8]:
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def test_the_decision_comes_before_tables_and_pictures() -> None:
    page = render(report())
    places = [page.index(text) for text in ("Round 7: adopted", "the lower bound", "optic disc</td>", "<img")]
    assert places == sorted(places)
    assert "v0003-1" in page
    assert "corrections trained on" in page


def test_a_row_shows_its_figures_and_what_its_interval_says() -> None:
    rows = {
        name: line
        for line in render(report()).split("<tr>")
        for name in ("optic disc</td>", "liver</td>")
        if name in line
    }
    assert "+0.750" in rows["optic disc</td>"]
    assert "+0.600 to +0.850" in rows["optic disc</td>"]
    assert ">better<" in rows["optic disc</td>"]
    assert "\N{MINUS SIGN}0.150 to \N{MINUS SIGN}0.050" in rows["liver</td>"]
    assert ">worse<" in rows["liver</td>"]


def test_names_are_text_and_a_missing_interval_is_said() -> None:
    page = render(report())
    assert "spleen &lt;b&gt;" in page
    assert "too few patients" in page
    assert "nan" not in page.replace("tenant", "").lower().split("<body>")[1].split("data:")[0]


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    write_page(tmp_path / "7" / "page.html", report())
    page = (tmp_path / "7" / "page.html").read_text("utf-8")
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_an_empty_report_is_a_page() -> None:
    page = render(RoundReport(1, "collecting", "base", None, "6 validation cases are missing."))
    assert "No target was compared" in page
    assert "6 validation cases are missing." in page
    assert "<img" not in page


def test_cases_are_split_by_their_change_largest_first() -> None:
    cases = [example(0.5, 0.6), example(0.2, 0.9), example(0.9, 0.8), example(0.9, 0.1), example(0.5, 0.502)]
    better, worse = split_examples(cases)
    assert [e.after for e in better] == [0.9, 0.6]
    assert [e.after for e in worse] == [0.1, 0.8]


def test_many_cases_are_cut_to_the_largest_changes() -> None:
    page = render(replace(report(), examples=[example(0.0, 0.01 * n) for n in range(1, 21)]))
    assert page.count('class="better-case"') == 8
    assert "The 8 largest changes of 20" in page
    assert "0.200" in page
    assert "after: 0.050" not in page


def test_outlines_lie_on_the_masks() -> None:
    case = example(0.1, 0.9)
    shown = read(picture(case.rgb, case.truth, case.before_mask, case.after_mask, "before"))
    rows, columns = window(case.truth | case.before_mask | case.after_mask)
    assert shown.shape == (256, 256, 3)
    scale = 256 / (rows.stop - rows.start)
    white = np.argwhere((shown == TRUTH).all(axis=2)) / scale + (rows.start, columns.start)
    np.testing.assert_allclose(white.max(axis=0), 60, atol=1.0)
    np.testing.assert_allclose(white.min(axis=0), 40, atol=3.5)  # the other line lies above its corner
    drawn = np.argwhere((shown == BEFORE).all(axis=2)) / scale + (rows.start, columns.start)
    np.testing.assert_allclose([drawn.min(axis=0), drawn.max(axis=0)], [(40, 40), (45, 45)], atol=1.0)
    assert not (shown == AFTER).all(axis=2).any()


def test_both_pictures_of_a_case_show_the_same_part() -> None:
    case = example(0.1, 0.9)
    first, second = (
        read(picture(case.rgb, case.truth, *masks, which))
        for masks, which in (
            ((case.before_mask, case.after_mask), "before"),
            ((case.after_mask, case.before_mask), "after"),
        )
    )
    bottom = slice(200, 256)
    assert ((first == TRUTH).all(axis=2) & (second == TRUTH).all(axis=2))[:, bottom].sum() == 0
    assert first.shape == second.shape
    assert (second == AFTER).all(axis=2).any()


@pytest.mark.parametrize("size", [(40, 300), (300, 40), (20, 20)])
def test_the_cut_stays_within_the_picture(size: tuple[int, int]) -> None:
    mask = np.zeros(size, bool)
    mask[-1, -1] = True
    rows, columns = window(mask)
    assert 0 <= rows.start < rows.stop <= size[0]
    assert 0 <= columns.start < columns.stop <= size[1]
    assert mask[rows, columns].any()
    assert window(np.zeros(size, bool)) == (slice(0, size[0]), slice(0, size[1]))


def test_masks_of_another_size_are_refused() -> None:
    broken = replace(example(0.1, 0.9), truth=np.zeros((50, 100), bool))
    with pytest.raises(ImageError, match="does not lie"):
        render(replace(report(), examples=[broken]))


def test_bars_share_an_axis_and_reach_where_the_figures_say() -> None:
    axis = axis_of([0.04, -0.15, NAN])
    assert axis.end == 0.2
    assert axis.x(0) == 120
    assert axis.x(0.2) == 230
    assert axis.x(-0.1) == 65
    assert axis.x(7.0) == 230
    bar = bar_of(-0.1, -0.15, -0.05, axis, "worse")
    assert '<rect class="fill" x="65" y="6" width="55" height="10"/>' in bar
    assert "M37.5 " in bar
    assert "H92.5" in bar
    assert "interval" not in bar_of(0.1, NAN, NAN, axis, "unsure")
    assert "dot" not in bar_of(NAN, NAN, NAN, axis, "unsure")


def test_the_curve_goes_up_with_dice() -> None:
    chart = chart_of({"disc": [(0.0, 0.0), (10.0, 0.5), (20.0, 1.0)]})
    (curve,) = chart.curves
    x, y = zip(*[(a, b) for a, b, _ in curve.places], strict=True)
    assert list(x) == [chart.left, (chart.left + chart.right) / 2, chart.right]
    assert y[0] == chart.bottom > y[1] > y[2]
    assert [text for _, text in chart.x_ticks] == ["0", "10", "20"]
    assert chart_of({"one": [(5.0, 0.3)]}).curves[0].last == "0.300"
