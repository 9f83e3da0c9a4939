"""Annotates a labelled folder with a language model: draws, asks in parallel, writes down each finished draw, goes on where
it stopped. The file appears when every draw is finished, in drawn order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.backend import Backend, Unavailable
from medsegr.qa.annotate.cases import Draw, draw_all, order_digest
from medsegr.qa.annotate.journal import (
    Files,
    append,
    read_meta,
    read_part,
    write_meta,
    write_rejected,
)
from medsegr.qa.annotate.prompts import PROMPT_VERSION
from medsegr.qa.annotate.wording import Wording
from medsegr.qa.annotate.writer import Outcome, Writer, require_regions
from medsegr.qa.facts import REGIONS, load_knowledge
from medsegr.qa.folders import read_labelled_sets
from medsegr.qa.reader import write_qa
from medsegr.qa.scenes import read_scenes, require_knowledge

GIVE_UP = 5  # draws in a row that the backend did not answer
Progress = Callable[[int, int], None]
_SAME = ("seed", "draws_sha256", "backend", "model", "prompt_version")


@dataclass(frozen=True)
class Summary:
    """What a finished run holds: draws, conversations kept, and rejected ones by step."""

    draws: int
    kept: int
    rejected: Mapping[str, int]


@dataclass
class _Run:
    """Draws under way. `held`: refused ones, which count as finished only once the backend has answered any other."""

    part: Path
    done: dict[int, Outcome]
    unanswered: int = 0
    in_a_row: int = 0
    why: MedSegRError | None = None
    held: list[Outcome] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether it makes no sense to ask any more."""
        return self.in_a_row >= GIVE_UP or (self.why is not None and not isinstance(self.why, Unavailable))

    def finish(self, outcome: Outcome) -> None:
        if outcome.refused and not any(not done.refused for done in self.done.values()):
            self.held.append(outcome)
            self.in_a_row += 1
            return
        self.in_a_row = 0
        for finished in (outcome, *self.held):
            append(self.part, finished)
            self.done[finished.index] = finished
        self.held.clear()

    def fail(self, error: MedSegRError) -> None:
        if isinstance(error, Unavailable):
            self.unanswered, self.in_a_row = self.unanswered + 1, self.in_a_row + 1
            self.why = self.why or error
        elif self.why is None or isinstance(self.why, Unavailable):
            self.why = error


def annotate_file(
    data_dir: Path,
    out: Path,
    backend: Backend,
    *,
    count: int,
    seed: int = 1,
    concurrency: int = 1,
    splits: Sequence[str] = ("train", "val"),
    licence: str = "any",
    extra_knowledge: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Annotate `count` (or all, if there are fewer) drawn targets of the images in `data_dir` and write `out`.

    Raises `MedSegRError` if `out` is there already, if the unfinished run beside it had other settings, or if some draws
    could not be finished: then `out` is not written, and the same call goes on where this one stopped.
    """
    if count < 1 or concurrency < 1:
        raise MedSegRError(f"Count is {count} and concurrency {concurrency}; expected at least 1 for both.")
    files, knowledge = Files(out), load_knowledge(extra_knowledge)
    sets = read_labelled_sets(data_dir, licence)
    require_knowledge(sets, knowledge)
    everything = draw_all(read_scenes(sets, splits, out.parent), seed)
    if not everything:
        raise MedSegRError(f"{data_dir} has no target in the splits {', '.join(splits)}; expected one.")
    require_regions(everything, REGIONS)
    meta = {
        **backend.provenance,
        "prompt_version": PROMPT_VERSION,
        "seed": seed,
        "draws_sha256": order_digest(everything),
    }
    _start(files, meta)
    draws = everything[:count]
    run = _Run(files.part, read_part(files.part))
    writer = Writer(backend, knowledge, Wording(knowledge, out.parent))
    _work(run, writer, [d for d in draws if d.index not in run.done], concurrency, len(draws), progress)
    finished = [run.done[d.index] for d in draws if d.index in run.done]
    write_rejected(files.rejected, (r for outcome in finished for r in outcome.rejected))
    if len(finished) < len(draws):
        raise _unfinished(run, finished, draws)
    return _conclude(files, meta, finished)


def _start(files: Files, meta: Mapping[str, Any]) -> None:
    """Begin a run, or make sure that the unfinished one is this one."""
    if files.part.exists():
        before = read_meta(files.meta)
        for key in _SAME:
            if before.get(key) != meta.get(key):
                raise MedSegRError(
                    f"{files.part} belongs to a run with {key} '{before.get(key)}', not '{meta.get(key)}'; "
                    "use the same settings, or remove it to begin again."
                )
    elif files.out.exists():
        raise MedSegRError(
            f"{files.out} exists and is finished; name another file, or remove it to begin again."
        )
    files.out.parent.mkdir(parents=True, exist_ok=True)
    write_meta(files.meta, {"status": "unfinished", **meta})
    files.part.touch()


def _work(
    run: _Run,
    writer: Writer,
    draws: Sequence[Draw],
    concurrency: int,
    total: int,
    progress: Progress | None,
) -> None:
    """Annotate the draws, `concurrency` at a time; what is under way when the run is given up is still written down."""
    start, before, waiting = total - len(draws), len(run.done), iter(draws)
    running: set[Future[Outcome]] = set()
    ended = False
    pool = ThreadPoolExecutor(concurrency)
    try:
        while True:
            while not run.over and not ended and len(running) < concurrency:
                draw = next(waiting, None)
                if draw is None:
                    ended = True
                else:
                    running.add(pool.submit(writer.annotate, draw))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            _settle(run, finished)
            if progress is not None:
                progress(start + len(run.done) - before, total)
    except BaseException:  # also a keyboard interrupt: end the waits between tries, then let it through
        writer.backend.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _settle(run: _Run, finished: Iterable[Future[Outcome]]) -> None:
    for future in finished:
        try:
            run.finish(future.result())
        except MedSegRError as error:
            run.fail(error)


def _unfinished(run: _Run, finished: Sequence[Outcome], draws: Sequence[Draw]) -> MedSegRError:
    refused = next((r.reason for outcome in run.held for r in outcome.rejected), None)
    why = str(run.why) if run.why else f"every request was refused: {refused}"
    return MedSegRError(
        f"{len(draws) - len(finished)} of {len(draws)} draws are unfinished ({why}); the others are kept in "
        f"{run.part}, run the same command again to go on."
    )


def _conclude(files: Files, meta: Mapping[str, Any], finished: Sequence[Outcome]) -> Summary:
    kept = write_qa(files.out, (c for outcome in finished for c in outcome.conversations))
    steps = Counter(r.step for outcome in finished for r in outcome.rejected)
    counts = {"draws": len(finished), "conversations": kept, "rejected": dict(sorted(steps.items()))}
    write_meta(files.meta, {"status": "finished", **meta, **counts})
    files.part.unlink()
    return Summary(len(finished), kept, counts["rejected"])  # type: ignore[arg-type]
