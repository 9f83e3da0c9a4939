"""Distances between outlines: by hand, and against MONAI's own functions, scikit-image and a transcription of the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from skimage.metrics import hausdorff_distance

from medsegr.evaluation.surface import surface_scores

ROW = np.zeros((1, 12), dtype=bool)


def _line(*columns: int) -> np.ndarray:
    mask = ROW.copy()
    mask[0, list(columns)] = True
    return mask


def _blobs(seed: int, shape: tuple[int, ...] = (60, 44)) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).random((2, *shape))
    one, other = (ndimage.gaussian_filter(n, 4) > 0.5 for n in noise)
    return one, one ^ (other & (np.random.default_rng(seed + 1).random(shape) > 0.7))


def test_single_pixels_by_hand() -> None:
    """Pixels 1 and 4 are 3 px apart, or 3 x 0.5 = 1.5 mm; the tolerance is 2."""
    px = surface_scores(_line(1), _line(4))
    assert (px.nsd, px.hd95, px.unit) == (0.0, 3.0, "px")
    mm = surface_scores(_line(1), _line(4), (1.0, 0.5))
    assert (mm.nsd, mm.hd95, mm.unit) == (1.0, 1.5, "mm")


def test_share_and_percentile_by_hand() -> None:
    """Drawn 0 and 10, true 0: distances 0 and 10 one way, 0 the other; the 95th percentile of (0, 10) is 9.5; two of three
    are near."""
    scores = surface_scores(_line(0, 10), _line(0))
    assert scores.nsd == pytest.approx(2 / 3) and scores.hd95 == pytest.approx(9.5)


def test_rows_and_columns_have_their_own_spacing() -> None:
    one, other = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    one[0, 0], other[3, 4] = True, True
    assert surface_scores(one, other, (2.0, 0.5)).hd95 == pytest.approx(math.hypot(3 * 2.0, 4 * 0.5))


def test_empty_masks() -> None:
    """Both empty agree; one empty costs the image's diagonal: sqrt(30² + 40²) px."""
    nothing, something = np.zeros((30, 40), dtype=bool), np.zeros((30, 40), dtype=bool)
    something[4, 4] = True
    both = surface_scores(nothing, nothing)
    assert (both.nsd, both.hd95) == (1.0, 0.0)
    for one, other in ((nothing, something), (something, nothing)):
        assert (surface_scores(one, other).nsd, surface_scores(one, other).hd95) == (0.0, 50.0)
        assert surface_scores(one, other, (0.1, 0.1)).hd95 == pytest.approx(5.0)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.7, 2.1)])
@pytest.mark.parametrize("seed", range(4))
def test_agreement_with_monai(seed: int, spacing: tuple[float, float] | None) -> None:
    drawn, truth = _blobs(seed)
    scores = surface_scores(drawn, truth, spacing)
    p, t = (torch.from_numpy(x)[None, None].float() for x in (drawn, truth))
    step = list(spacing) if spacing else None
    nsd = compute_surface_dice(p, t, [2.0], include_background=True, spacing=step)
    hd95 = compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=step)
    assert scores.nsd == pytest.approx(float(nsd), abs=1e-6)
    assert scores.hd95 == pytest.approx(float(hd95), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_distance_agrees_with_scikit_image(seed: int) -> None:
    drawn, truth = _blobs(seed)
    edges = (m & ~ndimage.binary_erosion(m) for m in (drawn, truth))
    assert surface_scores(drawn, truth, percentile=100).hd95 == pytest.approx(
        hausdorff_distance(*edges), rel=1e-6
    )


@pytest.mark.parametrize("shape", [(40, 30), (14, 12, 10)])
def test_agreement_with_the_definition(shape: tuple[int, ...]) -> None:
    """Distance transforms of the whole image, 2-D and 3-D, instead of nearest neighbours in a cut-out."""
    drawn, truth = _blobs(9, shape)
    spacing = (0.8, 1.3, 2.0)[: len(shape)]
    edges = [m & ~ndimage.binary_erosion(m) for m in (drawn, truth)]
    far = [
        ndimage.distance_transform_edt(~b, spacing)[a]
        for a, b in ((edges[0], edges[1]), (edges[1], edges[0]))
    ]
    near = sum((d <= 2.0).sum() for d in far) / sum(len(d) for d in far)
    scores = surface_scores(drawn, truth, spacing)
    assert scores.nsd == pytest.approx(near, abs=1e-6)
    assert scores.hd95 == pytest.approx(max(np.percentile(d, 95) for d in far), rel=1e-6)
