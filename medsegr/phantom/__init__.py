"""Procedural anatomy: test images and demo studies with exact ground truth."""

from __future__ import annotations

from medsegr.phantom.study import write_multiframe, write_nifti, write_radiograph, write_series
from medsegr.phantom.torso import LABELS, Torso, make_torso

__all__ = [
    "LABELS",
    "Torso",
    "make_torso",
    "write_multiframe",
    "write_nifti",
    "write_radiograph",
    "write_series",
]
