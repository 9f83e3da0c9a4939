"""Generation: same as teacher forcing, prefix untouched, cancel, LoRA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from medsegr.model.context import Generated
from medsegr.model.decoding import Guide, Limits
from medsegr.model.medsegr import MedSegR
from medsegr.model.packing import conversation_tokens
from medsegr.model.tokens import END, PHRASE_START, SEG, token_id


def _prefix(model: MedSegR) -> tuple[torch.Tensor, object]:
    torch.manual_seed(2)
    image = torch.randn(1, 4, model.config.context_dim)
    return image, model.context.prefix(image)


def test_generation_agrees_with_a_full_pass(tiny: MedSegR) -> None:
    image, prefix = _prefix(tiny)
    out = tiny.context.generate(prefix, [], "Where is the liver?", None, max_new_tokens=6)
    ids = tiny.context.tokenizer.encode(out.text, add_special_tokens=False)
    packed, states = conversation_tokens(tiny.context.tokenizer, [("Where is the liver?", out.text)], None)
    with torch.no_grad():
        hidden, _ = tiny.context(image, packed, states)
        predicted = tiny.context.llama.lm_head(hidden[0]).argmax(-1)
    start = int((packed.token_ids[0] == tiny.context.answer_id).nonzero()[0, 0])
    assert (
        predicted[start : start + len(ids)].tolist()
        == packed.token_ids[0, start + 1 : start + 1 + len(ids)].tolist()
    )


def test_the_prefix_is_reused_unchanged(tiny: MedSegR) -> None:
    _, prefix = _prefix(tiny)
    first = tiny.context.generate(prefix, [], "Where is the liver?", None, max_new_tokens=5)
    assert prefix.cache.get_seq_length() == prefix.length
    tiny.context.generate(prefix, [("a", "b")], "Which organ makes bile?", None, max_new_tokens=5)
    again = tiny.context.generate(prefix, [], "Where is the liver?", None, max_new_tokens=5)
    assert again.text == first.text


def test_cancel_returns_none_and_restores_the_prefix(tiny: MedSegR) -> None:
    _, prefix = _prefix(tiny)
    assert tiny.context.generate(prefix, [], "Where?", None, should_stop=lambda: True) is None
    assert prefix.cache.get_seq_length() == prefix.length


def test_lora_trains_only_its_own_weights_and_saves_in_peft_format(tiny: MedSegR, tmp_path: Path) -> None:
    tiny.context.add_lora(rank=2, alpha=4)
    trained = [name for name, p in tiny.context.model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in trained)
    tiny.context.save_pretrained(tmp_path)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert (tmp_path / "model.safetensors").is_file()
    assert hasattr(tiny.context.model, "peft_config"), "saving must leave the model as it was"


def test_reading_forced_tokens_in_one_pass_changes_nothing(
    tiny: MedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(
        ("liver", "left kidney"), reasons={"liver": ("makes bile.",), "left kidney": ("makes urine.",)}
    )
    _, prefix = _prefix(tiny)
    start = [("Where is the liver?", "The <p>liver</p> [SEG] makes bile.")]

    def answer() -> Generated:
        found = tiny.context.generate(prefix, start, "Where?", None, limits=limits, max_new_tokens=24)
        assert found is not None
        return found

    def prefer(hidden: torch.Tensor) -> torch.Tensor:  # begin every answer with a phrase
        logits = head(hidden)
        logits[..., token_id(tiny.context.tokenizer, PHRASE_START)] += 3.0
        return logits

    head = tiny.context.llama.lm_head.forward
    monkeypatch.setattr(tiny.context.llama.lm_head, "forward", prefer)
    quick = answer()
    monkeypatch.setattr(Guide, "forced", lambda self: None)
    slow = answer()
    assert quick.text == slow.text and quick.text.startswith("<p>")
    torch.testing.assert_close(quick.states, slow.states, atol=1e-4, rtol=1e-4)
    assert quick.states.shape[0] == quick.text.count("[SEG]") > 0


def _wish(model: MedSegR, monkeypatch: pytest.MonkeyPatch, wishes: Mapping[int, str]) -> list[float]:
    """Makes the model prefer a token at some of its choices (from 1) and begin no phrase and set no mask token at others; the
    list fills with the probability of each choice."""
    head, chosen = model.context.llama.lm_head.forward, []

    def wishing(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden)
        wish = wishes.get(len(chosen) + 1)
        for token in (SEG, PHRASE_START, END):
            logits[..., token_id(model.context.tokenizer, token)] += 3.0 if token == wish else -20.0
        chosen.append(float(logits.softmax(-1).max()))
        return logits

    monkeypatch.setattr(model.context.llama.lm_head, "forward", wishing)
    return chosen


def test_words_are_the_probability_of_what_led_to_each_mask_token(
    tiny: MedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mask tokens at the third and the fifth choice; what comes after the last one leads to none."""
    _, prefix = _prefix(tiny)
    chosen = _wish(tiny, monkeypatch, {3: SEG, 5: SEG})
    found = tiny.context.generate(prefix, [], "Where is the liver?", None, max_new_tokens=7)
    assert found is not None and found.text.count(SEG) == found.states.shape[0] == 2
    assert len(chosen) == 7 and all(0 < p < 1 for p in chosen)
    assert found.words == pytest.approx((math.prod(chosen[:3]), math.prod(chosen[3:5])))
    assert found.weakest == pytest.approx(min(chosen)) and found.score == pytest.approx(sum(chosen) / 7)


def test_words_without_a_choice_cost_nothing(tiny: MedSegR, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a known phrase only the token that begins it is a choice."""
    _, prefix = _prefix(tiny)
    chosen = _wish(tiny, monkeypatch, {1: PHRASE_START})
    found = tiny.context.generate(
        prefix, [], "Where?", None, limits=Limits(("left kidney",)), max_new_tokens=8
    )
    assert found is not None and found.text.startswith("<p>left kidney</p> [SEG]")
    assert found.words[0] == pytest.approx(chosen[0])


def test_an_answer_without_a_mask_token_has_no_words(tiny: MedSegR, monkeypatch: pytest.MonkeyPatch) -> None:
    _, prefix = _prefix(tiny)
    _wish(tiny, monkeypatch, {})
    found = tiny.context.generate(prefix, [], "Where?", None, max_new_tokens=3)
    assert found is not None and found.words == () and found.states.shape[0] == 0
