"""Whole runs against a real endpoint: good, slow, broken, refusing and lying. Nothing is lost, every reason is written down."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medsegr.errors import MedSegRError
from medsegr.qa.annotate import journal
from medsegr.qa.annotate.http_backend import HttpBackend
from medsegr.qa.annotate.run import Summary, annotate_file
from medsegr.qa.checks import check_file
from medsegr.qa.reader import read_qa
from tests.annotation_endpoint import SECRETS, Endpoint, Request, Sent, good, step_of, target_of

CALLS = 7  # describe, twice ask and review, converse and review


@pytest.fixture
def run(hospital: Path, endpoint: Endpoint) -> Callable[..., Summary]:
    """A run over the hospital into `qa.jsonl` beside it; little patience."""

    def annotate(count: int = 15, **options: Any) -> Summary:
        with patient(endpoint) as backend:
            return annotate_file(
                hospital, hospital.parent / "qa.jsonl", backend, count=count, seed=4, **options
            )

    return annotate


@contextmanager
def patient(endpoint: Endpoint) -> Iterator[HttpBackend]:
    backend = HttpBackend(
        endpoint.url, "some-model", timeout_s=0.5, tries=4, first_wait_s=0.01, longest_wait_s=0.02
    )
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def out(hospital: Path) -> Path:
    return hospital.parent / "qa.jsonl"


def rejected(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in journal.Files(out).rejected.read_text().splitlines()]


def lying(step: str, lie: Callable[[Any], None]) -> Callable[[int, Request], Sent]:
    """A good endpoint but for one step, whose reply `lie` changes."""

    def behaviour(_: int, request: Request) -> Sent:
        text = good(request.prompt)
        if step_of(request.prompt) == step:
            reply = json.loads(text.removeprefix("```json\n").removesuffix("\n```"))
            lie(reply)
            text = json.dumps(reply)
        return Sent(text)

    return behaviour


def test_a_good_endpoint_gives_a_sound_file(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    assert run(concurrency=3) == Summary(15, 45, {})
    assert len(endpoint.requests) == 15 * CALLS
    assert check_file(out) == []
    conversations = list(read_qa(out))
    assert Counter(len(c.turns) for c in conversations) == {1: 30, 4: 15}
    assert {c.review.status for c in conversations} == {"auto"}
    dialogue = next(c for c in conversations if c.id.endswith("_dialogue"))
    assert [t.kind for t in dialogue.turns] == ["implicit", "implicit", "explicit", "explicit"]
    meta = json.loads(journal.Files(out).meta.read_text())
    assert (meta["status"], meta["backend"], meta["model"]) == ("finished", "openai", "some-model")
    assert (meta["prompt_version"], meta["seed"], meta["draws"], meta["conversations"]) == ("1", 4, 15, 45)
    assert rejected(out) == []
    assert not journal.Files(out).part.exists()


def test_no_identifier_leaves_the_house(run: Callable[..., Summary], endpoint: Endpoint, out: Path) -> None:
    run()
    for request in endpoint.requests:
        everything = f"{request.headers}{request.raw.decode()}".lower()
        for secret in (*SECRETS, "smith", "jane", ".png", str(out.parent), "ward_nine"):
            assert secret.lower() not in everything
        assert '"side": ' in request.prompt
        assert "abdominal CT" in request.prompt


def test_the_order_of_answers_does_not_change_the_file(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    run()
    first = out.read_bytes()
    out.unlink()
    endpoint.behaviour = lambda n, request: Sent(good(request.prompt), before_s=(n * 7 % 5) / 100)
    run(concurrency=5)
    assert out.read_bytes() == first


def test_a_flaky_endpoint_costs_patience_only(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    faults = [
        Sent(status=500, raw=b""),
        Sent(reset=True),
        Sent("late", before_s=0.8),
        Sent(raw=b"no json"),
        Sent("cut", cut=9),
        Sent(status=429, headers={"Retry-After": "0.1"}, raw=b""),
    ]
    broken: set[int] = set()

    def behaviour(number: int, request: Request) -> Sent:
        if number % 4 == 0 and len(broken) < len(faults):
            broken.add(number)
            return faults[len(broken) - 1]
        return Sent(good(request.prompt))

    endpoint.behaviour = behaviour
    assert run(count=4) == Summary(4, 12, {})
    assert len(broken) == len(faults)
    assert len(endpoint.requests) == 4 * CALLS + len(faults)
    assert check_file(out) == []


Lie = Callable[[Any], None]


@pytest.mark.parametrize(
    ("step", "lie", "failed", "reason"),
    [
        ("describe", lambda r: r.update(attribute="is a hepatic, splenic and renal thing"), 5, "away with"),
        ("describe", lambda r: r.update(location="lies on the right and then left of it"), 5, "it says"),
        (
            "ask",
            lambda r: r.update(answer="Here <p>liver</p> [SEG] and <p>spleen</p> [SEG] are both seen now."),
            10,
            "the answer has 2 [SEG] for 1 targets",
        ),
        ("ask", lambda r: r.update(question="Outline the left kidney, spleen or liver."), 10, "away with"),
        ("converse", lambda r: r["turns"].pop(), 5, "expected observe, reason, segment, follow_up"),
        (
            "converse",
            lambda r: r["turns"][3].update(question="Where is bile stored?"),
            5,
            "the follow-up does not refer",
        ),
        ("review", lambda r: r.update(verdict="drop", reason="nonsense"), 15, "second pass: nonsense"),
        (
            "review",
            lambda r: r.update(verdict="revise", turns=[{"question": "Where is it?", "answer": "There."}]),
            15,
            "",
        ),
        ("review", lambda r: r.update(verdict="maybe"), 15, "verdict: Input should be 'keep'"),
    ],
)
def test_a_lie_is_dropped_with_step_and_reason(
    run: Callable[..., Summary],
    out: Path,
    endpoint: Endpoint,
    step: str,
    lie: Lie,
    failed: int,
    reason: str,
) -> None:
    endpoint.behaviour = lying(step, lie)
    assert run(count=5) == Summary(5, 15 - failed, {step: failed})
    rows = rejected(out)
    assert len(rows) == failed
    kept = {c.id for c in read_qa(out)}
    assert (
        len({row["id"] for row in rows} | kept) == 15
    )  # each conversation is kept or rejected, none is lost
    for row in rows:
        assert set(row) == {"id", "step", "reason"}
        assert row["step"] == step
        assert reason in row["reason"]
        assert row["reason"]


def test_a_wrong_side_is_dropped_target_by_target(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    """The liar mirrors the sides of the image; what says no side remains."""

    def behaviour(_: int, request: Request) -> Sent:
        text = good(request.prompt)
        if step_of(request.prompt) == "describe" and target_of(request.prompt) in {"liver", "spleen"}:
            text = text.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")
        return Sent(text)

    endpoint.behaviour = behaviour
    run(count=5)
    assert {(r["id"].rsplit("_", 1)[1], r["step"], r["reason"]) for r in rejected(out)} == {
        ("location", "describe", "it says left, but the mask is on the patient's right"),
        ("location", "describe", "it says right, but the mask is on the patient's left"),
    }


def test_the_model_may_mend_its_reply_once(run: Callable[..., Summary], endpoint: Endpoint) -> None:
    def behaviour(_: int, request: Request) -> Sent:
        messages = request.body["messages"]
        if len(messages) == 1:
            return Sent("I would rather talk about the weather.")
        assert [m["role"] for m in messages] == ["user", "assistant", "user"]
        assert "not the JSON asked for" in messages[2]["content"]
        return Sent(good(request.prompt))

    endpoint.behaviour = behaviour
    assert run(count=2) == Summary(2, 6, {})
    assert len(endpoint.requests) == 2 * 2 * CALLS


def test_a_revision_is_kept_if_it_passes(run: Callable[..., Summary], out: Path, endpoint: Endpoint) -> None:
    def behaviour(_: int, request: Request) -> Sent:
        if step_of(request.prompt) != "review":
            return Sent(good(request.prompt))
        start = request.prompt.index("[\n {")
        turns, _end = json.JSONDecoder().raw_decode(request.prompt[start:])
        for turn in turns:
            turn["answer"] = turn["answer"].replace("is the one", "is surely the one")
        return Sent(json.dumps({"verdict": "revise", "reason": "style", "turns": turns}))

    endpoint.behaviour = behaviour
    run(count=1)
    answers = [t.answer for c in read_qa(out) for t in c.turns]
    assert len(answers) == 6
    assert all("surely" in answer or "kidneys" in answer for answer in answers)


def test_an_endpoint_that_dies_loses_nothing(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    endpoint.behaviour = lambda n, r: (
        Sent(good(r.prompt)) if n <= 4 * CALLS + 2 else Sent(status=500, raw=b"")
    )
    with pytest.raises(MedSegRError, match=r"11 of 15 draws are unfinished \(The endpoint gave no usable"):
        run()
    assert not out.exists()
    assert len(journal.read_part(journal.Files(out).part)) == 4
    before = len(endpoint.requests)
    assert before == 4 * CALLS + 2 + 5 * 4  # five draws in a row, four tries each
    endpoint.behaviour = lambda _, request: Sent(good(request.prompt))
    assert run() == Summary(15, 45, {})
    assert len(endpoint.requests) - before == 11 * CALLS  # finished draws are not asked again
    assert check_file(out) == []


def test_one_draw_that_is_not_answered_waits_for_the_next_run(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    endpoint.behaviour = lambda n, request: Sent(status=500) if 8 <= n <= 11 else Sent(good(request.prompt))
    with pytest.raises(MedSegRError, match=r"1 of 15 draws are unfinished"):
        run()
    assert run() == Summary(15, 45, {})
    assert [c.id for c in read_qa(out)] == sorted((c.id for c in read_qa(out)), key=_number)


def _number(identifier: str) -> tuple[int, int]:
    draw, part = identifier.rsplit("_", 2)[1:]
    return int(draw[1:]), ("attribute", "location", "dialogue").index(part)


def test_a_wrong_key_stops_the_run_at_once(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    endpoint.behaviour = lambda *_: Sent(status=401, raw=b"")
    with pytest.raises(MedSegRError, match="15 of 15 draws are unfinished .*expected a valid key"):
        run()
    assert len(endpoint.requests) == 1


def test_a_refused_request_rejects_its_draw_but_refusing_all_is_no_result(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    endpoint.behaviour = lambda *_: Sent(status=400, raw=b"unknown field")
    with pytest.raises(MedSegRError, match="every request was refused: .* 400: unknown field"):
        run()
    assert len(endpoint.requests) == 5
    endpoint.behaviour = lambda n, r: (
        Sent(status=400, raw=b"too long") if target_of(r.prompt) == "liver" else Sent(good(r.prompt))
    )
    assert run() == Summary(15, 36, {"describe": 9})
    assert {r["reason"] for r in rejected(out)} == {"the endpoint refused the request with 400: too long"}


def test_a_run_goes_on_only_with_its_own_settings(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint, hospital: Path
) -> None:
    endpoint.behaviour = lambda n, r: Sent(good(r.prompt)) if n <= CALLS else Sent(status=500)
    with pytest.raises(MedSegRError, match="unfinished"):
        run()
    other = HttpBackend(endpoint.url, "other-model")
    with pytest.raises(MedSegRError, match="a run with model 'some-model', not 'other-model'"):
        annotate_file(hospital, out, other, count=15, seed=4)
    with pytest.raises(MedSegRError, match="a run with seed '4', not '5'"), patient(endpoint) as backend:
        annotate_file(hospital, out, backend, count=15, seed=5)


def test_a_finished_file_is_not_overwritten(run: Callable[..., Summary], out: Path) -> None:
    run(count=1)
    before = out.read_bytes()
    with pytest.raises(MedSegRError, match="exists and is finished"):
        run(count=1)
    assert out.read_bytes() == before


def test_a_line_cut_by_a_crash_is_asked_again_and_a_damaged_one_is_named(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint
) -> None:
    endpoint.behaviour = lambda n, r: Sent(good(r.prompt)) if n <= 3 * CALLS else Sent(status=500)
    with pytest.raises(MedSegRError, match="12 of 15"):
        run()
    part = journal.Files(out).part
    whole = part.read_bytes()
    part.write_bytes(whole[:-40])
    endpoint.requests.clear()
    endpoint.behaviour = lambda _, request: Sent(good(request.prompt))
    assert run() == Summary(15, 45, {})
    assert len(endpoint.requests) == 13 * CALLS
    part.write_bytes(b"{broken\n" + whole)
    with pytest.raises(MedSegRError, match=r"qa\.part\.jsonl:1 is no finished draw"):
        run()


def test_a_label_map_that_contradicts_its_names_is_not_sent(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint, hospital: Path
) -> None:
    path = hospital / "ward_nine" / "dataset.json"
    text = path.read_text().replace(
        '"right kidney": [2], "left kidney": [3]', '"left kidney": [2], "right kidney": [3]'
    )
    path.write_text(text)
    assert run().rejected == {"facts": 18}
    assert {target_of(r.prompt) for r in endpoint.requests} == {"kidneys", "liver", "spleen"}
    assert (
        "lies on the patient's right in radiological convention"
        in rejected(out)[0]["reason"] + rejected(out)[3]["reason"]
    )


def test_an_unknown_region_is_not_sent(
    run: Callable[..., Summary], endpoint: Endpoint, hospital: Path
) -> None:
    path = hospital / "ward_nine" / "dataset.json"
    path.write_text(path.read_text().replace('"abdomen"', '"Jane Smith"'))
    with pytest.raises(MedSegRError, match="has the region 'Jane Smith'; expected one of abdomen"):
        run()
    assert endpoint.requests == []


def test_a_killed_run_goes_on_where_it_was(
    run: Callable[..., Summary], out: Path, endpoint: Endpoint, hospital: Path
) -> None:
    reached, release = threading.Event(), threading.Event()

    def behaviour(number: int, request: Request) -> Sent:
        if number == 4 * CALLS + 3:
            reached.set()
            release.wait(30)
        return Sent(good(request.prompt))

    endpoint.behaviour = behaviour
    options = ["--endpoint", endpoint.url, "--model", "some-model", "--count", "15", "--seed", "4"]
    code = "from medsegr.cli import main; main()"
    command = [sys.executable, "-c", code, "qa", "annotate", str(hospital), str(out), *options]
    process = subprocess.Popen([*command, "--concurrency", "1"], stdout=subprocess.DEVNULL)
    try:
        assert reached.wait(60)
    finally:
        process.kill()
        process.wait()
        release.set()
    assert not out.exists()
    assert len(journal.Files(out).part.read_bytes().splitlines()) == 4
    before = len(endpoint.requests)
    assert run() == Summary(15, 45, {})
    assert len(endpoint.requests) - before == 11 * CALLS
    resumed = out.read_bytes()
    out.unlink()
    run()
    assert out.read_bytes() == resumed
