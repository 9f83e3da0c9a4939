"""What may be offered: never a judged, skipped, just-opened or unreadable image, whatever the strategy."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from medsegr.choosing import STRATEGIES, Chooser, ChoosingError, Look, NothingLeft
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, Origin, Verdict
from medsegr.rounds.store import NewTurn, TurnStore
from medsegr.rounds.tables import TurnRow

IMAGES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[TurnStore]:
    store = TurnStore(tmp_path)
    yield store
    store.dispose()


@pytest.fixture
def chooser(turns: TurnStore, tmp_path: Path) -> Chooser:
    return Chooser(turns.database, tmp_path, lambda: "v1", rng=random.Random(0))


def judge(turns: TurnStore, image: str, verdict: Verdict = Verdict.REJECTED) -> None:
    new = NewCorrection(image, "anna", verdict, Origin.PANEL, (), (2, 2), {"shape": [2, 2]})
    CorrectionStore(turns.database).add(new)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_was_judged_skipped_opened_asked_about_or_is_unreadable_is_not_offered(
    chooser: Chooser, turns: TurnStore, strategy: str
) -> None:
    for image in IMAGES:
        chooser.looks.add(Look(image, "v1", (("liver", 0.9),), 1.0, trouble="broken" if image == "d" else ""))
    judge(turns, "a")
    chooser.skips.set("b", "anna")
    turns.add(NewTurn("c", "Where?", editor="ben"))
    assert chooser.next(IMAGES, strategy).image == "e"
    with pytest.raises(NothingLeft, match="opened within the last 30 minutes"):
        chooser.next(IMAGES, strategy)


def test_every_image_is_offered_once(chooser: Chooser) -> None:
    assert sorted(chooser.next(IMAGES).image for _ in IMAGES) == IMAGES


def test_two_readers_at_once_get_different_images(chooser: Chooser) -> None:
    found: list[str] = []
    readers = [threading.Thread(target=lambda: found.append(chooser.next(IMAGES).image)) for _ in IMAGES]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(found) == IMAGES


def test_a_question_of_yesterday_keeps_nobody_away(chooser: Chooser, turns: TurnStore) -> None:
    turn = turns.add(NewTurn("a", "Where?"))
    with pytest.raises(NothingLeft):
        chooser.next(["a"])
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="microseconds")
    with turns.database.session() as session, session.begin():
        session.execute(update(TurnRow).where(TurnRow.id == turn).values(created=yesterday))
    assert chooser.next(["a"]).image == "a"


def test_the_reason_why_nothing_is_left(chooser: Chooser, turns: TurnStore) -> None:
    with pytest.raises(NothingLeft, match="Every image has a label"):
        chooser.next([])
    judge(turns, "a", Verdict.ACCEPTED)
    with pytest.raises(NothingLeft, match="All 1 images without a label were judged or skipped"):
        chooser.next(["a"])
    chooser.looks.add(Look("b", "v1", trouble="broken"))
    with pytest.raises(NothingLeft, match="None of the 1 images that are left can be read"):
        chooser.next(["a", "b"])


def test_an_unknown_strategy_is_refused(chooser: Chooser) -> None:
    with pytest.raises(ChoosingError, match="known are random, foreground, entropy, disagreement, mixture"):
        chooser.next(IMAGES, "best")


def test_the_looks_of_the_model_in_charge_decide(turns: TurnStore, tmp_path: Path) -> None:
    version = ["v1"]
    chooser = Chooser(turns.database, tmp_path, lambda: version[0], minutes=0)
    for image in IMAGES:
        chooser.looks.add(Look(image, "v1", entropy=float(image == "b")))
    assert chooser.next(IMAGES, "entropy").image == "b"
    for image in IMAGES:
        chooser.looks.add(Look(image, "v2", entropy=float(image == "d")))
    version[0] = "v2"
    assert chooser.next(IMAGES, "entropy").image == "d"


def test_labelled_and_opened_images_are_what_a_choice_should_differ_from(chooser: Chooser) -> None:
    near, far = (1.0, 0.0), (0.0, 1.0)
    for image, where in zip(["a", "b", "labelled"], [near, far, near], strict=True):
        chooser.looks.add(Look(image, "v1", (("liver", 0.9),), 1.0, embedding=where))
    assert chooser.next(["a", "b"]).image == "b"


def test_what_the_model_should_look_at(chooser: Chooser, turns: TurnStore) -> None:
    judge(turns, "a")
    chooser.looks.add(Look("b", "v1"))
    assert chooser.wanted(IMAGES, 3) == ["c", "d"]
    assert chooser.wanted(IMAGES, 1) == []
