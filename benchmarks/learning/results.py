"""Results of runs: JSON, a plot of Dice against corrections, and Markdown tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Run = dict[str, Any]
"""See `simulation.run`: plain JSON."""
LINES = ("#0b6bcb", "#c2410c", "#00795a", "#8a3ffc", "#a56a00", "#c2186a", "#444444", "#0aa5b5")


def figure(value: float) -> str:
    """Three decimals, a dash for what there is not."""
    return "–" if value is None or value != value else f"{value:.3f}"


def signed(value: float) -> str:
    """With its sign."""
    return "–" if value is None or value != value else f"{value:+.3f}"


def interval(low: float, high: float) -> str:
    """In brackets; empty where there is none."""
    return "" if low is None or low != low else f" [{low:.3f}, {high:.3f}]"


def curves(runs: Sequence[Run]) -> dict[str, dict[int, list[float]]]:
    """Target -> corrected images -> Dice of every run."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for point in run["curve"]:
            for target, value in point["targets"].items():
                found[target][point["images"]].append(value["dice"])
    return {target: dict(sorted(points.items())) for target, points in found.items()}


def plot(path: Path, title: str, runs: Sequence[Run]) -> None:
    """Dice against corrected images: the mean over seeds, and a band from the lowest to the highest where there are several."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(figsize=(7.5, 4.5), dpi=120)
    for n, (target, points) in enumerate(curves(runs).items()):
        xs, values = list(points), list(points.values())
        colour = LINES[n % len(LINES)]
        axes.plot(xs, [np.mean(v) for v in values], marker="o", color=colour, label=target, markersize=4)
        if max(map(len, values)) > 1:
            axes.fill_between(
                xs, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15
            )
    axes.set(title=title, xlabel="corrected images", ylabel="Dice, held-out images", ylim=(-0.02, 1.02))
    axes.set_xticks(sorted({x for points in curves(runs).values() for x in points}))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path)
    plt.close(drawn)


def markdown(runs: Sequence[Run]) -> str:
    """All tables of some runs of one stream under one strategy and with the same settings."""
    parts = [learning_table(runs), rounds_table(runs)]
    if any("forgetting" in run for run in runs):
        parts.append(forgetting_table(runs))
    return "\n\n".join(parts) + "\n"


def learning_table(runs: Sequence[Run]) -> str:
    """Dice before and after by target, one line per seed and target."""
    lines = [
        "| stream | strategy | settings | seed | target | cases | before | after [95 %] | change [95 %] |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        first, last = run["curve"][0]["targets"], run["curve"][-1]["targets"]
        for target, value in last.items():
            change = run["gain"][target]
            lines.append(
                f"| {run['stream']} | {run['strategy']} | {run['settings']} | {run['seed']} | {target} | {value['n']} "
                f"| {figure(first[target]['dice'])} | {figure(value['dice'])}{interval(value['low'], value['high'])} "
                f"| {signed(change['change'])}{_signed_interval(change)} |"
            )
        change = run["gain"]["all"]
        lines.append(
            f"| {run['stream']} | {run['strategy']} | {run['settings']} | {run['seed']} | all questions | {change['n']} "
            f"| {figure(_mean(first))} | {figure(_mean(last))} | {signed(change['change'])}{_signed_interval(change)} |"
        )
    return "\n".join(lines)


def rounds_table(runs: Sequence[Run]) -> str:
    """Every round with how it ended."""
    lines = [
        "| seed | round | corrected images | ended as | seconds | why |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        for n, found in enumerate(run["rounds"], start=1):
            lines.append(
                f"| {run['seed']} | {n} | {found['images']} | {found['status']} | {found['seconds']:.0f} | {found['sentence']} |"
            )
    return "\n".join(lines)


def forgetting_table(runs: Sequence[Run]) -> str:
    """What old structures lost, and the five targets with many cases that lost most."""
    lines = [
        "| seed | old structures before | after | mean drop | worst targets with many cases |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        if (lost := run.get("forgetting")) is None:
            continue
        worst = ", ".join(f"{t['target']} {signed(t['change'])} ({t['n']})" for t in lost["targets"][:5])
        lines.append(
            f"| {run['seed']} | {figure(lost['before'])} | {figure(lost['after'])} | {signed(lost['drop'])} | {worst} |"
        )
    return "\n".join(lines)


def comparison_table(runs: Sequence[Run]) -> str:
    """One line per stream, strategy and settings: the last Dice and the mean over the whole curve, over seeds with an interval
    (Student's t; none for a single seed)."""
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run["stream"], run["strategy"], run["settings"]].append(run)
    lines = [
        "| stream | strategy | settings | seeds | Dice at the end | mean over the curve | adopted rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (stream, strategy, settings), group in groups.items():
        last = [_mean(run["curve"][-1]["targets"]) for run in group]
        whole = [float(np.mean([_mean(p["targets"]) for p in run["curve"]])) for run in group]
        adopted = sum(r["status"] == "adopted" for run in group for r in run["rounds"])
        total = sum(len(run["rounds"]) for run in group)
        lines.append(
            f"| {stream} | {strategy} | {settings} | {len(group)} | {over_seeds(last)} | {over_seeds(whole)} "
            f"| {adopted} of {total} |"
        )
    return "\n".join(lines)


def over_seeds(values: Sequence[float]) -> str:
    """Mean and, for two and more, its 95 % interval (Student's t)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return figure(mean)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{figure(mean)}{interval(mean - half, mean + half)}"


def _mean(targets: Mapping[str, Mapping[str, float]]) -> float:
    return float(np.mean([value["dice"] for value in targets.values()])) if targets else float("nan")


def _signed_interval(change: Mapping[str, float]) -> str:
    low, high = change["low"], change["high"]
    return "" if low is None or low != low else f" [{low:+.3f}, {high:+.3f}]"
