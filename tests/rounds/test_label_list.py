"""The label list: ids are given once."""

from __future__ import annotations

import pytest
from state_rows import Place

from medsegr.model.tokens import SPECIAL
from medsegr.rounds.audit import Audit
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.labels import LabelList, LabelTaken, UnknownLabel

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
    said = {"names": ["Papille"], "location": "", "questions": entry["questions"], "facts": []}
    assert disc.knowledge == said
    assert [e.detail for e in Audit(again.database).entries()] == [{"id": 3, "knowledge": said}, {"id": 4}]


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


WORDS = {"spleen": "spleen", "milt": "spleen", "optic disc": "optic disc", "optic nerve head": "optic disc"}


def test_what_is_said_of_a_label_may_change_and_nothing_is_lost(place: Place) -> None:
    labels = LabelList(place.open(), SHIPPED)
    iris = labels.teach(
        "iris", {"names": ["Regenbogenhaut"], "facts": ["It surrounds the pupil."]}, "ann", WORDS
    )
    assert (iris.id, iris.editor) == (3, "ann") and iris.knowledge["facts"] == ["surrounds the pupil"]
    told = labels.tell(3, {"location": "behind the cornea"}, "bob", WORDS)
    assert (told.id, told.editor) == (3, "ann")
    assert (told.knowledge["facts"], told.knowledge["location"]) == ([], "behind the cornea")
    assert LabelList(place.open(), SHIPPED).added() == [told]
    labels.tell(3, {"location": "behind the cornea"}, "bob", WORDS)  # the same: nothing has happened
    first, change = Audit(labels.database).entries()
    assert first.detail == {"id": 3, "knowledge": iris.knowledge}
    assert (change.editor, change.action, change.subject) == ("bob", "label_knowledge", "iris")
    assert change.detail == {"id": 3, "before": iris.knowledge, "knowledge": told.knowledge}
    assert Audit(labels.database).verify() is None


def test_a_label_that_a_round_added_without_a_word_can_be_taught(database: Database) -> None:
    labels = LabelList(database, SHIPPED)
    assert labels.add("Iris", {}, "server") == 3
    taught = labels.teach("iris", {"facts": ["surrounds the pupil"]}, "ann")
    assert (taught.id, taught.name) == (3, "Iris") and taught.knowledge["facts"]
    with pytest.raises(LabelTaken, match="label 3 already"):
        labels.teach("iris", {"facts": ["is coloured"]}, "bob")
    with pytest.raises(LabelTaken, match="label 1 already"):
        labels.teach("LIVER", {"facts": ["is large"]}, "bob")
    assert labels.added() == [taught]


@pytest.mark.parametrize(
    ("name", "names", "owner"),
    [
        ("Milt", [], "spleen"),
        ("optic nerve head", [], "optic disc"),
        ("lens", ["LIVER"], "liver"),
        ("lens", ["Regenbogenhaut"], "iris"),
        ("regenbogenhaut", [], "iris"),
        ("lens", ["Iris"], "iris"),
    ],
)
def test_a_word_means_one_structure(database: Database, name: str, names: list[str], owner: str) -> None:
    labels = LabelList(database, SHIPPED)
    labels.teach("iris", {"names": ["Regenbogenhaut"]}, "ann", WORDS)
    before = Audit(database).entries()
    with pytest.raises(LabelTaken, match=f"means `{owner}` already"):
        labels.teach(name, {"names": names}, "ann", WORDS)
    assert len(labels.added()) == 1 and Audit(database).entries() == before


def test_a_synonym_is_not_given_twice_later_either(database: Database) -> None:
    labels = LabelList(database, SHIPPED)
    labels.teach("iris", {"names": ["Regenbogenhaut"]}, "ann", WORDS)
    disc = labels.teach("optic disc", {"names": ["optic nerve head", "Papille"]}, "ann", WORDS)
    assert disc.knowledge["names"] == ["optic nerve head", "Papille"]  # its own in the knowledge base
    with pytest.raises(LabelTaken, match="means `iris`"):
        labels.tell(disc.id, {"names": ["regenbogenhaut"]}, "ann", WORDS)
    assert labels.tell(3, {"names": ["regenbogenhaut"]}, "ann", WORDS).knowledge["names"] == [
        "regenbogenhaut"
    ]
    for id_ in (99, 0, -1, 2**70):
        with pytest.raises(UnknownLabel):
            labels.tell(id_, {}, "ann")
    with pytest.raises(LabelTaken, match="ships with the model"):
        labels.tell(2, {"facts": ["stores blood"]}, "ann")


def test_the_list_does_not_grow_without_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsegr.rounds.labels.MAX_LABELS", 3)
    labels = LabelList(database, SHIPPED)
    labels.teach("iris", {}, "ann")
    with pytest.raises(LabelTaken, match="no more"):
        labels.teach("lens", {}, "ann")
