"""A server with tokens on a PACS with a password: the viewer works after the login, and without one nothing is revealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests

from medsegr.web.login.tokens import TokenFile
from tests.system import studies
from tests.system.ask_page import AskPage
from tests.system.masks import check_drawn, same
from tests.system.ohif_page import ENTER
from tests.system.orthanc import Orthanc
from tests.system.servers import SEEING, MedSegRServer
from tests.system.studies import Study

pytestmark = pytest.mark.system
GUARDED = (
    "/",
    "/ohif/",
    "/ohif/app-config.js",
    "/medsegr/ohif/extension.js",
    "/info/",
    "/logs/",
    "/datastore/?output=all",
    "/proxy/dicom/qido/studies",
    "/proxy/dicom/wado/studies/{study}/metadata",
    "/medsegr/series/{series}",
    "/medsegr/turns",
    "/medsegr/turns?image={series}",
    "/medsegr/corrections?image={series}",
    "/medsegr/suggestions?modality=CT",
)


@dataclass(frozen=True)
class Ward:
    """The server, its one study, and a token for each user."""

    server: MedSegRServer
    study: Study
    tokens: dict[str, str]

    def as_user(self, name: str) -> MedSegRServer:
        """The server as `name` sees it."""
        return replace(self.server, headers={"Authorization": f"Bearer {self.tokens[name]}"})


@pytest.fixture(scope="module")
def ward(
    orthanc_with_login: Orthanc,
    tmp_path_factory: pytest.TempPathFactory,
    medsegr_server: Callable[..., MedSegRServer],
) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    study = studies.axial_ct(folder / "study")
    orthanc_with_login.upload(study.paths)
    file = TokenFile(folder / "tokens.jsonl")
    tokens = {name: file.add(name, days=30) for name in ("ada", "bob", "gone")}
    tokens["root"] = file.add("root", admin=True)
    expire(file.path, "gone")
    user, password = orthanc_with_login.auth or ("", "")
    server = medsegr_server(
        orthanc_with_login.url,
        factory=SEEING,
        conf={"login": str(file.path)},
        environment={"MONAI_LABEL_DICOMWEB_USERNAME": user, "MONAI_LABEL_DICOMWEB_PASSWORD": password},
    )
    return Ward(server, study, tokens)


def expire(file: Path, user: str) -> None:
    """Let a token have been good until some day in the past."""
    entries = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    lines = [json.dumps(e | ({"expires": "2020-01-01"} if e["user"] == user else {})) for e in entries]
    file.write_text("\n".join(lines) + "\n")


def refusals(ward: Ward, headers: dict[str, str], paths: tuple[str, ...]) -> set[str]:
    """What GETs are answered with, all of them 401 and without a UID."""
    names = {"study": ward.study.uid, "series": ward.study.series[0].uid}
    said = set()
    for path in paths:
        reply = requests.get(ward.server.url + path.format(**names), headers=headers, timeout=30)
        assert reply.status_code == 401, path
        assert not any(uid in reply.text for uid in names.values())
        said.add(reply.text)
    return said


def test_without_a_token_nothing_is_revealed(ward: Ward) -> None:
    said = refusals(ward, {}, GUARDED)
    image = ward.study.series[0].uid
    for method, path in (
        ("POST", "/medsegr/ask"),
        ("POST", f"/infer/medsegr?image={image}"),
        ("POST", "/medsegr/corrections"),
        ("PUT", f"/datastore/label?image={image}"),
        ("PUT", "/session/"),
    ):
        body = {"image": image, "question": "Where is the liver?"}
        reply = requests.request(method, ward.server.url + path, json=body, timeout=30)
        assert reply.status_code == 401, path
        said.add(reply.text)
    assert len(said) == 1  # nor does one refusal tell more than another


@pytest.mark.parametrize("token", ["wrong", "expired"])
def test_a_bad_token_is_no_token(ward: Ward, token: str) -> None:
    bad = ward.tokens["gone"] if token == "expired" else "medsegr_" + "A" * 43
    guarded = ("/medsegr/turns", "/proxy/dicom/qido/studies", "/ohif/")  # few: failures are counted
    assert len(refusals(ward, {"Authorization": f"Bearer {bad}"}, guarded)) == 1


def test_the_viewer_after_a_login_and_what_others_see_of_it(ward: Ward, browser: Any) -> None:
    page = AskPage(browser, ward.server.url)
    browser.get(f"{page.root}/ohif/medsegr?StudyInstanceUIDs={ward.study.uid}")
    page.until(lambda: page.all("#token"), "a token is asked for")
    page.find("#token").send_keys("medsegr_" + "B" * 43, ENTER)
    page.until(lambda: page.all("[role=alert]"), "a wrong token is refused")
    assert ward.study.uid not in page.text()
    page.find("#token").send_keys(ward.tokens["ada"], ENTER)
    page.until(lambda: "/ohif/medsegr" in browser.current_url, "the way leads back to the study")
    page.open(ward.study.uid)
    ada, bob = ward.as_user("ada"), ward.as_user("bob")
    answer = page.ask("Where are the liver and the spleen?")
    check_drawn(page, ada, answer, ward.study.series[0], ("liver", "spleen"))
    page.paint()
    page.submit()
    (correction,) = ada.get("/medsegr/corrections", params={"turn": answer.turn}).json()
    assert correction["editor"] == "ada" == ada.get(f"/medsegr/turns/{answer.turn}").json()["editor"]
    stored = ada.correction_by_instance(correction["id"], 1, ward.study.series[0].uid)
    assert same(stored, page.drawn("liver"))
    check_others(ward, bob, answer.turn, correction["id"])
    for token in ward.tokens.values():
        assert token not in ward.server.logs()
    assert "pacs-secret-7" not in ward.server.logs()


def check_others(ward: Ward, bob: MedSegRServer, turn: str, correction: str) -> None:
    """Another user gets 403 (or an empty list) for a turn that is not his; an administrator reads it."""
    for path in (
        f"turns/{turn}",
        f"turns/{turn}/masks/1",
        f"corrections/{correction}",
        f"corrections/{correction}/masks/1",
    ):
        reply = bob.get(f"/medsegr/{path}")
        assert reply.status_code == 403 and "liver" not in reply.text, path
        assert ward.as_user("root").get(f"/medsegr/{path}").status_code == 200
    assert bob.turns(ward.study.series[0].uid) == []
    assert bob.get("/medsegr/corrections", params={"image": ward.study.series[0].uid}).json() == []
    cancel = requests.delete(f"{bob.url}/medsegr/turns/{turn}", headers=bob.headers, timeout=30)
    assert cancel.status_code == 403
    form = {
        "correction": (
            None,
            json.dumps({"turn_id": turn, "verdict": "accepted", "client_id": "x", "findings": []}),
        )
    }
    assert bob.post("/medsegr/corrections", files=form).status_code == 403
