"""Looking ahead: only while the model is idle, one image at a time, every image once, and never at the cost of a question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medsegr.choosing import Chooser, Look
from medsegr.rounds.store import TurnStore
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile
from medsegr.web.jobs import Event, EventKind, Job
from medsegr.web.lookahead import Lookahead, LookOptionError, Pace, pace_of

IMAGES = ["a", "b", "c"]


class PretendedWorker:
    """An idle worker whose looks end as `endings` says (path -> kind of error); else they are done."""

    def __init__(self) -> None:
        self.idle_s = 100.0
        self.free = True
        self.endings: dict[str, str] = {}
        self.looked: list[str] = []

    def look(self, job: Job, listener: Callable[[Event], None]) -> bool:
        if not self.free:
            return False
        self.looked.append(job.image)
        kind = self.endings.get(job.image)
        if kind:
            listener(Event(EventKind.ERROR, {"kind": kind, "sentence": "It is broken."}))
        else:
            listener(Event(EventKind.STARTED))
            listener(Event(EventKind.DONE, {"look": Look("", "v1", entropy=1.0).to_json()}))
        return True


@pytest.fixture
def chooser(tmp_path: Path) -> Iterator[Chooser]:
    store = TurnStore(tmp_path)
    yield Chooser(store.database, tmp_path, lambda: "v1")
    store.dispose()


def ahead(worker: PretendedWorker, chooser: Chooser, pace: Pace | None = None, **more: Any) -> Lookahead:
    find = more.get("find", lambda image: ImageFile(image, Path("/studies") / image))
    return Lookahead(worker, chooser, lambda: IMAGES, find, pace)


def test_every_image_is_looked_at_once(chooser: Chooser) -> None:
    worker = PretendedWorker()
    looks = ahead(worker, chooser)
    assert [looks.step() for _ in range(5)] == [True, True, True, False, False]
    assert sorted(worker.looked) == ["/studies/a", "/studies/b", "/studies/c"]
    assert {i: look.entropy for i, look in chooser.looks.looks("v1").items()} == dict.fromkeys(IMAGES, 1.0)
    assert all(image == look.image for image, look in chooser.looks.looks("v1").items())


def test_a_model_that_is_not_idle_or_not_there_looks_at_nothing(chooser: Chooser) -> None:
    worker = PretendedWorker()
    looks = ahead(worker, chooser, Pace(quiet_s=5.0))
    worker.idle_s = 4.9
    assert not looks.step()
    worker.idle_s = 6.0
    chooser.version = lambda: None
    assert not looks.step() and worker.looked == []


def test_a_look_that_was_put_off_is_tried_again(chooser: Chooser) -> None:
    worker = PretendedWorker()
    looks = ahead(worker, chooser, Pace(most=1))
    worker.free = False
    looks.step()
    worker.free = True
    first = f"/studies/{chooser.wanted(sorted(IMAGES, key=_order), 1)[0]}"
    worker.endings = {first: "Cancelled"}
    looks.step()
    worker.endings = {}
    looks.step()
    assert worker.looked == [first, first] and len(chooser.looks.looks("v1")) == 1
    assert not looks.step(), "one image was asked for"


def _order(image: str) -> bytes:
    import hashlib

    return hashlib.sha256(image.encode()).digest()


def test_an_image_that_cannot_be_read_is_not_tried_again(chooser: Chooser) -> None:
    worker = PretendedWorker()
    worker.endings = {f"/studies/{image}": "ImageError" for image in IMAGES}
    looks = ahead(worker, chooser)
    for _ in range(6):
        looks.step()
    assert len(worker.looked) == 3
    assert {look.trouble for look in chooser.looks.looks("v1").values()} == {"It is broken."}


def test_an_image_that_ends_the_process_gets_a_second_chance_and_no_third(chooser: Chooser) -> None:
    worker = PretendedWorker()
    worker.endings = {f"/studies/{image}": "died" for image in IMAGES}
    looks = ahead(worker, chooser)
    for _ in range(10):
        looks.step()
    assert sorted(worker.looked) == sorted(f"/studies/{image}" for image in IMAGES * 2)


def test_an_archive_that_is_away_is_not_the_images_fault(chooser: Chooser) -> None:
    def find(image: str) -> ImageFile:
        raise Refusal(502 if away else 404, "Gone.")

    away = True
    looks = ahead(PretendedWorker(), chooser, find=find)
    with pytest.raises(Refusal):
        looks.step()
    assert chooser.looks.looks("v1") == {}
    away = False
    assert looks.step() and len(chooser.looks.looks("v1")) == 1


def test_files_are_held_while_they_are_looked_at(chooser: Chooser) -> None:
    held: list[str] = []

    def hold() -> Callable[[], None]:
        held.append("held")
        return lambda: held.append("released")

    worker = PretendedWorker()
    looks = ahead(worker, chooser, find=lambda image: ImageFile(image, Path("/x"), hold=hold))
    looks.step()
    assert held == ["held", "released"]


def test_the_thread_works_through_the_list_and_survives_a_failure(chooser: Chooser) -> None:
    worker = PretendedWorker()
    looks = ahead(worker, chooser, Pace(quiet_s=0.0, pause_s=0.01))
    looks.start()
    end = time.monotonic() + 30
    while len(chooser.looks.looks("v1")) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    looks.close()
    assert len(chooser.looks.looks("v1")) == 3
    off = ahead(worker, chooser, Pace(most=0))
    off.start()
    assert off._thread is None
    off.close()


def test_the_option_is_a_number(chooser: Chooser) -> None:
    assert (pace_of({}, local=True).most, pace_of({}, local=False).most) == (200, 20)
    assert pace_of({"looks": " 0 "}, local=True).most == 0
    for text in ("many", "-1", "1.5", ""):
        with pytest.raises(LookOptionError, match="0 to 999999"):
            pace_of({"looks": text}, local=True)
