"""How fast a round learns and when it ends: a warm-up, a cosine over its steps or its minutes, whichever ends sooner, and an
early end once the corrections teach nothing more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SMOOTHING = 0.95
"""Of the running mean of losses: about the last 20 steps."""


@dataclass(frozen=True)
class ScheduleOptions:
    """`steps` and `minutes` (0: no limit) bound a round. After `patience` steps (0: never) in which the smoothed loss on what was
    corrected fell by less than the share `least_gain` of itself, the rate runs out over `cooldown` steps and the round ends."""

    steps: int
    minutes: float
    warmup: int = 20
    patience: int = 100
    least_gain: float = 0.02
    cooldown: int = 20


class Schedule:
    """One round's. Ask `rate` before each step and `note` its loss after it."""

    def __init__(self, options: ScheduleOptions) -> None:
        self.options = options
        self._mean: float | None = None
        self._best = math.inf
        self._since = 0
        self._cooling: tuple[int, float] | None = None

    def rate(self, step: int, spent: float) -> float:
        """Share of the full learning rate in step `step` (from 0) after `spent` minutes; 0 where the round has ended."""
        o = self.options
        if step >= o.steps or 0 < o.minutes <= spent:
            return 0.0
        share = max(step / o.steps, spent / o.minutes if o.minutes else 0.0)
        usual = min(1.0, (step + 1) / o.warmup) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        if self._cooling is None:
            return usual
        began, rate = self._cooling
        return min(usual, max(0.0, rate * (1 - (step - began) / o.cooldown)))

    def note(self, step: int, spent: float, loss: float | None) -> None:
        """Take note of the loss of step `step` on what was corrected (None: there was none)."""
        if loss is None or not math.isfinite(loss):
            return
        mean = loss if self._mean is None else SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self._mean = mean
        if mean < self._best * (1 - self.options.least_gain):
            self._best, self._since = mean, 0
            return
        self._since += 1
        if self.plateau and self._cooling is None:
            self._cooling = step + 1, self.rate(step + 1, spent)

    @property
    def plateau(self) -> bool:
        """Whether the corrections have taught nothing more for long enough."""
        return bool(self.options.patience) and self._since >= self.options.patience

    @property
    def cooling(self) -> bool:
        """Whether the round is about to end early."""
        return self._cooling is not None
