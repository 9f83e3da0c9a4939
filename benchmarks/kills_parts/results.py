"""The kills as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from .clinic import Phase
from .killing import Kill
from .server import Target


def table(kills: Sequence[Kill]) -> str:
    """Markdown: phase x what was killed, with how often the phase was still going on, and what was lost or broken."""
    lines = [
        "| phase | killed | kills | in mid-phase | lost | broken | answers again, s (median, max) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for phase in Phase:
        for target in Target:
            chosen = [kill for kill in kills if kill.phase is phase and kill.target is target]
            if chosen:
                lines.append(_line(phase.value, target.value, chosen))
    return "\n".join([*lines, _line("**all**", "", kills)])


def _line(phase: str, target: str, kills: Sequence[Kill]) -> str:
    waits = sorted(kill.ready_s for kill in kills) or [0.0]
    lost, broken = (sum(bool(getattr(kill, name)) for kill in kills) for name in ("lost", "broken"))
    hit = sum(kill.hit for kill in kills)
    wait = f"{waits[len(waits) // 2]:.1f}, {waits[-1]:.1f}"
    return f"| {phase} | {target} | {len(kills)} | {hit} | {lost} | {broken} | {wait} |"
