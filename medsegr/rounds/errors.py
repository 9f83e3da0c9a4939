"""What the store says when it cannot do as asked."""

from __future__ import annotations

from medsegr.errors import MedSegRError


class StoreError(MedSegRError):
    """The state folder cannot be used, or a turn, correction or mask in it does not exist."""
