"""What a round knows of structures: the knowledge base, what the champion was told, what clinicians say now."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegr.qa.facts import KnowledgeBase, plain_concept, write_site_concepts
from medsegr.rounds import runner
from medsegr.rounds.database import Database
from medsegr.rounds.labels import LabelList


def test_what_clinicians_say_now_goes_before_what_the_champion_was_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = KnowledgeBase({"optic disc": plain_concept("optic disc", ["nerve head"], "in the retina")})
    monkeypatch.setattr(runner, "load_knowledge", lambda: base)
    write_site_concepts(
        tmp_path, [plain_concept("iris", ["old word"], "somewhere"), plain_concept("lens", [], "inside")]
    )
    labels = LabelList(database, ("liver",))
    labels.teach("iris", {"names": ["Regenbogenhaut"], "facts": ["surrounds the pupil"]}, "ann")
    labels.add("lens", {}, "server")
    labels.add("drusen", {}, "server")
    labels.teach("optic disc", {"names": ["Papille"], "location": "elsewhere"}, "ann")
    known = runner.known_concepts(database, tmp_path)
    assert (known["iris"].synonyms, known["iris"].location) == (("Regenbogenhaut",), "")
    assert [fact.text for fact in known["iris"].training_facts] == ["surrounds the pupil"]
    assert known["lens"].location == "inside" and known["drusen"].synonyms == ()
    disc = known["optic disc"]
    assert (disc.synonyms, disc.location) == (("nerve head", "Papille"), "in the retina")
