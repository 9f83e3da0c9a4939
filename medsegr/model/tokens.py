"""The special tokens of an answer, its tokenizer, and the markup `The <p>liver</p> [SEG] …` read back into phrases."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SEG, PHRASE_START, PHRASE_END, QUESTION, ANSWER, END, PAD = (
    "[SEG]",
    "<p>",
    "</p>",
    "<q>",
    "<a>",
    "</s>",
    "<pad>",
)
SPECIAL = (PAD, END, QUESTION, ANSWER, SEG, PHRASE_START, PHRASE_END)

_MARKED = re.compile(r"<p>(.*?)</p>\s*\[SEG\]")


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4096) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the training answers; any text can be encoded, the markup tokens are single ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )
    return check_tokenizer(fast)


def check_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer, after asserting that every markup token is one id (LISA issue #55)."""
    for token in SPECIAL:
        ids = tokenizer.encode(token, add_special_tokens=False)
        if ids != [tokenizer.convert_tokens_to_ids(token)]:
            raise ValueError(f"{token} must encode to one id, found {ids}.")
    return tokenizer


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The single id of a markup token."""
    return int(tokenizer.convert_tokens_to_ids(token))  # type: ignore[arg-type]


def phrases(answer: str) -> list[str]:
    """The phrase before each `[SEG]` of an answer, in order; an unmarked `[SEG]` gives an empty phrase."""
    marked = {match.end(): match.group(1).strip() for match in _MARKED.finditer(answer)}
    return [marked.get(match.end(), "") for match in re.finditer(re.escape(SEG), answer)]


def plain(answer: str) -> str:
    """The answer as a person reads it: no markup, single spaces."""
    text = answer
    for token in SPECIAL:
        text = text.replace(token, " " if token == SEG else "")
    return re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip()
