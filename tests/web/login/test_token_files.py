"""Static tokens, the owner's token and sessions, as files."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from datetime import date
from pathlib import Path

import pytest

from medsegr.web.login import tokens as tokens_module
from medsegr.web.login.owner import owner_tokens, where_to_log_in
from medsegr.web.login.private_file import LoginFileError
from medsegr.web.login.sessions import Sessions
from medsegr.web.login.tokens import TokenError, TokenFile


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_random_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "new" / "tokens.jsonl")
    token, other = file.add("anna"), file.add("bob", admin=True)
    assert re.fullmatch(r"medsegr_[A-Za-z0-9_-]{43}", token) and token != other
    text = file.path.read_text()
    assert token not in text and hashlib.sha256(token.encode()).hexdigest() in text
    assert mode(file.path) == 0o600 and mode(file.path.parent) == 0o700
    found = file.find(token), file.find(other)
    assert [(e.user, e.admin) for e in found if e] == [("anna", False), ("bob", True)]
    for wrong in ("", token[:-1], token + "x", token.upper(), hashlib.sha256(token.encode()).hexdigest()):
        assert file.find(wrong) is None


def test_removing_a_user_works_without_a_restart(tmp_path: Path) -> None:
    server, shell = TokenFile(tmp_path / "t"), TokenFile(tmp_path / "t")
    anna, bob = shell.add("anna"), shell.add("bob")
    assert server.find(anna) and server.find(bob)
    shell.remove("anna")
    assert server.find(anna) is None and server.find(bob)
    with pytest.raises(TokenError, match="no user 'anna'"):
        shell.remove("anna")


def test_a_token_is_good_through_its_last_day(tmp_path: Path) -> None:
    day = date(2026, 3, 1)
    file = TokenFile(tmp_path / "t", lambda: day)
    token = file.add("anna", days=2)
    assert '"expires": "2026-03-03"' in file.path.read_text()
    assert TokenFile(file.path, lambda: date(2026, 3, 3)).find(token)
    assert TokenFile(file.path, lambda: date(2026, 3, 4)).find(token) is None


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_touch_lets_nobody_in(tmp_path: Path, permissions: int) -> None:
    file = TokenFile(tmp_path / "t")
    token = file.add("anna")
    assert file.find(token)
    file.path.chmod(permissions)
    with pytest.raises(LoginFileError, match="expected 0600"):
        file.find(token)
    file.path.chmod(0o600)
    assert file.find(token)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        '{"user": "anna"}',
        '{"user": "anna", "sha256": "abc"}',
        json.dumps({"user": "anna", "sha256": "0" * 64, "admin": "yes"}),
        json.dumps({"user": "anna", "sha256": "0" * 64, "expires": "soon"}),
        json.dumps({"user": "anonymous", "sha256": "0" * 64}),
        json.dumps({"user": "a\nb", "sha256": "0" * 64}),
    ],
)
def test_a_damaged_file_lets_nobody_in_and_names_the_line(tmp_path: Path, line: str) -> None:
    file = TokenFile(tmp_path / "t")
    token = file.add("bob")
    assert file.find(token)
    file.path.write_text(file.path.read_text() + line + "\n")
    for _ in range(2):
        with pytest.raises(LoginFileError, match="line 2") as caught:
            file.find(token)
        assert "sha256" not in str(caught.value)
    file.path.unlink()
    with pytest.raises(LoginFileError, match="does not exist"):
        file.find(token)


@pytest.mark.parametrize("name", ["", "a b", "anonymous", "Anonymous", "../x", "é", "a" * 61, "-x"])
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TokenError, match="name"):
        TokenFile(tmp_path / "t").add(name)
    assert not (tmp_path / "t").exists()


def test_a_name_has_one_token_and_days_have_bounds(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "t")
    file.add("anna")
    with pytest.raises(TokenError, match="already"):
        file.add("Anna")
    for days in (0, -1, 10**9):
        with pytest.raises(TokenError, match="days"):
            file.add("bob", days=days)
    assert [entry.user for entry in file.entries()] == ["anna"]


@pytest.mark.parametrize("place", [0, 2, None])
def test_every_entry_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int | None
) -> None:
    file = TokenFile(tmp_path / "t")
    made = [file.add(name) for name in ("a", "b", "c")]
    compared = []
    real = tokens_module.hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(tokens_module.hmac, "compare_digest", counting)
    found = file.find("medsegr_" + "x" * 43 if place is None else made[place])
    assert (found is None) == (place is None)
    assert len(compared) == 3 and all(len(a) == len(b) == 64 for a, b in compared)


def test_the_owners_token_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "login"
    tokens, plain = owner_tokens(folder)
    token = plain.read_text().strip()
    assert mode(folder) == 0o700 and mode(plain) == mode(tokens.path) == 0o600
    entry = tokens.find(token)
    assert entry and (entry.user, entry.admin) == ("owner", True) and token not in tokens.path.read_text()
    told = where_to_log_in("http://gpu:8000/medsegr/login", tokens, plain)
    assert str(plain) in told and "http://gpu:8000/medsegr/login" in told and token not in told

    again, _ = owner_tokens(folder)
    assert plain.read_text().strip() == token and again.find(token)
    again.add("anna")
    again.remove("owner")
    last, _ = owner_tokens(folder)
    assert last.find(token) is None and [e.user for e in last.entries()] == ["anna"]
    assert str(plain) not in where_to_log_in("http://gpu:8000/medsegr/login", last, plain)


def test_sessions_end_by_time_or_by_hand_and_outlive_a_restart(tmp_path: Path) -> None:
    now = [1000.0]
    sessions = Sessions(tmp_path / "s", 60, lambda: now[0])
    assert sessions.find("x") is None
    first, second = sessions.open("anna", admin=False, token="0" * 64), sessions.open("bob", admin=True)
    assert first not in sessions._lines.path.read_text() and mode(tmp_path / "s") == 0o600
    found = Sessions(tmp_path / "s", 60, lambda: now[0]).find(first)
    assert found and (found.user, found.admin, found.token) == ("anna", False, "0" * 64)
    sessions.close(first)
    sessions.close("never was")
    assert sessions.find(first) is None and sessions.find(second)
    now[0] += 60
    assert sessions.find(second) is None
    sessions.open("carl", admin=False)
    assert len((tmp_path / "s").read_text().splitlines()) == 1
