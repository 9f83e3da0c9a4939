"""ReasonSeg, MediSee, Med-ReasonSeg and BiomedParse: masks survive the round trip pixel by pixel, losses are counted, and what
is wrong is named with file, line and reason."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsegr.errors import MedSegRError, QAFileError
from medsegr.qa.checks import check_file
from medsegr.qa.formats import FORMATS, export_file, import_file
from medsegr.qa.formats.reasonseg import paint_shapes
from medsegr.qa.formats.records import ReadOptions, WriteOptions, marked_up
from medsegr.qa.reader import read_qa

CT = ReadOptions(modality="CT", dataset="toy")
BILE, DETOX = "Which organ here makes bile?", "Show the one that breaks down alcohol."


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_reasonseg_keeps_wordings_masks_and_what_is_to_be_ignored(
    qa_file: Path, tmp_path: Path, masks_of: Any, drawn: Any
) -> None:
    report = export_file("reasonseg", qa_file, tmp_path / "rs")
    assert report.count == 3
    assert report.dropped == {
        "follow-up turns": 1,
        "answers": 3,
        "exact pixels (images made JPEG)": 2,
    }
    assert left_in(tmp_path / "rs" / "train") == ["a.jpg", "a.json", "a_2.jpg", "a_2.json"]
    record = json.loads((tmp_path / "rs" / "train" / "a.json").read_text())
    assert record["text"] == [BILE, DETOX]
    assert record["is_sentence"] is True
    assert {s["label"] for s in record["shapes"]} == {"target", "ignore"}
    again = tmp_path / "back" / "qa.jsonl"
    assert import_file("reasonseg", tmp_path / "rs", again, CT).count == 3
    masks = masks_of(again)
    assert np.array_equal(masks["a", BILE, "target"], drawn["liver"])
    assert np.array_equal(masks["a", DETOX, "target"], drawn["liver"])
    assert np.array_equal(masks["a_2", "Outline the kidneys.", "target"], drawn["kidneys"])
    assert np.array_equal(
        np.asarray(Image.open(again.parent / "qa_files/masks/a.png")) == 255, drawn["ignore"]
    )
    assert check_file(again) == []
    assert left_in(again.parent) == ["qa.jsonl", "qa_files"]


def test_reasonseg_paints_from_the_largest_to_the_smallest() -> None:
    square = {"label": "target", "points": [[1, 1], [1, 3], [3, 3], [3, 1]]}
    frame = {"label": "ignore", "points": [[0, 0], [0, 4], [4, 4], [4, 0]]}
    dot = {"label": "ignore", "points": [[2, 2]]}
    flag = {"label": "flag", "points": [[0, 0], [0, 9], [9, 9]]}
    expected = np.full((6, 6), 0)
    expected[:5, :5] = 255
    expected[1:4, 1:4] = 1
    expected[2, 2] = 255
    assert np.array_equal(paint_shapes([dot, square, flag, frame], (6, 6), "x"), expected)


def test_reasonseg_without_a_target_is_a_question_about_something_absent(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "n.jpg")
    (tmp_path / "n.json").write_text(
        '{"text": ["the unicorn’s horn"], "is_sentence": false, "shapes": []}', "cp1252"
    )
    import_file("reasonseg", tmp_path, tmp_path / "out" / "qa.jsonl", CT)
    (conversation,) = read_qa(tmp_path / "out" / "qa.jsonl")
    assert conversation.turns[0].question == "the unicorn’s horn"
    assert conversation.turns[0].targets == ()
    assert conversation.turns[0].kind == "absent_same_set"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"text": ["x"],\n "shapes": [}', r"k\.json:2: not valid JSON"),
        ('{"text": [], "shapes": []}', r"k\.json: 'text' is \[\]; a list of questions is expected"),
        ('{"text": ["x"]}', r"k\.json: 'shapes' is None"),
        (
            '{"text": ["x"], "shapes": [{"label": "liver", "points": [[0, 0]]}]}',
            r"shapes\[0\]: label is 'liver'",
        ),
        (
            '{"text": ["x"], "shapes": [{"label": "target", "points": [[0, 0, 1]]}]}',
            r"shapes\[0\]: points are .* a list of \[x, y\] is expected",
        ),
    ],
)
def test_a_broken_reasonseg_file_is_named_and_leaves_nothing(
    tmp_path: Path, record: str, reason: str
) -> None:
    source = tmp_path / "rs"
    source.mkdir()
    Image.new("L", (8, 8)).save(source / "k.jpg")
    (source / "k.json").write_text(record)
    with pytest.raises(QAFileError, match=reason):
        import_file("reasonseg", source, tmp_path / "qa.jsonl", CT)
    assert left_in(tmp_path) == ["rs"]


def test_reasonseg_needs_its_image_and_a_modality(tmp_path: Path) -> None:
    source = tmp_path / "rs"
    source.mkdir()
    (source / "k.json").write_text('{"text": ["x"], "shapes": []}')
    with pytest.raises(QAFileError, match=r"k\.json: there is no k\.jpg beside it"):
        import_file("reasonseg", source, tmp_path / "qa.jsonl", CT)
    Image.new("L", (8, 8)).save(source / "k.jpg")
    with pytest.raises(QAFileError, match="no modality is given; name one of CT.* with --modality"):
        import_file("reasonseg", source, tmp_path / "qa.jsonl")


def test_medisee_keeps_masks_names_and_two_wordings(
    qa_file: Path, tmp_path: Path, masks_of: Any, drawn: Any
) -> None:
    report = export_file("medisee", qa_file, tmp_path / "ms")
    assert report.count == 3
    assert report.dropped == {"follow-up turns": 1, "answers": 3}
    rows = [json.loads(line) for line in (tmp_path / "ms" / "train.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "image": "images/a.png",
        "mask": "masks/a_liver.png",
        "class_text": "liver",
        "long": DETOX,
        "short": BILE,
        "bbox": [1, 1, 8, 10],
    }
    again = tmp_path / "back.jsonl"
    assert import_file("medisee", tmp_path / "ms" / "train.jsonl", again, CT).count == 3
    masks = masks_of(again)
    assert {key[1:] for key in masks} == {
        (BILE, "liver"),
        (DETOX, "liver"),
        ("Outline the kidneys.", "kidneys"),
    }
    assert all(np.array_equal(mask, drawn[key[2]]) for key, mask in masks.items())
    assert check_file(again) == []


def test_medisees_training_file_is_an_object_of_objects(tmp_path: Path, masks_of: Any) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "i.png")
    Image.fromarray(np.array([[0, 255, 0, 0]] * 3, np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "t.json").write_text('{"i.png": {"m.png": "liver"}}')
    import_file("medisee", tmp_path / "t.json", tmp_path / "qa.jsonl", CT)
    masks = masks_of(tmp_path / "qa.jsonl")
    assert masks["i", "Outline the liver.", "liver"].sum() == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_text": ""}, r"ms\.jsonl:2: 'class_text' is ''; text is expected"),
        ({"mask": "no.png"}, r"ms\.jsonl:2: mask 'no\.png' does not exist"),
        ({"mask": "small.png"}, r"ms\.jsonl:2: mask '.*small\.png' is 2 x 2, but its image is 3 x 4"),
        ({"mask": "black.png"}, r"ms\.jsonl:2: mask '.*black\.png' is empty"),
        ({"image": "ms.jsonl"}, r"ms\.jsonl:2: image '.*ms\.jsonl' cannot be read"),
        ({"bbox": [1, 2]}, r"ms\.jsonl:2: 'bbox' is \[1, 2\]; four numbers are expected"),
    ],
)
def test_a_broken_medisee_line_is_named(
    tmp_path: Path, as_lines: Callable[[Path, list[object]], Path], change: dict[str, object], reason: str
) -> None:
    folder = tmp_path / "ms"
    folder.mkdir()
    Image.new("L", (4, 3)).save(folder / "i.png")
    Image.new("L", (4, 3)).save(folder / "black.png")
    Image.new("L", (4, 3), 255).save(folder / "m.png")
    Image.new("L", (2, 2), 255).save(folder / "small.png")
    row = {"image": "i.png", "mask": "m.png", "class_text": "liver", "long": "Where?", "short": ""}
    as_lines(folder / "ms.jsonl", [row, row | change])
    with pytest.raises(QAFileError, match=reason):
        import_file("medisee", folder / "ms.jsonl", tmp_path / "qa.jsonl", CT)
    assert left_in(tmp_path) == ["ms"]


@pytest.mark.parametrize("table", ["jsonl", "csv"])
def test_med_reasonseg_keeps_questions_answers_names_and_masks(
    qa_file: Path, tmp_path: Path, masks_of: Any, drawn: Any, table: str
) -> None:
    report = export_file("med-reasonseg", qa_file, tmp_path / "mr", WriteOptions(table=table))
    assert report.count == 3
    assert report.dropped == {"follow-up turns": 1}
    path = tmp_path / "mr" / f"train.{table}"
    lines = path.read_text().splitlines()
    rows = list(csv.DictReader(lines)) if table == "csv" else [json.loads(line) for line in lines]
    assert rows[0] == {
        "question": BILE,
        "answer": "The liver [SEG] makes bile.",
        "image_path": "images/a.png",
        "mask_path": "masks/a_liver.png",
        "dataset": "toy",
        "task": "referring",
    }
    again = tmp_path / "back.jsonl"
    import_file("med-reasonseg", tmp_path / "mr", again, ReadOptions(modality="CT"))
    old, new = list(read_qa(qa_file)), list(read_qa(again))
    assert [c.turns[0].question for c in new] == [c.turns[0].question for c in old]
    assert [c.turns[0].answer for c in new] == [c.turns[0].answer for c in old]
    assert [c.turns[0].kind for c in new] == ["implicit", "implicit", "explicit"]
    assert [c.dataset for c in new] == ["toy"] * 3
    assert all(np.array_equal(mask, drawn[key[2]]) for key, mask in masks_of(again).items())
    assert check_file(again) == []


def test_a_negative_row_has_no_target(tmp_path: Path, as_lines: Callable[[Path, list[object]], Path]) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "x_CT_abdomen.png")
    row = {
        "question": "Tumour?", "answer": "None is seen.", "image_path": "x_CT_abdomen.png", "mask_path": "",
        "dataset": "lits_negative", "task": "referring",
    }  # fmt: skip
    as_lines(tmp_path / "test.jsonl", [row])
    import_file("med-reasonseg", tmp_path / "test.jsonl", tmp_path / "qa.jsonl")
    (conversation,) = read_qa(tmp_path / "qa.jsonl")
    assert (conversation.dataset, conversation.split, conversation.modality) == ("lits", "test", "CT")
    assert conversation.turns[0].targets == ()
    assert conversation.turns[0].answer == "None is seen."
    export_file("med-reasonseg", tmp_path / "qa.jsonl", tmp_path / "mr")
    assert json.loads((tmp_path / "mr" / "test.jsonl").read_text())["dataset"] == "lits_negative"


def test_a_broken_row_or_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mr.csv"
    path.write_text("question,answer,image_path,dataset,task\n")
    with pytest.raises(QAFileError, match=r"mr\.csv:1: the column 'mask_path' is missing"):
        import_file("med-reasonseg", path, tmp_path / "qa.jsonl", CT)
    path.write_text("question,answer,image_path,mask_path,dataset,task\n,b,c,d,e,f\n")
    with pytest.raises(QAFileError, match=r"mr\.csv:2: 'question' is ''; text is expected"):
        import_file("med-reasonseg", path, tmp_path / "qa.jsonl", CT)
    (tmp_path / "mr.jsonl").write_text('{"image_path": "i.png"\n')
    with pytest.raises(QAFileError, match=r"mr\.jsonl:1: not valid JSON"):
        import_file("med-reasonseg", tmp_path / "mr.jsonl", tmp_path / "qa.jsonl", CT)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The left kidney [SEG] is small.", "The <p>left kidney</p> [SEG] is small."),
        ("It is [SEG].", "It is <p>left kidney</p> [SEG]."),
        ("[SEG]", "<p>left kidney</p> [SEG]"),
        ("The <p>kidney</p> [SEG] there.", "The <p>kidney</p> [SEG] there."),
        ("It filters blood.", "It filters blood. <p>left kidney</p> [SEG]"),
        ("", "Outlined here: <p>left kidney</p> [SEG]."),
    ],
)
def test_an_answer_gets_one_marked_phrase(answer: str, expected: str) -> None:
    assert marked_up(answer, "left kidney") == expected


def test_biomedparse_says_everything_by_names(
    qa_file: Path, tmp_path: Path, masks_of: Any, drawn: Any
) -> None:
    report = export_file("biomedparse", qa_file, tmp_path / "toy")
    assert report.count == 2
    assert report.dropped == {"questions in other words": 4, "answers": 4}
    assert left_in(tmp_path / "toy" / "train") == ["a_CT_abdomen.png"]
    assert left_in(tmp_path / "toy" / "train_mask") == ["a_CT_abdomen_kidneys.png", "a_CT_abdomen_liver.png"]
    again = tmp_path / "back.jsonl"
    assert import_file("biomedparse", tmp_path / "toy", again).count == 2
    masks = masks_of(again)
    assert np.array_equal(masks["a_CT_abdomen", "liver in abdomen CT", "liver"], drawn["liver"])
    assert np.array_equal(masks["a_CT_abdomen", "kidneys in abdomen CT", "kidneys"], drawn["kidneys"])
    assert check_file(again) == []
    report = export_file("biomedparse", again, tmp_path / "third")
    assert report.dropped == {}
    assert left_in(tmp_path / "third" / "train_mask") == left_in(tmp_path / "toy" / "train_mask")


def test_biomedparse_modalities_and_spaces(tmp_path: Path) -> None:
    for folder in ("test", "test_mask"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    Image.new("L", (4, 3)).save(tmp_path / "set" / "test" / "T_9_MRI-FLAIR_brain.png")
    Image.new("L", (4, 3), 7).save(
        tmp_path / "set" / "test_mask" / "T_9_MRI-FLAIR_brain_lower-grade+glioma.png"
    )
    import_file("biomedparse", tmp_path / "set", tmp_path / "qa.jsonl", ReadOptions(patient_pattern=r"T_\d+"))
    (conversation,) = read_qa(tmp_path / "qa.jsonl")
    assert (conversation.modality, conversation.split, conversation.patient_id) == ("MR", "test", "T_9")
    assert conversation.turns[0].question == "lower-grade glioma in brain MRI-FLAIR"
    assert conversation.turns[0].targets[0].label == "lower-grade glioma"
    export_file("biomedparse", tmp_path / "qa.jsonl", tmp_path / "again")
    assert left_in(tmp_path / "again" / "test_mask") == ["T_9_MRI-FLAIR_brain_lower-grade+glioma.png"]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("x.png", r"x\.png: the name does not say NAME_MODALITY_SITE_TARGET"),
        ("b_CT_abdomen_liver.png", r"b_CT_abdomen_liver\.png: there is no image train/b_CT_abdomen\.png"),
        ("a_CT_abdomen_liver.png", r"a_CT_abdomen_liver\.png: the mask is empty"),
        ("a_OCT_abdomen_liver.png", r"a_OCT_abdomen_liver\.png: modality 'OCT' is not known"),
    ],
)
def test_a_wrong_biomedparse_name_is_named(tmp_path: Path, mask: str, reason: str) -> None:
    for folder in ("train", "train_mask"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for stem in ("a_CT_abdomen", "a_OCT_abdomen"):
        Image.new("L", (4, 3)).save(tmp_path / "set" / "train" / f"{stem}.png")
    grey = 9 if "OCT" in mask else 0
    Image.new("L", (4, 3), grey).save(tmp_path / "set" / "train_mask" / mask)
    with pytest.raises(QAFileError, match=reason):
        import_file("biomedparse", tmp_path / "set", tmp_path / "qa.jsonl")
    assert left_in(tmp_path) == ["set"]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_export_that_fails_leaves_nothing(name: str, tmp_path: Path, qa_file: Path) -> None:
    (qa_file.parent / "masks" / "a.png").write_bytes(b"not a picture")
    with pytest.raises(QAFileError, match=r"qa\.jsonl"):
        export_file(name, qa_file, tmp_path / "out")
    assert left_in(tmp_path) == ["qa"]


def test_nothing_is_overwritten_and_options_are_checked(tmp_path: Path, qa_file: Path) -> None:
    with pytest.raises(MedSegRError, match=r"exists already; a new name is expected"):
        import_file("coco", qa_file.parent, qa_file, CT)
    with pytest.raises(MedSegRError, match=r"exists already; a new folder is expected"):
        export_file("coco", qa_file, qa_file.parent)
    with pytest.raises(MedSegRError, match="Unknown format 'voc': expected one of reasonseg"):
        import_file("voc", qa_file, tmp_path / "x.jsonl")
    with pytest.raises(MedSegRError, match="Unknown modality 'PET'"):
        import_file("coco", qa_file, tmp_path / "x.jsonl", ReadOptions(modality="PET"))
    with pytest.raises(QAFileError, match="does not exist; a coco file or folder is expected"):
        import_file("coco", tmp_path / "none", tmp_path / "x.jsonl", CT)


def test_a_line_without_its_image_is_named_on_export(tmp_path: Path, qa_file: Path) -> None:
    (qa_file.parent / "images" / "a.png").unlink()
    with pytest.raises(QAFileError, match=r"qa\.jsonl:1: image 'images/a\.png' does not exist"):
        export_file("coco", qa_file, tmp_path / "out")
