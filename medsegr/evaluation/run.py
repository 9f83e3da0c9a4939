"""`medsegr evaluate`: questions of MedSeg-QA files or labelled folders, answered freely, scored and written down; resumable."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import medsegr
from medsegr.errors import MedSegRError
from medsegr.evaluation.consistency import agreements, reword
from medsegr.evaluation.harness import Rewordings, answered
from medsegr.evaluation.journal import ROWS, Journal, claim
from medsegr.evaluation.overlap import Mask
from medsegr.evaluation.report import write_report
from medsegr.evaluation.scoring import Scored, Scorer
from medsegr.evaluation.summary import summarise
from medsegr.files import write_whole
from medsegr.predictor import Predictor
from medsegr.qa.ability_questions import ability_questions
from medsegr.qa.builder import evaluation_questions
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.qa.reader import read_qa
from medsegr.qa.schema import Conversation


@dataclass(frozen=True)
class EvaluateOptions:
    """`data` (a folder of labelled sets) or `qa` (MedSeg-QA files); `every` takes each n-th image of a set only; `paraphrases`
    puts each question about one structure in so many further wordings; `abilities` asks the questions of
    `medsegr.qa.ability_questions` about the folder instead."""

    out: Path
    data: Path | None = None
    qa: Path | tuple[Path, ...] = ()
    checkpoint: str = "embedded"
    split: str = "val"
    seed: int = 1
    every: int = 1
    threads: int = 0
    device: str = "cpu"
    scales: tuple[float, ...] = ()
    paraphrases: int = 0
    abilities: bool = False


def questions(options: EvaluateOptions) -> tuple[list[Conversation], Path]:
    """Conversations to be answered, grouped by image, and the folder their paths are relative to."""
    files = (options.qa,) if isinstance(options.qa, Path) else options.qa
    if bool(files) == (options.data is not None):
        raise MedSegRError("Give exactly one of --data and --qa.")
    if options.abilities and options.data is None:
        raise MedSegRError("--abilities asks about a folder of labelled sets; expected --data.")
    if options.every < 1 or options.paraphrases < 0:
        raise MedSegRError(
            f"every is {options.every} and paraphrases is {options.paraphrases}; expected 1 or more, and 0 or more."
        )
    if options.data is not None:
        fixed = ability_questions if options.abilities else evaluation_questions
        found = fixed(options.data, load_knowledge(), split=options.split, seed=options.seed)
        root = options.data.resolve()
    else:
        found, root = _read(files, options.split)
    if not found:
        named = options.data or ", ".join(map(str, files))
        raise MedSegRError(f"There is no question of split '{options.split}' in {named}.")
    images = sorted({(c.dataset, c.image) for c in found})
    kept: set[tuple[str, str]] = set()
    for name in {d for d, _ in images}:
        kept |= set([x for x in images if x[0] == name][:: options.every])
    chosen = (c for c in found if (c.dataset, c.image) in kept)
    return sorted(chosen, key=lambda c: (c.dataset, c.image, _slice_of(c), c.id)), root


def _slice_of(c: Conversation) -> tuple[int, int]:
    return (c.slice.axis, c.slice.index) if c.slice else (0, 0)


def _read(files: Sequence[Path], split: str) -> tuple[list[Conversation], Path]:
    """Conversations of several files that were not rejected, their paths made relative to the files' common folder."""
    root = Path(os.path.commonpath([f.resolve().parent for f in files]))
    found: dict[str, Conversation] = {}
    for file in files:
        folder = file.resolve().parent.relative_to(root)
        for c in read_qa(file):
            if c.split != split or c.review.status == "rejected":
                continue
            if c.id in found:
                raise MedSegRError(
                    f"{file}: id '{c.id}' is used in another of the files; expected unique ids."
                )
            found[c.id] = _moved(c, folder)
    return list(found.values()), root


def _moved(c: Conversation, folder: Path) -> Conversation:
    """The conversation with its paths below `folder`."""

    def below(path: str) -> str:
        return os.path.normpath(folder / path)

    turns = tuple(
        replace(turn, targets=tuple(replace(t, mask=below(t.mask)) for t in turn.targets)) for turn in c.turns
    )
    return replace(c, image=below(c.image), turns=turns)


def run(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluate and write `metrics.json`, `per_case.csv`, `report.html` and the drawn masks into `options.out`; returns the
    metrics.

    A run that was interrupted goes on where it stopped; a finished one is only reported again. Raises `MedSegRError` if the
    folder holds a run with other options, questions or weights.
    """
    conversations, root = questions(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    knowledge = load_knowledge()
    rewordings = _rewordings(conversations, knowledge, options)
    predictor = Predictor.from_pretrained(options.checkpoint, device=options.device)
    if options.scales:
        predictor.scales = options.scales
    claim(options.out, _identity(options, predictor, conversations, rewordings))
    journal = Journal(
        options.out / ROWS, [(c.id, len(c.turns) + len(rewordings.get(c.id, ()))) for c in conversations]
    )
    _answer(predictor, conversations, root, rewordings, Scorer(knowledge), journal, options.out)
    cases = journal.read()
    metrics = {
        "checkpoint": predictor.version,
        "split": options.split,
        "seed": options.seed,
        "abilities": options.abilities,
        **summarise(cases, agreements=agreements(cases, lambda name: read_mask(options.out / name))),
    }
    write_whole(options.out / "metrics.json", json.dumps(_finite(metrics), indent=1, allow_nan=False) + "\n")
    write_report(options.out / "report.html", metrics, cases, conversations, root)
    return metrics


def _answer(
    predictor: Predictor,
    conversations: Sequence[Conversation],
    root: Path,
    rewordings: Rewordings,
    scorer: Scorer,
    journal: Journal,
    out: Path,
) -> None:
    """Answer what is not in the journal yet; masks are written before the rows that name them."""
    (out / "masks").mkdir(exist_ok=True)
    done = journal.recover()
    columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    sizes = [len(c.turns) + len(rewordings.get(c.id, ())) for c in conversations]
    with Progress(*columns) as bar:
        task = bar.add_task("answering", total=sum(sizes), completed=sum(sizes[:done]))
        for scored in answered(predictor, conversations, root, scorer, done, rewordings):
            for s in scored:
                _write_mask(out, s)
            journal.append([s.case for s in scored])
            bar.advance(task, len(scored))


def _rewordings(
    conversations: Sequence[Conversation], knowledge: KnowledgeBase, options: EvaluateOptions
) -> dict[str, tuple[str, ...]]:
    if not options.paraphrases:
        return {}
    found = {c.id: reword(c, knowledge, options.paraphrases, options.seed) for c in conversations}
    return {identifier: wordings for identifier, wordings in found.items() if wordings}


def _identity(
    options: EvaluateOptions,
    predictor: Predictor,
    conversations: Sequence[Conversation],
    rewordings: Rewordings,
) -> dict[str, Any]:
    """What makes two runs the same run: everything that the figures depend on, and nothing about this machine's folders."""
    asked = hashlib.sha256()
    for c in conversations:
        asked.update(json.dumps([c.to_json(), list(rewordings.get(c.id, ()))], sort_keys=True).encode())
    weights = json.dumps(predictor.meta.get("sha256", {}), sort_keys=True) + repr(predictor.config)
    return {
        "medsegr": medsegr.__version__,
        "checkpoint": predictor.version,
        "weights": hashlib.sha256(weights.encode()).hexdigest(),
        "split": options.split,
        "seed": options.seed,
        "every": options.every,
        "paraphrases": options.paraphrases,
        "abilities": options.abilities,
        "scales": list(predictor.scales),
        "device": options.device,
        "questions": asked.hexdigest(),
    }


def _write_mask(out: Path, scored: Scored) -> None:
    if scored.case.mask:
        Image.fromarray(scored.mask).save(out / scored.case.mask, compress_level=3)


def read_mask(path: Path) -> Mask:
    """[H, W] bool: a mask that a run kept; raises `MedSegRError` if it is missing."""
    try:
        with Image.open(path) as image:
            return np.asarray(image, dtype=bool)
    except OSError as error:
        raise MedSegRError(
            f"The drawn mask {path} cannot be read ({error}); remove the run's folder and start anew."
        ) from error


def _finite(value: Any) -> Any:
    """The same plain values with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
