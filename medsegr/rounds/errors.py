"""What the store says when it cannot do as asked."""

from __future__ import annotations

import lzma
import zlib
from zipfile import BadZipFile

from medsegr.errors import MedSegRError

DAMAGED_ZIP = (EOFError, ValueError, KeyError, NotImplementedError, BadZipFile, zlib.error, lzma.LZMAError)
"""What `zipfile` raises for an archive whose bytes were changed, and `numpy` for an .npz."""
DAMAGED = (OSError, *DAMAGED_ZIP)
"""The same for a file that may not be readable at all."""


class StoreError(MedSegRError):
    """The state folder cannot be used, or a turn, correction or mask in it does not exist."""
