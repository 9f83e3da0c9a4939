"""Fine-tuning on a tiny model: it learns a structure that it did not know, leaves what it must, and never waits in a group."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import spawn  # type: ignore[attr-defined]

from medsegr.model.checkpoint import load_checkpoint, save_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.predictor import Predictor
from medsegr.qa.facts import load_knowledge, plain_concept, site_concepts, write_site_concepts
from medsegr.rounds.challenger import ChallengerOptions, make_challenger
from medsegr.rounds.examples import Drawn, training_case
from medsegr.rounds.features import FeatureCase, encode
from medsegr.rounds.finetune import (
    ALIKE,
    FinetuneOptions,
    Pool,
    across_sets,
    average_gradients,
    finetune,
    fresh_first,
    prepare,
)
from medsegr.rounds.phantoms import PHANTOM
from medsegr.rounds.together import shared
from medsegr.training.batches import Sampling
from medsegr.training.start import with_targets

SIDE = 64
CONCEPTS = load_knowledge().concepts
NEW = "liver cyst"


def _drawn(count: int) -> list[Drawn]:
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        mask = np.zeros((SIDE, SIDE), np.bool_)
        row, column = rng.integers(4, 36, 2)
        mask[row : row + 22, column : column + 22] = True
        rgb = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        rgb[mask] += 150
        found.append(Drawn(f"d{n}", f"p{n}", "CT", rgb, {NEW: mask}, f"Where is the {NEW}?", (NEW,)))
    return found


@pytest.fixture
def champion(tiny: MedSegR, tmp_path: Path) -> Path:
    """A tiny checkpoint that knows nothing of cysts."""
    save_checkpoint(tiny, tmp_path / "champion", {"version": "tiny-1", "licence": "CC0"}, "# card")
    (tmp_path / "champion" / "LICENSE").write_text("kept")
    return tmp_path / "champion"


def test_a_round_teaches_a_new_structure_and_keeps_the_champion(champion: Path, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in champion.iterdir() if p.is_file()}
    options = ChallengerOptions(
        variants=2,
        distil=False,
        # the tiny language model is a random one: a LoRA on it has nothing to build on
        finetune=FinetuneOptions(
            steps=90, minutes=0, learning_rate=5e-3, images=4, masks=8, bf16=False, full=True, blend=1.0
        ),
    )
    phases: list[str] = []
    steps = make_challenger(
        champion, _drawn(6), CONCEPTS, tmp_path / "challenger", options,
        lambda phase, done, total: phases.append(phase),
    )  # fmt: skip
    assert steps == 90 and list(dict.fromkeys(phases)) == ["reading the pictures", "training"]
    assert {p.name: p.read_bytes() for p in champion.iterdir() if p.is_file()} == before
    assert (tmp_path / "challenger" / "LICENSE").read_text() == "kept"
    predictor = Predictor.from_pretrained(tmp_path / "challenger")
    assert predictor.targets == ("liver", "left kidney", NEW)
    assert set(site_concepts(tmp_path / "challenger")) == {NEW}
    one = _drawn(7)[6]
    predictor.set_image(one.rgb, "CT")
    reply = predictor.ask(f"Outline the {NEW}.")
    assert reply.text.startswith(f"The {NEW} is outlined.")
    assert [f.label for f in reply.findings] == [NEW]
    mask, truth = reply.findings[0].mask, one.masks[NEW]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7


def test_a_killed_training_goes_on_where_it_was(
    champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegr.rounds.finetune.SAVE_S", 0.0)
    options = ChallengerOptions(
        variants=1, distil=False, finetune=FinetuneOptions(steps=6, minutes=0, images=2, masks=4, bf16=False)
    )
    seen: list[int] = []

    def report(phase: str, done: int, total: int) -> None:
        if phase == "training":
            seen.append(done)
            if done == 4 and len(seen) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_challenger(champion, _drawn(2), CONCEPTS, tmp_path / "c", options, report)
    assert (tmp_path / "c.state").is_file()
    make_challenger(champion, _drawn(2), CONCEPTS, tmp_path / "c", options, report)
    assert seen == [1, 2, 3, 4, 4, 5, 6]
    assert not (tmp_path / "c.state").exists() and (tmp_path / "c" / "meta.json").is_file()


def test_what_a_site_told_about_a_structure_goes_with_the_weights(tmp_path: Path) -> None:
    write_site_concepts(
        tmp_path, [plain_concept("ear drum", ["tympanum", "ear drum"], "at the end of the ear canal")]
    )
    write_site_concepts(tmp_path, [plain_concept("ossicles")])
    found = site_concepts(tmp_path)
    assert list(found) == ["ear drum", "ossicles"]
    assert found["ear drum"].leak("Where is the tympanum?") and found["ear drum"].location
    assert found["ossicles"].plural and not found["ear drum"].plural


def test_rows_of_known_structures_and_the_convolutions_stay(tiny: MedSegR) -> None:
    wider = with_targets(tiny, ("liver", "left kidney", NEW))
    trained = prepare(wider, FinetuneOptions(), 2)
    kinds = {name for name, p in wider.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("encoder.stem", "encoder.stages", "encoder.ups")) for name in kinds)
    assert any("lora_A" in name for name in kinds) and any(
        name.startswith("grounding.decoder") for name in kinds
    )
    torch.autograd.backward(sum((p.float() ** 2).sum() for p in trained))  # type: ignore[arg-type]
    gradient = wider.encoder.overview.names.weight.grad
    assert gradient is not None
    assert not gradient[:2].any() and gradient[2].any()


def test_rows_of_corrected_structures_are_trained(tiny: MedSegR) -> None:
    trained = prepare(tiny, FinetuneOptions(), 2, ("left kidney",))
    torch.autograd.backward(sum((p.float() ** 2).sum() for p in trained))  # type: ignore[arg-type]
    gradient = tiny.encoder.overview.names.weight.grad
    assert gradient is not None
    assert not gradient[0].any() and gradient[1].any()


def test_weights_go_a_part_of_the_way_and_new_rows_all_of_it(champion: Path, tmp_path: Path) -> None:
    found = {}
    for blend in (0.0, 0.5, 1.0):
        options = ChallengerOptions(
            variants=1, distil=False,
            finetune=FinetuneOptions(steps=4, minutes=0, images=2, masks=4, bf16=False, blend=blend),
        )  # fmt: skip
        make_challenger(champion, _drawn(2), CONCEPTS, tmp_path / str(blend), options)
        found[blend] = dict(load_checkpoint(tmp_path / str(blend), "cpu").model.named_parameters())
    moved = "grounding.decoder"
    names = [n for n in found[1.0] if n.startswith(moved) and not torch.equal(found[0.0][n], found[1.0][n])]
    assert names
    for name in names:
        middle = (found[0.0][name] + found[1.0][name]) / 2
        assert torch.allclose(found[0.5][name], middle, atol=2e-3), name  # stored in half precision
    table = "encoder.overview.names.weight"
    assert torch.equal(found[0.0][table], found[1.0][table])


def test_answers_hold_on_to_the_names_of_known_structures(tiny: MedSegR) -> None:
    """A known structure's prompt is pulled to its name, which stays; a new one is named by what the answers came to ask for."""
    wider = with_targets(tiny, ("liver", "left kidney", NEW)).eval()
    before = wider.grounding.names.weight.detach().clone()
    options = FinetuneOptions(
        steps=30, minutes=0, learning_rate=5e-3, images=2, masks=4, bf16=False, full=True, blend=1.0
    )
    drawn = [replace(one, masks={"liver": one.masks[NEW], NEW: one.masks[NEW].T}) for one in _drawn(2)]
    features = encode(wider, [training_case(one, CONCEPTS, SIDE, 1) for one in drawn], 1, 1)
    seen: list[dict[str, float]] = []
    finetune(wider, None, features, [], options, 2, lambda done, of, losses: seen.append(losses))
    pulled = [losses["names"] for losses in seen if "names" in losses]
    assert np.mean(pulled[-5:]) < 0.7 * np.mean(pulled[:5])
    after = wider.grounding.names.weight.detach()
    assert torch.equal(after[:2], before[:2])
    drift = (after[2] - before[2]).norm()
    assert drift > 0 and (after[2] - after[0]).norm() < (before[2] - before[0]).norm()


def test_a_new_structure_that_no_picture_shows_alone_has_no_names_to_hold(tiny: MedSegR) -> None:
    wider = with_targets(tiny, ("liver", "left kidney", NEW)).eval()
    before = wider.grounding.names.weight.detach().clone()
    bare = [replace(one, masks={NEW: one.masks[NEW] & False}) for one in _drawn(2)]
    features = encode(wider, [training_case(one, CONCEPTS, SIDE, 1) for one in bare], 1, 1)
    seen: list[dict[str, float]] = []
    options = FinetuneOptions(steps=2, minutes=0, images=2, masks=4, bf16=False)
    finetune(wider, None, features, [], options, 2, lambda done, of, losses: seen.append(losses))
    assert len(seen) == 2 and not any("names" in losses for losses in seen)
    assert torch.equal(wider.grounding.names.weight.detach(), before)


def _average(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    if rank == 0:  # this process has something to learn of the first parameter only, the other of none
        parameters[0].grad = torch.tensor([2.0, 4.0])
    average_gradients(parameters)
    torch.save([p.grad for p in parameters], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_gradients_are_averaged_also_where_a_process_has_none(tmp_path: Path) -> None:
    spawn(_average, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(found[0], torch.tensor([1.0, 2.0])) and torch.equal(found[1], torch.zeros(2))


COUNTS = ((0, 0), (0, 1), (1, 0), (2, 0), (1, 2))
"""Structures in each picture of the first process, and of the second: no target, one, or several."""


def _showing(count: int) -> Drawn:
    """A picture that shows so many of the two structures that the tiny checkpoint knows, and is known to lack the others."""
    rng = np.random.default_rng(count)
    masks = {name: np.zeros((SIDE, SIDE), np.bool_) for name in ("liver", "left kidney")}
    for n, mask in enumerate(list(masks.values())[:count]):
        mask[20 * n + 4 : 20 * n + 20, 8:40] = True
    rgb = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    return Drawn(f"s{count}", f"p{count}", "CT", rgb, masks)


def _train_together(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    steps = []
    for counts in COUNTS:
        torch.manual_seed(0)
        model = load_checkpoint(Path(folder) / "champion", "cpu").model
        case = training_case(_showing(counts[rank]), CONCEPTS, model.config.image_size, 1)
        assert len(case.present) == counts[rank]
        options = FinetuneOptions(steps=2, minutes=0, images=1, replay_images=0, masks=2, bf16=False)
        steps.append(finetune(model, None, encode(model, [case], 1, 1), [], options, 2))
        trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        torch.save(trained, f"{folder}/{counts[0]}-{counts[1]}-{rank}.pt")
    dist.destroy_process_group()
    assert steps == [2] * len(COUNTS)


def test_two_processes_agree_whatever_number_of_targets_each_has(champion: Path, tmp_path: Path) -> None:
    """None waits for the other for ever, and both end with the same weights, which have learnt."""
    spawned = spawn(_train_together, (str(tmp_path),), nprocs=2, join=False)
    end = time.monotonic() + 180
    while not spawned.join(timeout=5):
        if time.monotonic() > end:
            for process in spawned.processes:
                process.kill()
            pytest.fail("The processes wait for each other.")
    for first, second in COUNTS:
        one, two = (
            torch.load(tmp_path / f"{first}-{second}-{rank}.pt", weights_only=True) for rank in (0, 1)
        )
        assert one.keys() == two.keys() and len(one) > 10
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert any(bool(p.any()) for name, p in one.items() if "lora_B" in name)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_group_of_processes_sees_as_many_pictures_as_one_does(processes: int) -> None:
    whole = FinetuneOptions(images=6, replay_images=5, masks=18, steps=40)
    part = shared(whole, processes)
    for name in ("images", "replay_images", "masks"):
        assert 0 <= processes * getattr(part, name) - getattr(whole, name) < processes
    assert part.steps == 40 and shared(FinetuneOptions(replay_images=0), processes).replay_images == 0


def test_a_pool_asks_about_the_structure_that_it_drew() -> None:
    masks = {}
    for n, name in enumerate(("liver", "spleen", "stomach")):
        masks[name] = np.zeros((SIDE, SIDE), np.bool_)
        masks[name][8:56, 20 * n : 20 * n + 16] = True
    drawn = Drawn("d", "p", "CT", np.zeros((SIDE, SIDE, 3), np.uint8), masks)
    case = training_case(drawn, CONCEPTS, SIDE, 1)
    features = [FeatureCase(case, torch.from_numpy(case.labels), None)]  # type: ignore[arg-type]
    pool = Pool(features, 1)
    sampling = Sampling(conversations=3)
    asked: Counter[str] = Counter()
    for _ in range(40):
        for one in pool.draw(3):
            chosen = pool.conversations(one.case, sampling)
            assert len({c.id for c in chosen}) == 3
            asked.update(t.label for t in chosen[0].turns[0].targets[:1])
    assert min(asked[name] for name in masks) >= 20


def _shows(name: str, dataset: str, *present: str) -> FeatureCase:
    masks = {one: np.zeros((SIDE, SIDE), np.bool_) for one in present}
    for n, mask in enumerate(masks.values()):
        mask[8:56, 8 * n : 8 * n + 8] = True
    drawn = Drawn(name, "p", "CT", np.zeros((SIDE, SIDE, 3), np.uint8), masks)
    case = replace(training_case(drawn, CONCEPTS, SIDE, 1), dataset=dataset)
    return FeatureCase(case, torch.from_numpy(case.labels), None)  # type: ignore[arg-type]


def test_what_is_fresh_is_drawn_more_often() -> None:
    features = [_shows("a", "site_CT", "liver"), _shows("b", "site_CT", "spleen")]

    def share(fresh: tuple[str, ...]) -> float:
        drawn = Pool(features, 1, fresh_first(features, fresh)).draw(1200)
        return sum(one.case.image == "b" for one in drawn) / len(drawn)

    assert abs(share(()) - 1 / 2) < 0.05
    assert abs(share(("spleen",)) - 3 / 4) < 0.05
    assert abs(share(("spleen", "liver")) - 1 / 2) < 0.05


def test_a_set_with_one_structure_is_replayed_beside_one_with_many() -> None:
    many = ("liver", "spleen", "stomach", "aorta")
    features = [_shows("a", "abdomen", *many), _shows("b", "nuclei", "cell nuclei")]
    drawn = Pool(features, 1, across_sets(features)).draw(1200)
    share = sum(one.case.image == "b" for one in drawn) / len(drawn)
    assert abs(share - 1 / (1 + 4**0.75)) < 0.05 and share > 0.2
    ct = across_sets(features, {"CT"})
    assert ct["cell nuclei"] == ALIKE * across_sets(features, {"MICRO"})["cell nuclei"]
    both = [*features, _shows("c", "other", "liver")]
    assert across_sets(both)["liver"] == across_sets(both)["spleen"] + 1


def test_phantoms_are_drawn_for_what_patients_show_and_no_more_often() -> None:
    features = [_shows("a", "abdomen", "liver"), _shows("b", "nuclei", "cell nuclei")]
    with_phantom = [*features, _shows("p", PHANTOM, "liver")]
    assert across_sets(with_phantom) == across_sets(features)
    drawn = Counter(one.case.image for one in Pool(with_phantom, 1, across_sets(with_phantom)).draw(1200))
    assert abs(drawn["b"] / 1200 - 1 / 2) < 0.05 and abs(drawn["p"] / 1200 - 1 / 4) < 0.05
