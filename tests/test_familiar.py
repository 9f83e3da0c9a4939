"""Familiar pictures: the rule, its file, and what it is fitted on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medsegr.errors import CheckpointError
from medsegr.familiar import FILE, Familiarity, load_familiarity, remove_familiarity, summary
from medsegr.model.checkpoint import load_checkpoint, save_checkpoint
from medsegr.model.encoder import Trunk
from medsegr.model.medsegr import MedSegR
from medsegr.predictor import Predictor
from medsegr.qa.schema import Conversation
from medsegr.reply import Outcome
from medsegr.training.fit_familiar import REFUSED, changed, drawn_evenly, fit_rule
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


def test_a_file_other_than_the_recorded_one_is_refused(tiny: MedSegR, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path / "tiny", {"version": "t", "licence": "CC0"}, "# card")
    before = json.loads((tmp_path / "tiny" / "meta.json").read_text())
    _rule_of(tiny, limit=5.0).save(tmp_path / "tiny")
    assert Predictor.from_pretrained(tmp_path / "tiny").foreign is False
    other = _rule_of(tiny, limit=6.0).save(tmp_path)
    other.replace(tmp_path / "tiny" / FILE)
    with pytest.raises(CheckpointError, match="SHA-256"):
        Predictor.from_pretrained(tmp_path / "tiny")
    remove_familiarity(tmp_path / "tiny")
    assert not (tmp_path / "tiny" / FILE).exists()
    assert json.loads((tmp_path / "tiny" / "meta.json").read_text()) == before


def test_the_summary_is_mean_and_deviation_of_every_channel() -> None:
    deep = torch.tensor([[[1.0, 2, 3]]]).expand(1, 4, 3)
    d16 = torch.tensor([0.0, 2.0]).repeat(8).view(1, 1, 4, 4)
    trunk = Trunk(d16, torch.full((1, 1, 8, 8), 4.0), torch.full((1, 1, 16, 16), 5.0).half(), deep)
    assert summary(trunk)[0].tolist() == [1, 2, 3, 0, 0, 0, 1, 1, 4, 0, 5, 0]


def test_what_a_round_trains_does_not_change_what_is_familiar(tiny: MedSegR, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path / "tiny", {"version": "t", "licence": "CC0"}, "# card")
    _rule_of(tiny, limit=0.0).save(tmp_path / "tiny")
    predictor = Predictor.from_pretrained(tmp_path / "tiny")
    rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    first = predictor.prepare(rgb, predictor.scales)
    predictor._cache.clear()
    encoder = load_checkpoint(tmp_path / "tiny").model.encoder
    with torch.no_grad():
        for part in (encoder.context, encoder.context_norm, encoder.embed, encoder.overview):
            for parameter in part.parameters():
                parameter.add_(0.5)
    predictor.model.encoder = encoder
    later = predictor.prepare(rgb, predictor.scales)
    assert not torch.equal(later.scales[0].context, first.scales[0].context)
    assert first.look is not None and later.look is not None and torch.equal(later.look, first.look)


@pytest.mark.parametrize("limit, outcome", [(-100.0, Outcome.FOREIGN), (100.0, None)])
def test_a_predictor_outlines_nothing_in_foreign_pictures(
    tiny: MedSegR, tmp_path: Path, limit: float, outcome: Outcome | None
) -> None:
    save_checkpoint(tiny, tmp_path / "tiny", {"version": "t", "licence": "CC0"}, "# card")
    _rule_of(tiny, limit).save(tmp_path / "tiny")
    predictor = Predictor.from_pretrained(tmp_path / "tiny")
    predictor.set_image(np.full((64, 64, 3), 90, np.uint8), "CT")
    reply = predictor.ask("Where is the liver?")
    assert predictor.foreign == (outcome is not None)
    assert (reply.outcome is Outcome.FOREIGN) == (outcome is not None)


def test_the_limit_is_raised_over_the_strangest_by_a_tenth_of_the_spread() -> None:
    pictures = torch.tensor([[2.0, 0.0], [5.0, 0.5]])  # 0.5 and 2.25 before the limit of 0.75
    wider = rule().widened(pictures)
    assert wider.limit.item() == pytest.approx(2.25 + 0.1 * 1.75)
    assert not (wider.strangeness(pictures) > 0).any()
    assert torch.equal(wider.weight, rule().weight)


def test_one_picture_leaves_a_little_room_and_one_that_cannot_be_read_none() -> None:
    assert rule().widened(torch.tensor([[5.0, 0.5]])).limit.item() == pytest.approx(2.25 + 0.01)
    assert rule().widened(torch.tensor([[float("nan"), 0.0]])).limit == rule().limit


def test_the_limit_stays_where_all_pictures_are_familiar() -> None:
    old = rule()
    assert old.widened(torch.tensor([[2.0, 0.0], [1.0, 0.0]])) is old
    assert old.widened(torch.zeros(0, 2)) is old


def test_the_limit_lets_the_kept_pictures_pass_and_the_rule_parts_the_rest() -> None:
    rng = np.random.default_rng(0)
    known, kept = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
    foreign = rng.normal(size=(100, 4)) + [4, 0, 0, 0]
    fitted = fit_rule(known, foreign, (kept[:100], kept[100:]))

    def share(rows: NDArray[np.float64]) -> float:
        return float((fitted.strangeness(torch.from_numpy(rows).float()) > 0).float().mean())

    assert share(kept) <= REFUSED
    assert share(foreign) > 0.8
    assert share(fitted.mean.numpy()[None].astype(float)) == 0


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
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


def _rule_of(model: MedSegR, limit: float) -> Familiarity:
    """The first feature is the strangeness, less `limit`."""
    with torch.inference_mode():
        size = summary(model.encoder.trunk(torch.zeros(1, 3, 64, 64))).shape[1]
    weight = torch.zeros(size)
    weight[0] = 1
    return Familiarity(torch.zeros(size), torch.ones(size), weight, torch.tensor(limit))


def test_images_are_drawn_evenly_from_the_sets_with_all_that_is_asked_of_them() -> None:
    def asked(dataset: str, image: int, n: int) -> Conversation:
        return Conversation(f"{dataset}{image}{n}", f"{dataset}{image}", "CT", dataset, "p", "train", ())

    asked_of = [asked("large", i, n) for i in range(20) for n in (0, 1)] + [asked("small", 0, 0)]
    chosen = drawn_evenly(asked_of, 5)
    images = [c.image for c in chosen]
    assert images.count("small0") == 1 and len(set(images)) == 5 and len(images) == 9
    assert drawn_evenly(asked_of, 100) == asked_of
