"""A whole run: what it writes, how it goes on after it was killed, what it refuses, and whether the page says what the rows
say."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from known_predictor import Killed, Known, conversation, knowledge, mask
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.evaluation import run as run_module
from medsegr.evaluation.run import EvaluateOptions, questions, run
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Review

Start = Callable[[Known], None]


@pytest.fixture(autouse=True)
def _one_knowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The knowledge base is read once for all runs."""
    monkeypatch.setattr(run_module, "load_knowledge", knowledge)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes a stand-in the predictor of every checkpoint."""

    def use(known: Known) -> None:
        given = SimpleNamespace(from_pretrained=lambda name, device: known)
        monkeypatch.setattr(run_module, "Predictor", given)

    return use


def _small_file(root: Path) -> Path:
    rejected = conversation("i2", ("liver", "liver", "explicit"), review=Review("rejected"))
    conversations = [
        *(conversation(f"i{n}", ("liver", "liver", "explicit")) for n in (1, 0)),
        rejected,
        replace(conversation("i3", ("liver", "liver", "explicit")), split="train"),
    ]
    write_qa(root / "qa.jsonl", conversations)
    return root / "qa.jsonl"


def _large_file(root: Path) -> Path:
    """Six patients; turns, an absent structure, two wordings of one question, answers with line breaks and commas."""
    conversations = [
        conversation("s0", ("spleen|liver", "liver", "explicit"), dataset="small <b>&"),
        conversation("s0", ("liver", "liver", "explicit"), dataset="small <b>&"),
    ]
    for n in range(6):
        conversations += [
            conversation(
                f"i{n}",
                (
                    ("liver", "liver+spleen|liver+liver", "spleen|liver", "", "liver", "liver")[n],
                    "liver",
                    "explicit",
                ),
                ("kidney", "kidney", "implicit"),
                ('spleen|"a,\nb"', "", "absent_same_set"),
            ),
            conversation(f"i{n}", ("", "", "absent_elsewhere")),
        ]
    write_qa(root / "large.jsonl", conversations)
    return root / "large.jsonl"


def _bytes(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_questions_of_a_file_are_grouped_by_image_and_thinned(root: Path) -> None:
    path = _small_file(root)
    found, folder = questions(EvaluateOptions(out=root / "out", qa=path))
    assert [c.image for c in found] == ["i0.png", "i1.png"] and folder == root.resolve()
    assert [c.image for c in questions(EvaluateOptions(root, qa=path, every=2))[0]] == ["i0.png"]
    with pytest.raises(MedSegRError, match="no question of split 'test'"):
        questions(EvaluateOptions(root, qa=path, split="test"))
    for options in (EvaluateOptions(root), EvaluateOptions(root, qa=path, data=root)):
        with pytest.raises(MedSegRError, match="exactly one"):
            questions(options)
    with pytest.raises(MedSegRError, match="every is 0"):
        questions(EvaluateOptions(root, qa=path, every=0))
    with pytest.raises(
        MedSegRError, match="--abilities asks about a folder of labelled sets; expected --data"
    ):
        questions(EvaluateOptions(root, qa=path, abilities=True))


def test_several_files_share_a_root(root: Path) -> None:
    (root / "a").mkdir()
    one = replace(conversation("i0", ("liver", "liver", "explicit")), id="one", image="../i0.png")
    write_qa(root / "a" / "one.jsonl", [one])
    two = root / "two.jsonl"
    write_qa(two, [conversation("i1", ("liver", "liver", "explicit"))])
    found, folder = questions(EvaluateOptions(root, qa=(root / "a" / "one.jsonl", two)))
    assert folder == root.resolve() and [c.image for c in found] == ["i0.png", "i1.png"]
    assert [c.turns[0].targets[0].mask for c in found] == ["a/i0-mask.png", "i1-mask.png"]
    write_qa(two, [one])
    with pytest.raises(MedSegRError, match="'one' is used in another"):
        questions(EvaluateOptions(root, qa=(root / "a" / "one.jsonl", two)))


def test_a_run_writes_figures_rows_masks_and_a_page(root: Path, start: Start) -> None:
    known = Known()
    start(known)
    metrics = run(EvaluateOptions(out=root / "out", qa=_small_file(root), scales=(1.0, 2.0)))
    assert known.scales == (1.0, 2.0) and metrics["checkpoint"] == "known-1" and metrics["questions"] == 2
    written = json.loads((root / "out" / "metrics.json").read_text())
    assert written["emission"] == 1.0 and written["n_acc"] is None, "NaN is no JSON"
    rows = list(csv.DictReader((root / "out" / "per_case.csv").open()))
    assert [r["image"] for r in rows] == ["i0.png", "i1.png"] and list(rows[0])[:3] == [
        "conversation", "dataset", "modality",
    ]  # fmt: skip
    with Image.open(root / "out" / rows[1]["mask"]) as kept:
        assert np.array_equal(np.asarray(kept, dtype=bool), mask("liver"))
    assert (root / "out" / "report.html").is_file()


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 9, 20])
def test_a_killed_run_resumes_to_identical_files(root: Path, start: Start, dies_at: int) -> None:
    path = _large_file(root)
    start(Known())
    options = EvaluateOptions(out=root / "whole", qa=path, paraphrases=2)
    figures = run(options)
    start(Known(dies_at=dies_at))
    with pytest.raises(Killed):
        run(replace(options, out=root / "parts"))
    rest = Known()
    start(rest)
    assert str(run(replace(options, out=root / "parts"))) == str(figures)
    assert _bytes(root / "parts") == _bytes(root / "whole")
    rows = len((root / "whole" / "per_case.csv").read_text().splitlines()) - 1
    assert len(rest.histories) >= rows - dies_at + 1
    assert dies_at < 9 or len(rest.histories) < rows, "what was answered is not asked again"


@pytest.mark.parametrize("cut", [1, 30, 700, 3000])
def test_a_line_that_was_cut_off_is_dropped(root: Path, start: Start, cut: int) -> None:
    options = EvaluateOptions(out=root / "out", qa=_large_file(root))
    start(Known())
    run(options)
    whole = _bytes(root / "out")
    rows = root / "out" / "per_case.csv"
    rows.write_bytes(rows.read_bytes()[:-cut])
    again = Known()
    start(again)
    run(options)
    assert _bytes(root / "out") == whole and 0 < len(again.histories) < 26


def test_a_finished_run_is_reported_again_without_a_question(root: Path, start: Start) -> None:
    options = EvaluateOptions(out=root / "out", qa=_large_file(root))
    start(Known())
    first = run(options)
    whole = _bytes(root / "out")
    (root / "out" / "report.html").unlink()
    silent = Known(dies_at=1)
    start(silent)
    assert str(run(options)) == str(first) and _bytes(root / "out") == whole


def test_another_run_in_the_folder_is_refused(root: Path, start: Start) -> None:
    path = _small_file(root)
    options = EvaluateOptions(out=root / "out", qa=path)
    start(Known())
    run(options)
    before = _bytes(root / "out")
    for other, word in (
        (replace(options, every=2), "every 1, not 2"),
        (replace(options, seed=5), "seed 1, not 5"),
    ):
        with pytest.raises(MedSegRError, match=word):
            run(other)
    newer = Known()
    newer.meta = {"sha256": {"weights": "def"}}
    start(newer)
    with pytest.raises(MedSegRError, match="holds a run with weights"):
        run(options)
    start(Known())
    write_qa(path, [conversation("i5", ("liver", "liver", "explicit"))])
    with pytest.raises(MedSegRError, match="holds a run with questions"):
        run(options)
    assert _bytes(root / "out") == before


def test_rows_of_an_unknown_run_are_left_alone(root: Path, start: Start) -> None:
    out = root / "out"
    out.mkdir()
    (out / "per_case.csv").write_text("conversation,dataset\n")
    start(Known())
    options = EvaluateOptions(out=out, qa=_small_file(root))
    with pytest.raises(MedSegRError, match="holds a per_case.csv but no run.json"):
        run(options)
    assert (out / "per_case.csv").read_text() == "conversation,dataset\n"


def test_foreign_rows_are_refused(root: Path, start: Start) -> None:
    options = EvaluateOptions(out=root / "out", qa=_small_file(root))
    start(Known())
    run(options)
    rows = root / "out" / "per_case.csv"
    lines = rows.read_text().splitlines(keepends=True)
    for changed, word in (
        ([*lines, lines[-1]], "has 3 rows, but this run has 2"),
        ([lines[0], lines[2], lines[1]], "expected '"),
        (["a,b\n", *lines[1:]], "other columns"),
    ):
        rows.write_text("".join(changed))
        with pytest.raises(MedSegRError, match=word):
            run(options)


class _Page(HTMLParser):
    """Tables by id as rows of cells of text lines, and everything that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.references: list[str] = []
        self.tags: list[str] = []
        self._rows: list[list[list[str]]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.references += [
            str(v) for k, v in attrs if k in {"src", "href", "srcset", "data", "action", "poster"}
        ]
        if tag == "table":
            self._rows = self.tables[str(found["id"])] = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in {"td", "th"} and self._rows is not None:
            self._rows[-1].append([])

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = None

    def handle_data(self, data: str) -> None:
        if self._rows and self._rows[-1] and data.strip():
            self._rows[-1][-1].append(data.strip())


def _page(out: Path) -> tuple[_Page, str]:
    text = (out / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    return page, text


def test_the_page_needs_nothing_else(root: Path, start: Start) -> None:
    start(Known())
    run(EvaluateOptions(out=root / "out", qa=_large_file(root)))
    page, text = _page(root / "out")
    # six images with three examples at most in the big set, two in the small one
    assert len(page.references) == 3 + 2
    assert all(r.startswith("data:image/jpeg;base64,") for r in page.references)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert "@import" not in text and "url(" not in text and "://" not in text
    assert "small <b>&" not in text and "small &lt;b&gt;&amp;" in text, "names are escaped"
    assert str(root) not in text, "no folder of this machine"


def test_the_tables_say_what_the_rows_say(root: Path, start: Start) -> None:
    start(Known())
    run(EvaluateOptions(out=root / "out", qa=_large_file(root)))
    page, _ = _page(root / "out")
    rows = [r for r in csv.DictReader((root / "out" / "per_case.csv").open()) if r["wording"] == "1"]
    select = {
        ("overall", "all"): lambda r: True,
        ("by_kind", "explicit"): lambda r: r["kind"] == "explicit",
        ("by_kind", "absent in the same set, by name"): lambda r: r["kind"] == "absent_same_set",
        ("by_turn", "turn 2"): lambda r: r["turn"] == "2",
        ("by_set", "big"): lambda r: r["dataset"] == "big",
        ("by_modality", "CT"): lambda r: True,
        ("by_target", "kidney"): lambda r: r["target"] == "kidney",
    }
    checked = 0
    for (table, name), test in select.items():
        mine = [r for r in rows if test(r)]
        shown = _cells(page.tables[table], name)
        assert shown["questions"] == [str(len(mine))]
        assert shown["patients"] == [str(len({(r["dataset"], r["patient_id"]) for r in mine}))]
        present = [r for r in mine if r["expected"] != "0"]
        absent = [r for r in mine if r["kind"].startswith("absent")]
        for column, values in {
            "Dice": [float(r["dice"]) for r in present],
            "gIoU": [float(r["iou"]) for r in mine],
            "T-acc": [r["empty"] == "False" for r in present],
            "N-acc": [r["empty"] == "True" for r in absent],
            "HD95, px": [float(r["hd95"]) for r in mine if r["hd95"]],
            "ROUGE-L": [float(r["rouge_l"]) for r in mine],
            "target choice": [r["chose"] == "True" for r in mine if r["chose"]],
        }.items():
            if not values:
                assert shown.get(column, ["–"]) == ["–"]
                continue
            digits = 1 if column.startswith("HD95") else 3
            assert shown[column][0] == f"{np.mean(values):.{digits}f}", (table, name, column)
            assert shown[column][-1] == f"n {len(values)}"
            checked += 1
        union = sum(int(r["union"]) for r in mine)
        if union:
            assert shown["cIoU"][0] == f"{sum(int(r['intersection']) for r in mine) / union:.3f}"
    assert checked > 25
    dice = _cells(page.tables["by_set"], "big")["Dice"]
    low, high = (float(x) for x in dice[1].split("–"))
    assert low <= float(dice[0]) <= high
    assert len(_cells(page.tables["by_set"], "small <b>&")["Dice"]) == 2, "one patient has no interval"


def _cells(table: list[list[list[str]]], name: str) -> dict[str, list[str]]:
    head = [" ".join(cell) for cell in table[0]]
    row = next(r for r in table[1:] if "".join(r[0]) == name)
    return dict(zip(head, row, strict=True))


def test_examples_show_both_outlines(root: Path, start: Start) -> None:
    """The worst answer to "liver" outlines the spleen: the truth's line is orange in the left half, the drawn one blue in
    the right."""
    from medsegr.evaluation.examples import SIDE, draw
    from medsegr.imaging import COLOURS

    picture = draw(np.zeros((10, 20, 3), np.uint8), mask("liver"), mask("spleen"))
    assert picture.shape == (SIDE // 2, SIDE, 3)
    orange, blue = ((picture == colour).all(axis=2) for colour in COLOURS[:2])
    assert orange[:, : SIDE // 2].any() and not orange[:, SIDE // 2 :].any()
    assert blue[:, SIDE // 2 :].any() and not blue[:, : SIDE // 2].any()
    same = draw(np.zeros((10, 20, 3), np.uint8), mask("liver"), mask("liver"))
    assert (same == COLOURS[2]).all(axis=2).any() and not (same == COLOURS[0]).all(axis=2).any()


def test_paraphrases_are_asked_and_reported(root: Path, start: Start) -> None:
    """The third answer, a rewording of the first question, outlines the spleen as well."""
    asked: list[str] = []

    class Steady(Known):
        def ask(self, question: str, history: object = ()) -> object:
            asked.append(question)
            return super().ask("liver" if len(asked) != 3 else "liver+spleen|liver+spleen", history)

    start(Steady())
    metrics = run(EvaluateOptions(out=root / "out", qa=_small_file(root), paraphrases=2))
    assert len(asked) == 2 * 3 and len(set(asked[:3])) == len(set(asked[3:])) == 3
    assert (
        metrics["questions"] == 2
        and metrics["paraphrases"]["n"] == 2
        and metrics["paraphrases"]["wordings"] == 6
    )
    # first image: liver, liver, liver and spleen -> (1 + 2/3 + 2/3) / 3; second: always the liver
    assert metrics["paraphrases"]["value"] == pytest.approx(((1 + 2 / 3 + 2 / 3) / 3 + 1) / 2)
    assert not math.isnan(metrics["explicit"]["emission"]) and metrics["explicit"]["named_right"] == 1.0
