"""Familiar pictures: the rule, its file, and what it is fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medsegr.errors import CheckpointError
from medsegr.familiar import FILE, Familiarity, load_familiarity, summary
from medsegr.model.encoder import ImageFeatures
from medsegr.training.fit_familiar import changed, fit_rule
from medsegr.training.foreign import KINDS, foreign_picture


def rule() -> Familiarity:
    return Familiarity(
        torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.5]), torch.tensor(0.75)
    )


def test_strangeness_is_the_weighted_standard_score_less_the_limit() -> None:
    found = rule().strangeness(torch.tensor([[3.0, 1.0], [1.0, 0.0]]))
    assert found.tolist() == pytest.approx([1.0 + 0.5 - 0.75, -0.75])


def test_one_wild_feature_counts_for_eight_deviations_at_most() -> None:
    assert rule().strangeness(torch.tensor([[1e6, 0.0]])).item() == pytest.approx(8 - 0.75)


def test_the_file_gives_the_rule_back_and_another_user_may_read_it(tmp_path: Path) -> None:
    path = rule().save(tmp_path)
    loaded = load_familiarity(tmp_path)
    assert loaded is not None and torch.equal(loaded.weight, rule().weight) and loaded.limit == 0.75
    assert path.stat().st_mode & 0o044 == 0o044


def test_a_checkpoint_without_the_file_has_no_rule(tmp_path: Path) -> None:
    assert load_familiarity(tmp_path) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=FILE):
        load_familiarity(tmp_path)
    Familiarity(torch.zeros(3), torch.ones(2), torch.ones(3), torch.tensor(0.0)).save(tmp_path)
    with pytest.raises(CheckpointError, match="one length"):
        load_familiarity(tmp_path)


def test_the_summary_leaves_the_overview_tokens_out() -> None:
    context = torch.cat([torch.full((1, 5, 3), 99.0), torch.tensor([[[1.0, 2, 3]]]).expand(1, 4, 3)], dim=1)
    image = ImageFeatures(torch.zeros(1, 2, 4, 4), (torch.ones(1, 1, 8, 8),), context, torch.zeros(1, 1))
    assert summary(image)[0].tolist() == [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_the_limit_lets_the_kept_pictures_pass_and_the_rule_parts_the_rest() -> None:
    rng = np.random.default_rng(0)
    known, kept = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
    foreign = rng.normal(size=(100, 4)) + [4, 0, 0, 0]
    fitted = fit_rule(known, foreign, (kept[:100], kept[100:]))

    def share(rows: np.ndarray) -> float:
        return float((fitted.strangeness(torch.from_numpy(rows).float()) > 0).float().mean())

    assert share(kept) <= 0.005
    assert share(foreign) > 0.8
    assert share(fitted.mean.numpy()[None].astype(float)) == 0


@pytest.mark.parametrize("kind", sorted(set(KINDS), key=lambda k: k.__name__))
def test_a_made_up_picture_is_an_rgb_picture_and_its_seed_repeats_it(kind: object) -> None:
    assert callable(kind)
    first, again = (kind(np.random.default_rng(3), 64) for _ in range(2))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)


def test_made_up_pictures_differ() -> None:
    rng = np.random.default_rng(0)
    pictures = [foreign_picture(rng, 48) for _ in range(6)]
    assert len({p.tobytes() for p in pictures}) == 6


def test_a_changed_picture_keeps_what_it_shows() -> None:
    rng = np.random.default_rng(1)
    rgb = np.zeros((100, 120, 3), np.uint8)
    rgb[:, :60] = 200
    for _ in range(20):
        view = changed(rgb, rng)
        assert view.ndim == 3 and view.dtype == np.uint8 and min(view.shape[:2]) >= 24
        assert view[:, 0].mean() > view[:, -1].mean() + 50
