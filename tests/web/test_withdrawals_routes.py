"""Taking back over HTTP, for administrators: corrections of an editor, single ones, patients; one sentence for every refusal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from learning_server import LearningServer
from sqlalchemy import update

from medsegr.rounds.audit import Audit
from medsegr.rounds.corrections import CorrectionStore
from medsegr.rounds.database import now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.patients import PatientKeys
from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.tables import CorrectionRow, RoundStatus, VersionRow
from medsegr.web.login.identity import User

sys.path.insert(0, str(Path(__file__).parents[1] / "rounds"))
from state_rows import answered, block, case  # noqa: E402

CHIEF = User("chief", admin=True)
PATIENT = "MRN-0815"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LearningServer]:
    made = LearningServer(tmp_path)
    made.user = CHIEF
    yield made
    made.close()


def trained(server: LearningServer, number: int, ids: list[str], parent: str = "base-1") -> str:
    """A version that a round made of these corrections."""
    log = RoundLog(server.database)
    made = log.start(log.create("hand", "ann").id)
    log.freeze(made.id, {"train": ids, "val": []})
    log.finish(made.id, RoundStatus.ADOPTED, {"adopted": True}, f"v{number}")
    with server.database.writing() as session:
        session.add(VersionRow(name=f"v{number}", parent=parent, round_id=made.id, created=now(),
                               directory=f"v{number}", sha256="0" * 64, meta={}))  # fmt: skip
    return f"v{number}"


def keyed(server: LearningServer, patient: str | None, image: str = "img") -> str:
    """A case of a patient whom DICOM names so, or of an image that is a patient of its own."""
    return case(server.database, PatientKeys(server.database.folder).of(image, patient)[0], image)


def dated(server: LearningServer, id_: str, created: str) -> str:
    with server.database.writing() as session:
        session.execute(update(CorrectionRow).where(CorrectionRow.id == id_).values(created=created))
    return id_


def test_single_corrections_are_withdrawn_and_their_versions_named(server: LearningServer) -> None:
    ids = [case(server.database, "p1") for _ in range(3)]
    trained(server, 1, ids[:1])
    trained(server, 2, ids[2:], "v1")
    reply = server.client.post("/medsegr/withdrawals", json={"corrections": ids[:2], "why": "Wrong side."})
    assert reply.status_code == 201
    assert reply.json() == {"corrections": ids[:2], "versions": ["v1", "v2"], "rounds": []}
    found = server.client.get("/medsegr/withdrawals").json()
    assert {(w["correction"], w["of_editor"], w["editor"], w["why"]) for w in found} == {
        (id_, "ann", "chief", "Wrong side.") for id_ in ids[:2]
    }
    assert {w["correction"]: w["versions"] for w in found} == {ids[0]: ["v1", "v2"], ids[1]: []}
    assert len(server.client.get("/medsegr/withdrawals?limit=1").json()) == 1
    assert [(e.editor, e.action, e.subject) for e in Audit(server.database).entries()][-2:] == [
        ("chief", "withdraw", id_) for id_ in ids[:2]
    ]


def test_an_editors_corrections_since_a_day_are_withdrawn(server: LearningServer) -> None:
    days = (
        "2026-03-01T22:59:59.000000+00:00",
        "2026-03-01T23:00:00.000000+00:00",
        "2026-03-05T00:00:00.000000+00:00",
    )
    ids = [dated(server, case(server.database, "p1", editor="bad"), day) for day in days]
    kept = case(server.database, "p1", editor="ann")
    for since, expected in (
        ("2026-03-06", []),
        ("2026-03-02", ids[2:]),
        ("2026-03-02T00:00:00+01:00", ids[1:]),
        (None, ids),
    ):
        body = {"editor": "bad", "why": "Random masks."} | ({"since": since} if since else {})
        reply = server.client.post("/medsegr/withdrawals", json=body)
        assert reply.status_code == 201 and reply.json()["corrections"] == expected, since
    assert kept not in {w["correction"] for w in server.client.get("/medsegr/withdrawals").json()}
    entry = Audit(server.database).entries()[-2]
    assert (entry.action, entry.subject) == ("withdraw_editor", "bad")
    assert entry.detail["since"] == "2026-03-01T23:00:00.000000+00:00"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"corrections": ["0" * 32]}, 422, "`why`"),
        ({"corrections": ["0" * 32], "why": " "}, 422, "`why`"),
        ({"corrections": ["0" * 32], "why": "x" * 501}, 422, "`why`"),
        ({"why": "?"}, 422, "one of both"),
        ({"why": "?", "editor": "ann", "corrections": ["0" * 32]}, 422, "one of both"),
        ({"why": "?", "corrections": ["../x"]}, 422, "32 hexadecimal"),
        ({"why": "?", "corrections": ["0" * 32]}, 404, "No correction"),
        ({"why": "?", "corrections": ["0" * 32], "since": "2026-01-01"}, 422, "`since`"),
        ({"why": "?", "editor": "ann", "since": "yesterday"}, 422, "`since`"),
        ({"why": "?", "editor": "ann", "since": 5}, 422, "`since`"),
        ({"why": "?", "editor": "ann\0"}, 422, "A name"),
        ({"why": "?", "editor": "ann", "all": True}, 422, "`all`"),
    ],
)
def test_withdrawals_are_checked(
    server: LearningServer, body: dict[str, Any], status: int, words: str
) -> None:
    known = case(server.database, "p1")
    if status == 404:
        body = {**body, "corrections": [known, *body["corrections"]]}
    before = len(Audit(server.database).entries())
    reply = server.client.post("/medsegr/withdrawals", json=body)
    assert (reply.status_code, set(reply.json())) == (status, {"detail"}) and words in reply.json()["detail"]
    assert server.client.get("/medsegr/withdrawals").json() == []
    assert len(Audit(server.database).entries()) == before


def test_a_patient_goes_by_the_name_that_dicom_gives_and_is_named_nowhere(
    server: LearningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ids = [
        keyed(server, PATIENT, "scan 1"),
        keyed(server, PATIENT, "scan 2"),
        keyed(server, "other", "scan 3"),
    ]
    asked = answered(server.store, "scan 1", liver=block(1))
    trained(server, 1, ids)
    reply = server.client.post("/medsegr/patients/removals", json={"patient": f" {PATIENT} "})
    assert reply.status_code == 201
    assert reply.json() == {"corrections": sorted(ids[:2]), "versions": ["v1"], "rounds": [1]}
    corrections = CorrectionStore(server.database)
    assert [corrections.get(id_).image_id for id_ in ids] == ["removed", "removed", "scan 3"]
    assert server.store.get(asked).question == "" and corrections.mask(ids[2], 1).mask.any()
    with pytest.raises(StoreError, match="lost or damaged"):
        corrections.mask(ids[0], 1)
    entry = Audit(server.database).entries()[-1]
    assert (entry.editor, entry.action) == ("chief", "remove_patient")
    assert PATIENT not in repr(entry) + reply.text + str(reply.request.url) + caplog.text
    assert {w["correction"] for w in server.client.get("/medsegr/withdrawals").json()} == set(ids[:2])


def test_a_patient_goes_by_one_of_the_images_and_by_an_image_alone(server: LearningServer) -> None:
    first, second = keyed(server, PATIENT, "scan 1"), keyed(server, PATIENT, "scan 2")
    own = keyed(server, None, "photo")
    reply = server.client.post("/medsegr/patients/removals", json={"image": "scan 2"})
    assert reply.json()["corrections"] == sorted([first, second])
    reply = server.client.post("/medsegr/patients/removals", json={"patient": "photo"})
    assert reply.json()["corrections"] == [own]
    for image in ("scan 2", "removed", "never seen"):
        reply = server.client.post("/medsegr/patients/removals", json={"image": image})
        assert reply.status_code == 404 and "knows no such patient" in reply.json()["detail"], image


def test_two_patients_of_one_name_go_together_or_not_at_all(server: LearningServer) -> None:
    keys = PatientKeys(server.database.folder)
    dicom = case(server.database, keys.of("a", "7")[0], "a")
    listed = case(server.database, keys.of("b", None, {"b": "7"})[0], "b")
    log = RoundLog(server.database)
    running = log.start(log.create("hand", "ann").id)
    log.freeze(running.id, {"train": [listed], "val": []})
    refused = server.client.post("/medsegr/patients/removals", json={"patient": "7"})
    assert refused.status_code == 409 and "Round 1 uses a case" in refused.json()["detail"]
    assert server.client.get("/medsegr/withdrawals").json() == []
    log.cancel(running.id, "chief")
    gone = server.client.post("/medsegr/patients/removals", json={"patient": "7"}).json()
    assert gone["corrections"] == sorted([dicom, listed]) and gone["rounds"] == [1]
    removals = [e for e in Audit(server.database).entries() if e.action == "remove_patient"]
    assert len({e.subject for e in removals}) == 2 and Audit(server.database).verify() is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "one of both"),
        ({"patient": PATIENT, "image": "scan"}, "one of both"),
        ({"patient": ""}, "1 to 1000"),
        ({"patient": 815}, "1 to 1000"),
        ({"patient": "x" * 1001}, "1 to 1000"),
        ({"patient_id": PATIENT}, "`patient_id`"),
        ({"patient": [PATIENT]}, "1 to 1000"),
    ],
)
def test_removals_are_checked_and_quote_nothing(
    server: LearningServer, body: dict[str, Any], words: str
) -> None:
    id_ = keyed(server, PATIENT, "scan")
    reply = server.client.post("/medsegr/patients/removals", json=body)
    assert reply.status_code == 422 and words in reply.json()["detail"] and PATIENT not in reply.text
    assert CorrectionStore(server.database).get(id_).image_id == "scan"


def test_all_of_it_is_for_administrators(server: LearningServer) -> None:
    id_ = keyed(server, PATIENT, "scan")
    server.user = User("ann")
    for method, path, body in (
        ("GET", "withdrawals", None),
        ("POST", "withdrawals", {"corrections": [id_], "why": "?"}),
        ("POST", "patients/removals", {"patient": PATIENT}),
    ):
        reply = server.client.request(method, f"/medsegr/{path}", json=body)
        assert reply.status_code == 403 and "administrator" in reply.json()["detail"], path
    server.user = CHIEF
    assert server.client.get("/medsegr/withdrawals").json() == []
