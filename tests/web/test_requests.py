"""What clients may send: limits, forms and the sentences they get back."""

from __future__ import annotations

import pytest

from medsegr.web.errors import Refusal
from medsegr.web.requests import AskBody, AskOptions, parse, parse_object

SECRET = "Xylophone"


def refused(data: dict) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(AskOptions, data)
    assert SECRET not in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return caught.value


def test_nothing_means_everything() -> None:
    options = parse(AskOptions, {})
    assert (options.question, options.history, options.slice_range, options.points) == ("", (), None, None)


def test_unknown_keys_and_stock_keys_are_ignored() -> None:
    options = parse(
        AskOptions,
        {"image": "/etc/passwd", "model": "x", "device": ["cuda"], "model_filename": "y", "question": " a? "},
    )
    assert options.question == "a?" and not hasattr(options, "model_filename")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("all", None),
        ("", None),
        ("12", (12, 12)),
        ("10-20", (10, 20)),
        (" 3 - 3 ", (3, 3)),
        (7, (7, 7)),
        (None, None),
    ],
)
def test_slices(text: object, wanted: object) -> None:
    assert parse(AskOptions, {"slices": text}).slice_range == wanted


@pytest.mark.parametrize("text", ["a", "20-10", "1-2-3", "-1", "1.5", [1], True, "9999999", SECRET])
def test_bad_slices(text: object) -> None:
    assert refused({"slices": text}).status == 422


def test_long_texts_are_413() -> None:
    assert refused({"question": SECRET * 1000}).status == 413
    turn = {"question": "q", "answer": "a"}
    assert refused({"history": [turn] * 41}).status == 413
    assert refused({"history": [{"question": "q", "answer": "a" * 9000}]}).status == 413
    assert len(parse(AskOptions, {"question": "q" * 2000, "history": [turn] * 40}).turns) == 40


@pytest.mark.parametrize(
    "data",
    [
        {"question": 5},
        {"question": [SECRET]},
        {"question": "\ud800"},
        {"history": SECRET},
        {"history": {"question": "q"}},
        {"history": [SECRET]},
        {"history": [{"question": "q"}]},
        {"points": [[1, 2]]},
        {"points": [[1, 2, 3]]},
        {"points": [["a", 2, 1]]},
        {"points": [[float("nan"), 2, 1]]},
        {"points": "yes"},
        {"box": [1, 2, 3]},
        {"box": [5, 5, 1, 9]},
        {"max_new_tokens": 0},
        {"max_new_tokens": "many"},
        {"result_extension": ".exe"},
        {"label_tag": "../../x"},
        {"save_label": SECRET},
    ],
)
def test_bad_values_are_422_and_one_sentence(data: dict) -> None:
    assert refused(data).status == 422


def test_history_may_be_text_for_clients_that_only_have_text_boxes() -> None:
    assert parse(AskOptions, {"history": '[{"question": "q", "answer": "a"}]'}).turns == (
        {"question": "q", "answer": "a"},
    )


def test_result_extension_is_normalised() -> None:
    assert parse(AskOptions, {"result_extension": "NRRD"}).result_extension == ".nrrd"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "12", "[" * 100_000, b"\xff"])
def test_what_is_not_a_json_object_is_400(text: str | bytes) -> None:
    with pytest.raises(Refusal) as caught:
        parse_object(text, "`params`")
    assert caught.value.status == 400


def test_the_body_of_ask_names_an_image() -> None:
    assert parse(AskBody, {"image": "a", "question": "b"}).image == "a"
