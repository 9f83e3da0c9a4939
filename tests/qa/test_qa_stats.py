"""`medsegr qa stats`: figures of a small file counted by hand, and leaks found by name and by pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medsegr import cli
from medsegr.errors import QAFileError
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Slice, Target, Turn
from medsegr.qa.stats import Variety, collect, pixel_hash

runner = CliRunner()


def implicit(label: str, question: str, fact: str | None) -> Turn:
    return Turn(question, f"<p>{label}</p> [SEG]", (Target(label, label, "m.png", (1,)),), "implicit", fact)


@pytest.fixture
def files(tmp_path: Path, knowledge: KnowledgeBase) -> list[Path]:
    """Two files of three and one conversations; image a and b differ, c is a copy of b as colour JPEG-free PNG."""
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey + 1).save(tmp_path / "b.png")
    Image.fromarray(np.stack([grey + 1] * 3, axis=-1)).save(tmp_path / "c.png")
    liver = knowledge["liver"]
    known, held = liver.training_facts[0].id, liver.held_out_facts[0].id
    spleen = knowledge["spleen"].training_facts[0].id
    absent = Turn("Spleen?", "No.", (), "absent_same_set", None, ("spleen",))
    first = Conversation(
        "1", "a.png", "CT", "btcv", "p1", "train",
        (implicit("liver", "Which makes bile?", known), implicit("liver", "which makes  Bile?", known), absent),
        "CC0", "permissive",
    )  # fmt: skip
    second = replace(first, id="2", turns=(implicit("liver", "Which regrows?", held),))
    third = Conversation(
        "3", "b.png", "MR", "acdc", "p1", "val", (implicit("spleen", "What filters blood?", spleen),)
    )
    fourth = replace(third, id="4", patient_id="p2", split="val", turns=(absent,))
    write_qa(tmp_path / "one.jsonl", [first, second, third])
    write_qa(tmp_path / "two.jsonl", [fourth])
    return [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]


def test_figures_counted_by_hand(files: list[Path], knowledge: KnowledgeBase) -> None:
    found = collect(files, knowledge)
    assert (found.conversations, found.images, found.patients) == (4, 2, 3)
    assert found.turns == {"implicit": 4, "absent_same_set": 2}
    assert found.turns_per_conversation == {1: 3, 3: 1}
    assert found.splits == {"train": 2, "val": 2}
    assert found.modalities == {"CT": 2, "MR": 2}
    assert found.datasets == {"acdc": 2, "btcv": 2}
    assert found.licences == {"CC0 (permissive)": 2, "not stated (research)": 2}
    assert found.reviews == {"auto": 4}
    assert found.targets == {"liver": 3, "spleen": 1}
    assert found.variety == {"liver": Variety(2, 2, 1), "spleen": Variety(1, 1, 0)}
    assert found.held_out_share == pytest.approx(1 / 3)
    assert found.leaks == []


def test_slices_of_a_volume_are_images_of_their_own(files: list[Path]) -> None:
    base = Conversation("1", "a.png", "CT", "d", "p", "train", (Turn("Q", "A", (), "all"),))
    write_qa(
        files[0], [base, replace(base, id="2", slice=Slice(2, 0)), replace(base, id="3", slice=Slice(2, 1))]
    )
    assert collect(files[:1]).images == 3


def test_a_patient_in_two_splits_is_found_across_files(files: list[Path]) -> None:
    line = json.loads(files[1].read_text()) | {"patient_id": "p1", "split": "test"}
    files[1].write_text("\n" + json.dumps(line) + "\n")
    found = collect(files, hash_images=False)
    assert [leak.what for leak in found.leaks] == ["patient", "image"]
    assert found.leaks[0].places == {"val": f"{files[0]}:3", "test": f"{files[1]}:2"}
    assert (
        found.leaks[0].sentence() == f"patient 'p1' of acdc is in val ({files[0]}:3) and test ({files[1]}:2)"
    )


def test_a_copy_under_another_name_is_found_by_its_pixels(files: list[Path]) -> None:
    line = json.loads(files[1].read_text()) | {"image": "c.png", "split": "train"}
    files[1].write_text(json.dumps(line) + "\n")
    (leak,) = collect(files).leaks
    assert (leak.what, set(leak.places)) == ("image", {"val", "train"})
    assert collect(files, hash_images=False).leaks == []


def test_pixels_decide_and_not_the_file(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a.bmp")
    Image.fromarray(grey.reshape(4, 16)).save(tmp_path / "wide.png")
    hashes = {name: pixel_hash(tmp_path / name, "x") for name in ("a.png", "a.bmp", "wide.png")}
    assert hashes["a.png"] == hashes["a.bmp"] != hashes["wide.png"]


def test_a_missing_image_or_a_broken_line_is_named(files: list[Path]) -> None:
    (files[0].parent / "b.png").write_bytes(b"x")
    with pytest.raises(QAFileError, match=r"one\.jsonl:3: image 'b\.png' cannot be read"):
        collect(files)
    files[1].write_text("\n\n{}\n")
    with pytest.raises(QAFileError, match=r"two\.jsonl:3: "):
        collect(files)


def test_tables_and_exit_codes(files: list[Path]) -> None:
    names = [str(f) for f in files]
    good = runner.invoke(cli.app, ["qa", "stats", *names])
    assert good.exit_code == 0, good.output
    assert "No patient and no image is in two splits" in good.output
    assert "33%" in good.output
    line = json.loads(files[1].read_text()) | {"split": "train", "patient_id": "p9"}
    files[1].write_text(json.dumps(line) + "\n")
    leaky = runner.invoke(cli.app, ["qa", "stats", "--json", *names])
    assert leaky.exit_code == 1
    record = json.loads(leaky.stdout)
    assert record["conversations"] == 4
    assert record["variety"]["liver"] == {"phrasings": 2, "facts": 2, "held_out_facts": 1}
    assert [leak["what"] for leak in record["leaks"]] == ["image"]
    leaky = runner.invoke(cli.app, ["qa", "stats", *names])
    assert leaky.exit_code == 1
    assert "1 leaks between splits, 1 shown" in leaky.output
