"""Questions about a stack of slices: the text comes from a few of them, its `[SEG]` states are decoded on every one.

`Predictor.ask_volume` calls this; nothing here looks at more than one slice at a time, except for grey range and specks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medsegr.answering import Answerer, History, refuse
from medsegr.errors import Cancelled, QuestionError
from medsegr.imaging import Volume, to_rgb, volume_intensity_range
from medsegr.imaging.components import remove_specks
from medsegr.model.context import Generated
from medsegr.model.tokens import phrases, plain
from medsegr.reply import Reply, findings_of
from medsegr.untrained import AskedNames

PROBES = (0.5, 0.35, 0.65, 0.2, 0.8)
"""Where in a stack, as a share of its depth, the language model looks."""


def ask_volume(
    answerer: Answerer,
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
    names = answerer.asked(question)
    if names.untrained and not names.trained:
        return refuse(names.untrained, on_text, began)
    scale = volume_intensity_range(volume)

    def rgb(k: int) -> NDArray[np.uint8]:
        return to_rgb(volume.slice_pixels(k), volume.modality, volume.body_part, scale)

    if answerer.all_foreign([answerer.prepare(rgb(k), answerer.scales[:1]) for k in _probed(chosen)]):
        return refuse((), on_text, began)
    generated = _probe(answerer, rgb, chosen, question, names, history, should_stop, max_new_tokens)
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
        prepared = answerer.prepare(pixels, answerer.scales[:1])
        planes, scores = answerer.decode(
            prepared, generated, (pixels.shape[0], pixels.shape[1]), None, need_presence=True
        )
        for i in range(n):
            if planes[i].any():
                volume.slice_mask_to_volume(k, planes[i], masks[i])
                qualities[i].append((int(planes[i].sum()), answerer.confidence(scores[i])))
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
    return answerer.reply(generated.text, findings, latencies, names, volume, on_text)


def _probe(
    answerer: Answerer,
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
    probes = [answerer.prepare(rgb(k), answerer.scales[:1]) for k in _probed(chosen)]
    limits = answerer.limits(probes, question, names)
    answers = [
        answerer.generate(probe, question, history, limits, None, should_stop, max_new_tokens)
        for probe in probes
    ]
    named = [frozenset(phrases(answer.text)) for answer in answers]
    votes = Counter(named)
    ranked = zip(named, answers, strict=True)
    return max(ranked, key=lambda a: (bool(a[0]), votes[a[0]], len(a[0]), a[1].score))[1]


def _probed(chosen: range) -> list[int]:
    """The slices of `chosen` where the language model looks, each once."""
    return list(dict.fromkeys(chosen[min(len(chosen) - 1, int(p * len(chosen)))] for p in PROBES))
