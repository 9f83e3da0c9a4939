"""How far images are from those that are known: the step of farthest-point (k-centre greedy) selection on embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def distances(
    candidates: Sequence[Sequence[float]], known: Sequence[Sequence[float]]
) -> NDArray[np.float64] | None:
    """Distance [n] of every candidate to the nearest of `known`, all vectors of one length D.

    Vectors of another length (a model without embeddings) are not comparable: such candidates are at 0, such known ones do not
    count. None where nothing is left to compare with.
    """
    size = max((len(vector) for vector in candidates), default=0)
    near = np.array([vector for vector in known if len(vector) == size], dtype=np.float64)
    if size == 0 or len(near) == 0:
        return None
    found = np.zeros(len(candidates))
    for i, vector in enumerate(candidates):
        if len(vector) == size:
            found[i] = np.linalg.norm(near - np.asarray(vector, dtype=np.float64), axis=1).min()
    return found
