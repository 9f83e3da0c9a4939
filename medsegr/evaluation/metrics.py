"""The metrics that are plain arithmetic, under one name; outlines (`surface`) and words (`text`) need larger libraries and
stay apart."""

from __future__ import annotations

from medsegr.evaluation.averages import mean_over_sets, mean_pairwise, mean_within_then_over
from medsegr.evaluation.bootstrap import Estimate, macro_interval, share
from medsegr.evaluation.calibration import Bin, expected_calibration_error, reliability
from medsegr.evaluation.no_target import no_target_accuracy, target_accuracy
from medsegr.evaluation.overlap import (
    Mask,
    chose_target,
    ciou,
    dice,
    giou,
    intersection_and_union,
    iou,
    precision_at,
)

__all__ = [
    "Bin",
    "Estimate",
    "Mask",
    "chose_target",
    "ciou",
    "dice",
    "expected_calibration_error",
    "giou",
    "intersection_and_union",
    "iou",
    "macro_interval",
    "mean_over_sets",
    "mean_pairwise",
    "mean_within_then_over",
    "no_target_accuracy",
    "precision_at",
    "reliability",
    "share",
    "target_accuracy",
]
