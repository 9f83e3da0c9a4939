"""Latents: what is stored comes back closely enough for the model's own heads, in a fraction of the room."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegr.errors import CheckpointError
from medsegr.model.checkpoint import read_config, resolve
from medsegr.model.encoder import Trunk
from medsegr.model.medsegr import MedSegR
from medsegr.qa.facts import load_knowledge
from medsegr.rounds.examples import Drawn, training_case
from medsegr.rounds.features import encode
from medsegr.rounds.gate import GateConfig
from medsegr.rounds.latents import read_latents, write_latents
from medsegr.rounds.replay import (
    REPLAY,
    choose,
    dice_by_name,
    distilled,
    read_replay,
    well_known,
    write_replay,
)
from medsegr.rounds.scoring import regression_questions, remembered_questions
from medsegr.training.images import Case

SIDE = 64


def _cases(count: int) -> list[Case]:
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        mask = np.zeros((SIDE, SIDE), np.bool_)
        mask[8 + n : 40, 8:40] = True
        rgb = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
        rgb[mask] += 120
        label = "liver" if n % 4 else "left kidney"
        drawn = Drawn(f"d{n}", f"p{n}", "CT", rgb, {label: mask})
        found.append(training_case(drawn, load_knowledge().concepts, SIDE, 1))
    return found


def test_maps_come_back_closely_in_little_room(tiny: MedSegR, tmp_path: Path) -> None:
    features = encode(tiny, _cases(6), 1, 1)
    write_latents(
        tmp_path / "l.npz",
        [f.trunk for f in features],
        [f.case.labels for f in features],
        [{"n": n} for n in range(6)],
    )
    latents = read_latents(tmp_path / "l.npz")
    assert [r["n"] for r in latents.records] == list(range(6))
    for n, feature in enumerate(features):
        back = latents.of(n)
        for name in Trunk.__dataclass_fields__:
            true, found = getattr(feature.trunk, name).float(), getattr(back, name)
            assert found.shape == true.shape
            assert float((found - true).norm() / true.norm()) < 0.12, name
        assert np.array_equal(latents.labels[n], feature.case.labels)
    plain = sum(getattr(f.trunk, name).nbytes for f in features for name in Trunk.__dataclass_fields__)
    assert (tmp_path / "l.npz").stat().st_size < plain / 3


def test_a_damaged_file_is_refused(tiny: MedSegR, tmp_path: Path) -> None:
    (tmp_path / REPLAY).write_bytes(b"PK nonsense")
    with pytest.raises(CheckpointError, match="copy the checkpoint anew"):
        read_replay(tmp_path)
    write_replay(tmp_path / REPLAY, tiny, {"replay": _cases(1)}, conversations=1)
    whole = (tmp_path / REPLAY).read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(whole[200:240], bytes(40))):
        (tmp_path / REPLAY).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="copy the checkpoint anew"):
            read_replay(tmp_path)
    (tmp_path / REPLAY).unlink()
    assert read_replay(tmp_path) == {"replay": [], "regression": []}


def test_replay_keeps_questions_and_labels_apart_by_part(tiny: MedSegR, tmp_path: Path) -> None:
    cases = _cases(5)
    write_replay(tmp_path / REPLAY, tiny, {"replay": cases[:3], "regression": cases[3:]}, conversations=4)
    parts = read_replay(tmp_path)
    assert [f.case.image for f in parts["replay"]] == ["d0", "d1", "d2"]
    assert [f.case.image for f in parts["regression"]] == ["d3", "d4"]
    first = parts["replay"][0].case
    assert first.present == cases[0].present and first.values == cases[0].values
    assert len(first.conversations) == 4
    assert {c.to_json()["id"] for c in first.conversations} <= {c.id for c in cases[0].conversations}
    features = tiny.encoder.read(parts["replay"][0].trunk)
    true = tiny.encoder.read(
        Trunk(
            *(getattr(encode(tiny, cases[:1], 1, 1)[0].trunk, n).float() for n in Trunk.__dataclass_fields__)
        )
    )
    assert torch.allclose(features.present, true.present, atol=0.2)


def test_what_lies_where_the_clinician_drew_is_not_kept_as_another_structure(
    tiny: MedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegr.rounds.replay.SEEN", 0.0)
    feature = encode(tiny, _cases(1), 1, 1)[0]
    with torch.no_grad():
        tiny.grounding.decoder.presence_head.layers[-1].bias.fill_(9.0)
    seen = distilled(tiny, feature, {})
    assert seen
    name, mask = next(iter(seen.items()))
    assert name not in distilled(tiny, feature, {"something else": mask})
    assert name in distilled(tiny, feature, {"something else": np.zeros_like(mask)})


def test_maps_follow_the_model_onto_its_device(tiny: MedSegR) -> None:
    feature = encode(tiny, _cases(1), 1, 1)[0]
    mask = feature.labels.numpy() > 0
    tiny.to("meta")  # computes shapes and refuses tensors of another device, as a GPU does
    with pytest.raises(NotImplementedError):  # only once values are asked for
        dice_by_name(tiny, feature.trunk, {"left kidney": mask})
    with pytest.raises(NotImplementedError):
        distilled(tiny, feature, {})


def test_what_ships_has_enough_cases_to_judge_what_is_old() -> None:
    checkpoint = resolve("embedded")
    config = read_config(checkpoint)
    pictures = read_replay(checkpoint)["regression"]
    asked = regression_questions(pictures, 1, 0, load_knowledge().concepts, config.targets)
    cases = Counter(question.label for question in asked if question.kind == "regression")
    assert sum(count >= GateConfig().min_old_cases for count in cases.values()) >= 12
    others = remembered_questions(read_replay(checkpoint)["replay"], asked, load_knowledge().concepts, 1)
    assert cases.keys() | {question.label for question in others} == set(config.targets)
    assert cases.keys().isdisjoint(question.label for question in others) and len(others) < 70
    sets = Counter(q.latent.case.dataset for q in asked if q.kind == "regression" and q.latent)
    assert sum(count >= GateConfig().min_old_cases for count in sets.values()) >= 10


def test_sets_take_turns_and_give_what_looks_different() -> None:
    one, *rest = _cases(12)
    large = [replace(case, dataset="large") for case in rest]
    dark, bright = (replace(large[n], rgb=np.full((SIDE, SIDE, 3), n * 200, np.uint8)) for n in (0, 1))
    chosen = choose([*[replace(dark, image=f"dark{n}") for n in range(9)], bright, one], 3, seed=1)
    assert {case.image for case in chosen} - {f"dark{n}" for n in range(9)} == {bright.image, one.image}


def test_replay_comes_from_pictures_that_the_model_outlines_best(
    tiny: MedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegr.rounds.replay.SEEN", 0.0)
    with torch.no_grad():
        tiny.grounding.decoder.presence_head.layers[-1].bias.fill_(9.0)
    known, *others = (replace(case, image=f"i{n}") for n, case in enumerate(_cases(4)[1:]))
    feature = encode(tiny, [known], 1, 1)[0]
    mask = distilled(tiny, feature, {}, most=len(tiny.config.targets))["liver"]
    value = known.values["liver"][0]
    known = replace(known, labels=np.where(mask, value, 0).astype(np.uint8))
    wrong = [replace(case, labels=np.where(mask, 0, value).astype(np.uint8)) for case in others]
    empty = replace(known, image="nothing", dataset="normal", present=frozenset())
    chosen = [case.image for case in well_known(tiny, [*wrong, known, empty])]
    assert known.image in chosen and "nothing" in chosen and len(chosen) == 3


def test_every_structure_gets_its_share() -> None:
    chosen = choose(_cases(12), 6, seed=1)
    labels = [name for case in chosen for name in case.present]
    assert labels.count("left kidney") == 3 and labels.count("liver") == 3
