"""The public API, after SAM's `SamPredictor`: `set_image` once, then `ask` as often as you like; `ask_volume` for a stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsegr.answering import CACHE_BYTES, SCALES, Answerer, History, Prepared, refuse
from medsegr.errors import CheckpointError, ImageError, QuestionError
from medsegr.imaging import Picture, Volume, read_image, to_rgb
from medsegr.model.checkpoint import Checkpoint, load_checkpoint
from medsegr.model.large.adapter import LargeCheckpoint, is_large, load_large
from medsegr.model.question import SentenceEncoder, find_sentence_encoder
from medsegr.prompts import clicks_in_square, pixels_inside
from medsegr.reply import Finding, Outcome, Reply, findings_of
from medsegr.volumes import ask_volume

__all__ = ["Finding", "Outcome", "Predictor", "Reply"]
LARGE_CACHE_BYTES = 4 * 2**30  # a large preset keeps up to 0.3 GiB for an image that was asked about
MAX_SENTENCES = 1000
"""Questions whose states are kept."""


class Predictor(Answerer):
    """Answers questions about one image at a time. Not thread-safe: one caller, or one lock around it."""

    def __init__(
        self,
        checkpoint: Checkpoint | LargeCheckpoint,
        sentences: SentenceEncoder | None,
        device: str = "cpu",
        scales: Sequence[float] = SCALES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(checkpoint, sentences, device, scales, cache_bytes)
        self._current: tuple[Prepared, Picture] | None = None

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
        self._current = (self.prepare(rgb, self.scales), image)

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
        names = self.asked(question)
        if names.untrained and not names.trained:
            return refuse(names.untrained, on_text, began)
        if self.foreign:
            return refuse((), on_text, began)
        generated = self.generate(
            prepared,
            question,
            history,
            self.limits([prepared], question, names),
            on_text,
            should_stop,
            max_new_tokens,
        )
        answered = time.perf_counter()
        masks, scores = self.decode(prepared, generated, size, click)
        if inside is not None:
            masks &= inside
        findings = findings_of(generated.text, masks, [self.confidence(s) for s in scores], scores)
        done = time.perf_counter()
        latencies = {
            "text_ms": 1e3 * (answered - began),
            "masks_ms": 1e3 * (done - answered),
            "total_ms": 1e3 * (done - began),
        }
        return self.reply(generated.text, findings, latencies, names, picture, on_text)

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
        return ask_volume(
            self,
            volume,
            question,
            history,
            slices=slices,
            on_text=on_text,
            on_progress=on_progress,
            should_stop=should_stop,
            max_new_tokens=max_new_tokens,
        )

    @property
    def foreign(self) -> bool:
        """Whether the picture of `set_image` looks like nothing that the checkpoint was trained on; False if it cannot tell."""
        return self._current is not None and self.all_foreign([self._current[0]])
