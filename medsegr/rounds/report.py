"""From a round's figures to its HTML page: the table, the learning curve, and the cases that changed most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medsegr.imaging import to_rgb
from medsegr.rounds.gate import Decision
from medsegr.rounds.page import CurvePoint, Example, RoundReport, TargetRow, write_page
from medsegr.rounds.rounds_log import Round, RoundLog
from medsegr.rounds.scoring import Answered, Question

PAGE = "page.html"


def write_report(
    folder: Path,
    this: Round,
    champion: str,
    challenger: str | None,
    decision: Decision,
    asked: Sequence[Question],
    before: Sequence[Answered],
    after: Sequence[Answered],
    log: RoundLog,
) -> None:
    """Write `page.html` into the round's folder."""
    rows = [
        TargetRow(
            r.label, r.cases, r.before, r.after, r.after - r.before, r.low, r.high,
            "corrected" if r.kind == "corrected" else "old",
        )
        for r in decision.rows
    ]  # fmt: skip
    examples = [
        Example(
            q.label, a.dice, b.dice, to_rgb(q.picture.pixels, q.picture.modality, q.picture.body_part), q.truth, a.mask, b.mask,
        )
        for q, a, b in zip(asked, before, after, strict=True)
        if q.picture is not None and q.kind == "corrected"
    ]  # fmt: skip
    data = log.get(this.id).data
    facts = [
        ("corrections trained on", str(len(data.get("train", [])))),
        ("corrections judged on", str(len(data.get("val", [])))),
        ("started by", f"{this.editor} ({this.trigger})"),
    ]
    report = RoundReport(
        this.id,
        decision.status.value,
        champion,
        challenger,
        decision.sentence,
        rows,
        _curve(log, this, decision),
        examples,
        facts,
    )
    write_page(folder / PAGE, report)


def _curve(log: RoundLog, this: Round, decision: Decision) -> list[CurvePoint]:
    """Dice of each corrected structure after so many corrections, over the rounds so far."""
    points = []
    for earlier in log.rounds():
        if earlier.id >= this.id or not earlier.decision:
            continue
        seen = len(earlier.data.get("train", []))
        points += [
            CurvePoint(r["label"], seen, r["after"])
            for r in earlier.decision.get("rows", [])
            if r["kind"] == "corrected"
        ]
    now = len(log.get(this.id).data.get("train", []))
    return points + [CurvePoint(r.label, now, r.after) for r in decision.rows if r.kind == "corrected"]
