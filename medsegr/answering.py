"""How an answer comes about, whatever is asked about: encode the image, limit what may be said, let the model write, decode its
`[SEG]` states, measure. `Predictor` and `ask_volume` put these parts together.

Everything that depends on the image alone (encoder maps, the language model's prefix) is computed once and kept in a bounded
cache keyed by image content, so a follow-up question pays for neither.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medsegr.denial import NEVER, least_no
from medsegr.errors import Cancelled, QuestionError
from medsegr.familiar import FILE, FOREIGN_TEXT, load_familiarity, summary
from medsegr.imaging import Picture, Volume
from medsegr.imaging.measuring import size_in_words
from medsegr.imaging.resizing import resize_rgb
from medsegr.measured import COMPARING, measured
from medsegr.model.checkpoint import Checkpoint
from medsegr.model.context import Generated, Prefix
from medsegr.model.decoding import DENIAL, Limits
from medsegr.model.encoder import ImageFeatures
from medsegr.model.large.adapter import LargeCheckpoint
from medsegr.model.large.model import LargeMedSegR
from medsegr.model.presets import ModelConfig
from medsegr.model.question import SentenceEncoder
from medsegr.model.tokens import phrases, plain
from medsegr.qa.facts import load_knowledge, plain_concept, site_concepts
from medsegr.qa.mentions import mentioned
from medsegr.reasons import Reasons, sayable
from medsegr.reply import Finding, Reply, undrawn_phrases
from medsegr.untrained import AskedNames, NameFinder, refusal_text

History = Sequence[tuple[str, str]]
CACHE_BYTES = 512 * 2**20
MAX_QUESTION = 2000
SCALES = (1.0,)  # of the model's square, at which a picture is encoded; masks are averaged over them
LIKELY = 0.3  # a structure may be outlined unasked from this overview probability on
SURE_OF_NAMED = 0.7  # what the question names is denied from this probability of "No" on: 2 % of what is there, on patients
# kept out of training, is then denied
SURE_OF_DESCRIBED = 0.9  # a description is denied only if no word of the denial is less likely than this
TINY = 1e-6
"""Smallest probability of words that still makes a difference to the confidence."""
MAX_TURNS = 8
MAX_HISTORY_TOKENS = 1500
MAX_MARKED = 1000
"""Own answers whose markup is kept."""
HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""How a character is decoded of which some bytes are still to come."""


@dataclass
class Prepared:
    """What is kept of an image: its maps at each scale, the language model's prefix once it was asked about, and the features
    [1, D] by which it is familiar or foreign, where the checkpoint has a rule for that."""

    scales: list[ImageFeatures]
    prefix: Prefix | None
    look: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """Memory that it occupies."""
        return sum(f.n_bytes for f in self.scales) + (self.prefix.n_bytes if self.prefix else 0)


class Answerer:
    """The parts of an answer. Not thread-safe: one caller, or one lock around it."""

    def __init__(
        self,
        checkpoint: Checkpoint | LargeCheckpoint,
        sentences: SentenceEncoder | None,
        device: str = "cpu",
        scales: Sequence[float] = SCALES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model, self.meta, self.device = checkpoint.model, checkpoint.meta, device
        self.config = checkpoint.model.config
        self.sentences, self.scales, self._cache_bytes = sentences, tuple(scales), cache_bytes
        self.targets: tuple[str, ...] = self.config.targets
        knowledge = {**site_concepts(checkpoint.directory), **load_knowledge().concepts}
        knowledge |= {name: plain_concept(name) for name in self.targets if name not in knowledge}
        self.knowledge = tuple(knowledge[name] for name in self.targets)
        self._concepts = {concept.name: concept for concept in self.knowledge}
        self._rows = {name: n for n, name in enumerate(self.targets)}  # of `Grounding.names`
        self._plurals = frozenset(concept.name for concept in self.knowledge if concept.plural)
        self._names = NameFinder(knowledge.values(), self.targets)
        self._familiar = load_familiarity(checkpoint.directory, checkpoint.meta.get("sha256", {}).get(FILE))
        said = sayable(self.model.context.reasons, tuple(knowledge.values()))
        self._reasons = Reasons(said, sentences)
        self.version, self.licence = checkpoint.version, str(checkpoint.meta["licence"])
        self._cache: OrderedDict[str, Prepared] = OrderedDict()
        self._marked: OrderedDict[str, str] = OrderedDict()

    def all_foreign(self, prepared: Sequence[Prepared]) -> bool:
        """Whether every one of these images looks like nothing that the checkpoint was trained on; False if it cannot tell."""
        rule = self._familiar
        return rule is not None and all(p.look is not None and rule.foreign(p.look) for p in prepared)

    def prepare(self, rgb: NDArray[np.uint8], scales: Sequence[float]) -> Prepared:
        """The cached maps of `rgb` [H, W, 3] at each scale; the least recently used images leave the cache."""
        key = hashlib.sha256(
            rgb.tobytes() + repr((rgb.shape, tuple(scales), self.version)).encode()
        ).hexdigest()
        if key not in self._cache:
            self._cache[key] = self._encode(rgb, scales)
            while len(self._cache) > 1 and sum(p.n_bytes for p in self._cache.values()) > self._cache_bytes:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    @torch.inference_mode()
    def _encode(self, rgb: NDArray[np.uint8], scales: Sequence[float]) -> Prepared:
        if isinstance(self.model, LargeMedSegR):
            return Prepared([self.model.encode_picture(torch.from_numpy(np.array(rgb)))], None)
        sides = [int(round(self.config.image_size * s / 32)) * 32 for s in scales]
        squares = [torch.from_numpy(resize_rgb(rgb, side)).unsqueeze(0) for side in sides]
        if self._familiar is None:
            return Prepared([self.model.encode_image(square) for square in squares], None)
        encoder, normalise = self.model.encoder, self.model.normalise
        trunk = encoder.trunk(normalise(squares[0].to(self.device)))
        rest = [self.model.encode_image(square) for square in squares[1:]]
        return Prepared([encoder.read(trunk), *rest], None, summary(trunk))

    def prefix(self, prepared: Prepared) -> Prefix:
        """The language model's cache of an image, computed once."""
        if prepared.prefix is None:
            prepared.prefix = self.model.context.prefix(prepared.scales[0].context)
        return prepared.prefix

    def limits(self, prepared: Sequence[Prepared], question: str, names: AskedNames) -> Limits:
        """What the answer may say: it may outline what one of the images seems to show and what the question names; if it asks
        for that by name, nothing but what it names.

        A question that names nothing known is a description: it is denied only if the model is sure of every word, and what is
        said of a structure is what answers it.
        """
        logits = torch.stack([p.scales[0].present[0] for p in prepared]).amax(0)
        chances = torch.sigmoid(logits).tolist()
        likely = [name for name, chance in zip(self.targets, chances, strict=True) if chance >= LIKELY]
        reasons = self._reasons.said if names.trained else self._reasons.to(question)
        if not likely or not question.strip():
            return Limits(reasons=reasons)
        named = list(dict.fromkeys([*mentioned(question, self.knowledge), *names.trained]))
        phrases = tuple(dict.fromkeys([*likely, *named]))
        if named and names.trained:
            decided, sure = self._denial(prepared, names)
            return Limits(tuple(named), len(named), sure, reasons=reasons, decided=decided)
        if named:
            return Limits(phrases, 0, SURE_OF_NAMED, reasons=reasons)
        return Limits(phrases, 0, SURE_OF_DESCRIBED, SURE_OF_DESCRIBED, reasons)

    def _denial(self, prepared: Sequence[Prepared], names: AskedNames) -> tuple[bool, float]:
        """Whether the rule of `medsegr.denial` decides if what is named is there, and from which probability of "No" on it is
        denied. It was fitted on pictures: of a stack, a few slices at the most show what is asked for, often not the probed ones.
        """
        rule = self.config.denial if isinstance(self.config, ModelConfig) else ()
        if not rule or len(names.trained) != 1 or len(prepared) > 1:
            return False, SURE_OF_NAMED
        return True, least_no(rule, self.overview(prepared, names.trained[0]))

    def overview(self, prepared: Sequence[Prepared], name: str) -> float:
        """The overview's logit of the target `name` in the image that seems to show most of it."""
        target = self.targets.index(name)
        return max(float(p.scales[0].present[0, target]) for p in prepared)

    def chance_of_denial(self, prepared: Prepared, question: str) -> float:
        """The probability of "No" as the first word of the answer to a first question, whatever is said in the end."""
        return self._write(prepared, (), question, Limits(decided=True), 1).weakest

    def generate(
        self,
        prepared: Prepared,
        question: str,
        history: History,
        limits: Limits,
        on_text: Callable[[str], None] | None,
        should_stop: Callable[[], bool] | None,
        max_new_tokens: int | None,
    ) -> Generated:
        """The answer with its markup; `on_text` hears it without. Raises `QuestionError` and `Cancelled`."""
        if max_new_tokens is not None and max_new_tokens < 1:
            raise QuestionError(f"max_new_tokens is {max_new_tokens}; expected 1 or more.")
        turns = self._turns(history)
        sent = ""

        def forward(text: str) -> None:
            nonlocal sent
            shown = plain(text).rstrip(HALF_CHARACTER)
            if on_text and len(shown) > len(sent) and shown.startswith(sent):
                on_text(shown[len(sent) :])
                sent = shown

        def write(limits: Limits) -> Generated:
            def on_token(text: str) -> None:
                if not (limits.sure_words and text.startswith(DENIAL)):  # such a denial may yet be taken back
                    forward(text)

            listener = on_token if on_text else None
            return self._write(prepared, turns, question, limits, max_new_tokens, listener, should_stop)

        generated = write(limits)
        if generated.text.startswith(DENIAL) and generated.weakest < limits.sure_words:
            generated = write(replace(limits, sure_denial=NEVER))
        forward(generated.text)
        return generated

    def _write(
        self,
        prepared: Prepared,
        turns: Sequence[tuple[str, str]],
        question: str,
        limits: Limits,
        max_new_tokens: int | None = None,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Generated:
        """What the language model writes within `limits`; raises `Cancelled`."""
        found = self.model.context.generate(
            self.prefix(prepared),
            turns,
            question.strip(),
            self.sentences,
            limits=limits,
            max_new_tokens=max_new_tokens,
            on_token=on_token,
            should_stop=should_stop,
        )
        if found is None:
            raise Cancelled("The question was cancelled.")
        return found

    def _turns(self, history: History) -> list[tuple[str, str]]:
        """As many of the last turns as fit, with the markup of those answers that this predictor wrote itself."""
        last = list(history)[-MAX_TURNS:]
        if sum(len(q) + len(a) for q, a in last) > 4 * MAX_QUESTION:
            raise QuestionError(
                f"The history is too long: its last {MAX_TURNS} turns may hold {4 * MAX_QUESTION} characters."
            )
        turns = [(q, self._marked.get(a, a)) for q, a in last]
        spell = self.model.context.tokenizer.encode
        lengths = [len(spell(q)) + len(spell(a)) for q, a in turns]
        while sum(lengths) > MAX_HISTORY_TOKENS:
            del lengths[0], turns[0]
        return turns

    def decode(
        self,
        prepared: Prepared,
        generated: Generated,
        size: tuple[int, int],
        click: tuple[Tensor, Tensor] | None,
        need_presence: bool = False,
    ) -> tuple[NDArray[np.bool_], list[tuple[float, float]]]:
        """Masks [n, H, W] at native size, logits averaged over the scales, and n times `Finding.scores`."""
        states = generated.states
        n = states.shape[0]
        found = np.zeros((n, *size), dtype=bool)
        if n == 0:
            return found, []
        points, labels = click if click else (None, None)
        targets = torch.tensor(
            [self._rows.get(phrase, -1) for phrase in phrases(generated.text)], device=states.device
        )
        decoded = [
            self.model.decode_masks(features, states, points, labels, targets) for features in prepared.scales
        ]
        quality = torch.stack([masks.quality for masks in decoded]).mean(0)
        presence = torch.stack([masks.presence for masks in decoded]).mean(0)
        for i in range(n):  # one at a time: a large picture's logits for every mask would not fit into memory
            if need_presence and not bool(presence[i] > 0):
                continue
            logits = torch.zeros(1, 1, *size, device=self.device)
            for masks in decoded:
                small = masks.logits[i][None, None] / len(decoded)
                logits += F.interpolate(small, size=size, mode="bilinear", align_corners=False)
            found[i] = (logits[0, 0] > 0).cpu().numpy()
        words = [math.log(max(p, TINY)) for p in generated.words] or [0.0] * n
        return found, list(zip(quality.tolist(), words, strict=True))

    def confidence(self, scores: tuple[float, float]) -> float:
        """The calibrated probability that a mask with these scores is good."""
        slope, offset, *weight = self.config.calibration
        quality, words = scores
        return 1 / (1 + math.exp(-(slope * quality + sum(weight) * words + offset)))

    def asked(self, question: str) -> AskedNames:
        """What the question asks for by name; raises `QuestionError` when it is too long to be read."""
        if len(question) > MAX_QUESTION:
            raise QuestionError(
                f"The question has {len(question)} characters; at most {MAX_QUESTION} are read."
            )
        return self._names.asked(question)

    def reply(
        self,
        marked: str,
        findings: tuple[Finding, ...],
        latencies: dict[str, float],
        names: AskedNames,
        reference: Picture | Volume,
        on_text: Callable[[str], None] | None,
    ) -> Reply:
        """The answer for people, with what the masks add; says so where a structure was named and not outlined, or was never
        learnt."""
        undrawn = undrawn_phrases(marked, findings)
        sizes = [size_in_words(f.mask, reference) for f in findings] if marked.startswith(COMPARING) else []
        concept = self._concepts.get(findings[0].label) if findings else None
        added = (
            None if undrawn else measured(marked, findings, sizes, reference.modality, concept, self._plurals)
        )
        said = plain(marked)
        text = f"{said} {added.text}" if added else said
        if undrawn:
            text = f"{text} (No outline could be drawn for: {', '.join(undrawn)}.)"
        if names.untrained:
            text = f"{text} {refusal_text(names.untrained)}"
        if on_text and text != said:
            on_text(text[len(said) :])
        self._marked[text] = marked
        self._marked.move_to_end(text)
        while len(self._marked) > MAX_MARKED:
            self._marked.popitem(last=False)
        return Reply(text, findings, latencies, undrawn, names.untrained, added)


def refuse(untrained: tuple[str, ...], on_text: Callable[[str], None] | None, began: float) -> Reply:
    """The reply when the model was trained for nothing of what is asked (or, if none is named, for no such picture); it is not
    consulted."""
    text = refusal_text(untrained) if untrained else FOREIGN_TEXT
    if on_text:
        on_text(text)
    total = 1e3 * (time.perf_counter() - began)
    latencies = {"text_ms": total, "masks_ms": 0.0, "total_ms": total}
    return Reply(text, (), latencies, untrained=untrained, foreign=not untrained)
