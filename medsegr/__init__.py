"""Ask a medical image a question; get a sentence and a mask (MedSeg-R, arXiv 2506.10465)."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Finding", "Predictor", "Reply", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the predictor (and with it torch) only when it is asked for."""
    if name in {"Finding", "Predictor", "Reply"}:
        from medsegr import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'medsegr' has no attribute {name!r}")
