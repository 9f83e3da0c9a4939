"""A site without a server: the same stores and rounds, in this process."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.choosing.choice import Field
from medsegr.choosing.look import Look
from medsegr.choosing.looking import look
from medsegr.choosing.strategies import STRATEGIES
from medsegr.evaluation.metrics import dice
from medsegr.predictor import Predictor
from medsegr.rounds.capture import capture
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, Origin, Verdict
from medsegr.rounds.labels import LabelList
from medsegr.rounds.patients import PatientKeys
from medsegr.rounds.prequential import prequential
from medsegr.rounds.registry import Registry
from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.scores import Scores
from medsegr.rounds.store import NewTurn, TurnStore
from medsegr.web.correcting import pack
from medsegr.web.masks import Geometry

from .clinicians import Clinicians, Masks, findings_to_send
from .site import Corrected, RoundResult
from .streams import Item
from .wording import knowledge, question


class LocalSite:
    """The stores of the folder `state`, and rounds with `options`; see `Site`. `patients`: image -> patient."""

    def __init__(
        self,
        state: Path,
        checkpoint: Path,
        options: Mapping[str, Any],
        patients: Mapping[str, str],
        device: str = "cpu",
        seed: int = 1,
    ) -> None:
        self.state, self.checkpoint, self.options = state, checkpoint, dict(options)
        self.patients, self.device = patients, device
        self.turns = TurnStore(state)
        database = self.turns.database
        self.corrections, self.cases = CorrectionStore(database), CaseStore(database)
        self.scores, self.log, self.keys = Scores(database), RoundLog(database), PatientKeys(state)
        self.registry = Registry(database, checkpoint)
        self.labels = LabelList(database, self.registry.base.targets)
        self._rng = random.Random(seed)
        self._loaded: tuple[Path, Predictor] | None = None
        self._looks: dict[tuple[str, str], Look] = {}
        self._corrected: list[str] = []

    def predictor(self) -> Predictor:
        """Of the version in charge."""
        _, directory = self.in_charge()
        if self._loaded is None or self._loaded[0] != directory:
            self._loaded = directory, Predictor.from_pretrained(directory, self.device)
        return self._loaded[1]

    def in_charge(self) -> tuple[str, Path]:
        """See `Site`."""
        version = self.registry.current()
        return version.name, version.directory

    def choose(self, items: Sequence[Item], strategy: str) -> Item:
        """See `Site`; "order" takes them as they come. Images are looked at once per version."""
        if strategy == "order":
            return items[0]
        version, _ = self.in_charge()
        known = {item.name: item for item in items}
        if strategy != "random":
            for name, item in known.items():
                if (version, name) not in self._looks:
                    self._looks[version, name] = look(self.predictor(), item.picture(), name)
        looks = {name: found for (of, name), found in self._looks.items() if of == version}
        return known[STRATEGIES[strategy](Field(list(known), looks, self._corrected, self._rng)).image]

    def correct(self, item: Item, clinicians: Clinicians) -> Corrected:
        """See `Site`."""
        names = clinicians.names(item)
        text = question(names, item.name)
        predictor, picture = self.predictor(), item.picture()
        predictor.set_image(picture)
        reply = predictor.ask(text)
        geometry = Geometry.of(picture)
        found = [{"n": n, "label": f.label} for n, f in enumerate(reply.findings, start=1)]
        sent = clinicians.correct(item, names)
        turn = self.turns.add(NewTurn(item.name, text, editor=sent.editor))
        self.turns.start(turn)
        self.turns.finish(
            turn,
            answer=reply.text,
            findings=found,
            model_version=predictor.version,
            latencies=reply.latencies_ms,
            masks=[np.packbits(f.mask).tobytes() for f in reply.findings],
            shape=geometry.shape,
            geometry=geometry.to_json(),
        )
        findings = findings_to_send([f.label for f in reply.findings], sent)
        for _, label, _ in findings:
            if label not in self.labels.names():
                self.labels.add(label, knowledge(label), sent.editor)
        stored = self.corrections.add(
            NewCorrection(
                image_id=item.name,
                editor=sent.editor,
                verdict=Verdict.EDITED,
                origin=Origin.PANEL,
                findings=tuple(pack(n, label, mask) for n, label, mask in findings),
                shape=geometry.shape,
                geometry=geometry.to_json(),
                turn_id=turn,
                model_version=predictor.version,
            )
        )
        masks = [mask for _, _, mask in findings]
        key, kind = self.keys.of(item.name, None, self.patients)
        stratum = item.modality
        self.cases.add(stored.id, key, kind, stratum, item.modality, capture(picture, masks))
        scores = prequential(stored, found, [f.mask for f in reply.findings], masks)
        for label, value in scores.items():
            self.scores.add(stored.id, label, value, predictor.version)
        self._corrected.append(item.name)
        answered = union_by_label([(f.label, f.mask) for f in reply.findings])
        return corrected(item, text, sent.editor, sent.flaw, sent.masks, answered)

    def run_round(self) -> RoundResult:
        """See `Site`."""
        from medsegr.rounds.runner import run_round

        champion = self.registry.current().name
        queued = self.log.create("hand", "simulation", self.options, champion)
        began = time.monotonic()
        status = run_round(self.state, queued.id, self.checkpoint)
        seconds = time.monotonic() - began
        ended = self.log.get(queued.id)
        sentence = str(ended.error or ended.decision.get("sentence") or "")
        version, _ = self.in_charge()
        return RoundResult(
            queued.id, status.value, sentence, seconds, version, ended.challenger, ended.decision
        )

    def close(self) -> None:
        """See `Site`."""
        self._loaded = None
        self.turns.dispose()


def union_by_label(findings: Sequence[tuple[str, Any]]) -> Masks:
    """Findings of one label together."""
    found: Masks = {}
    for label, mask in findings:
        found[label] = found[label] | mask if label in found else mask.copy()
    return found


def corrected(item: Item, text: str, editor: str, flaw: str, sent: Masks, answered: Masks) -> Corrected:
    """What is recorded of a correction; a structure that was not outlined scores as an empty mask."""
    truth = item.masks()

    def against(masks: Masks) -> dict[str, float]:
        nothing = next(iter(sent.values())) & False
        return {name: float(dice(answered.get(name, nothing), masks[name])) for name in sent}

    return Corrected(item.name, editor, flaw, text, against(sent), against(truth))
