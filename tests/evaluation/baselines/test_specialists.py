"""Specialists: judged by the rules of the vision stage, trained per modality, resumed, saved, told what to outline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegr.errors import CheckpointError, MedSegRError
from medsegr.evaluation.baselines.specialist_training import (
    SpecialistOptions,
    SpecialistTrainer,
    pairs_of,
    targets_by_modality,
    train_specialists,
)
from medsegr.evaluation.baselines.specialists import (
    SpecialistConfig,
    SpecialistOutlines,
    Specialists,
    load_specialists,
    save_specialists,
)
from medsegr.imaging import Picture
from medsegr.qa.schema import Conversation, Turn
from medsegr.training.images import Case

SIDE = 32
CHANNELS = (8, 16)
BOTH = {"liver": (1,), "spleen": (2,)}


def _case(
    modality: str = "CT", values: dict[str, tuple[int, ...]] | None = None, exhaustive: bool = True
) -> Case:
    """A bright square, value 1, on the left; nothing else."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[8:24, 2:14] = 1
    rgb = np.repeat(labels[..., None] * 200, 3, axis=2).astype(np.uint8)
    values = BOTH if values is None else values
    shown = frozenset(name for name, numbers in values.items() if 1 in numbers)
    turn = Turn("Where?", "Here.", (), "explicit")
    asked = Conversation("c", "i.png", modality, f"set-{modality}", "p", "train", (turn,))
    return Case(
        "i.png",
        asked.dataset,
        "p",
        False,
        False,
        rgb,
        labels,
        (asked,),
        shown,
        frozenset(),
        values,
        exhaustive,
    )


def _config(**targets: tuple[str, ...]) -> SpecialistConfig:
    return SpecialistConfig(targets, SIDE, 0.35, 0.28, CHANNELS)


def _options(folder: Path, images: int, **more: int) -> SpecialistOptions:
    return SpecialistOptions(folder / "state.pt", images, bf16=False, **more)


def test_each_modality_has_the_structures_of_its_sets() -> None:
    cases = [_case("MR", {"heart": (1,)}), _case(), _case("US", {}), _case("MR", {"aorta": (1,)})]
    assert targets_by_modality(cases) == {"CT": ("liver", "spleen"), "MR": ("aorta", "heart")}


def test_what_is_not_drawn_is_judged_only_where_labels_are_exhaustive() -> None:
    cases = [_case(exhaustive=True), _case(exhaustive=False)]
    labels = torch.from_numpy(np.stack([c.labels for c in cases]))
    pairs = pairs_of(cases, labels, ("liver", "spleen"))
    assert pairs.row.tolist() == [0, 0, 1] and pairs.output.tolist() == [0, 1, 0]
    assert pairs.truth.flatten(1).sum(1).tolist() == [16 * 12, 0, 16 * 12]
    torch.testing.assert_close(pairs.weight, torch.tensor([2**-0.5, 2**-0.5, 1.0]))


def test_a_structure_of_few_pixels_is_neither_there_nor_absent() -> None:
    case = _case()
    case.labels[0, :5] = 2
    assert pairs_of([case], torch.from_numpy(case.labels[None]), ("liver", "spleen")).output.tolist() == [0]


def test_an_image_changes_the_net_of_its_modality_only(tmp_path: Path) -> None:
    cases = [_case("CT", {"liver": (1,)}), _case("MR", {"heart": (1,)})]
    nets = Specialists(_config(CT=("liver",), MR=("heart",)))
    before = {name: tensor.clone() for name, tensor in nets.state_dict().items()}
    SpecialistTrainer(nets, cases, _options(tmp_path, 8)).step("MR", cases[1:])
    changed = {
        name.split(".")[1] for name, t in nets.state_dict().items() if not torch.equal(t, before[name])
    }
    assert changed == {"MR"}


def test_a_modality_without_structures_is_drawn_and_not_trained(tmp_path: Path) -> None:
    cases = [_case("CT", {"liver": (1,)}), _case("US", {})]
    trainer = SpecialistTrainer(Specialists(_config(CT=("liver",))), cases, _options(tmp_path, 16))
    assert np.isnan(trainer.step("US", cases[1:]))
    trainer.train()
    assert trainer.drawn == 16 and not any(trainer.waiting.values())


def test_a_specialist_learns_to_outline_what_it_is_told(tmp_path: Path) -> None:
    case = _case()
    case.labels[8:24, 18:30] = 2
    case.rgb[8:24, 18:30] = 90
    options = replace(_options(tmp_path, 240), learning_rate=1e-2)
    outlines = SpecialistOutlines(train_specialists([case], _config(CT=("liver", "spleen")), options))
    twice = np.ones((2, 2), np.uint8)
    large = Picture(np.kron(case.rgb[..., 0], twice), "CT", None)
    outlines.set_image(large, "CT")
    for name, (value,) in BOTH.items():
        drawn, truth = outlines.draw("", name), np.kron(case.labels, twice) == value
        assert drawn.shape == truth.shape
        assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) > 0.8, name
    assert not outlines.draw("", "heart").any(), "no net knows it"
    outlines.set_image(large, "DERM")
    assert not outlines.draw("", "liver").any(), "there is no net for skin"


def test_an_interrupted_run_goes_on_with_its_weights_and_its_count(tmp_path: Path) -> None:
    cases, config = [_case("CT", {"liver": (1,)})], _config(CT=("liver",))
    options = _options(tmp_path, 16, save_images=8)
    trainer = SpecialistTrainer(Specialists(config), cases, options)
    step, steps = trainer.step, 0

    def dies(modality: str, batch: list[Case]) -> float:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return step(modality, batch)

    trainer.step = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = SpecialistTrainer(Specialists(config), cases, options)
    resumed.resume()
    assert resumed.drawn == 8
    for name, tensor in trainer.specialists.state_dict().items():
        assert torch.equal(tensor, resumed.specialists.state_dict()[name])
    with pytest.raises(MedSegRError, match="another run"):
        SpecialistTrainer(Specialists(config), cases, replace(options, images=24)).resume()


def test_what_is_saved_draws_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    nets = Specialists(_config(CT=("liver", "spleen"))).eval()
    save_specialists(nets, tmp_path, 40)
    again, images = load_specialists(tmp_path)
    rgb = torch.from_numpy(_case().rgb[None])
    assert images == 40 and again.config == nets.config
    with torch.inference_mode():
        assert torch.equal(again.eval()("CT", rgb), nets("CT", rgb))
    with pytest.raises(CheckpointError, match="no specialists"):
        load_specialists(tmp_path / "missing")
