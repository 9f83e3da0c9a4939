"""A local `transformers` model: tiny and untrained, so all it says is dropped with a reason, and the run still ends well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.backend import RequestRefused
from medsegr.qa.annotate.local_backend import LocalBackend
from medsegr.qa.annotate.run import Summary, annotate_file
from medsegr.qa.reader import read_qa

TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}assistant :"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers and 60 words with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    words = ["[UNK]", "[EOS]", "user", "assistant", ":", "{", "}", *(f"word{n}" for n in range(53))]
    raw = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", eos_token="[EOS]")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.suppress_tokens = [0, 1]  # so that it says something
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_it_replies_the_same_each_time(model_dir: Path) -> None:
    backend = LocalBackend(model_dir, max_new_tokens=6)
    message = [{"role": "user", "content": "word1 word2"}]
    reply = backend.complete(message)
    assert reply.strip()
    assert backend.complete(message) == reply
    assert backend.provenance["model"] == "tiny-llama"
    assert str(model_dir.parent) not in str(backend.provenance)


def test_garbage_is_dropped_with_a_reason(model_dir: Path, hospital: Path) -> None:
    out = hospital.parent / "qa.jsonl"
    summary = annotate_file(hospital, out, LocalBackend(model_dir, max_new_tokens=6), count=3)
    assert summary == Summary(3, 0, {"describe": 9})
    assert list(read_qa(out)) == []
    rows = [json.loads(line) for line in (hospital.parent / "qa.rejected.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert all(row["reason"].startswith("the reply is not the JSON asked for: Invalid JSON") for row in rows)
    assert json.loads((hospital.parent / "qa.meta.json").read_text())["backend"] == "transformers"


def test_a_prompt_over_the_context_is_refused(model_dir: Path) -> None:
    backend = LocalBackend(model_dir, max_new_tokens=4000)
    with pytest.raises(RequestRefused, match="over the model's 4096"):
        backend.complete([{"role": "user", "content": "word1 " * 200}])


def test_a_directory_without_a_model_is_named(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MedSegRError, match=r"expected one with a config\.json"):
        LocalBackend(tmp_path / "none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MedSegRError, match="cannot be loaded as a causal language model"):
        LocalBackend(tmp_path)
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in model_dir.iterdir():
        if "template" not in file.name:
            (plain / file.name).write_bytes(file.read_bytes())
    with pytest.raises(MedSegRError, match="has no chat template"):
        LocalBackend(plain)
