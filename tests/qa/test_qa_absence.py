"""Unlabelled is not absent; and labelled folders say what they show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medsegr.errors import MedSegRError
from medsegr.qa.absence import impossible_targets, regions_exclude
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.folders import read_labelled_sets, value_counts
from medsegr.qa.scenes import Scene, largest_groups, read_scenes, require_knowledge


def scenes(data_dir: Path) -> dict[str, Scene]:
    return {s.image.stem: s for s in read_scenes(read_labelled_sets(data_dir), ("train", "val"), data_dir)}


def test_a_target_needs_twelve_pixels_to_be_present_and_none_to_be_absent(data_dir: Path) -> None:
    edge = scenes(data_dir)["edge"]
    assert edge.present == ("spleen",)
    assert edge.missing == ("right kidney", "left kidney", "kidneys")


def test_a_group_is_present_with_any_of_its_members(data_dir: Path) -> None:
    one = scenes(data_dir)["one_kidney"]
    assert one.present == ("right kidney", "kidneys", "liver")
    assert one.everything == ("right kidney", "liver")
    assert one.missing == ("spleen", "left kidney")


def test_nothing_is_missing_where_labels_are_not_exhaustive(data_dir: Path) -> None:
    found = scenes(data_dir)
    assert found["held"].missing == found["bare"].missing == ()
    assert found["n1"].missing == ("breast tumour",)


def test_other_regions_are_absent_only_if_they_cannot_be_in_the_picture(data_dir: Path) -> None:
    found = scenes(data_dir)
    assert found["drawn"].impossible == ("spleen", "right kidney", "left kidney", "kidneys", "liver")
    assert found["full"].impossible == ("anterior hippocampus", "posterior hippocampus", "hippocampus")
    assert set(found["n1"].impossible) == {"anterior hippocampus", "posterior hippocampus", "hippocampus"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("abdomen", "chest"), ("spine", "abdomen"), ("jaw", "brain"), ("limb", "skin"), ("eye", "eye")],
)
def test_neighbouring_regions_never_exclude_each_other(one: str, other: str) -> None:
    assert not regions_exclude(one, other)
    assert not regions_exclude(other, one)


def test_distant_regions_and_single_cells_exclude_each_other() -> None:
    assert regions_exclude("eye", "abdomen")
    assert regions_exclude("cells", "skin")


def test_tissues_found_everywhere_are_never_impossible(data_dir: Path, make_set: Callable[..., Path]) -> None:
    described = {"modality": "US", "region": "limb", "targets": {"nerve": [1], "blood vessel": [2]}}
    make_set(data_dir / "limb_us", {"l": ("L", "train", {1: 20})}, **described)
    sets = read_labelled_sets(data_dir)
    for shown in sets:
        assert not {"nerve", "blood vessel"} & set(impossible_targets(shown, sets))


def test_a_superset_without_its_own_value_counts_only_where_labels_are_exhaustive(
    data_dir: Path, make_set: Callable[..., Path]
) -> None:
    targets = {"spinal cord": [1, 2], "spinal cord gray matter": [2]}
    masks = {"gray_only": ("S1", "train", {2: 50}), "cord_only": ("S2", "train", {1: 50})}
    make_set(
        data_dir / "spine", masks, modality="MR", region="spine", targets=targets, labels_are_exhaustive=False
    )
    found = scenes(data_dir)
    assert found["gray_only"].present == ("spinal cord gray matter",)
    assert found["cord_only"].present == found["cord_only"].everything == ("spinal cord",)


def test_sets_of_very_many_targets_are_listed_by_their_largest_groups(
    tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    targets: dict[str, list[int]] = {f"t{n}": [n] for n in range(1, 17)}
    targets |= {
        "all": list(range(1, 17)),
        "upper": list(range(1, 9)),
        "lower": list(range(9, 17)),
        "mid": [8, 9],
    }
    make_set(tmp_path / "teeth", {"x": ("P", "train", {1: 20})}, modality="XR", region="jaw", targets=targets)
    source = read_labelled_sets(tmp_path)[0]
    assert largest_groups(source) == ("upper", "lower")
    assert scenes(tmp_path)["x"].everything == ("upper",)


def test_the_permissive_licence_leaves_the_others_out(data_dir: Path) -> None:
    assert [s.name for s in read_labelled_sets(data_dir)] == ["abdomen_ct", "brain_mr", "breast_normal"]
    assert [s.name for s in read_labelled_sets(data_dir, "permissive")] == ["abdomen_ct", "breast_normal"]
    with pytest.raises(MedSegRError, match="'free'; expected 'any' or 'permissive'"):
        read_labelled_sets(data_dir, "free")


def test_broken_folders_are_refused_in_one_sentence(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MedSegRError, match="holds no labelled set"):
        read_labelled_sets(tmp_path / "nowhere")
    path = data_dir / "abdomen_ct" / "dataset.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in record.items() if k != "region"}))
    with pytest.raises(MedSegRError, match="lacks the key 'region'"):
        read_labelled_sets(data_dir)
    path.write_text(json.dumps({**record, "targets": {"liver": [300]}}))
    with pytest.raises(MedSegRError, match=r"'liver' has values \[300\]"):
        read_labelled_sets(data_dir)
    path.write_text(json.dumps(record))
    (data_dir / "abdomen_ct" / "masks" / "full.png").write_bytes(b"no picture")
    with pytest.raises(MedSegRError, match="cannot be read as a label image"):
        value_counts(data_dir / "abdomen_ct" / "masks" / "full.png")
    (data_dir / "abdomen_ct" / "masks" / "full.png").unlink()
    with pytest.raises(MedSegRError, match="names 'full'"):
        read_labelled_sets(data_dir)


def test_targets_without_knowledge_are_named(
    data_dir: Path, make_set: Callable[..., Path], knowledge: KnowledgeBase
) -> None:
    described = {"modality": "FUNDUS", "region": "eye", "targets": {"unicorn horn": [1], "dragon scale": [2]}}
    make_set(data_dir / "discs", {"d": ("D", "train", {1: 20})}, **described)
    with pytest.raises(MedSegRError, match="2 of the targets: dragon scale, unicorn horn"):
        require_knowledge(read_labelled_sets(data_dir), knowledge)


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        ("pelvis", "abdomen", False),
        ("bowel", "abdomen", False),
        ("neck", "jaw", False),
        ("chest", "neck", False),
        ("cells", "bone", False),
        ("bone", "brain", False),
        ("pelvis", "brain", True),
        ("neck", "foot", True),
        ("bowel", "eye", True),
    ],
)
def test_regions_that_one_image_may_show_do_not_exclude_each_other(
    one: str, other: str, excluded: bool
) -> None:
    assert regions_exclude(one, other) is excluded and regions_exclude(other, one) is excluded
