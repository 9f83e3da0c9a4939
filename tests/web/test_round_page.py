"""The page of a round shows corrections of several editors: it is for administrators where there is a login."""

from __future__ import annotations

from pathlib import Path

from learning_server import LearningServer

from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.tables import RoundStatus
from medsegr.web.login.identity import User


def test_the_page_of_a_round_is_for_administrators(tmp_path: Path) -> None:
    server = LearningServer(tmp_path)
    server.loop.log = log = RoundLog(server.database)
    made = log.start(log.create("hand", "ann").id)
    log.finish(made.id, RoundStatus.REFUSED, {"adopted": False}, None)
    folder = server.database.paths.rounds / str(made.id)
    folder.mkdir()
    (folder / "page.html").write_text("a picture of somebody's case")
    for user, status in ((None, 200), (User("chief", admin=True), 200), (User("ann"), 403)):
        server.user = user
        reply = server.client.get(f"/medsegr/rounds/{made.id}/page")
        assert reply.status_code == status and ("picture" in reply.text) == (status == 200), user
        assert server.client.get(f"/medsegr/rounds/{made.id}").status_code == 200
    assert "administrators" in reply.json()["detail"]
    server.close()
