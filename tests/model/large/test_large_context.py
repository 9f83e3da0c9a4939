"""The large language models: what the cache saves changes nothing, and `[SEG]` is found where it really stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medsegr.model.large.adapter import new_large
from medsegr.model.large.context import LargeContext
from medsegr.model.large.model import LargeMedSegR
from medsegr.model.large.presets import LARGE_PRESETS
from tests.large_models import PRESETS, tiny_large

PICTURE = torch.randint(0, 255, (60, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ANSWER = "The <p>liver</p> [SEG] and <p>spleen</p> [SEG]."
TURNS = [("Is a kidney here?", "No."), ("Outline the liver and the spleen.", ANSWER)]


@pytest.fixture(scope="module", params=PRESETS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LargeMedSegR:
    return new_large(tiny_large(tmp_path_factory.mktemp("base"), request.param))


def say(context: LargeContext, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    ids = [*context.tokenizer.encode(answer, add_special_tokens=False), context.end_id]

    def choose(distribution: Tensor, said: Sequence[int]) -> int:
        assert distribution.shape == (context.table.known + 3,)
        return ids[len(said)]

    monkeypatch.setattr(context, "choose", choose)


def test_cached_prefix_gives_the_states_of_one_whole_pass(
    model: LargeMedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = model.context
    inputs, labels = context.collate([PICTURE, PICTURE[:50]], [TURNS, TURNS[:1]])
    with torch.inference_mode():
        hidden, _ = context(inputs, labels)
    row, column = torch.nonzero(inputs["input_ids"] == context.seg_id, as_tuple=True)
    assert row.tolist() == [0, 0]
    prefix = context.prefix(PICTURE)
    if context.config.preset.startswith("qwen"):
        assert prefix.shift < 0, "the picture's rows and columns share positions"
    say(context, monkeypatch, ANSWER)
    for state, offset in (("token", 0), ("predicting", 1)):
        monkeypatch.setattr(context, "config", replace(context.config, seg_state=state))
        found = context.generate(prefix, TURNS[:1], TURNS[1][0])
        assert found is not None and found.text == ANSWER
        torch.testing.assert_close(found.states, hidden[row, column - offset], atol=1e-5, rtol=1e-4)
    assert prefix.cache.get_seq_length() == prefix.length


def test_only_answers_are_learnt_and_each_label_is_the_next_token(model: LargeMedSegR) -> None:
    context = model.context
    inputs, labels = context.collate([PICTURE], [TURNS])
    learnt = labels[0] >= 0
    assert torch.equal(labels[0, :-1][learnt[:-1]], inputs["input_ids"][0, 1:][learnt[:-1]])
    assert context.tokenizer.decode(labels[0][learnt]) == "".join(
        f"{answer}{context.config.dialogue.end}" for _, answer in TURNS
    )


def test_follow_up_reads_no_image(model: LargeMedSegR) -> None:
    context, calls = model.context, []
    core = context.base.model
    tower = core.visual if hasattr(core, "visual") else core.vision_tower
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        prefix = context.prefix(PICTURE)
        first = context.generate(prefix, [], "Where is the liver?", max_new_tokens=5)
        again = context.generate(prefix, [], "Where is the liver?", max_new_tokens=5)
        context.generate(prefix, [("Where is the liver?", "Here.")], "And the spleen?", max_new_tokens=5)
    finally:
        hook.remove()
    assert len(calls) == 1
    assert first is not None and again is not None and first.text == again.text
    assert first.score == pytest.approx(again.score)


def test_a_question_can_be_withdrawn_and_its_text_is_streamed(
    model: LargeMedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, pieces = model.context, []
    say(context, monkeypatch, ANSWER)
    prefix = context.prefix(PICTURE)
    stopped = context.generate(
        prefix, [], "Liver?", on_token=pieces.append, should_stop=lambda: len(pieces) == 3
    )
    assert stopped is None and len(pieces) == 3 and ANSWER.startswith(pieces[-1])
    assert prefix.cache.get_seq_length() == prefix.length


def test_markup_rows_leave_the_vocabulary_as_it_is(tmp_path: Path) -> None:
    config = replace(tiny_large(tmp_path), lora_targets=LARGE_PRESETS["llava-med-7b"].lora_targets)
    context = new_large(config).context
    hidden = torch.randn(2, context.hidden_size)
    scores = context.head(hidden)
    known = context.table.known
    assert scores.shape == (2, known + 3) and known < context.head.weight.shape[0]
    torch.testing.assert_close(scores[:, :known], context.head.base(hidden)[:, :known])
    ids = torch.tensor([[5, known, known + 2]])
    embedded = context.table(ids)
    torch.testing.assert_close(embedded[0, 0], context.table.base.weight[5])
    torch.testing.assert_close(embedded[0, 1:], context.table.new[[0, 2]])
    context.add_lora()
    trained = {n for n, p in context.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora" not in n} == {"table.new", "head.new"}
    assert all("language_model" in n for n in trained if "lora" in n) and len(trained) == 2 + 2 * 2 * 2
