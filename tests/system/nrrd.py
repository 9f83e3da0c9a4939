"""NRRD bytes to an array, with pynrrd."""

from __future__ import annotations

import io
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray


def read_nrrd(content: bytes) -> NDArray[Any]:
    """[Z, Y, X] or [Y, X]: slowest axis first, so that a plane of a DICOM volume is [rows, columns]."""
    stream = io.BytesIO(content)
    header = nrrd.read_header(stream)
    return np.asarray(nrrd.read_data(header, stream, index_order="C"))
