"""The public API, after SAM's `SamPredictor`: `set_image` once, then `ask` as often as you like; `ask_volume` for a stack.

Everything that depends on the image alone (encoder maps, the language model's prefix) is computed once and kept in a bounded
cache keyed by image content, so a follow-up question pays for neither.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medsegr.errors import Cancelled, CheckpointError, ImageError, QuestionError
from medsegr.familiar import FOREIGN_TEXT, load_familiarity
from medsegr.imaging import Picture, Volume, read_image, to_rgb, volume_intensity_range
from medsegr.imaging.components import remove_specks
from medsegr.imaging.measuring import size_in_words
from medsegr.imaging.resizing import resize_rgb
from medsegr.measured import COMPARING, measured
from medsegr.model.checkpoint import Checkpoint, load_checkpoint
from medsegr.model.context import Generated, Prefix
from medsegr.model.decoding import DENIAL, Limits
from medsegr.model.encoder import ImageFeatures
from medsegr.model.large.adapter import LargeCheckpoint, is_large, load_large
from medsegr.model.large.model import LargeMedSegR
from medsegr.model.question import SentenceEncoder, find_sentence_encoder
from medsegr.model.tokens import phrases, plain
from medsegr.prompts import clicks_in_square, pixels_inside
from medsegr.qa.facts import load_knowledge
from medsegr.reply import Finding, Outcome, Reply, findings_of, undrawn_phrases
from medsegr.untrained import AskedNames, NameFinder, refusal_text

__all__ = ["Finding", "Outcome", "Predictor", "Reply"]
History = Sequence[tuple[str, str]]
CACHE_BYTES = 512 * 2**20
LARGE_CACHE_BYTES = 4 * 2**30  # a large preset keeps up to 0.3 GiB for an image that was asked about
MAX_QUESTION = 2000
SCALES = (1.0,)  # of the model's square, at which a picture is encoded; masks are averaged over them
LIKELY = 0.3  # a structure may be outlined unasked from this overview probability on
SURE_OF_NAMED = 0.7  # what the question names is denied from this probability of "No" on: 2 % of what is there, on patients
# kept out of training, is then denied
SURE_OF_DESCRIBED = 0.9  # a description is denied only if no word of the denial is less likely than this
NEVER = 2.0
TINY = 1e-6
"""Smallest probability of words that still makes a difference to the confidence."""
MAX_TURNS = 8
MAX_HISTORY_TOKENS = 1500
MAX_SENTENCES = 1000
"""Questions whose states are kept."""
MAX_MARKED = 1000
"""Own answers whose markup is kept."""
PROBES = (0.5, 0.35, 0.65, 0.2, 0.8)
"""Where in a stack, as a share of its depth, the language model looks."""
HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""How a character is decoded of which some bytes are still to come."""


@dataclass
class _Prepared:
    scales: list[ImageFeatures]
    prefix: Prefix | None

    @property
    def n_bytes(self) -> int:
        return sum(f.n_bytes for f in self.scales) + (self.prefix.n_bytes if self.prefix else 0)


class Predictor:
    """Answers questions about one image at a time. Not thread-safe: one caller, or one lock around it."""

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
        knowledge = load_knowledge().concepts
        self.knowledge = tuple(knowledge[name] for name in self.targets if name in knowledge)
        self._concepts = {concept.name: concept for concept in self.knowledge}
        self._names = NameFinder(knowledge.values(), self.targets)
        self._familiar = load_familiarity(checkpoint.directory)
        asked = {
            f"{fact.text}." for concept in knowledge.values() for fact in concept.facts if fact.only_asked
        }
        self._reasons = {
            name: tuple(sentence for sentence in said if sentence not in asked)
            for name, said in self.model.context.reasons.items()
        }
        self.version, self.licence = checkpoint.version, str(checkpoint.meta["licence"])
        self._cache: OrderedDict[str, _Prepared] = OrderedDict()
        self._marked: OrderedDict[str, str] = OrderedDict()
        self._current: tuple[_Prepared, Picture] | None = None

    @classmethod
    def from_pretrained(cls, name_or_dir: str | Path = "embedded", device: str = "cpu") -> Predictor:
        """Load a shipped preset or a checkpoint directory; nothing is downloaded. Raises `CheckpointError`."""
        if is_large(name_or_dir):
            return cls(load_large(name_or_dir, device), None, device, (1.0,), LARGE_CACHE_BYTES)
        checkpoint = load_checkpoint(name_or_dir, device)
        if checkpoint.meta.get("training", {}).get("stage") == "vision":
            raise CheckpointError(
                f"{name_or_dir} has learnt to outline and not yet to answer: train it on with "
                f"`medsegr pretrain QA --stage language --init-vision {name_or_dir} --out OUT`."
            )
        config = checkpoint.model.config
        sentences = None
        if config.question_encoder != "scratch":
            found = find_sentence_encoder(config.sentence_encoder, config.sentence_encoder_sha256)
            sentences = SentenceEncoder(found, cache_size=MAX_SENTENCES).to(device)
        return cls(checkpoint, sentences, device)

    def set_image(
        self, image: Path | str | NDArray[np.generic] | Picture, modality: str | None = None
    ) -> None:
        """Prepare a 2-D image: a path, [H, W] or [H, W, 3], or a `Picture`. Volumes go to `ask_volume`. Raises `ImageError`."""
        if isinstance(image, str | Path):
            read = read_image(Path(image), modality)
            if isinstance(read, Volume):
                raise ImageError(
                    f"{Path(image).name} is a volume of {read.n_slices} slices: use ask_volume, or name one slice."
                )
            image = read
        if not isinstance(image, Picture):
            image = Picture(pixels=np.asarray(image), modality=modality, spacing_mm=None)
        image = replace(image, modality=modality or image.modality)
        rgb = to_rgb(image.pixels, image.modality, image.body_part)
        self._current = (self._prepare(rgb, self.scales), image)

    def ask(
        self,
        question: str,
        history: History = (),
        *,
        on_text: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        max_new_tokens: int | None = None,
        points: Sequence[Sequence[float]] | None = None,
        box: Sequence[float] | None = None,
    ) -> Reply:
        """Answer a question about the image of `set_image`; masks are [H, W] bool on its grid.

        points: [[row, column, 1 inside | 0 outside], ...]; box: [row0, column0, row1, column1] limits the masks; both in pixels.
        Raises `QuestionError` (no image, bad question or options) and `Cancelled`.
        """
        if self._current is None:
            raise QuestionError("No image is set: call set_image before ask.")
        prepared, picture = self._current
        size = (picture.pixels.shape[0], picture.pixels.shape[1])
        click = clicks_in_square(points, size, self.config.image_size, self.device)
        inside = None if box is None else pixels_inside(box, size)
        began = time.perf_counter()
        names = self._asked(question)
        if names.untrained and not names.trained:
            return _refuse(names.untrained, on_text, began)
        if self.foreign:
            return _refuse((), on_text, began)
        generated = self._generate(
            prepared,
            question,
            history,
            self._limits([prepared], question, names),
            on_text,
            should_stop,
            max_new_tokens,
        )
        answered = time.perf_counter()
        masks, scores = self._decode(prepared, generated, size, click)
        if inside is not None:
            masks &= inside
        findings = findings_of(generated.text, masks, [self._confidence(s) for s in scores], scores)
        done = time.perf_counter()
        latencies = {
            "text_ms": 1e3 * (answered - began),
            "masks_ms": 1e3 * (done - answered),
            "total_ms": 1e3 * (done - began),
        }
        return self._reply(generated.text, findings, latencies, names, picture, on_text)

    def ask_volume(
        self,
        volume: Volume,
        question: str,
        history: History = (),
        *,
        slices: range | None = None,
        on_text: Callable[[str], None] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        max_new_tokens: int | None = None,
    ) -> Reply:
        """Answer about a stack: the text comes from a few probe slices, its `[SEG]` states are decoded on every slice.

        Masks are [X, Y, Z] bool on the volume's own grid; a slice counts only where the presence score says so.
        """
        began = time.perf_counter()
        chosen = slices if slices is not None else range(volume.n_slices)
        if not chosen or min(chosen) < 0 or max(chosen) >= volume.n_slices:
            raise QuestionError(f"The slice range must lie within 0..{volume.n_slices - 1} of this volume.")
        names = self._asked(question)
        if names.untrained and not names.trained:
            return _refuse(names.untrained, on_text, began)
        scale = volume_intensity_range(volume)

        def rgb(k: int) -> NDArray[np.uint8]:
            return to_rgb(volume.slice_pixels(k), volume.modality, volume.body_part, scale)

        if self._foreign([self._prepare(rgb(k), self.scales[:1]) for k in _probed(chosen)]):
            return _refuse((), on_text, began)
        generated = self._probe(rgb, chosen, question, names, history, should_stop, max_new_tokens)
        if on_text:
            on_text(plain(generated.text))
        answered = time.perf_counter()
        n = generated.states.shape[0]
        masks = np.zeros((n, *volume.voxels.shape[:3]), dtype=bool)
        qualities: list[list[tuple[int, float]]] = [[] for _ in range(n)]
        for done, k in enumerate(chosen if n else (), start=1):
            if should_stop and should_stop():
                raise Cancelled("The question was cancelled.")
            pixels = rgb(k)
            prepared = self._prepare(pixels, self.scales[:1])
            planes, scores = self._decode(
                prepared, generated, (pixels.shape[0], pixels.shape[1]), None, need_presence=True
            )
            for i in range(n):
                if planes[i].any():
                    volume.slice_mask_to_volume(k, planes[i], masks[i])
                    qualities[i].append((int(planes[i].sum()), self._confidence(scores[i])))
            if on_progress:
                on_progress(done, len(chosen))
        for mask in masks:
            mask[...] = remove_specks(mask)
        confidences = [sum(a * c for a, c in q) / sum(a for a, _ in q) if q else 0.0 for q in qualities]
        findings = findings_of(generated.text, masks, confidences)
        finished = time.perf_counter()
        latencies = {
            "text_ms": 1e3 * (answered - began),
            "masks_ms": 1e3 * (finished - answered),
            "total_ms": 1e3 * (finished - began),
        }
        return self._reply(generated.text, findings, latencies, names, volume, on_text)

    def _probe(
        self,
        rgb: Callable[[int], NDArray[np.uint8]],
        chosen: range,
        question: str,
        names: AskedNames,
        history: History,
        should_stop: Callable[[], bool] | None,
        max_new_tokens: int | None,
    ) -> Generated:
        """Ask on a few slices; each knows what any of them seems to show. The structures that most of them name win, then the
        answer that names more, then the surest; slices that show nothing are outvoted by one that does."""
        probes = [self._prepare(rgb(k), self.scales[:1]) for k in _probed(chosen)]
        limits = self._limits(probes, question, names)
        answers = [
            self._generate(probe, question, history, limits, None, should_stop, max_new_tokens)
            for probe in probes
        ]
        named = [frozenset(phrases(answer.text)) for answer in answers]
        votes = Counter(named)
        ranked = zip(named, answers, strict=True)
        return max(ranked, key=lambda a: (bool(a[0]), votes[a[0]], len(a[0]), a[1].score))[1]

    @property
    def foreign(self) -> bool:
        """Whether the picture of `set_image` looks like nothing that the checkpoint was trained on; False if it cannot tell."""
        return self._current is not None and self._foreign([self._current[0]])

    def _foreign(self, prepared: Sequence[_Prepared]) -> bool:
        return self._familiar is not None and all(self._familiar.foreign(p.scales[0]) for p in prepared)

    def _prepare(self, rgb: NDArray[np.uint8], scales: Sequence[float]) -> _Prepared:
        """The cached maps of `rgb` [H, W, 3] at each scale; the least recently used images leave the cache."""
        key = hashlib.sha256(
            rgb.tobytes() + repr((rgb.shape, tuple(scales), self.version)).encode()
        ).hexdigest()
        if key not in self._cache:
            self._cache[key] = _Prepared(self._encode(rgb, scales), None)
            while len(self._cache) > 1 and sum(p.n_bytes for p in self._cache.values()) > self._cache_bytes:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _encode(self, rgb: NDArray[np.uint8], scales: Sequence[float]) -> list[ImageFeatures]:
        if isinstance(self.model, LargeMedSegR):
            return [self.model.encode_picture(torch.from_numpy(np.array(rgb)))]
        sides = [int(round(self.config.image_size * s / 32)) * 32 for s in scales]
        return [
            self.model.encode_image(torch.from_numpy(resize_rgb(rgb, side)).unsqueeze(0)) for side in sides
        ]

    def _prefix(self, prepared: _Prepared) -> Prefix:
        if prepared.prefix is None:
            prepared.prefix = self.model.context.prefix(prepared.scales[0].context)
        return prepared.prefix

    def _limits(self, prepared: Sequence[_Prepared], question: str, names: AskedNames) -> Limits:
        """What the answer may outline: what one of the images seems to show and what the question names; if it asks for that by
        name, nothing but what it names.

        A question that names nothing known is a description: it is denied only if the model is sure of every word.
        """
        logits = torch.stack([p.scales[0].present[0] for p in prepared]).amax(0)
        chances = torch.sigmoid(logits).tolist()
        likely = [name for name, chance in zip(self.targets, chances, strict=True) if chance >= LIKELY]
        if not likely or not question.strip():
            return Limits(reasons=self._reasons)
        named = [c.name for c in self.knowledge if c.leak(question)]
        phrases = tuple(dict.fromkeys([*likely, *named]))
        if named and names.trained:
            return Limits(tuple(named), len(named), SURE_OF_NAMED, reasons=self._reasons)
        if named:
            return Limits(phrases, 0, SURE_OF_NAMED, reasons=self._reasons)
        return Limits(phrases, 0, SURE_OF_DESCRIBED, SURE_OF_DESCRIBED, self._reasons)

    def _generate(
        self,
        prepared: _Prepared,
        question: str,
        history: History,
        limits: Limits,
        on_text: Callable[[str], None] | None,
        should_stop: Callable[[], bool] | None,
        max_new_tokens: int | None,
    ) -> Generated:
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

        def generate(limits: Limits) -> Generated:
            def on_token(text: str) -> None:
                if not (limits.sure_words and text.startswith(DENIAL)):  # such a denial may yet be taken back
                    forward(text)

            found = self.model.context.generate(
                self._prefix(prepared),
                turns,
                question.strip(),
                self.sentences,
                limits=limits,
                max_new_tokens=max_new_tokens,
                on_token=on_token if on_text else None,
                should_stop=should_stop,
            )
            if found is None:
                raise Cancelled("The question was cancelled.")
            return found

        generated = generate(limits)
        if generated.text.startswith(DENIAL) and generated.weakest < limits.sure_words:
            generated = generate(replace(limits, sure_denial=NEVER))
        forward(generated.text)
        return generated

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

    def _decode(
        self,
        prepared: _Prepared,
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
        decoded = [self.model.decode_masks(features, states, points, labels) for features in prepared.scales]
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

    def _confidence(self, scores: tuple[float, float]) -> float:
        """The calibrated probability that a mask with these scores is good."""
        slope, offset, *weight = self.config.calibration
        quality, words = scores
        return 1 / (1 + math.exp(-(slope * quality + sum(weight) * words + offset)))

    def _asked(self, question: str) -> AskedNames:
        """What the question asks for by name; raises `QuestionError` when it is too long to be read."""
        if len(question) > MAX_QUESTION:
            raise QuestionError(
                f"The question has {len(question)} characters; at most {MAX_QUESTION} are read."
            )
        return self._names.asked(question)

    def _reply(
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
        added = None if undrawn else measured(marked, findings, sizes, reference.modality, concept)
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


def _probed(chosen: range) -> list[int]:
    """The slices of `chosen` where the language model looks, each once."""
    return list(dict.fromkeys(chosen[min(len(chosen) - 1, int(p * len(chosen)))] for p in PROBES))


def _refuse(untrained: tuple[str, ...], on_text: Callable[[str], None] | None, began: float) -> Reply:
    """The reply when the model was trained for nothing of what is asked (or, if none is named, for no such picture); it is not
    consulted."""
    text = refusal_text(untrained) if untrained else FOREIGN_TEXT
    if on_text:
        on_text(text)
    total = 1e3 * (time.perf_counter() - began)
    latencies = {"text_ms": total, "masks_ms": 0.0, "total_ms": total}
    return Reply(text, (), latencies, untrained=untrained, foreign=not untrained)
