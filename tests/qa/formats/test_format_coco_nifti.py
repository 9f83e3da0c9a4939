"""COCO and NIfTI: masks and values survive the round trip, losses are counted, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsegr.errors import MedSegRError, QAFileError
from medsegr.qa.checks import check_file
from medsegr.qa.formats import export_file, import_file
from medsegr.qa.formats.records import ReadOptions, WriteOptions
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.schema import Target

CT = ReadOptions(modality="CT")
AFFINE = np.diag([-0.8, 0.7, 2.5, 1.0])


@pytest.mark.parametrize("rle", ["compressed", "uncompressed"])
def test_coco_keeps_masks_and_names(
    qa_file: Path, tmp_path: Path, masks_of: Any, drawn: Any, rle: str
) -> None:
    report = export_file("coco", qa_file, tmp_path / "coco", WriteOptions(rle=rle))
    assert report.count == 3
    assert report.dropped == {"questions and answers": 4}
    path = tmp_path / "coco" / "train" / "annotations.json"
    record = json.loads(path.read_text())
    assert record["categories"] == [{"id": 1, "name": "kidneys"}, {"id": 2, "name": "liver"}]
    assert record["images"] == [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}]
    boxes = [(a["category_id"], a["area"], a["bbox"]) for a in record["annotations"]]
    assert boxes == [(2, 38, [1, 1, 7, 9]), (1, 9, [10, 1, 3, 3]), (1, 6, [10, 6, 2, 3])]
    assert isinstance(
        record["annotations"][0]["segmentation"]["counts"], str if rle == "compressed" else list
    )
    again = tmp_path / "back.jsonl"
    report = import_file("coco", path, again, replace(CT, split="val"))
    assert report.dropped == {"instances joined with others of their category": 1}
    masks = masks_of(again)
    assert set(masks) == {("a", "Outline the liver.", "liver"), ("a", "Outline the kidneys.", "kidneys")}
    assert all(np.array_equal(mask, drawn[key[2]]) for key, mask in masks.items())
    assert {c.split for c in read_qa(again)} == {"val"}
    assert check_file(again) == []
    export_file("coco", again, tmp_path / "third", WriteOptions(rle=rle))
    third = json.loads((tmp_path / "third" / "val" / "annotations.json").read_text())
    assert [(a["category_id"], a["area"]) for a in third["annotations"]] == [(2, 38), (1, 15)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": 9}, r"c\.json: annotations\[0\]: there is no category 9"),
        ({"image_id": 3}, r"c\.json: annotations\[0\]: there is no image 3"),
        ({"image_id": "1"}, r"annotations\[0\]: 'image_id' is '1'; a whole number is expected"),
        (
            {"segmentation": {"size": [3, 4], "counts": [1]}},
            r"annotations\[0\]: RLE counts cover 1 pixels; 12",
        ),
        ({"segmentation": {"size": [3, 4], "counts": [12]}}, r"annotations\[0\]: 'liver' has no pixel"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    Image.new("L", (4, 3)).save(folder / "i.png")
    good = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    record = {
        "images": [{"id": 1, "file_name": "i.png", "height": 3, "width": 4}],
        "categories": [{"id": 1, "name": "liver"}],
        "annotations": [good | change],
    }
    (folder / "c.json").write_text(json.dumps(record))
    with pytest.raises(QAFileError, match=reason):
        import_file("coco", folder / "c.json", tmp_path / "qa.jsonl", CT)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_coco_file_of_another_size_or_kind_is_named(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "i.png")
    path = tmp_path / "c.json"
    path.write_text('{"images": [],\n "annotations": 3}')
    with pytest.raises(QAFileError, match=r"c\.json: 'categories' is NoneType; a list is expected"):
        import_file("coco", path, tmp_path / "qa.jsonl", CT)
    record = {
        "images": [{"id": 1, "file_name": "i.png", "height": 30, "width": 40}],
        "categories": [{"id": 1, "name": "liver"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": []}],
    }
    path.write_text(json.dumps(record))
    with pytest.raises(QAFileError, match=r"images\[0\]: mask 'i\.png' is 30 x 40, but its image is 3 x 4"):
        import_file("coco", path, tmp_path / "qa.jsonl", CT)
    with pytest.raises(MedSegRError, match="--rle is 'zip'; expected compressed or uncompressed"):
        write_qa(tmp_path / "empty.jsonl", [])
        export_file("coco", tmp_path / "empty.jsonl", tmp_path / "out", WriteOptions(rle="zip"))


def volume() -> np.ndarray:
    """[5, 4, 3]: liver 1 (12 voxels), kidneys 2 and 3."""
    labels = np.zeros((5, 4, 3), np.uint8)
    labels[:2, :2, :] = 1
    labels[3, 0, :2], labels[4, 3, 1] = 2, 3
    return labels


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    """A folder of one labelled volume."""
    folder = tmp_path / "volumes"
    for name, array in (
        ("images/p7_ct.nii.gz", volume().astype(np.int16) * 100),
        ("labels/p7_ct.nii.gz", volume()),
    ):
        (folder / name).parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, AFFINE), folder / name)
    (folder / "labels.json").write_text('{"labels": {"liver": 1, "kidneys": [2, 3], "spleen": 7}}')
    return folder


def test_nifti_keeps_grid_names_and_voxels(nifti: Path, tmp_path: Path, masks_of: Any) -> None:
    again = tmp_path / "qa.jsonl"
    options = replace(CT, patient_pattern=r"(p\d+)_", licence="CC0", licence_class="permissive")
    report = import_file("nifti", nifti, again, options)
    assert (report.count, report.dropped) == (2, {})
    conversations = list(read_qa(again))
    assert [c.turns[0].targets[0].label for c in conversations] == ["liver", "kidneys"]
    assert {(c.patient_id, c.dataset, c.licence_class) for c in conversations} == {
        ("p7", "volumes", "permissive")
    }
    assert conversations[0].spacing_mm == pytest.approx((0.8, 0.7, 2.5))
    masks = masks_of(again)
    assert np.array_equal(masks["p7_ct.nii", "Outline the liver.", "liver"], volume() == 1)
    assert np.array_equal(masks["p7_ct.nii", "Outline the kidneys.", "kidneys"], volume() > 1)
    assert check_file(again) == []
    report = export_file("nifti", again, tmp_path / "out")
    assert (report.count, report.dropped) == (1, {"questions and answers": 2})
    labels = nib.load(tmp_path / "out" / "labels" / "p7_ct.nii.gz")
    assert np.array_equal(np.asarray(labels.dataobj), volume())
    assert np.allclose(labels.affine, AFFINE)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {
        "labels": {"liver": 1, "kidneys": [2, 3]}
    }


def test_overlapping_structures_are_numbered_and_the_loss_is_counted(nifti: Path, tmp_path: Path) -> None:
    import_file("nifti", nifti, tmp_path / "qa.jsonl", CT)
    liver, kidneys = read_qa(tmp_path / "qa.jsonl")
    smaller = np.zeros((5, 4, 3), np.uint8)
    smaller[0, 0, 0] = 5
    nib.save(nib.Nifti1Image(smaller, AFFINE), tmp_path / "tumour.nii.gz")
    turn = kidneys.turns[0]
    tumour = replace(
        kidneys, turns=(replace(turn, targets=(Target("tumour", "tumour", "tumour.nii.gz", (5,)),)),)
    )
    write_qa(tmp_path / "two.jsonl", [liver, replace(tumour, id="t")])
    report = export_file("nifti", tmp_path / "two.jsonl", tmp_path / "out")
    assert report.dropped["voxels of overlapping structures"] == 1
    labels = np.asarray(nib.load(tmp_path / "out" / "labels" / "p7_ct.nii.gz").dataobj)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {"labels": {"liver": 1, "tumour": 2}}
    assert (labels == 1).sum() == 11
    assert labels[0, 0, 0] == 2


def test_nnunets_folders_are_understood(nifti: Path, tmp_path: Path) -> None:
    (nifti / "images").rename(nifti / "imagesTr")
    (nifti / "labels").rename(nifti / "labelsTr")
    (nifti / "imagesTr" / "p7_ct.nii.gz").rename(nifti / "imagesTr" / "p7_ct_0000.nii.gz")
    (nifti / "labels.json").unlink()
    names = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "right kidney": 2}}
    (nifti / "dataset.json").write_text(json.dumps(names))
    report = import_file("nifti", nifti, tmp_path / "qa.jsonl")
    assert report.dropped == {"values without a name": 1}
    assert [c.turns[0].targets[0].label for c in read_qa(tmp_path / "qa.jsonl")] == ["liver", "right kidney"]


def test_a_wrong_label_map_is_named(nifti: Path, tmp_path: Path) -> None:
    path = nifti / "labels" / "p7_ct.nii.gz"
    out = tmp_path / "qa.jsonl"
    nib.save(nib.Nifti1Image(volume()[:, :, :2], AFFINE), path)
    with pytest.raises(QAFileError, match=r"p7_ct\.nii\.gz' is 5 x 4 x 2, but its image is 5 x 4 x 3"):
        import_file("nifti", nifti, out, CT)
    nib.save(nib.Nifti1Image(volume(), np.eye(4)), path)
    with pytest.raises(
        QAFileError, match=r"p7_ct\.nii\.gz: the affine differs from the image's by up to 1\.8"
    ):
        import_file("nifti", nifti, out, CT)
    nib.save(nib.Nifti1Image(volume() * np.float32(0.5), AFFINE), path)
    with pytest.raises(QAFileError, match="holds fractions; whole numbers are expected"):
        import_file("nifti", nifti, out, CT)
    path.rename(nifti / "labels" / "other.nii.gz")
    with pytest.raises(QAFileError, match=r"other\.nii\.gz: there is no image of this name"):
        import_file("nifti", nifti, out, CT)
    (nifti / "labels.json").write_text('{"liver": "one"}')
    with pytest.raises(QAFileError, match=r"labels\.json: 'liver' is 'one'; a name and its value"):
        import_file("nifti", nifti, out, CT)
    (nifti / "labels.json").unlink()
    with pytest.raises(QAFileError, match=r"has neither labels\.json nor dataset\.json"):
        import_file("nifti", nifti, out, CT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["volumes"]


def test_formats_of_pictures_pass_over_volumes(nifti: Path, tmp_path: Path) -> None:
    import_file("nifti", nifti, tmp_path / "qa.jsonl", CT)
    with pytest.raises(
        QAFileError, match=r"nothing that the format reasonseg can carry \(2 conversations about volumes\)"
    ):
        export_file("reasonseg", tmp_path / "qa.jsonl", tmp_path / "out")
