"""Which image a clinician should look at next, and why: active learning in plain Python.

What the model makes of an image (`Look`) is computed ahead by the model's process, a few at a time while nobody asks, and kept
in a file; choosing only reads it. Nothing here knows HTTP or MONAI Label.
"""

from medsegr.choosing.choice import Choice, ChoosingError, NothingLeft
from medsegr.choosing.chooser import Chooser
from medsegr.choosing.look import Look
from medsegr.choosing.strategies import DEFAULT, STRATEGIES

__all__ = ["DEFAULT", "STRATEGIES", "Choice", "Chooser", "ChoosingError", "Look", "NothingLeft"]
