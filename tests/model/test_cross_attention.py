"""The cross-attention head: what a `[SEG]` may look at, generation as in training, targets told apart, masks that are learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medsegr.errors import CheckpointError
from medsegr.model.checkpoint import load_checkpoint, save_checkpoint
from medsegr.model.cross_attention import CrossAttentionGrounding, contexts, stack
from medsegr.model.encoder import ImageFeatures
from medsegr.model.grounding import Grounding
from medsegr.model.medsegr import MedSegR
from medsegr.model.packing import conversation_tokens, pack

NO_CLICK = (torch.zeros(1, 1, 2), -torch.ones(1, 1))
QUESTION = "Where is the liver?"
ANSWER = "Visible here: <p>liver</p> [SEG] and <p>left kidney</p> [SEG]."


@pytest.fixture
def wide(tiny: MedSegR) -> MedSegR:
    """The tiny model with the other head."""
    torch.manual_seed(0)
    config = replace(tiny.config, grounding_head="cross_attention")
    return MedSegR(config, tiny.context.tokenizer).eval()


def _features(model: MedSegR, images: int = 1) -> ImageFeatures:
    torch.manual_seed(3)
    side = model.config.image_size
    return model.encode_image(torch.randint(0, 255, (images, side, side, 3), dtype=torch.uint8))


def _logits(model: MedSegR, features: ImageFeatures, states: torch.Tensor) -> torch.Tensor:
    return model.decode_masks(features, states).logits


def test_a_state_sees_the_image_and_its_own_conversation_up_to_itself() -> None:
    hidden = torch.arange(1.0, 9.0).view(1, 8, 1)  # two image tokens, then two conversations of three tokens
    segment = torch.tensor([[1, 1, 1, 2, 2, 2]])
    found = contexts(hidden, segment, torch.tensor([0, 0]), torch.tensor([1, 5]))[..., 0]
    assert [[v for v in row if v] for row in found.tolist()] == [[1, 2, 3, 4], [1, 2, 6, 7, 8]]
    assert found[:, -1].tolist() == [4, 8], "its own state comes last"


def test_shorter_contexts_are_filled_with_zeros_in_front() -> None:
    found = stack([torch.ones(2, 3), torch.ones(4, 3)])
    assert found.shape == (2, 4, 3) and found[0, :2].abs().sum() == 0 and found[0, 2:].all()


@torch.inference_mode()
def test_rows_without_a_token_change_no_mask(wide: MedSegR) -> None:
    features = _features(wide)
    torch.manual_seed(4)
    states = torch.randn(2, 9, wide.config.context_dim)
    filled = torch.cat([torch.zeros(2, 55, wide.config.context_dim), states], dim=1)
    torch.testing.assert_close(_logits(wide, features, filled), _logits(wide, features, states))


@torch.inference_mode()
def test_every_token_of_the_context_matters_and_so_does_which_is_the_target_s(wide: MedSegR) -> None:
    features = _features(wide)
    torch.manual_seed(4)
    states = torch.randn(1, 5, wide.config.context_dim)
    before = _logits(wide, features, states)
    for position in range(5):
        other = states.clone()
        other[0, position] += 1
        assert not torch.allclose(_logits(wide, features, other), before, atol=1e-5), position
    swapped = states[:, [0, 1, 2, 4, 3]]
    assert not torch.allclose(_logits(wide, features, swapped), before, atol=1e-5)


@torch.inference_mode()
def test_what_is_found_is_attention_over_the_tokens(wide: MedSegR) -> None:
    """Against a loop over heads and places."""
    grounding = wide.grounding
    assert isinstance(grounding, CrossAttentionGrounding)
    torch.manual_seed(5)
    embedding, tokens = torch.randn(2, grounding.dim, 2, 3), torch.randn(1, 4, grounding.dim)
    tokens[0, 0] = 0
    found = grounding._found(embedding, torch.tensor([1]), tokens)
    project = grounding.project
    marked = tokens[0].clone()
    marked[3] += project.own
    keys, width = project.key(marked), grounding.dim // grounding.heads
    for row, column in ((0, 0), (1, 2)):
        query = project.query(embedding[1, :, row, column])
        for head in range(grounding.heads):
            part = slice(head * width, (head + 1) * width)
            scores = (keys[1:, part] @ query[part]) / width**0.5
            expected = scores.softmax(0) @ tokens[0, 1:, part]
            torch.testing.assert_close(found[0, part, row, column], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_generation_hands_over_the_contexts_that_training_reads(wide: MedSegR) -> None:
    """A generated `[SEG]` has the context that a teacher-forced pass over the same answer gives it."""
    features = _features(wide)
    context = wide.context
    ids = context.tokenizer.encode(ANSWER, add_special_tokens=False)

    class Dictated:
        """An output layer that spells the answer, whatever the states."""

        def __init__(self) -> None:
            self.left = [*ids, context.end_id]

        def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = torch.full((len(context.tokenizer),), -50.0)
            logits[self.left.pop(0)] = 50.0
            return logits

    spell = context.llama.lm_head.forward
    context.llama.lm_head.forward = Dictated()
    try:
        out = context.generate(context.prefix(features.context), [], QUESTION, None)
    finally:
        context.llama.lm_head.forward = spell
    assert out is not None and out.text.count("[SEG]") == 2
    packed, states, _ = pack(
        [[conversation_tokens(context.tokenizer, [(QUESTION, ANSWER)], None)]], context.tokenizer.pad_token_id
    )
    columns = torch.nonzero(packed.token_ids[0] == context.seg_id)[:, 0]
    read = context.read(features.context, packed, states)
    taught = contexts(read, packed.segment, torch.zeros_like(columns), columns)
    length = out.states.shape[1]
    assert length == features.context.shape[1] + int(columns[1]) + 1
    torch.testing.assert_close(out.states, taught[:, -length:], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_a_name_is_a_context_of_one_token(wide: MedSegR) -> None:
    grounding, features = wide.grounding, _features(wide, images=2)
    index, names = torch.tensor([0, 1]), grounding.names(torch.tensor([0, 1]))
    points, labels = torch.zeros(2, 1, 2), -torch.ones(2, 1)
    by_name = grounding.decode(features, index, names, points, labels).logits
    as_context = grounding.decode(
        features, index, torch.stack([torch.zeros_like(names), names], 1), points, labels
    )
    torch.testing.assert_close(by_name, as_context.logits, rtol=1e-4, atol=1e-5)


def test_masks_of_contexts_can_be_learnt(wide: MedSegR) -> None:
    """With a finished encoder, the head learns which of two contexts means which half of the picture."""
    features, grounding = _features(wide), wide.grounding.train()
    features = ImageFeatures(
        features.embedding.clone(),
        tuple(s.clone() for s in features.skips),
        features.context,
        features.present,
    )
    torch.manual_seed(6)
    states = torch.randn(1, 6, wide.config.context_dim).repeat(2, 1, 1)
    states[1, 5] = torch.randn(wide.config.context_dim)
    truth = torch.zeros(2, *features.skips[-1].shape[2:])
    truth[0, :, :16], truth[1, :, 16:] = 1, 1
    points, labels = (x.expand(2, -1, *[-1] * (x.ndim - 2)) for x in NO_CLICK)
    optimizer = torch.optim.Adam(grounding.parameters(), lr=5e-3)
    for _ in range(80):
        logits = grounding(features, torch.zeros(2, dtype=torch.long), states, points, labels).logits
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = ((logits > 0) == truth.bool()).float().mean()
    assert float(right) > 0.95


def test_a_checkpoint_keeps_its_head(wide: MedSegR, tmp_path: Path) -> None:
    save_checkpoint(wide, tmp_path / "c", {"version": "x", "licence": "y"}, "card", half=False)
    model = load_checkpoint(tmp_path / "c").model
    assert isinstance(model.grounding, CrossAttentionGrounding)
    features, states = _features(wide), torch.ones(1, 3, wide.config.context_dim)
    with torch.inference_mode():
        torch.testing.assert_close(_logits(model, features, states), _logits(wide, features, states))


def test_a_head_that_does_not_exist_is_named(tiny: MedSegR, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="grounding_head is 'other'"):
        MedSegR(replace(tiny.config, grounding_head="other"), tiny.context.tokenizer)
    save_checkpoint(tiny, tmp_path / "c", {"version": "x", "licence": "y"}, "card")
    assert type(load_checkpoint(tmp_path / "c").model.grounding) is Grounding
    config = tmp_path / "c" / "config.json"
    config.write_text(config.read_text().replace('"seg_tokens"', '"other"'))
    with pytest.raises(CheckpointError, match="grounding_head is 'other'"):
        load_checkpoint(tmp_path / "c")
