"""Make a challenger: champion + corrections + replay -> a checkpoint directory. One process, or several under `torchrun`, whose
first writes what comes out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medsegr.familiar import FILE, load_familiarity, summary
from medsegr.model.checkpoint import load_checkpoint, read_meta, save_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.qa.facts import Concept, load_knowledge, write_site_concepts
from medsegr.rounds.denials import with_denials
from medsegr.rounds.examples import SITE, Drawn, concept_of, named_again, training_case
from medsegr.rounds.features import FeatureCase, encode
from medsegr.rounds.finetune import FinetuneOptions, finetune
from medsegr.rounds.phantoms import phantom_slices
from medsegr.rounds.replay import distilled, read_replay
from medsegr.rounds.version_files import remove
from medsegr.training.start import question_encoder, with_targets

MAX_REASONS = 40
TRAINING_SHARE = 0.7
NAMED_AGAIN = 2
"""Further questions by name about each structure of a picture that ships to be remembered."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ChallengerOptions:
    """`variants` of each picture are encoded (one as it is, the others warped and re-lit); `replay` mixes in what must not be
    forgotten, with slices of so many `phantoms`; `distil` keeps what the champion sees beside the corrected structures."""

    variants: int = 4
    replay: bool = True
    phantoms: int = 2
    distil: bool = True
    seed: int = 1
    device: str = "cpu"
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> ChallengerOptions:
        """From a round's plain options; unknown names are passed over, since the round's own are among them. Training may take
        `TRAINING_SHARE` of `max_minutes`, the rest is for reading and judging."""
        inner = {
            k: v for k, v in options.items() if k in FinetuneOptions.__dataclass_fields__ and k != "loss"
        }
        outer = {k: v for k, v in options.items() if k in cls.__dataclass_fields__ and k != "finetune"}
        if "max_minutes" in options:
            usual = inner.get("minutes", FinetuneOptions.minutes)
            inner["minutes"] = min(usual or math.inf, TRAINING_SHARE * float(options["max_minutes"]))
        if outer.get("device") == "auto":
            outer["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(**outer, finetune=FinetuneOptions(**inner))


def make_challenger(
    champion: Path,
    drawn: Sequence[Drawn],
    concepts: Mapping[str, Concept],
    out: Path,
    options: ChallengerOptions,
    report: Report | None = None,
    on_losses: Callable[[int, dict[str, float]], None] | None = None,
    write: bool = True,
    fresh: Collection[str] = (),
) -> int:
    """Train and write `out` (not written by the other processes of a group); returns the number of steps. `fresh` are the
    structures that have new corrections; those of earlier rounds are drawn less often. `report` hears
    (phase, done, total) and may raise to end the round."""
    told = report or (lambda phase, done, total: None)
    torch.manual_seed(options.seed)  # what begins fresh begins alike in every process
    checkpoint = load_checkpoint(champion, options.device)
    model = checkpoint.model
    known = model.config.targets
    told("reading the pictures", 0, len(drawn))
    corrected = _features(model, drawn, concepts, options, told)
    new = [name for name in dict.fromkeys(n for one in drawn for n in one.masks) if name not in known]
    if new:
        model.context.merge_lora()
        reasons = dict(model.context.reasons)
        model = with_targets(model, (*known, *new)).to(options.device).eval()
        model.context.reasons = reasons
    _add_reasons(model, {name: concept_of(name, concepts) for one in drawn for name in one.masks})
    replay = _replay(champion, model, concepts, known, options) if options.replay else []
    encoder = question_encoder(model.config)

    def step(done: int, total: int, losses: dict[str, float]) -> None:
        told("training", done, total)
        if on_losses:
            on_losses(done, losses)

    kept = out.with_suffix(".state")
    steps = finetune(model, encoder, corrected, replay, options.finetune, len(known), step, kept, fresh)
    if write:
        shipped = load_knowledge().concepts
        taught = dict.fromkeys(n for one in drawn for n in one.masks)
        told_of = [concept_of(n, concepts) for n in taught if n not in shipped]
        _write(model, champion, out, told_of, corrected)
    return steps


def _replay(
    champion: Path,
    model: MedSegR,
    concepts: Mapping[str, Concept],
    known: Sequence[str],
    options: ChallengerOptions,
) -> list[FeatureCase]:
    """What ships to be remembered, with questions about everything that it shows and about what it lacks, and slices of
    phantoms of the same size."""
    found = []
    for feature in read_replay(champion)["replay"]:
        case = named_again(feature.case, concepts, NAMED_AGAIN, options.seed)
        found.append(replace(feature, case=case))
    side = found[0].labels.shape[0] if found else model.config.image_size
    found += phantom_slices(model, concepts, options.phantoms, side, options.seed)
    return [replace(f, case=with_denials(f.case, concepts, known, options.seed)) for f in found]


def _features(
    model: MedSegR,
    drawn: Sequence[Drawn],
    concepts: Mapping[str, Concept],
    options: ChallengerOptions,
    told: Report,
) -> list[FeatureCase]:
    """Encoded variants of every picture, with what the champion sees in it beside what was corrected."""
    found: list[FeatureCase] = []
    for n, one in enumerate(drawn):
        trunk = None
        if options.distil:
            side = model.config.image_size
            bare = training_case(replace(one, masks={}), concepts, side, options.seed)
            plain = encode(model, [bare], 1, options.seed)[0]
            seen = distilled(model, plain, one.masks)
            one = replace(one, masks={**one.masks, **{k: _back(v, one) for k, v in seen.items()}})
            trunk = plain.trunk
        case = training_case(one, concepts, model.config.image_size, options.seed)
        case = with_denials(case, concepts, model.config.targets, options.seed)
        found += encode(model, [case], options.variants, options.seed + n, trunk)
        told("reading the pictures", n + 1, len(drawn))
    return [f for f in found if f.case.conversations]


def _back(mask: np.ndarray[Any, np.dtype[np.bool_]], one: Drawn) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A mask [S, S] on the picture's own grid."""
    h, w = one.rgb.shape[:2]
    rows = (np.arange(h) * mask.shape[0]) // h
    columns = (np.arange(w) * mask.shape[1]) // w
    moved: np.ndarray[Any, np.dtype[np.bool_]] = mask[rows][:, columns]
    return moved


def _add_reasons(model: MedSegR, concepts: Mapping[str, Concept]) -> None:
    """What may be said of the corrected structures, where the model has no sentences of its own."""
    for name, concept in concepts.items():
        if name in model.context.reasons and not any(f".{SITE}." in fact.id for fact in concept.facts):
            continue
        said = [f"{fact.text}." for fact in concept.training_facts if not fact.only_asked][:MAX_REASONS]
        if concept.location:
            said.append(f"{'lie' if concept.plural else 'lies'} {concept.location}.")
        if said:
            model.context.reasons[name] = tuple(sorted(said))


def _write(
    model: MedSegR, champion: Path, out: Path, new: Sequence[Concept], corrected: Sequence[FeatureCase]
) -> None:
    """The champion's directory with the new weights in it; files that a round does not change are the same. Pictures like those
    that were corrected are familiar from now on."""
    if out.exists():  # left by a run that was killed, perhaps while it was made read-only
        remove(out)
    shutil.copytree(champion, out, ignore=shutil.ignore_patterns("*.safetensors", "adapter"))
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    meta = read_meta(champion)
    recorded = meta.pop("sha256")
    card = (champion / "card.md").read_text(encoding="utf-8")
    if new:
        write_site_concepts(out, new)
    save_checkpoint(model, out, meta, card)
    rule = load_familiarity(champion, recorded.get(FILE))
    if rule and corrected:
        plain = {f.case.image: f for f in reversed(corrected)}  # the first variant is the picture as it is
        rule = rule.widened(torch.cat([summary(f.trunk) for f in plain.values()]))
    if rule:
        rule.save(out)
