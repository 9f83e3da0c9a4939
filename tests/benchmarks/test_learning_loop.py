"""The simulated clinician: what is sent, which images are shown to whom, what is counted, and a run from end to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import learning_loop
import numpy as np
import pytest
from learning import simulation
from learning.clinicians import (
    BAD,
    FLAWS,
    Clinicians,
    Flaws,
    Submission,
    findings_to_send,
    noisy,
    partial,
    swapped,
    wrong,
)
from learning.local import LocalSite
from learning.measuring import Score, forgetting, gain
from learning.remote import events
from learning.results import comparison_table, markdown, plot
from learning.simulation import Plan, without_nan
from learning.site import Corrected, RoundResult
from learning.streams import Item, Shift, read_stream
from learning.wording import knowledge, measured_question, question
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.evaluation.metrics import dice
from medsegr.model.checkpoint import save_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.reply import Finding, Reply
from medsegr.rounds.tables import Split

SIDE = 64
META = {"version": "tiny-1", "licence": "none"}


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of 16 images, 12 of them in train: a disc (values 1 and 2) with a cup (2) in it, elsewhere in each."""
    root = tmp_path / "eyes"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    images = {}
    for n in range(16):
        centre = 24 + n, 40 - n
        outer, inner = disc(*centre, 14), disc(*centre, 7)
        labels = outer.astype(np.uint8) + inner
        grey = np.full((SIDE, SIDE), 60, np.uint8) + 60 * labels
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(root / "images" / f"e{n:02}.png")
        Image.fromarray(labels).save(root / "masks" / f"e{n:02}.png")
        images[f"e{n:02}"] = {"patient_id": f"p{n}", "split": "train" if n < 12 else "val"}
    data = {"modality": "FUNDUS", "targets": {"disc": [1, 2], "cup": [2]}, "images": images}
    (root / "dataset.json").write_text(json.dumps(data))
    return root


@pytest.fixture
def items(folder: Path) -> Sequence[Item]:
    return read_stream(folder, 12, 1).items


def test_a_stream_shows_train_in_an_order_of_the_seed_and_measures_val(folder: Path) -> None:
    first, again, other = (read_stream(folder, 8, seed) for seed in (1, 1, 2))
    assert [i.name for i in first.items] == [i.name for i in again.items]
    assert [i.name for i in first.items] != [i.name for i in other.items]
    assert len(first.items) == 8
    assert [i.name for i in first.measured] == ["e12", "e13", "e14", "e15"]
    assert not {i.patient for i in first.items} & {i.patient for i in first.measured}
    assert [i.name for i in read_stream(folder, 8, 1, measured=2).measured] == ["e12", "e14"]


def test_a_patient_on_both_sides_is_refused(folder: Path) -> None:
    data = json.loads((folder / "dataset.json").read_text())
    data["images"]["e15"]["patient_id"] = "p0"
    (folder / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(MedSegRError, match="in train and in val"):
        read_stream(folder, 8, 1)


def test_targets_are_unions_of_values_and_can_be_limited(folder: Path) -> None:
    item = read_stream(folder, 1, 1).items[0]
    masks = item.masks()
    assert item.present == ("disc", "cup")
    assert (masks["cup"] <= masks["disc"]).all()
    assert masks["disc"].sum() > masks["cup"].sum() > 0
    assert read_stream(folder, 1, 1, ("cup",)).items[0].present == ("cup",)
    with pytest.raises(MedSegRError, match="no target rim"):
        read_stream(folder, 1, 1, ("rim",))


def test_a_shifted_scanner_is_the_same_every_time_and_leaves_masks_alone(items: Sequence[Item]) -> None:
    shifted = replace(items[0], shift=Shift(blur=1.0, contrast=0.5, noise=10.0))
    plain, seen = items[0].pixels().astype(float), shifted.pixels().astype(float)
    np.testing.assert_array_equal(shifted.pixels(), shifted.pixels())
    assert (seen[..., 0] == seen[..., 1]).all()
    np.testing.assert_allclose(seen.mean(), plain.mean(), atol=1.5)
    only_contrast = replace(items[0], shift=Shift(0.0, 0.5, 0.0)).pixels().astype(float)
    np.testing.assert_allclose(only_contrast.std(), plain.std() / 2, rtol=0.02)
    only_noise = replace(items[0], shift=Shift(0.0, 1.0, 10.0)).pixels().astype(float)
    np.testing.assert_allclose((only_noise - plain).std(), 10.0, rtol=0.05)
    other = replace(shifted, name="another").pixels()
    assert (other != shifted.pixels()).mean() > 0.5
    np.testing.assert_array_equal(shifted.masks()["cup"], items[0].masks()["cup"])


def test_hurried_hands_do_what_they_are_called() -> None:
    mask, rng = disc(32, 32, 14), np.random.default_rng(0)
    unsteady = [dice(noisy(mask, rng), mask) for _ in range(10)]
    assert min(unsteady) > 0.75
    assert max(unsteady) < 0.995
    for _ in range(5):
        half = partial(mask, rng)
        assert (half <= mask).all()
        assert half.sum() == pytest.approx(mask.sum() / 2, rel=0.1)
        assert not (wrong(mask, rng) & mask).any()
    empty = np.zeros_like(mask)
    assert not noisy(empty, rng).any()
    assert not partial(empty, rng).any()


def test_shares_of_flaws_are_kept(items: Sequence[Item]) -> None:
    clinicians = Clinicians(items, Flaws(noisy=0.25, wrong=0.25), seed=3)
    kinds = [clinicians.correct(items[n % 12], ("disc",)).flaw for n in range(200)]
    assert kinds.count("noisy") == pytest.approx(50, abs=20)
    assert kinds.count("wrong") == pytest.approx(50, abs=20)
    assert kinds.count("partial") == 0
    with pytest.raises(MedSegRError, match="more than 1"):
        Clinicians(items, Flaws(0.5, 0.4, 0.2))


def test_exact_corrections_are_the_truth(items: Sequence[Item]) -> None:
    clinicians = Clinicians(items, Flaws())
    sent = clinicians.correct(items[0], ("disc", "cup"))
    assert list(sent.masks) == ["disc", "cup"]
    for name, mask in sent.masks.items():
        np.testing.assert_array_equal(mask, items[0].masks()[name])


def test_structures_take_turns_where_an_image_has_too_many(items: Sequence[Item]) -> None:
    clinicians = Clinicians(items, Flaws(), per_image=1)
    assert [clinicians.names(items[n]) for n in range(4)] == [("disc",), ("cup",), ("disc",), ("cup",)]


def test_sabotage(items: Sequence[Item]) -> None:
    names = ("disc", "cup")

    def send(kind: str, n: int = 0) -> Submission:
        return Clinicians(items, Flaws(), kind, seed=n).correct(items[n], names)

    assert not any(mask.any() for mask in send("empty").masks.values())
    others = [item.masks()["disc"] for item in items[1:]]
    mask = send("shuffled").masks["disc"]
    assert any((mask == other).all() for other in others)
    assert not (mask == items[0].masks()["disc"]).all()
    dealt = [send("swapped", n) for n in range(12)]
    turned = [(s.masks["cup"] == s.item.masks()["disc"]).all() for s in dealt]
    assert 0 < sum(turned) < 12
    hands = Clinicians(items, Flaws(), "bad-editor", seed=1)
    bad = [s for s in (hands.correct(items[n % 12], names) for n in range(60)) if s.editor == BAD]
    assert 18 < len(bad) < 42
    assert all(not (s.masks["cup"] & s.item.masks()["cup"]).any() for s in bad)


def test_a_single_structure_that_is_swapped_is_sometimes_the_rest_of_the_picture() -> None:
    mask, rng = disc(32, 32, 14), np.random.default_rng(0)
    found = [swapped({"disc": mask}, rng)["disc"].sum() for _ in range(20)]
    assert set(found) == {mask.sum(), mask.size - mask.sum()}


def test_a_correction_replaces_adds_and_takes_away(items: Sequence[Item]) -> None:
    sent = Submission(items[0], {"disc": disc(10, 10, 5)}, "clinician", "exact")
    findings = findings_to_send(["liver", "disc", "cup"], sent)
    assert [(n, label) for n, label, _ in findings] == [(1, "liver"), (2, "disc"), (3, "cup")]
    assert not findings[0][2].any()
    np.testing.assert_array_equal(findings[1][2], sent.masks["disc"])
    np.testing.assert_array_equal(findings[2][2], items[0].masks()["cup"])
    assert [(n, label) for n, label, _ in findings_to_send([], sent)] == [(None, "disc")]


def test_questions_name_what_they_ask_for_and_are_measured_in_other_words() -> None:
    asked = {question(("optic disc",), str(n)) for n in range(50)}
    measured = {measured_question("optic disc", str(n)) for n in range(50)}
    assert len(asked) > 2
    assert len(measured) > 2
    assert not asked & measured
    assert all("optic disc" in text for text in asked | measured)
    assert "the disc and the cup" in question(("disc", "cup"), "1")
    assert knowledge("disc")["names"] == ["disc"]


def test_events_are_read_past_comments() -> None:
    lines = ["event: queued", 'data: {"place": 1}', "", ": still here", "event: done", 'data: {"a": "ü"}', ""]
    assert list(events(iter(lines))) == [("queued", {"place": 1}), ("done", {"a": "ü"})]


def scores(values: Sequence[float], target: str = "liver", dataset: str = "a") -> list[Score]:
    return [Score(dataset, target, f"p{n}", f"i{n}", value) for n, value in enumerate(values)]


def test_gain_is_paired_and_bounded_over_patients() -> None:
    found = gain(scores([0.1] * 8), scores([0.6] * 4 + [0.8] * 4))
    assert found["all"]["change"] == pytest.approx(0.6)
    assert found["liver"]["low"] == pytest.approx(0.6, abs=0.1)
    assert 0.5 <= found["liver"]["low"] < 0.6 < found["liver"]["high"] <= 0.7
    assert np.isnan(gain(scores([0.1]), scores([0.2]))["all"]["low"])


def test_forgetting_is_a_mean_over_sets_and_names_those_that_lost() -> None:
    before = [*scores([0.9] * 10), *scores([0.8] * 10, "spleen"), *scores([0.5] * 6, "lung", "b")]
    after = [*scores([0.8] * 10), *scores([0.8] * 10, "spleen"), *scores([0.7] * 6, "lung", "b")]
    found = forgetting(before, after)
    assert found["before"] == pytest.approx((0.85 + 0.5) / 2)
    assert found["drop"] == pytest.approx(-0.075)
    assert [t["target"] for t in found["targets"]] == ["liver", "spleen"]
    assert found["targets"][0]["change"] == pytest.approx(-0.1)


class Teachable:
    """A site whose version `v1` outlines what its first round was corrected for, and `v0` nothing."""

    def __init__(self) -> None:
        self.version, self.seen = "v0", list[str]()

    def choose(self, items: Sequence[Item], strategy: str) -> Item:
        return items[0]

    def correct(self, item: Item, clinicians: Clinicians) -> Corrected:
        self.seen.append(item.name)
        return Corrected(item.name, "clinician", "exact", "?", {"disc": 0.0}, {"disc": 0.0})

    def run_round(self) -> RoundResult:
        first, self.version = self.version == "v0", "v1"
        status = "adopted" if first else "refused"
        return RoundResult(1, status, "Because.", 2.0, "v1", "v1", {"low": float("nan")})

    def in_charge(self) -> tuple[str, Path]:
        return self.version, Path(self.version)

    def close(self) -> None:
        pass


class Drawer:
    """A predictor: version `v1` outlines everything brighter than the background, `v0` nothing."""

    def __init__(self, version: str) -> None:
        self.version, self.bright = version, np.zeros((0, 0), bool)

    def set_image(self, picture: Any) -> None:
        self.bright = picture.pixels[..., 0] > 100

    def ask(self, text: str) -> Reply:
        findings = (Finding("disc", "disc", self.bright, 1.0),) if self.version == "v1" else ()
        return Reply("", findings, {})


def test_a_run_measures_each_new_version_on_images_that_the_site_never_saw(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []

    def load(directory: Path) -> Drawer:
        made.append(str(directory))
        return Drawer(str(directory))

    monkeypatch.setattr(simulation.Predictor, "from_pretrained", load)
    stream, site = read_stream(folder, 5, 1, ("disc",)), Teachable()
    plan = Plan(images=5, round_size=2, strategy="order", seed=1, settings="usual")
    found = simulation.run(site, stream, Clinicians(stream.items, Flaws()), plan, lambda line: None)
    assert site.seen == [item.name for item in stream.items]
    assert not {s["image"] for s in found["scores"]["after"]} & set(site.seen)
    assert [(p["images"], p["targets"]["disc"]["dice"]) for p in found["curve"]] == [
        (0, 0.0), (2, 1.0), (4, 1.0), (5, 1.0)
    ]  # fmt: skip
    assert made == ["v0", "v1"]
    assert [r["images"] for r in found["rounds"]] == [2, 4, 5]
    assert found["rounds"][0]["decision"] == {"low": None}
    assert found["gain"]["disc"]["change"] == 1.0
    text = markdown([found])
    assert "| eyes | order | usual | 1 | disc | 4 | 0.000 | 1.000 | +1.000 |" in text
    assert "| 1 | 2 | 4 | refused | 2 | Because. |" in text
    assert "| 2 | 1.000 | 0.750 | 2 of 6 |" in comparison_table([found, {**found, "seed": 2}]).replace(
        " [1.000, 1.000]", ""
    ).replace(" [0.750, 0.750]", "")
    plot(tmp_path / "curve.png", "eyes", [found, found])
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (900, 540)


def test_json_has_no_nan() -> None:
    assert without_nan({"a": [float("nan"), 1.0], 2: (float("inf"),)}) == {"a": [None, 1.0], "2": [None]}


def test_options_become_those_of_a_round() -> None:
    given = [
        "--fast",
        "--stream",
        "x",
        "--no-replay",
        "--no-gate",
        "--option",
        "steps=7",
        "--option",
        "device=cpu",
    ]
    options = learning_loop.arguments(given)
    found = learning_loop.round_options(options, 4)
    assert found == {
        "minutes": 0.4, "seed": 4, "device": "cpu", "replay": False, "distil": False, "gate": False, "steps": 7
    }  # fmt: skip
    assert learning_loop.settings(options) == "no replay, no gate, steps 7, device cpu"
    with pytest.raises(SystemExit):
        learning_loop.arguments(["--server", "http://x", "--state", "s", "--stream", "x", "--no-gate"])


@pytest.mark.slow
def test_a_local_site_learns_from_what_it_is_sent(folder: Path, tmp_path: Path, tiny: MedSegR) -> None:
    save_checkpoint(tiny, tmp_path / "base", META, "# card", half=False)
    stream = read_stream(folder, 6, 1)
    patients = {item.name: item.patient for item in stream.items}
    options = {"steps": 2, "variants": 1, "gate": False, "seed": 1}
    site = LocalSite(tmp_path / "state", tmp_path / "base", options, patients)
    clinicians = Clinicians(stream.items, Flaws())
    sent = [site.correct(item, clinicians) for item in stream.items]
    assert all(set(one.sent) == {"disc", "cup"} for one in sent)
    assert set(site.labels.names()) >= {"disc", "cup"}
    cases = site.cases.cases()
    assert {case.correction.image_id for case in cases} == set(patients)
    assert len({case.patient_key for case in cases}) == 6
    assert {case.split for case in cases} >= {Split.TRAIN, Split.VAL}
    truth = stream.items[0].masks()
    kept = site.cases.read(cases[0].correction.id)
    by_label = dict(zip([f["label"] for f in cases[0].correction.findings], kept.masks, strict=True))
    np.testing.assert_array_equal(by_label["cup"][0], truth["cup"])
    assert {s.label for s in site.scores.of([cases[0].correction.id])} >= {"disc", "cup"}
    ended = site.run_round()
    assert ended.status == "adopted", ended.sentence
    assert ended.version != "tiny-1"
    assert {"disc", "cup"} <= set(site.predictor().targets)
    site.close()


def test_every_flaw_has_a_share() -> None:
    assert set(FLAWS) == set(Flaws.__dataclass_fields__)
