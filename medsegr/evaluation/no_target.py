"""The no-target rules of GRES (Liu et al. 2023): "predicted no target" means that no mask was drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def no_target_accuracy(predicted_empty: Sequence[bool]) -> float:
    """N-acc: share of questions about absent structures that were answered without a mask."""
    return float(np.mean(predicted_empty)) if len(predicted_empty) else float("nan")


def target_accuracy(predicted_empty: Sequence[bool]) -> float:
    """T-acc: share of questions about present structures that were answered with a mask."""
    return 1.0 - float(np.mean(predicted_empty)) if len(predicted_empty) else float("nan")
