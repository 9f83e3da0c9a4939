"""What an answer may say is limited token by token."""

from __future__ import annotations

from functools import partial

import torch
from transformers import PreTrainedTokenizerFast

from medsegr.model.checkpoint import EMBEDDED
from medsegr.model.decoding import DENIAL, Guide, Limits
from medsegr.model.medsegr import MedSegR
from medsegr.model.tokens import END, PHRASE_END, PHRASE_START, SEG, token_id


def test_a_phrase_follows_an_allowed_path_and_its_mask_token_follows_it(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    guide = Guide(tokenizer, Limits(("liver", "left kidney")))
    guide.step(token_id(tokenizer, PHRASE_START))
    written: list[int] = []
    wish = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(0))
    while guide.inside is not None and len(written) < 30:
        token = int(guide.allow(wish).argmax())
        guide.step(token)
        written.append(token)
    assert tokenizer.decode(written) in {f"liver{PHRASE_END} {SEG}", f"left kidney{PHRASE_END} {SEG}"}
    assert torch.equal(guide.allow(wish), wish), "outside a phrase nothing is limited"


def test_what_needs_no_choice_is_read_in_one_pass(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    reasons = {"liver": ("makes bile.",)}
    one = Guide(tokenizer, Limits(("liver",), reasons=reasons))
    run = one.run(token_id(tokenizer, PHRASE_START), 100)
    assert tokenizer.decode(run) == f"{PHRASE_START}liver{PHRASE_END} {SEG}"
    start = tokenizer.encode(" makes", add_special_tokens=False)[0]
    assert tokenizer.decode(one.run(start, 100)) == f" makes bile.{END}", (
        "what is said of a structure ends the answer"
    )
    two = Guide(tokenizer, Limits(("liver", "spleen"), reasons=reasons))
    assert two.run(token_id(tokenizer, PHRASE_START), 100) == [token_id(tokenizer, PHRASE_START)]
    assert len(Guide(tokenizer, Limits(("liver",))).run(token_id(tokenizer, PHRASE_START), 2)) == 2


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


def _write(guide: Guide, wish: torch.Tensor, length: int = 40) -> list[int]:
    """Tokens that the guide lets through when every step wishes for the same."""
    written: list[int] = []
    for _ in range(length):
        token = int(guide.allow(wish).argmax())
        guide.step(token)
        written.append(token)
        if guide.tail is None:
            break
    return written


def test_a_reason_is_one_that_is_known_of_the_phrase(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    reasons = {"liver": ("makes bile.", "lies on the right."), "spleen": ("filters blood.",)}
    guide = Guide(tokenizer, Limits(("liver", "spleen"), reasons=reasons))
    for token in tokenizer.encode("The <p>liver</p> [SEG]", add_special_tokens=False):
        guide.step(token)
    wish = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(1)) + 0.1
    for free in guide.goes_on:
        wish[free] = 0.0
    ended = {f"{reason}{END}" for reason in reasons["liver"]}
    assert tokenizer.decode(_write(guide, wish)).strip() in {*ended, "is outlined", "are outlined"}
    assert torch.equal(guide.allow(wish), wish), "after the sentence nothing is limited"


def test_an_answer_may_go_on_to_the_next_structure_instead(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    guide = Guide(tokenizer, Limits(("liver", "spleen"), reasons={"liver": ("makes bile.",)}))
    for token in tokenizer.encode("The <p>liver</p> [SEG]", add_special_tokens=False):
        guide.step(token)
    wish = torch.full((len(tokenizer),), 0.1)
    comma = tokenizer.encode(",", add_special_tokens=False)[0]
    wish[comma] = 1.0
    assert _write(guide, wish) == [comma]


def test_nothing_opens_another_phrase_when_all_that_may_be_said_is_said() -> None:
    """No "liver and liver": neither right after the mask token nor later, with a known reason or without."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED / "context")
    spell = partial(tokenizer.encode, add_special_tokens=False)
    opening = {token_id(tokenizer, PHRASE_START), token_id(tokenizer, SEG)}
    joining = {spell(text)[0] for text in (" and", " with", ",")}
    ending = {token_id(tokenizer, END), spell(".")[0]}
    for reasons in ({"liver": ("makes bile.",)}, {}):
        guide = Guide(tokenizer, Limits(("liver",), reasons=reasons))
        wish = torch.ones(len(tokenizer))
        assert guide.allow(wish)[token_id(tokenizer, PHRASE_START)] == 1.0
        for token in spell("The <p>liver</p> [SEG]"):
            guide.step(token)
        left = guide.allow(wish)
        assert all(left[token] == 0.0 for token in opening | joining)
        assert all(left[token] == 1.0 for token in ending | set(spell(" is")))
        for token in spell(" is outlined"):
            guide.step(token)
        later = guide.allow(wish)
        assert all(later[token] == 0.0 for token in opening)
        assert all(later[token] == 1.0 for token in joining | ending), "words may still be joined"


def test_no_more_than_were_asked_for_are_outlined_later_either(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    guide = Guide(tokenizer, Limits(("liver", "left kidney"), 1))
    for token in tokenizer.encode("The <p>liver</p> [SEG] makes bile.", add_special_tokens=False):
        guide.step(token)
    assert guide.allow(torch.ones(len(tokenizer)))[token_id(tokenizer, PHRASE_START)] == 0.0


def test_a_decided_denial_is_said_however_unlikely_and_outlines_nothing(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    denial = tokenizer.encode(DENIAL, add_special_tokens=False)[0]
    start = token_id(tokenizer, PHRASE_START)
    wish = torch.ones(len(tokenizer))
    wish[denial] = 0.1
    asked = Guide(tokenizer, Limits(("liver",), sure_denial=0.05))
    assert int(asked.allow(wish).argmax()) != denial, "a denial that may be said need not be"
    decided = Guide(tokenizer, Limits(("liver",), sure_denial=0.05, decided=True))
    chosen = decided.allow(wish)
    assert int(chosen.argmax()) == denial and chosen[denial] == wish[denial], "its probability is kept"
    decided.step(denial)
    assert decided.allow(wish)[start] == 0.0
    barred = Guide(tokenizer, Limits(("liver",), sure_denial=0.2, decided=True))
    assert barred.allow(wish)[denial] == 0.0 and barred.allow(wish)[start] == 1.0


def test_an_answer_may_end_with_its_mask_token_or_after_the_shorter_of_two_reasons(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    reasons = {"liver": ("makes bile.", "makes bile. It lies on the right.")}
    wish = torch.full((len(tokenizer),), 0.1)
    end = token_id(tokenizer, END)
    for said in ("", " makes bile."):
        guide = Guide(tokenizer, Limits(("liver",), reasons=reasons))
        for token in tokenizer.encode(f"The <p>liver</p> [SEG]{said}", add_special_tokens=False):
            guide.step(token)
        assert guide.forced() is None
        ending = wish.clone()
        ending[end] = 1.0
        assert int(guide.allow(ending).argmax()) == end


def test_of_several_structures_none_is_explained(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    limits = Limits(("liver", "spleen"), reasons={"liver": ("makes bile.",), "spleen": ("filters blood.",)})
    guide = Guide(tokenizer, limits)
    for token in tokenizer.encode(
        "The <p>liver</p> [SEG] and the <p>spleen</p> [SEG]", add_special_tokens=False
    ):
        guide.step(token)
    wish = torch.full((len(tokenizer),), 0.1)
    wish[tokenizer.encode(" filters", add_special_tokens=False)[0]] = 1.0
    assert tokenizer.decode([int(guide.allow(wish).argmax())]) != " filters"


def test_a_mask_token_without_a_phrase_has_no_reasons(tiny: MedSegR) -> None:
    tokenizer = tiny.context.tokenizer
    guide = Guide(tokenizer, Limits(("liver", "spleen"), reasons={"liver": ("makes bile.",)}))
    for token in tokenizer.encode("The <p>liver</p> [SEG] makes bile. [SEG]", add_special_tokens=False):
        guide.step(token)
    wish = torch.rand(len(tokenizer))
    assert torch.equal(guide.allow(wish), wish)


def test_a_structure_is_named_once_and_no_more_than_were_asked_for() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED / "context")
    spell = partial(tokenizer.encode, add_special_tokens=False)
    guide = Guide(tokenizer, Limits(("liver", "spleen"), 2, reasons={"liver": ("makes bile.",)}))
    for token in spell("The <p>liver</p> [SEG]"):
        guide.step(token)
    goes_on = {spell(" and")[0], spell(" with")[0], spell(",")[0]}
    assert goes_on <= (guide._nexts() or set()), "one more may follow"
    for token in spell(" and the <p>"):
        guide.step(token)
    assert guide._nexts() == {spell("spleen")[0]}, "the liver was named already"
    alone = Guide(tokenizer, Limits(("liver", "spleen"), 1, reasons={"liver": ("makes bile.",)}))
    for token in spell("The <p>liver</p> [SEG]"):
        alone.step(token)
    nexts = alone._nexts()
    assert nexts and not goes_on & nexts and spell(" makes")[0] in nexts
