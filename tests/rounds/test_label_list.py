"""The label list: ids are given once."""

from __future__ import annotations

import pytest
from state_rows import Place

from medsegr.model.tokens import SPECIAL
from medsegr.rounds.audit import Audit
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.labels import LabelList

SHIPPED = ("liver", "spleen")


def test_new_names_go_on_from_those_that_ship(place: Place) -> None:
    labels = LabelList(place.open(), SHIPPED)
    entry = {"names": ["optic disc", "Papille"], "questions": ["Where does the nerve leave the eye?"]}
    assert labels.add(" optic disc ", entry, "ann") == 3 and labels.add("optic cup", {}, "bob") == 4
    again = LabelList(place.open(), SHIPPED)
    assert again.ids() == {"liver": 1, "spleen": 2, "optic disc": 3, "optic cup": 4}
    assert again.names() == ("liver", "spleen", "optic disc", "optic cup")
    disc = again.added()[0]
    assert (disc.id, disc.name, disc.editor) == (3, "optic disc", "ann")
    assert disc.knowledge == {**entry, "facts": []}
    assert [e.detail for e in Audit(again.database).entries()] == [{"id": 3}, {"id": 4}]


def test_a_known_name_keeps_its_id(database: Database) -> None:
    labels = LabelList(database, SHIPPED)
    assert labels.add("Liver", {}, "ann") == 1
    assert [labels.add(name, {}, "ann") for name in ("cup", "CUP", "cup ")] == [3, 3, 3]
    assert len(labels.added()) == 1


def test_ids_hold_when_later_weights_ship_more(place: Place) -> None:
    LabelList(place.open(), SHIPPED).add("cup", {}, "ann")
    later = LabelList(place.open(), ("liver", "spleen", "kidney", "lung", "Cup"))
    ids = later.ids()
    assert (ids["liver"], ids["spleen"], ids["cup"], ids["lung"]) == (1, 2, 3, 4)
    assert ids["kidney"] == 6 and len(set(ids.values())) == len(ids) == 5
    assert later.add("new", {}, "ann") == 7
    assert LabelList(place.open(), later.shipped).ids() == {**ids, "new": 7}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 65])
def test_names_must_be_printable(database: Database, name: str) -> None:
    with pytest.raises(StoreError, match="1 to 64 printable"):
        LabelList(database, SHIPPED).add(name, {}, "ann")


@pytest.mark.parametrize("name", [*SPECIAL, "mass [SEG]", "mass [seg]", "<P>mass"])
def test_names_hold_no_markup(database: Database, name: str) -> None:
    labels = LabelList(database, SHIPPED)
    with pytest.raises(StoreError, match="must not hold"):
        labels.add(name, {}, "ann")
    assert labels.added() == [] and labels.add("T2 < 5 [a] p", {}, "ann") == 3


@pytest.mark.parametrize(
    ("knowledge", "words"),
    [({"colour": ["red"]}, "`colour`"), ({"names": "cup"}, "`names`"), ({"facts": [""]}, "`facts`")],
)
def test_knowledge_must_have_its_form(database: Database, knowledge: dict[str, object], words: str) -> None:
    labels = LabelList(database, SHIPPED)
    with pytest.raises(StoreError, match=words):
        labels.add("cup", knowledge, "ann")
    assert labels.added() == []
