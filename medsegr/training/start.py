"""What a run begins with: fresh weights of a preset, or those of an earlier checkpoint, and what its answers may say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medsegr.errors import MedSegRError
from medsegr.model.checkpoint import load_checkpoint, read_meta, resolve
from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import PRESETS, ModelConfig
from medsegr.model.question import SentenceEncoder, find_sentence_encoder
from medsegr.model.tokens import SEG, train_tokenizer
from medsegr.qa.schema import Conversation

if TYPE_CHECKING:
    from medsegr.training.pretrain import PretrainOptions

MANY_REASONS = 200
"""A structure of which more is said has free text, not a list of sentences to choose from."""
STRIDE = 32


def target_names(conversations: Sequence[Conversation]) -> tuple[str, ...]:
    """Every structure that has a mask, in order of first appearance by set: the fixed, append-only label list."""
    seen: dict[str, None] = {}
    for conversation in sorted(conversations, key=lambda c: (c.dataset, c.id)):
        for turn in conversation.turns:
            for target in turn.targets:
                seen.setdefault(target.label)
    return tuple(seen)


def reasons(
    conversations: Sequence[Conversation], known: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """What the answers say of each structure after its `[SEG]`, where they outline nothing else, besides what is `known` to be
    said. A structure of which more than `MANY_REASONS` things are said is left out."""
    said = {name: dict.fromkeys(sentences) for name, sentences in (known or {}).items()}
    for turn in (t for c in conversations for t in c.turns if len(t.targets) == 1):
        tail = turn.answer.partition(SEG)[2].strip()
        if tail.endswith(".") and not tail.startswith((".", ",", ";", "is outlined", "are outlined")):
            said.setdefault(turn.targets[0].phrase, {}).setdefault(tail)
    return {name: tuple(sorted(tails)) for name, tails in sorted(said.items()) if len(tails) <= MANY_REASONS}


def new_model(options: PretrainOptions, conversations: Sequence[Conversation]) -> MedSegR:
    """Fresh weights of the preset, or those of `init`; `init_vision` lends only its encoder and mask decoder. Raises
    `MedSegRError` for options that contradict each other."""
    _check(options)
    model = _continued(options, conversations) if options.init else _fresh(options, conversations)
    model.context.reasons = reasons(conversations, model.context.reasons)
    return model


def _check(options: PretrainOptions) -> None:
    if options.init and options.init_vision:
        raise MedSegRError("Give at most one of --init and --init-vision.")
    if options.lora_rank and (not options.init or options.stage == "vision"):
        raise MedSegRError(
            "--lora-rank needs --init and a stage that trains language: expected both or neither."
        )
    if options.init and options.overrides:
        raise MedSegRError(
            f"--init keeps the shape of its weights; expected no {', '.join(options.overrides)}."
        )
    side = options.overrides.get("image_size", STRIDE)
    if side < STRIDE or side % STRIDE:
        raise MedSegRError(f"The image size is {side}; expected a multiple of {STRIDE}.")
    if options.stage == "language":
        source = options.init or options.init_vision
        if not source or "vision" not in _stages(read_meta(resolve(source)).get("training", {})):
            raise MedSegRError(
                "--stage language leaves the vision part as it is; expected --init-vision or --init with a checkpoint that "
                "went through --stage vision."
            )


def _stages(training: Mapping[str, Any]) -> Iterator[str]:
    """The stages that a checkpoint went through, last one first."""
    yield str(training.get("stage", "joint"))
    for earlier in training.get("earlier", []):
        yield from _stages(earlier)


def _continued(options: PretrainOptions, conversations: Sequence[Conversation]) -> MedSegR:
    assert options.init
    model = load_checkpoint(options.init).model
    model.context.merge_lora()
    targets = tuple(dict.fromkeys((*model.config.targets, *target_names(conversations))))
    if targets != model.config.targets:
        if options.stage == "language":
            new = sorted(set(targets) - set(model.config.targets))
            raise MedSegRError(f"--stage language cannot learn to outline what is new: {', '.join(new)}.")
        model = with_targets(model, targets)
    if options.lora_rank:
        model.context.add_lora(options.lora_rank, 2 * options.lora_rank)
    return model


def _fresh(options: PretrainOptions, conversations: Sequence[Conversation]) -> MedSegR:
    source = load_checkpoint(options.init_vision).model if options.init_vision else None
    targets = target_names(conversations)
    if source:
        if set(source.config.targets) != set(targets):
            raise MedSegRError("--init-vision: the checkpoint knows other structures than the QA files name.")
        targets = source.config.targets
    config: ModelConfig = replace(
        PRESETS[options.preset],
        question_encoder=options.question_encoder,
        targets=targets,
        **options.overrides,
    )
    texts = [turn.answer for c in conversations for turn in c.turns]
    if options.question_encoder == "scratch":
        texts += [turn.question for c in conversations for turn in c.turns]
    model = MedSegR(config, train_tokenizer(texts))
    if source and options.init_vision:
        _lend(source, model, options.init_vision)
    return model


def _lend(source: MedSegR, model: MedSegR, path: Path) -> None:
    """Copy encoder and grounding; raises `MedSegRError` where the shapes differ."""
    try:
        model.encoder.load_state_dict(source.encoder.state_dict())
        model.grounding.load_state_dict(source.grounding.state_dict())
    except RuntimeError as error:
        raise MedSegRError(
            f"--init-vision: the weights in {path} have another shape than the preset."
        ) from error


@torch.no_grad()
def with_targets(model: MedSegR, targets: tuple[str, ...]) -> MedSegR:
    """The same weights in a model that has more targets; what is there once per target begins fresh for the new ones."""
    wider = MedSegR(replace(model.config, targets=targets), model.context.tokenizer)
    weights = wider.state_dict()
    for name, known in model.state_dict().items():
        (weights[name][: len(known)] if known.ndim else weights[name]).copy_(known)
    wider.context.reasons = dict(model.context.reasons)
    return wider


def question_encoder(config: ModelConfig) -> SentenceEncoder | None:
    """The frozen sentence encoder of a configuration; None where the language model spells the question itself."""
    if config.question_encoder == "scratch":
        return None
    return SentenceEncoder(find_sentence_encoder(config.sentence_encoder, config.sentence_encoder_sha256))
