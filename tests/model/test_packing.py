"""Packed conversations see the image and themselves only, and give the same states as when run alone."""

from __future__ import annotations

import pytest
import torch

from medsegr.model.medsegr import MedSegR
from medsegr.model.packing import IGNORE, conversation_tokens, pack

FIRST = [("Where is the liver?", "The <p>liver</p> [SEG] makes bile.")]
SECOND = [
    ("Which organ makes bile?", "No spleen is visible in this abdominal CT."),
    ("Where is the liver?", "The <p>liver</p> [SEG] makes bile."),
]


def test_labels_are_the_next_answer_token(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    packed, _ = conversation_tokens(tokenizer, FIRST, None)
    learnt = packed.labels[0][packed.labels[0] != IGNORE].tolist()
    assert learnt == [*tokenizer.encode(FIRST[0][1], add_special_tokens=False), tiny.context.end_id]
    at = (packed.token_ids[0] == tiny.context.answer_id).nonzero()[0, 0]
    assert packed.labels[0, at] == packed.token_ids[0, at + 1]


def test_an_open_turn_ends_at_the_answer_token(tiny: MedSegR) -> None:
    packed, _ = conversation_tokens(tiny.context.tokenizer, [*FIRST, ("And the liver?", None)], None)
    assert packed.token_ids[0, -1] == tiny.context.answer_id
    assert packed.labels.shape == packed.token_ids.shape


def test_packed_equals_alone(tiny: MedSegR) -> None:
    torch.manual_seed(1)
    image = torch.randn(2, 4, tiny.config.context_dim)
    rows = [
        [conversation_tokens(tiny.context.tokenizer, c, None) for c in (FIRST, SECOND)],
        [conversation_tokens(tiny.context.tokenizer, FIRST, None)],
    ]
    packed, states, starts = pack(rows, tiny.context.tokenizer.pad_token_id)
    with torch.no_grad():
        together, _ = tiny.context(image, packed, states)
        alone_packed, alone_states, _ = pack([[rows[0][1]]], tiny.context.tokenizer.pad_token_id)
        alone, _ = tiny.context(image[:1], alone_packed, alone_states)
    begin = starts[0][1]
    length = rows[0][1][0].token_ids.shape[1]
    assert starts[0][0] == 0 and begin == rows[0][0][0].token_ids.shape[1]
    torch.testing.assert_close(together[0, begin : begin + length], alone[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("row", [0, 1])
def test_no_row_has_nan(tiny: MedSegR, row: int) -> None:
    rows = [
        [conversation_tokens(tiny.context.tokenizer, SECOND, None)],
        [conversation_tokens(tiny.context.tokenizer, FIRST, None)],
    ]
    packed, states, _ = pack(rows, tiny.context.tokenizer.pad_token_id)
    hidden, loss = tiny.context(torch.randn(2, 4, tiny.config.context_dim), packed, states)
    assert torch.isfinite(hidden[row]).all() and torch.isfinite(loss)
