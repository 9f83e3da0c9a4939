"""Put another version of a running server in charge and go back, and see who answers what is asked meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .asking import Asked, Asker, Client

SWITCH_S = 60.0
"""So long an answer of the new version is waited for."""
HOWS = ("promotion", "rollback")


@dataclass(frozen=True)
class Switch:
    """One change of the version in charge: its request and reply, and when the first answer of the new version was there."""

    how: str
    old: str
    new: str
    sent: float
    replied: float
    answered: float | None = None


def switch_versions(client: Client, asker: Asker, other: str, times: int, settle_s: float) -> list[Switch]:
    """Put `other` in charge and go back, `times` times; each change waits until the new version has answered and `settle_s`
    more."""
    found = []
    for how in HOWS * times:
        path = "/medsegr/models/rollback" if how == "rollback" else f"/medsegr/models/{other}/promote"
        old = client.json("GET", "/medsegr/models")["answering"]
        sent = time.monotonic()
        new = client.json("POST", path, json={"reason": "benchmark"})["current"]
        replied = time.monotonic()
        while not (answered := first_answer(asker.asked, new, sent)):
            if time.monotonic() - replied > SWITCH_S:
                break
            time.sleep(0.05)
        found.append(Switch(how, old, new, sent, replied, answered))
        time.sleep(settle_s)
    return found


def first_answer(asked: Sequence[Asked], version: str, since: float) -> float | None:
    """When the first answer of this version was there that ended after `since`."""
    return min((a.done for a in list(asked) if a.version == version and a.done > since), default=None)


def in_charge(switches: Sequence[Switch], start: float, end: float) -> set[str]:
    """The versions that may have been in charge between two moments; while a request to switch runs, either may."""
    until = [*(s.replied for s in switches), math.inf]
    spans = [(switches[0].old, -math.inf), *((s.new, s.sent) for s in switches)]
    return {
        version for (version, since), to in zip(spans, until, strict=True) if start <= to and end >= since
    }


def switches_table(switches: Sequence[Switch], asked: Sequence[Asked]) -> str:
    """Promotions and rollbacks: seconds of the request, and until the new version has answered a question; questions that were
    being answered when the version changed and were finished by the old one."""
    lines = [
        "| switch | times | request, longest | until the new version answers: median | longest | finished by the old version |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for how in HOWS:
        own = [s for s in switches if s.how == how]
        waited = waits(own)
        over = [a for s in own for a in asked if a.begun < s.replied < a.done and a.version == s.old]
        lines.append(
            f"| {how} | {len(own)} | {max(s.replied - s.sent for s in own):.2f} s | {np.median(waited):.2f} s "
            f"| {max(waited):.2f} s | {len(over)} |"
        )
    return "\n".join(lines)


def waits(switches: Sequence[Switch]) -> list[float]:
    """Seconds from each request to an answer of the new version; infinite where none came."""
    return [s.answered - s.sent if s.answered else math.inf for s in switches]
