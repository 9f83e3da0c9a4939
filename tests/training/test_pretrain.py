"""`medsegr pretrain` on the tiny preset: resume, licences, options that contradict each other, LoRA, clean steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medsegr.errors import CheckpointError, MedSegRError, QAFileError
from medsegr.model.checkpoint import load_checkpoint
from medsegr.predictor import Predictor
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Review, Target, Turn
from medsegr.training import pretrain
from medsegr.training.batches import Sampler, Sampling
from medsegr.training.calibrate import fact_kept
from medsegr.training.images import Case
from medsegr.training.pretrain import Clock, PretrainOptions, optimizer_for, read_conversations, run
from medsegr.training.start import new_model, reasons

SMALL = Sampling(images=2, conversations=2, masks=4, shape_multiple=32)


def _conversation(
    n: int, label: str = "liver", licence_class: str = "permissive", **fields: Any
) -> Conversation:
    target = Target(label, label, f"m{n}.png", (1,))
    turn = Turn(f"Where is the {label}?", f"The <p>{label}</p> [SEG] lies here.", (target,))
    conversation = Conversation(
        f"c{n}-{label}", f"i{n}.png", "CT", "toy", f"p{n}", "train", (turn,), "CC0", licence_class
    )
    return replace(conversation, **fields)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images, two of them of a set that forbids commercial use."""
    labels = np.zeros((64, 64), np.uint8)
    labels[10:40, 20:50] = 1
    for n in range(4):
        Image.fromarray(labels * 200 + np.uint8(n)).save(tmp_path / f"i{n}.png")
        Image.fromarray(labels).save(tmp_path / f"m{n}.png")
    conversations = [
        _conversation(0), _conversation(1), _conversation(2, "spleen", "noncommercial"), _conversation(3, "heart", "research"),
    ]  # fmt: skip
    write_qa(tmp_path / "qa.jsonl", conversations)
    return tmp_path


@pytest.fixture
def options(root: Path) -> PretrainOptions:
    return PretrainOptions(
        qa=(root / "qa.jsonl",), out=root / "ck", preset="tiny", steps=3, warmup_steps=1, bf16=False,
        question_encoder="scratch", augment=False, calibration_share=0.0, sampling=SMALL,
    )  # fmt: skip


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of every optimizer step that a run takes."""
    taken: list[float] = []
    real = pretrain.train_step

    def counted(model: Any, losses: Any, optimizer: Any) -> dict[str, float]:
        taken.append(optimizer.param_groups[0]["lr"])
        return real(model, losses, optimizer)

    monkeypatch.setattr(pretrain, "train_step", counted)
    return taken


def _meta(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkpoint / "meta.json").read_text())
    return found


def test_a_run_goes_on_at_the_saved_step(
    options: PretrainOptions, steps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = replace(options, steps=5, save_minutes=0.0)
    counted = pretrain.train_step

    def pulled_plug(*arguments: Any) -> dict[str, float]:
        if len(steps) == 3:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(pretrain, "train_step", pulled_plug)
    with pytest.raises(KeyboardInterrupt):
        run(interrupted)
    assert not options.out.exists()
    saved = torch.load(options.out.with_name("ck.resume") / "state.pt", weights_only=True)
    assert saved["step"] == 3
    monkeypatch.setattr(pretrain, "train_step", counted)
    began: list[torch.Tensor] = []
    loop = pretrain._loop

    def spied(options: Any, clock: Any, model: Any, *rest: Any) -> None:
        began.append(model.encoder.embed.weight.detach().clone())
        loop(options, clock, model, *rest)

    monkeypatch.setattr(pretrain, "_loop", spied)
    run(interrupted)
    assert len(steps) == 5, "three before, two after"
    assert torch.equal(began[0], saved["model"]["encoder.embed.weight"])
    assert steps[3:] == sorted(steps[3:], reverse=True) and steps[3] < steps[1], (
        "the schedule goes on as well"
    )
    assert _meta(options.out)["training"]["steps"] == 5


def test_a_finished_run_keeps_its_record(options: PretrainOptions, steps: list[float]) -> None:
    run(options)
    before = _meta(options.out)
    run(options)
    assert len(steps) == 3
    assert _meta(options.out) == before
    assert {"text", "dice", "skipped"} <= set(before["training"]["final_losses"])


def test_a_state_of_another_run_is_refused(options: PretrainOptions, root: Path) -> None:
    run(replace(options, steps=1))
    write_qa(root / "other.jsonl", [_conversation(0, "gallbladder")])
    with pytest.raises(MedSegRError, match="another model or other answers"):
        run(replace(options, qa=(root / "other.jsonl",), steps=2))


def test_permissive_leaves_other_licences_out(options: PretrainOptions) -> None:
    everything, _ = read_conversations(options)
    assert len(everything) == 4
    permissive = replace(options, licence="permissive", steps=1)
    assert [c.id for c in read_conversations(permissive)[0]] == ["c0-liver", "c1-liver"]
    run(permissive)
    meta = _meta(options.out)
    assert meta["licence"] == "CC BY 4.0" and meta["data"]["images"] == {"toy": 2}
    assert load_checkpoint(options.out).model.config.targets == ("liver",)


def test_the_licence_of_the_first_weights_stays_with_their_heirs(
    options: PretrainOptions, root: Path
) -> None:
    run(replace(options, steps=1))
    assert _meta(options.out)["licence"] == "CC BY-NC-SA 4.0"
    heir = replace(options, init=options.out, out=root / "heir", licence="permissive", steps=1)
    run(heir)
    assert _meta(heir.out)["licence"] == "CC BY-NC-SA 4.0"
    assert _meta(heir.out)["training"]["began_with"] == {"init": _meta(options.out)["version"]}


def test_rejected_and_validation_conversations_are_left_out(options: PretrainOptions, root: Path) -> None:
    write_qa(
        root / "qa.jsonl",
        [_conversation(0), _conversation(1, review=Review("rejected")), _conversation(2, split="val")],
    )
    assert [c.id for c in read_conversations(options)[0]] == ["c0-liver"]
    write_qa(root / "qa.jsonl", [_conversation(2, split="val")])
    with pytest.raises(QAFileError, match="No training conversation"):
        read_conversations(options)


def test_files_of_two_folders_are_refused(options: PretrainOptions, root: Path) -> None:
    (root / "sub").mkdir()
    write_qa(root / "sub" / "qa.jsonl", [_conversation(0)])
    with pytest.raises(QAFileError, match="one folder"):
        read_conversations(replace(options, qa=(*options.qa, root / "sub" / "qa.jsonl")))


@pytest.mark.parametrize(("steps", "minutes"), [(0, 0.0), (3, 1.0)])
def test_neither_or_both_of_steps_and_minutes_is_refused(
    options: PretrainOptions, steps: int, minutes: float
) -> None:
    with pytest.raises(MedSegRError, match="exactly one"):
        run(replace(options, steps=steps, minutes=minutes))
    assert not options.out.exists()


def test_the_clock_runs_by_steps_or_by_minutes(options: PretrainOptions) -> None:
    clock = Clock(replace(options, steps=10, warmup_steps=4))
    assert (clock.progress, clock.rate) == (0.0, 0.25)
    clock.step = 5
    assert clock.progress == 0.5 and clock.rate == pytest.approx(0.5)
    timed = Clock(replace(options, steps=0, minutes=2.0))
    timed.seconds = 60.0
    assert timed.progress == 0.5


def test_options_that_contradict_each_other_are_refused(options: PretrainOptions) -> None:
    with pytest.raises(MedSegRError, match="--lora-rank needs --init"):
        run(replace(options, lora_rank=2))
    with pytest.raises(MedSegRError, match="at most one"):
        run(replace(options, init=options.out, init_vision=options.out))
    with pytest.raises(MedSegRError, match="smaller --calibration-share"):
        run(replace(options, calibration_share=1.0))


def test_lora_trains_saves_and_loads(options: PretrainOptions, root: Path) -> None:
    run(replace(options, steps=1))
    lora = replace(options, init=options.out, out=root / "lora", lora_rank=2, steps=2, learning_rate=1e-2)
    run(lora)
    base, tuned = load_checkpoint(options.out).model, load_checkpoint(lora.out).model
    assert (lora.out / "context" / "adapter" / "adapter_model.safetensors").is_file()
    before, after = base.context.llama.state_dict(), tuned.context.llama.state_dict()
    for name, weights in before.items():
        kept = after.get(name, after.get(name.replace("_proj.weight", "_proj.base_layer.weight")))
        assert kept is not None and torch.equal(weights, kept), f"{name} is not the LoRA's to change"
    grown = [p for name, p in tuned.named_parameters() if "lora_B" in name]
    assert len(grown) == 2 * base.config.context_layers and all(bool(p.any()) for p in grown)
    merged = new_model(replace(options, init=lora.out), read_conversations(options)[0])
    assert not any("lora" in name for name, _ in merged.named_parameters()), (
        "a LoRA is merged before training on"
    )
    assert all(p.requires_grad for p in merged.parameters())
    image = torch.randn(1, 4, base.config.context_dim)
    answers = [
        m.eval().context.generate(m.context.prefix(image), [], "?", None, max_new_tokens=5)
        for m in (tuned, merged)
    ]
    assert answers[0] is not None and answers[1] is not None
    assert answers[0].text == answers[1].text
    assert answers[0].score == pytest.approx(answers[1].score, abs=1e-4)


def test_new_structures_are_appended_to_those_of_the_first_weights(
    options: PretrainOptions, root: Path
) -> None:
    run(replace(options, steps=1))
    first = load_checkpoint(options.out).model
    write_qa(root / "more.jsonl", [_conversation(0), _conversation(1, "aorta")])
    more = replace(options, qa=(root / "more.jsonl",), init=options.out, out=root / "more")
    begun = new_model(more, read_conversations(more)[0])
    assert begun.config.targets == (*first.config.targets, "aorta")
    assert begun.context.reasons == {**first.context.reasons, "aorta": ("lies here.",)}
    for name, weights in first.state_dict().items():
        assert torch.equal(
            begun.state_dict()[name][: len(weights)] if weights.ndim else begun.state_dict()[name], weights
        )
    run(replace(more, steps=1))
    assert load_checkpoint(more.out).model.config.targets == begun.config.targets


def test_vision_is_trained_alone_then_lent_and_left_as_it_is(options: PretrainOptions, root: Path) -> None:
    """The language stage begins with the vision stage's weights and changes none of what draws."""
    run(replace(options, stage="vision"))
    lent = replace(options, init_vision=options.out, out=root / "lent", stage="language", steps=2)
    run(lent)
    source, heir = load_checkpoint(options.out).model, load_checkpoint(lent.out).model
    learns = ("context.", "overview.names", "overview.facts", "overview.norm", "context_norm")
    for part in ("encoder", "grounding.decoder", "grounding.prompt_encoder", "grounding.names"):
        theirs, ours = source.get_submodule(part).state_dict(), heir.get_submodule(part).state_dict()
        kept = [name for name in theirs if not name.startswith(learns)]
        assert kept and all(torch.equal(theirs[name], ours[name]) for name in kept), part
    assert heir.config.prompts_at_names and not source.config.prompts_at_names
    assert not torch.equal(source.encoder.context.weight, heir.encoder.context.weight)
    assert not torch.equal(source.grounding.project[0].weight, heir.grounding.project[0].weight)


def test_each_stage_trains_its_own_part(options: PretrainOptions) -> None:
    def trained(stage: str) -> set[str]:
        model = new_model(options, read_conversations(options)[0])
        optimizer = optimizer_for(model, replace(options, stage=stage))
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return {name for name, p in model.named_parameters() if id(p) in held}

    joint, vision, language = (trained(stage) for stage in ("joint", "vision", "language"))
    assert vision | language == joint and not vision & language
    assert {n for n in language if n.startswith("context.")} == {n for n in joint if n.startswith("context.")}
    assert "grounding.project.0.weight" in language and "encoder.overview.names.weight" in language
    assert "grounding.names.weight" in vision and "encoder.overview.coarse_weight" in vision


def test_language_needs_a_vision_stage_before_it(options: PretrainOptions, root: Path) -> None:
    run(replace(options, steps=1))
    for source in ({}, {"init": options.out}, {"init_vision": options.out}):
        with pytest.raises(MedSegRError, match="went through --stage vision"):
            run(replace(options, stage="language", out=root / "other", **source))
    run(replace(options, stage="vision", out=root / "seen", steps=1))
    write_qa(root / "more.jsonl", [_conversation(0), _conversation(1, "aorta")])
    with pytest.raises(MedSegRError, match="cannot learn to outline what is new: aorta"):
        more = replace(
            options, qa=(root / "more.jsonl",), init=root / "seen", stage="language", out=root / "other"
        )
        run(more)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"stage": "visoin"}, "Unknown stage 'visoin'"),
        ({"overrides": {"image_size": 80}}, "image size is 80; expected a multiple of 32"),
        ({"init": Path("x"), "overrides": {"image_size": 64}}, "expected no image_size"),
        ({"init": Path("x"), "lora_rank": 4, "stage": "vision"}, "--lora-rank needs --init"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: PretrainOptions, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MedSegRError, match=sentence):
        run(replace(options, **changed))


def test_a_checkpoint_that_only_outlines_does_not_answer(options: PretrainOptions) -> None:
    run(replace(options, stage="vision", steps=1))
    with pytest.raises(CheckpointError, match="not yet to answer"):
        Predictor.from_pretrained(options.out)


def test_kept_facts_and_patients_are_for_the_confidence_alone(
    options: PretrainOptions, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of a patient who is trained on are the conversations by other facts; a kept patient's are all asked."""
    fact = next(f"liver-{n}" for n in range(1000) if fact_kept(f"liver-{n}"))
    named = [_conversation(n) for n in range(4)]
    described = [
        replace(
            c, id=f"{c.id}-described", turns=(replace(c.turns[0], question="?", kind="implicit", fact=fact),)
        )
        for c in named
    ]
    write_qa(root / "qa.jsonl", [*named, *described])
    trained: list[Case] = []
    asked: list[Case] = []

    def spied(cases: list[Case], *rest: Any) -> Sampler:
        trained.extend(cases)
        return Sampler(cases, *rest)

    def recalibrated(directory: Path, cases: list[Case], device: str) -> None:
        assert (directory / "meta.json").is_file(), "the weights are written by then"
        asked.extend(cases)

    monkeypatch.setattr(pretrain, "Sampler", spied)
    monkeypatch.setattr(pretrain, "recalibrate", recalibrated)
    monkeypatch.setattr(pretrain, "kept_for_calibration", lambda case, share: case.patient_id == "p0")
    run(replace(options, steps=1, calibration_share=0.25))
    assert {(c.patient_id, len(c.conversations)) for c in asked} == {("p0", 2)}
    assert {(c.patient_id, len(c.conversations)) for c in trained} == {("p1", 1), ("p2", 1), ("p3", 1)}
    assert all(turn.fact is None for c in trained for one in c.conversations for turn in one.turns)


def test_a_step_without_a_finite_loss_or_gradient_changes_nothing() -> None:
    for power in (0.5, -1.0):  # an infinite gradient; an infinite loss
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(2))])
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        assert pretrain.train_step(model, {"loss": (model[0] ** power).sum()}, optimizer) == {"skipped": 1.0}
        assert torch.equal(model[0], torch.zeros(2))


def test_reasons_are_what_the_answers_say_of_one_structure() -> None:
    def turn(answer: str, *names: str) -> Turn:
        return Turn("?", answer, tuple(Target(n, n, "m.png", (1,)) for n in names))

    turns = (
        turn("The <p>liver</p> [SEG] makes bile.", "liver"),
        turn("The <p>liver</p> [SEG] lies on the right.", "liver"),
        turn("The <p>liver</p> [SEG] is outlined; no spleen is visible.", "liver"),
        turn("The <p>liver</p> [SEG] and the <p>aorta</p> [SEG] are outlined.", "liver", "aorta"),
        turn("Visible here: <p>spleen</p> [SEG].", "spleen"),
        turn("No spleen is visible in this CT."),
    )
    conversation = Conversation("c", "i.png", "CT", "toy", "p", "train", turns)
    assert reasons([conversation]) == {"liver": ("lies on the right.", "makes bile.")}
    many = replace(
        conversation, turns=tuple(turn(f"The <p>liver</p> [SEG] is number {n}.", "liver") for n in range(201))
    )
    assert reasons([many]) == {}
