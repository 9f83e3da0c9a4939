"""What an answer may say is limited token by token."""

from __future__ import annotations

import torch

from medsegr.model.decoding import DENIAL, Guide, Limits
from medsegr.model.medsegr import MedSegR
from medsegr.model.tokens import PHRASE_END, PHRASE_START, token_id


def test_a_phrase_follows_an_allowed_path(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    guide = Guide(tokenizer, Limits(("liver", "left kidney")))
    guide.step(token_id(tokenizer, PHRASE_START))
    written: list[int] = []
    wish = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        token = int(guide.allow(wish).argmax())
        guide.step(token)
        if token == token_id(tokenizer, PHRASE_END):
            break
        written.append(token)
    assert tokenizer.decode(written) in {"liver", "left kidney"}
    assert torch.equal(guide.allow(wish), wish), "outside a phrase nothing is limited"


def test_an_unsure_denial_is_ruled_out_at_the_first_token_only(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    denial = tokenizer.encode(DENIAL, add_special_tokens=False)[0]
    unsure = torch.zeros(len(tokenizer))
    unsure[denial] = 0.6
    guide = Guide(tokenizer, Limits(sure_denial=0.9))
    assert guide.allow(unsure)[denial] == 0.0
    sure = unsure.clone()
    sure[denial] = 0.95
    assert guide.allow(sure)[denial] == sure[denial]
    guide.step(5)
    assert torch.equal(guide.allow(unsure), unsure)


def test_no_limits_change_nothing(tiny: MedSegR) -> None:
    guide = Guide(tiny.context.tokenizer, Limits())
    wish = torch.rand(len(tiny.context.tokenizer))
    guide.step(token_id(tiny.context.tokenizer, PHRASE_START))
    assert torch.equal(guide.allow(wish), wish)
