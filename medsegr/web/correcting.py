"""From what a client says about an answer to a correction that may be stored: every rule is checked here, before
anything is saved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from medsegr.imaging.label_reading import read_label_map
from medsegr.rounds.corrections import NewCorrection, NewFinding, Origin, Verdict
from medsegr.rounds.labels import markup_problem
from medsegr.rounds.mask_files import PackedMasks
from medsegr.rounds.store import Turn
from medsegr.web.errors import Refusal
from medsegr.web.forms import Form
from medsegr.web.masks import Geometry
from medsegr.web.requests import MAX_ANSWER

MAX_LABEL = 64
MAX_REASON = 2000
MAX_FINDINGS = 64


def _text(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(
            "A text holds half of a character (a lone surrogate); whole characters are expected."
        )
    return value.strip()


def _label(value: str) -> str:
    value = value.strip()
    if not 1 <= len(value) <= MAX_LABEL or not value.isprintable():
        raise ValueError(f"A label must have 1 to {MAX_LABEL} printable characters.")
    if problem := markup_problem(value):
        raise ValueError(problem)
    return value


Text = Annotated[str, AfterValidator(_text)]
Label = Annotated[str, AfterValidator(_label)]


class FindingBody(BaseModel):
    """One structure: which finding of the turn it replaces (none: it is new), its name, and the part with its mask
    (none: the finding's own mask, unchanged).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    n: int | None = Field(None, ge=1, strict=True)
    label: Label
    mask: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")


class CorrectionBody(BaseModel):
    """The form field `correction`. A finding of the turn that is not mentioned stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    turn_id: str = Field(max_length=100)
    verdict: Verdict
    reason: Text | None = Field(None, max_length=MAX_REASON, description="Required for `rejected`.")
    answer: Text | None = Field(None, max_length=MAX_ANSWER, description="The corrected text, if it changed.")
    client_id: Text | None = Field(None, max_length=200)
    findings: tuple[FindingBody, ...] = Field((), max_length=MAX_FINDINGS)


def check_rules(body: CorrectionBody, turn: Turn, parts: Iterable[str]) -> None:
    """Whether the verdict, the turn and the parts of the form go together; raises `Refusal` 422."""
    numbers = [finding.n for finding in body.findings if finding.n is not None]
    named = [finding.mask for finding in body.findings if finding.mask is not None]
    count = len(turn.findings)
    if len(numbers) != len(set(numbers)):
        raise Refusal(422, "A finding of the turn is replaced twice; each `n` is expected once.")
    if any(n > count for n in numbers):
        raise Refusal(422, f"`n` is {max(numbers)}, but this turn has {count} findings; `n` counts from 1.")
    if any(finding.n is None and finding.mask is None for finding in body.findings):
        raise Refusal(422, "A new finding has no mask; name the part of the form that holds it.")
    if len(named) != len(set(named)):
        raise Refusal(422, "Two findings name the same part of the form; a mask for each is expected.")
    parts = set(parts)
    if missing := sorted(set(named) - parts):
        raise Refusal(422, f"The form has no part `{missing[0]}`, which a finding names as its mask.")
    if parts - set(named):
        raise Refusal(422, "The form has a file that no finding names as its mask.")
    _check_verdict(body, turn)


def _check_verdict(body: CorrectionBody, turn: Turn) -> None:
    if body.verdict is Verdict.REJECTED:
        if not body.reason:
            raise Refusal(422, "A rejected answer needs a `reason`.")
        return
    masks = any(finding.mask is not None for finding in body.findings)
    labels = any(f.n is not None and f.label != turn.findings[f.n - 1]["label"] for f in body.findings)
    changed = masks or labels or edited_answer(body, turn) is not None
    if body.verdict is Verdict.ACCEPTED and changed:
        raise Refusal(
            422,
            "An accepted answer is taken as it is, without masks, names or text; send `edited` to change it.",
        )
    if body.verdict is Verdict.EDITED and not changed:
        raise Refusal(422, "Nothing was edited; a mask, a name or a text that differs is expected.")


def edited_answer(body: CorrectionBody, turn: Turn) -> str | None:
    """The corrected text, or None if it is the turn's own."""
    return None if body.answer is None or body.answer == (turn.answer or "").strip() else body.answer


def checked(body: CorrectionBody, turn: Turn, own: PackedMasks, form: Form, editor: str) -> NewCorrection:
    """Read the masks and put the correction together; `own` are the turn's masks. Raises `Refusal` or `ImageError`.

    Accepted: all findings as they were. Edited: those given, then those not mentioned, as they were. Rejected: only
    what came with a mask, since of the rest nothing is known.
    """
    geometry = Geometry.from_json(own.geometry)
    given = [f for f in body.findings if f.mask is not None or body.verdict is Verdict.EDITED]
    findings = []
    with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
        for finding in given:
            if finding.mask is None:
                assert finding.n is not None  # `check_rules` refuses the rest
                findings.append(_unchanged(finding.n, finding.label, own))
                continue
            path = Path(folder) / "mask"
            form.save(finding.mask, path)
            labels = read_label_map(path, geometry.reference(), f"The mask `{finding.mask}`")
            findings.append(pack(finding.n, finding.label, labels.values != 0))
    if body.verdict is not Verdict.REJECTED:
        mentioned = {finding.n for finding in given}
        findings += [
            _unchanged(n, found["label"], own)
            for n, found in enumerate(turn.findings, start=1)
            if n not in mentioned
        ]
    return NewCorrection(
        image_id=turn.image_id,
        editor=editor,
        verdict=body.verdict,
        origin=Origin.PANEL,
        findings=tuple(findings),
        shape=own.shape,
        geometry=own.geometry,
        turn_id=turn.id,
        client_id=body.client_id or None,
        reason=body.reason or None,
        answer=edited_answer(body, turn),
        model_version=turn.model_version,
    )


def pack(n: int | None, label: str, mask: NDArray[np.bool_]) -> NewFinding:
    """A finding with a mask on the image's grid, [H, W] or [X, Y, Z]."""
    packed = np.packbits(np.ascontiguousarray(mask)).tobytes()
    return NewFinding(n, label, packed, int(np.count_nonzero(mask)))


def _unchanged(n: int, label: str, own: PackedMasks) -> NewFinding:
    packed = own.packed[n - 1]
    voxels = int(np.count_nonzero(np.unpackbits(np.frombuffer(packed, np.uint8))))
    return NewFinding(n, label, packed, voxels)
