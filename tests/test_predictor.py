"""The public API on a tiny model: grids, history, clicks and boxes, the cache, cancelling, volumes.

`predictor` has random weights throughout. In `scripted` the encoder passes grey levels on, the decoder outlines what is bright,
and the answer is given, so that every mask can be known beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import medsegr.answering as answering
from medsegr.errors import Cancelled, CheckpointError, ImageError, QuestionError
from medsegr.imaging import Picture, Volume, volume_intensity_range
from medsegr.model.checkpoint import Checkpoint, save_checkpoint
from medsegr.model.context import Generated
from medsegr.model.decoding import Limits
from medsegr.model.encoder import ImageFeatures
from medsegr.model.grounding import Masks
from medsegr.model.medsegr import MedSegR
from medsegr.predictor import Outcome, Predictor, Reply

LIVER = "The <p>liver</p> [SEG] makes bile."
PLAIN = "The liver makes bile."
UPPER_RIGHT = "Here it lies in the upper right of the image."
PLACED = f"{PLAIN} {UPPER_RIGHT}"
"""The answer about `_picture`."""
META = {"version": "tiny-1", "licence": "CC0"}


class Script:
    """Stands in for the weights: what is answered, and what was asked of encoder, language model and decoder."""

    def __init__(self, model: MedSegR, monkeypatch: pytest.MonkeyPatch) -> None:
        self.width = model.config.context_dim
        self.features = model.encode_image(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
        self.answer: str | Callable[[float], str] = LIVER
        self.quality = 0.0
        self.words: tuple[float, ...] = ()
        self.present: Callable[[float], bool] = lambda level: True
        self.encoded: list[tuple[int, ...]] = []
        self.turns: list[list[tuple[str, str]]] = []
        self.questions: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.clicks: list[tuple[Any, Any]] = []
        self.targets: list[list[int]] = []
        monkeypatch.setattr(model, "encode_image", self.encode)
        monkeypatch.setattr(model, "decode_masks", self.decode)
        monkeypatch.setattr(model.context, "prefix", lambda tokens: _FakePrefix(float(tokens.mean())))
        monkeypatch.setattr(model.context, "generate", self.generate)

    def encode(self, rgb: torch.Tensor) -> ImageFeatures:
        self.encoded.append(tuple(rgb.shape))
        grey = rgb[..., 0].float()[:, None] / 255
        half = torch.nn.functional.avg_pool2d(grey, 2)
        context = grey.mean().expand(1, 4, self.width)
        return replace(self.features, embedding=grey, skips=(half,), context=context)

    def generate(
        self, prefix: Any, turns: Sequence[tuple[str, str]], question: str, encoder: Any, **options: Any
    ) -> Generated | None:
        self.turns.append(list(turns))
        self.questions.append(question)
        self.options.append(options)
        text = self.answer if isinstance(self.answer, str) else self.answer(prefix.level)
        said = ""
        for token in re.findall(r"</?p>|\[SEG\]|\s?\w+|.", text):
            said += token
            if options["should_stop"] and options["should_stop"]():
                return None
            if options["on_token"]:
                options["on_token"](said)
        return Generated(text, torch.zeros(text.count("[SEG]"), self.width), 0.9, words=self.words)

    def decode(
        self, features: ImageFeatures, states: torch.Tensor, points: Any, labels: Any, targets: torch.Tensor
    ) -> Masks:
        self.clicks.append((points, labels))
        self.targets.append(targets.tolist())
        n, level = len(states), float(features.embedding.mean())
        logits = (features.skips[0][:, 0] - 0.5).expand(n, -1, -1)
        presence = torch.full((n,), 1.0 if self.present(level) else -1.0)
        return Masks(logits, torch.full((n,), self.quality), presence)


class _FakePrefix:
    n_bytes = 0

    def __init__(self, level: float) -> None:
        self.level = level


@pytest.fixture
def predictor(tiny: MedSegR) -> Predictor:
    return Predictor(Checkpoint(tiny, META, Path()), None, scales=(1.0, 1.25))


@pytest.fixture
def script(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(predictor.model, monkeypatch)


def _picture(rows: int = 96, columns: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A dark picture with a bright rectangle off the middle, and where it is."""
    bright = np.zeros((rows, columns), bool)
    bright[rows // 8 : rows // 2, columns // 2 : columns * 7 // 8] = True
    return np.where(bright, 230, 20).astype(np.uint8), bright


def _agree(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# --- set_image and ask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(96, 160), (150, 70)])
def test_masks_lie_on_the_inputs_own_grid(
    predictor: Predictor, script: Script, rows: int, columns: int
) -> None:
    pixels, bright = _picture(rows, columns)
    predictor.set_image(pixels, modality="CT")
    reply = predictor.ask("Where is the liver?")
    assert isinstance(reply, Reply) and reply.text == PLACED
    (finding,) = reply.findings
    assert (finding.label, finding.phrase, finding.confidence) == ("liver", "liver", 0.5)
    assert finding.mask.shape == (rows, columns) and finding.mask.dtype == np.bool_
    assert _agree(finding.mask, bright) > 0.95
    assert set(reply.latencies_ms) == {"text_ms", "masks_ms", "total_ms"}


def test_a_path_an_array_and_a_picture_are_the_same_image(
    predictor: Predictor, script: Script, tmp_path: Path
) -> None:
    pixels, _ = _picture()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given: list[Any] = [
        tmp_path / "a.png", str(tmp_path / "a.png"), pixels, np.stack([pixels] * 3, axis=2), Picture(pixels, "CT", None),
    ]  # fmt: skip
    masks = []
    for image in given:
        predictor.set_image(image, "CT")
        masks.append(predictor.ask("?").findings[0].mask)
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    assert script.encoded == [(1, 64, 64, 3), (1, 64, 64, 3)], "once at each scale"


def test_random_weights_answer_an_explicit_and_an_empty_question(predictor: Predictor) -> None:
    predictor.set_image(_picture()[0])
    for question in ("Where is the liver?", "", "   "):
        reply = predictor.ask(question, max_new_tokens=6)
        assert isinstance(reply.text, str) and "[SEG]" not in reply.text
        assert all(f.mask.shape == (96, 160) and 0 <= f.confidence <= 1 for f in reply.findings)


def test_random_weights_decode_on_the_native_grid(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Generated(LIVER, torch.randn(1, predictor.config.context_dim), 0.5)
    monkeypatch.setattr(predictor.model.context, "generate", lambda *_, **__: given)
    predictor.set_image(_picture(50, 90)[0])
    for points in (None, [[10, 20, 1], [30, 80, 0]]):
        assert all(f.mask.shape == (50, 90) for f in predictor.ask("?", points=points).findings)


def test_the_decoder_is_told_what_the_words_name(predictor: Predictor, script: Script) -> None:
    predictor.set_image(_picture()[0])
    script.answer = BOTH
    predictor.ask("?")
    assert script.targets[-1] == [predictor.targets.index("liver"), predictor.targets.index("left kidney")]
    script.answer = "The <p>moon</p> [SEG] is full."
    predictor.ask("?")
    assert script.targets[-1] == [-1]


def test_ask_before_set_image(predictor: Predictor) -> None:
    with pytest.raises(QuestionError, match="set_image"):
        predictor.ask("Where is the liver?")


def test_a_volume_is_not_a_picture(predictor: Predictor, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.float32), np.eye(4)), tmp_path / "v.nii.gz")
    with pytest.raises(ImageError, match="4 slices: use ask_volume"):
        predictor.set_image(tmp_path / "v.nii.gz")


def test_an_answer_without_targets_has_no_findings(predictor: Predictor, script: Script) -> None:
    script.answer = "No liver is visible in this abdominal CT."
    predictor.set_image(_picture()[0])
    reply = predictor.ask("Show the liver.")
    assert reply.findings == () and reply.text == script.answer
    assert reply.outcome is Outcome.NOT_PRESENT


def test_a_named_structure_without_outline_is_owned_up_to(predictor: Predictor, script: Script) -> None:
    script.answer = "Visible here: <p>liver</p> [SEG] and [SEG]."
    predictor.set_image(np.full((40, 40), 10, np.uint8))
    reply = predictor.ask("")
    assert reply.findings == ()
    assert reply.text == "Visible here: liver and. (No outline could be drawn for: liver, finding.)"
    assert reply.outcome is Outcome.NOT_DRAWN


def test_text_is_streamed_in_pieces_that_make_up_the_answer(predictor: Predictor, script: Script) -> None:
    predictor.set_image(_picture()[0])
    pieces: list[str] = []
    reply = predictor.ask("?", on_text=pieces.append)
    assert len(pieces) == 6 and "".join(pieces) == PLACED == reply.text
    assert pieces[-1] == f" {UPPER_RIGHT}", "measured when the masks are there, and said then"


def test_half_a_character_does_not_stop_the_stream(
    predictor: Predictor, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(*_: Any, on_token: Callable[[str], None], **__: Any) -> Generated:
        for text in ("3 mm", "3 mm\N{REPLACEMENT CHARACTER}", "3 mm²", "3 mm² wide"):
            on_token(text)
        return Generated("3 mm² wide", torch.zeros(0, 48), 1.0)

    monkeypatch.setattr(predictor.model.context, "generate", generate)
    predictor.set_image(_picture()[0])
    pieces: list[str] = []
    predictor.ask("?", on_text=pieces.append)
    assert "".join(pieces) == "3 mm² wide"


# --- what the masks add -------------------------------------------------------------------------------------------------

BOTH = "Comparing the <p>liver</p> [SEG] with the <p>left kidney</p> [SEG]."


def _two_sizes(script: Script, monkeypatch: pytest.MonkeyPatch, model: MedSegR) -> None:
    """The second mask covers the upper half of the first."""

    def decode(
        features: ImageFeatures, states: torch.Tensor, points: Any, labels: Any, targets: Any
    ) -> Masks:
        logits = (features.skips[0][:, 0] - 0.5).repeat(len(states), 1, 1)
        middle = int(torch.nonzero(logits[0].amax(1) > 0).float().mean())
        logits[1, middle:] = -0.5
        return Masks(logits, torch.zeros(len(states)), torch.ones(len(states)))

    script.answer = BOTH
    monkeypatch.setattr(model, "decode_masks", decode)


def test_a_comparison_says_which_is_larger_with_the_sizes(
    predictor: Predictor, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    _two_sizes(script, monkeypatch, predictor.model)
    predictor.set_image(Picture(_picture(64, 64)[0], "CT", (2.0, 0.5)))
    pieces: list[str] = []
    reply = predictor.ask("Which is larger, the liver or the left kidney?", on_text=pieces.append)
    liver, kidney = (int(f.mask.sum()) for f in reply.findings)
    assert liver > 1.5 * kidney > 0
    said = f"The liver is larger: {liver:,} mm² against {kidney:,} mm²."
    assert reply.text == f"Comparing the liver with the left kidney. {said}" == "".join(pieces)
    assert reply.measured is not None
    assert (reply.measured.kind, reply.measured.value, reply.measured.text) == ("comparison", "liver", said)
    predictor.set_image(Picture(_picture(64, 64)[0], "CT", None))
    assert f"The liver is larger: {liver:,} pixels against {kidney:,} pixels." in predictor.ask("?").text


def test_a_comparison_in_a_volume_is_one_of_volumes(predictor: Predictor, script: Script) -> None:
    script.answer = BOTH
    reply = predictor.ask_volume(_volume(AXIAL)[0], "Which is larger, the liver or the left kidney?")
    volumes = [3.0 * int(f.mask.sum()) / 1000 for f in reply.findings]
    assert reply.text.endswith(f" They are about the same size: {volumes[0]:.1f} ml and {volumes[1]:.1f} ml.")


def test_pieces_are_counted_and_sides_are_said_on_the_mask(predictor: Predictor, script: Script) -> None:
    pixels, _ = _picture()
    pixels[60:90, 10:60] = 230
    predictor.set_image(pixels, modality="CT")
    script.answer = "Counting the <p>liver</p> [SEG]."
    assert predictor.ask("How many?").text == "Counting the liver. 2 separate pieces are outlined."
    predictor.set_image(_picture()[0], modality="CT")
    script.answer = "Locating the <p>liver</p> [SEG]."
    body = ": the patient's left, in the usual radiological display."
    assert predictor.ask("Left or right?").text == f"Locating the liver. {UPPER_RIGHT.rstrip('.')}{body}"
    predictor.set_image(_picture()[0], modality="US")
    assert predictor.ask("Left or right?").text == f"Locating the liver. {UPPER_RIGHT}"


def test_a_measured_answer_gets_its_markup_back_in_the_history(
    predictor: Predictor, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The language model reads what it wrote and not what was measured: the history holds its answer only."""
    _two_sizes(script, monkeypatch, predictor.model)
    predictor.set_image(_picture()[0])
    reply = predictor.ask("Which is larger?")
    assert reply.text != BOTH and "larger: " in reply.text
    predictor.ask("Why?", [("Which is larger?", reply.text)])
    assert script.turns[-1] == [("Which is larger?", BOTH)]


def test_nothing_is_measured_where_a_structure_was_not_drawn(predictor: Predictor, script: Script) -> None:
    predictor.set_image(np.full((40, 40), 10, np.uint8))
    for script.answer in (BOTH, "Counting the <p>liver</p> [SEG].", LIVER):
        reply = predictor.ask("?")
        assert reply.measured is None and "No outline could be drawn" in reply.text


# --- history -----------------------------------------------------------------------------------------------------------


def test_history_is_passed_on_and_own_answers_get_their_markup_back(
    predictor: Predictor, script: Script
) -> None:
    predictor.set_image(_picture()[0])
    reply = predictor.ask("Where is the liver?")
    predictor.ask("And?", [("Where is the liver?", reply.text), ("Sure?", "Written by somebody else.")])
    assert script.turns == [
        [], [("Where is the liver?", LIVER), ("Sure?", "Written by somebody else.")],
    ]  # fmt: skip
    assert script.questions == ["Where is the liver?", "And?"]


def test_only_the_last_turns_are_read(predictor: Predictor, script: Script) -> None:
    predictor.set_image(_picture()[0])
    predictor.ask("?", [(f"q{n}", "a") for n in range(20)])
    assert [q for q, _ in script.turns[0]] == [f"q{n}" for n in range(12, 20)]


def test_turns_that_do_not_fit_are_left_out_oldest_first(predictor: Predictor, script: Script) -> None:
    """Text that the vocabulary does not know takes two tokens and more for a character."""
    predictor.set_image(_picture()[0])
    predictor.ask("?", [("first", "ю" * 900), ("second", "Yes.")])
    assert script.turns == [[("second", "Yes.")]]


def test_what_is_remembered_of_answers_is_bounded(
    predictor: Predictor, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_MARKED", 2)
    predictor.set_image(_picture()[0])
    said = []
    for name in ("liver", "spleen", "heart"):
        script.answer = f"The <p>{name}</p> [SEG]."
        said.append(predictor.ask("?").text)
    predictor.ask("?", [("?", said[0]), ("?", said[2])])
    assert script.turns[-1] == [("?", said[0]), ("?", "The <p>heart</p> [SEG].")]


def test_too_much_text_is_refused(predictor: Predictor) -> None:
    predictor.set_image(_picture()[0])
    with pytest.raises(QuestionError, match="100000 characters; at most 2000"):
        predictor.ask("x" * 100_000)
    with pytest.raises(QuestionError, match="history is too long"):
        predictor.ask("?", [("q", "a" * 8001)])
    with pytest.raises(QuestionError, match="max_new_tokens is 0"):
        predictor.ask("?", max_new_tokens=0)


# --- clicks and boxes --------------------------------------------------------------------------------------------------


def test_clicks_reach_the_decoder_in_the_models_square(predictor: Predictor, script: Script) -> None:
    predictor.set_image(_picture(96, 160)[0])
    predictor.ask("?", points=[[48, 40, 1], [0, 80, 0]])
    points, labels = script.clicks[0]
    assert points.tolist() == [[16.0, 32.0], [32.0, 0.0]], "(x, y) of a 64 x 64 square"
    assert labels.tolist() == [1.0, 0.0]
    predictor.ask("?", points=[])
    assert script.clicks[-1] == (None, None)


@pytest.mark.parametrize(
    "points",
    [
        *([[1, 2]], [1, 2, 1], [[1, 2, 5]], [[1, 2, 1], [3, 4]], [["a", 2, 1]]),
        *([[-1, 2, 1]], [[96, 2, 1]], [[1, 160, 1]], [[float("nan"), 2, 1]]),
    ],
)
def test_bad_points_are_refused_before_anything_is_computed(
    predictor: Predictor, script: Script, points: Any
) -> None:
    predictor.set_image(_picture(96, 160)[0])
    with pytest.raises(QuestionError, match="points must"):
        predictor.ask("?", points=points)
    assert not script.questions


def test_a_box_limits_the_masks(predictor: Predictor, script: Script) -> None:
    pixels, bright = _picture(96, 160)
    predictor.set_image(pixels)
    whole = predictor.ask("?").findings[0].mask
    inside = predictor.ask("?", box=[10, 70, 30.5, 100]).findings[0].mask
    expected = np.zeros_like(bright)
    expected[10:31, 70:100] = True
    assert np.array_equal(inside, whole & expected)
    assert predictor.ask("?", box=[80, 0, 96, 160]).findings == (), "nothing bright lies in there"


@pytest.mark.parametrize(
    "box", [[0, 0, 5], [5, 0, 5, 9], [0, 0, 97, 9], [0, -1, 5, 9], [0, 0, float("nan"), 9]]
)
def test_bad_boxes_are_refused_before_anything_is_computed(
    predictor: Predictor, script: Script, box: list[float]
) -> None:
    predictor.set_image(_picture(96, 160)[0])
    with pytest.raises(QuestionError, match="box must be"):
        predictor.ask("?", box=box)
    assert not script.questions


# --- cache -------------------------------------------------------------------------------------------------------------


def test_the_same_pixels_are_encoded_once(predictor: Predictor, script: Script) -> None:
    pixels, _ = _picture()
    predictor.set_image(pixels)
    predictor.ask("?")
    predictor.ask("And?", [("?", PLAIN)])
    predictor.set_image(pixels.copy())
    assert len(script.encoded) == 2
    predictor.set_image(255 - pixels)
    assert len(script.encoded) == 4


def test_the_prefix_is_computed_once_and_counted(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = predictor.model.context.prefix

    def prefix(tokens: torch.Tensor) -> Any:
        calls.append(tokens.shape[1])
        return real(tokens)

    monkeypatch.setattr(predictor.model.context, "prefix", prefix)
    predictor.set_image(_picture()[0])
    (entry,) = predictor._cache.values()
    before = entry.n_bytes
    predictor.ask("?", max_new_tokens=2)
    predictor.ask("And?", max_new_tokens=2)
    tokens = entry.scales[0].context.shape[1]
    assert calls == [tokens]
    config = predictor.config
    assert entry.n_bytes - before == config.context_layers * 2 * tokens * config.context_dim * 4


def test_the_cache_is_bounded_and_forgets_the_oldest(
    predictor: Predictor, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.full((64, 64), level, np.uint8) for level in (10, 20, 30)]
    predictor.set_image(images[0])
    (entry,) = predictor._cache.values()
    monkeypatch.setattr(predictor, "_cache_bytes", 2 * entry.n_bytes)
    predictor.set_image(images[1])
    predictor.set_image(images[0])  # used again: the second is now the oldest
    predictor.set_image(images[2])
    assert len(predictor._cache) == 2 and len(script.encoded) == 6
    predictor.set_image(images[0])
    assert len(script.encoded) == 6
    predictor.set_image(images[1])
    assert len(script.encoded) == 8


def test_the_current_image_outlives_the_cache(
    predictor: Predictor, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long volume between two questions about a picture pushes it out of the cache, not out of sight."""
    monkeypatch.setattr(predictor, "_cache_bytes", 1)
    pixels, bright = _picture()
    predictor.set_image(pixels)
    predictor.ask_volume(_volume(np.diag([1.0, 1.0, 3.0, 1.0]))[0], "?")
    assert _agree(predictor.ask("?").findings[0].mask, bright) > 0.95


# --- cancelling --------------------------------------------------------------------------------------------------------


def test_cancel_leaves_the_predictor_usable(predictor: Predictor) -> None:
    predictor.set_image(_picture()[0])
    before = predictor.ask("Where is the liver?", max_new_tokens=4).text
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        predictor.ask("Where is the liver?", should_stop=lambda: next(answers), max_new_tokens=9)
    assert _prefix_is_whole(predictor)
    assert predictor.ask("Where is the liver?", max_new_tokens=4).text == before


def test_an_error_of_the_callers_leaves_the_predictor_usable(predictor: Predictor) -> None:
    def fail() -> bool:
        raise ConnectionError

    predictor.set_image(_picture()[0])
    before = predictor.ask("Where is the liver?", max_new_tokens=4).text
    with pytest.raises(ConnectionError):
        predictor.ask("Where is the liver?", should_stop=fail)
    assert _prefix_is_whole(predictor)
    assert predictor.ask("Where is the liver?", max_new_tokens=4).text == before


def _prefix_is_whole(predictor: Predictor) -> bool:
    """Whether the cached image prefix has as many positions as the image has tokens."""
    (entry,) = predictor._cache.values()
    tokens, prefix = entry.scales[0].context.shape[1], entry.prefix
    return prefix is not None and prefix.cache.get_seq_length() == prefix.length == tokens


# --- volumes -----------------------------------------------------------------------------------------------------------

AXIAL = np.diag([1.0, 1.0, 3.0, 1.0])
FLIPPED = np.diag([-1.0, 1.0, -3.0, 1.0])
CORONAL = np.array(
    [[1.0, 0, 0, 0], [0, 0, 3, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
)  # third axis runs to the front
SAGITTAL = np.array([[0, 0, -4.0, 5], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def _volume(affine: np.ndarray, shape: tuple[int, int, int] = (64, 48, 6)) -> tuple[Volume, np.ndarray]:
    """Dark, with a bright block off the middle on every slice but the first and the last of the third axis."""
    bright = np.zeros(shape, bool)
    bright[8:40, 24:44, 1:-1] = True
    voxels = np.where(bright, 200.0, 0.0).astype(np.float32)
    voxels[0, 0, :] = 250.0  # the same grey range whatever the block covers
    return Volume(voxels, affine, "MR"), bright


@pytest.mark.parametrize("affine", [AXIAL, FLIPPED, CORONAL, SAGITTAL])
def test_masks_lie_on_the_volumes_own_grid(predictor: Predictor, script: Script, affine: np.ndarray) -> None:
    volume, bright = _volume(affine)
    assert volume.slice_axis == 2
    progress: list[tuple[int, int]] = []
    said: list[str] = []
    reply = predictor.ask_volume(
        volume, "Where is the liver?", on_progress=lambda *p: progress.append(p), on_text=said.append
    )
    (finding,) = reply.findings
    assert finding.mask.shape == bright.shape and _agree(finding.mask, bright) > 0.9
    assert progress == [(n, 6) for n in range(1, 7)] and said == [PLAIN] == [reply.text]


def test_a_volume_stacked_along_its_first_axis(predictor: Predictor, script: Script) -> None:
    volume, bright = _volume(AXIAL)
    turned = Volume(
        np.ascontiguousarray(np.moveaxis(volume.voxels, 2, 0)), np.diag([5.0, 1.0, 1.0, 1.0]), "MR"
    )
    assert turned.slice_axis == 0
    (finding,) = predictor.ask_volume(turned, "?").findings
    assert _agree(finding.mask, np.moveaxis(bright, 2, 0)) > 0.9


def test_only_the_chosen_slices_are_outlined(predictor: Predictor, script: Script) -> None:
    volume, _ = _volume(AXIAL)
    progress: list[tuple[int, int]] = []
    reply = predictor.ask_volume(volume, "?", slices=range(2, 4), on_progress=lambda *p: progress.append(p))
    assert np.flatnonzero(reply.findings[0].mask.any(axis=(0, 1))).tolist() == [2, 3]
    assert progress == [(1, 2), (2, 2)] and len(script.questions) == 2, "two slices, two probes"


@pytest.mark.parametrize("slices", [range(0), range(-1, 3), range(3, 7), range(5, -3, -1)])
def test_slices_outside_the_volume_are_refused(predictor: Predictor, script: Script, slices: range) -> None:
    with pytest.raises(QuestionError, match=r"within 0\.\.5"):
        predictor.ask_volume(_volume(AXIAL)[0], "?", slices=slices)


def test_a_slice_counts_only_where_the_structure_is_present(predictor: Predictor, script: Script) -> None:
    volume, _ = _volume(AXIAL)
    volume.voxels[8:40, 24:44, 2] = 150.0  # still bright enough for the decoder
    level = {k: _level(volume, k) for k in range(6)}
    script.present = lambda seen: seen > (level[2] + level[3]) / 2
    (finding,) = predictor.ask_volume(volume, "?").findings
    assert np.flatnonzero(finding.mask.any(axis=(0, 1))).tolist() == [1, 3, 4]


def _level(volume: Volume, k: int) -> float:
    low, high = volume_intensity_range(volume)
    return float(np.clip((volume.slice_pixels(k) - low) / (high - low), 0, 1).mean())


def test_most_probes_decide_what_is_outlined(predictor: Predictor, script: Script) -> None:
    spleen = "The <p>spleen</p> [SEG] and the <p>aorta</p> [SEG] are outlined."
    levels: list[float] = []

    def answer(level: float) -> str:
        levels.append(level)
        return spleen if len(levels) == 1 else LIVER

    script.answer = answer
    volume, _ = _volume(AXIAL)
    reply = predictor.ask_volume(volume, "?")
    assert len(levels) > 2 and [f.label for f in reply.findings] == ["liver"]


def test_one_probe_that_shows_something_outvotes_those_that_do_not(
    predictor: Predictor, script: Script
) -> None:
    script.answer = lambda level: LIVER if level > 0.1 else "No liver is visible."
    volume, _ = _volume(AXIAL)
    volume.voxels[8:40, 24:44, 2:5] = 0.0  # one slice of six is left
    volume.voxels[8:40, 24:44, 1] = 200.0
    reply = predictor.ask_volume(volume, "?")
    assert [f.label for f in reply.findings] == ["liver"]
    assert np.flatnonzero(reply.findings[0].mask.any(axis=(0, 1))).tolist() == [1]


def test_nothing_named_means_no_finding_and_no_decoding(predictor: Predictor, script: Script) -> None:
    script.answer = "No liver is visible."
    reply = predictor.ask_volume(_volume(AXIAL)[0], "?")
    assert reply.findings == () and reply.text == script.answer and not script.clicks


def test_a_structure_that_no_slice_shows_is_no_finding(predictor: Predictor, script: Script) -> None:
    script.present = lambda level: False
    reply = predictor.ask_volume(_volume(AXIAL)[0], "?")
    assert reply.findings == () and "No outline could be drawn for: liver" in reply.text


def test_a_volume_question_can_be_cancelled_while_slices_are_outlined(
    predictor: Predictor, script: Script
) -> None:
    volume, _ = _volume(AXIAL)
    done: list[int] = []
    with pytest.raises(Cancelled):
        predictor.ask_volume(
            volume, "?", on_progress=lambda n, of: done.append(n), should_stop=lambda: len(done) == 2
        )
    assert done == [1, 2]
    assert predictor.ask_volume(volume, "?").findings


def test_random_weights_answer_about_a_volume(predictor: Predictor) -> None:
    volume, bright = _volume(AXIAL)
    reply = predictor.ask_volume(volume, "Where is the liver?", max_new_tokens=3)
    assert all(f.mask.shape == bright.shape for f in reply.findings)


# --- from_pretrained ---------------------------------------------------------------------------------------------------


def test_from_pretrained_reads_a_directory(tiny: MedSegR, tmp_path: Path) -> None:
    tiny.config = replace(tiny.config, calibration=(2.0, -1.0))
    save_checkpoint(tiny, tmp_path / "ck", META, "# card")
    loaded = Predictor.from_pretrained(tmp_path / "ck")
    assert loaded.targets == ("liver", "left kidney")
    assert (loaded.version, loaded.licence, loaded.sentences) == ("tiny-1", "CC0", None)
    loaded.set_image(_picture()[0])
    assert isinstance(loaded.ask("?", max_new_tokens=2).text, str)


def test_a_device_that_is_not_there_is_one_sentence(tiny: MedSegR, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path / "ck", META, "# card")
    with pytest.raises(CheckpointError, match="device 'cuda:99' cannot be used") as caught:
        Predictor.from_pretrained(tmp_path / "ck", device="cuda:99")
    assert "\n" not in str(caught.value)


def test_confidence_follows_the_calibration(predictor: Predictor, script: Script) -> None:
    script.quality, script.words = 1.0, (0.5,)
    predictor.config = replace(predictor.config, calibration=(2.0, -1.0))
    predictor.set_image(_picture()[0])
    assert predictor.ask("?").findings[0].confidence == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6), (
        "a calibration of two numbers knows nothing of the words"
    )


def test_confidence_uses_the_words_as_well(predictor: Predictor, script: Script) -> None:
    predictor.config = replace(predictor.config, calibration=(2.0, -1.0, 0.5))
    script.quality, script.answer = 1.0, "Visible here: <p>liver</p> [SEG] and <p>left kidney</p> [SEG]."
    script.words = (0.25, 1.0)
    predictor.set_image(_picture()[0])
    doubted, sure = predictor.ask("?").findings
    assert doubted.scores == pytest.approx((1.0, np.log(0.25))) and sure.scores == (1.0, 0.0)
    assert doubted.confidence == pytest.approx(1 / (1 + np.exp(-(2.0 - 1.0 + 0.5 * np.log(0.25)))))
    assert sure.confidence == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_words_of_no_probability_leave_a_confidence(predictor: Predictor, script: Script) -> None:
    predictor.config = replace(predictor.config, calibration=(1.0, 0.0, 1.0))
    script.words = (0.0,)
    predictor.set_image(_picture()[0])
    (finding,) = predictor.ask("?").findings
    assert 0.0 < finding.confidence < 1e-5 and np.isfinite(finding.scores[1])


def test_the_words_count_in_a_volume_too(predictor: Predictor, script: Script) -> None:
    predictor.config = replace(predictor.config, calibration=(1.0, 0.0, 1.0))
    script.words = (0.25,)
    (finding,) = predictor.ask_volume(_volume(AXIAL)[0], "?").findings
    assert finding.confidence == pytest.approx(1 / (1 + np.exp(-np.log(0.25))))


def test_what_was_never_learnt_is_not_called_absent(predictor: Predictor, script: Script) -> None:
    predictor.set_image(np.zeros((40, 60), np.uint8))
    heard: list[str] = []
    reply = predictor.ask("Where is the thyroid gland?", on_text=heard.append)
    assert reply.outcome is Outcome.NOT_TRAINED
    assert reply.untrained == ("thyroid gland",)
    assert "".join(heard) == reply.text
    assert "not trained" in reply.text
    assert script.questions == []


def test_a_question_by_name_may_outline_only_what_it_names(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the picture seems to show; a description leaves everything open that it seems to show."""
    monkeypatch.setattr(answering, "LIKELY", 0.0)
    given: list[Limits] = []

    def listen(*_: object, limits: Limits, **__: object) -> Generated:
        given.append(limits)
        return Generated("", torch.zeros(0, predictor.config.context_dim), 1.0)

    monkeypatch.setattr(predictor.model.context, "generate", listen)
    predictor.set_image(np.zeros((64, 64), np.uint8), "CT")
    predictor.ask("Outline the liver.")
    predictor.ask("Which organ makes bile?")
    assert given[0].phrases == ("liver",) and given[0].most == 1
    assert set(given[1].phrases) == set(predictor.targets) and given[1].most == 0


@pytest.fixture
def limits_of(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Limits]:
    """What an answer to a question about a dark picture may say."""
    monkeypatch.setattr(answering, "LIKELY", 0.0)
    predictor.set_image(np.zeros((64, 64), np.uint8), "CT")
    (prepared,) = predictor._cache.values()

    def limits(question: str) -> Limits:
        return predictor.limits([prepared], question, predictor.asked(question))

    return limits


def test_the_rule_decides_whether_what_is_named_is_there(
    predictor: Predictor, limits_of: Callable[[str], Limits]
) -> None:
    assert not limits_of("Outline the liver.").decided, "a checkpoint without a rule"
    (prepared,) = predictor._cache.values()
    seen = predictor.overview([prepared], "liver")
    for rest, least in ((1.0, 0.0), (-1.0, answering.NEVER)):
        predictor.config = replace(predictor.config, denial=(0.0, 0.0, rest))
        limits = limits_of("Outline the liver.")
        assert limits.decided and limits.sure_denial == least
    predictor.config = replace(predictor.config, denial=(1.0, 1.0, 0.0))
    assert seen == float(prepared.scales[0].present[0, 0])
    assert limits_of("Outline the liver.").sure_denial == pytest.approx(1 / (1 + np.exp(seen)))


def test_the_rule_is_not_asked_about_descriptions_and_several_structures(
    predictor: Predictor, limits_of: Callable[[str], Limits]
) -> None:
    predictor.config = replace(predictor.config, denial=(0.0, 0.0, 1.0))
    for question in ("Which organ makes bile?", "Outline the liver and the left kidney.", ""):
        assert not limits_of(question).decided


def test_what_the_rule_denies_is_denied_and_what_it_does_not_is_not(predictor: Predictor) -> None:
    """Random weights, which say neither on their own."""
    predictor.set_image(_picture()[0])
    for rest, denied in ((1.0, True), (-1.0, False)):
        predictor.config = replace(predictor.config, denial=(0.0, 0.0, rest))
        reply = predictor.ask("Outline the liver.", max_new_tokens=12)
        assert reply.text.startswith("No") == denied and not (denied and (reply.findings or reply.undrawn))
    (prepared,) = predictor._cache.values()
    assert 0.0 < predictor.chance_of_denial(prepared, "Outline the liver.") < 1.0


def test_a_description_is_answered_by_the_sentences_that_are_near_to_it(
    predictor: Predictor, limits_of: Callable[[str], Limits], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def to(question: str) -> dict[str, tuple[str, ...]]:
        asked.append(question)
        return {"liver": ("makes bile.",)}

    monkeypatch.setattr(predictor._reasons, "to", to)
    assert limits_of("Which organ makes bile?").reasons == {"liver": ("makes bile.",)}
    assert limits_of("Outline the liver.").reasons == predictor._reasons.said
    assert asked == ["Which organ makes bile?"]
