"""DICOM SEG: segments land on the right voxels, codes survive, and real files of other makers are read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from highdicom.seg import segread
from pydicom.uid import generate_uid

from medsegr.errors import QAFileError
from medsegr.imaging import Volume, read_image
from medsegr.qa.checks import check_file
from medsegr.qa.formats import export_file, import_file
from medsegr.qa.formats.dicom_seg_writing import category, concept
from medsegr.qa.formats.records import ReadOptions
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.schema import Conversation, Review, Target, Turn

sys.path.insert(0, str(Path(__file__).parents[2] / "imaging"))
from dicom_factory import write_ct_series  # noqa: E402

REVIEWED = Review("accepted", "dr")


@pytest.fixture
def qa_ct(tmp_path: Path) -> Path:
    """An oblique CT series of 4 slices, [H 6, W 5], stored out of order, with a liver and a lesion inside it."""
    stored = np.arange(120, dtype=np.int16).reshape(4, 6, 5)
    write_ct_series(
        tmp_path / "images" / "ct",
        stored,
        cosines=(0, 1, 0, 0, 0, -1),
        numbering=[3, 1, 4, 2],
        PatientID="P1",
        StudyInstanceUID=generate_uid(),
        SeriesInstanceUID=generate_uid(),
        FrameOfReferenceUID=generate_uid(),
    )
    image = read_image(tmp_path / "images" / "ct")
    assert isinstance(image, Volume)
    masks = {"liver": np.zeros(image.shape, np.uint8), "liver tumour": np.zeros(image.shape, np.uint8)}
    masks["liver"][1:4, 1:5, 1:3] = 1
    masks["liver tumour"][2, 2, 1] = 1
    for name, mask in masks.items():
        nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / f"{name}.nii.gz")
    turns = tuple(
        Turn(f"Where is the {n}?", f"<p>{n}</p> [SEG]", (Target(n, n, f"{n}.nii.gz", (1,)),)) for n in masks
    )
    conversation = Conversation("c", "images/ct", "CT", "toy", "P1", "train", turns, review=REVIEWED)
    write_qa(tmp_path / "qa.jsonl", [conversation])
    return tmp_path / "qa.jsonl"


def test_overlapping_segments_and_codes_survive(qa_ct: Path, tmp_path: Path, masks_of: Any) -> None:
    report = export_file("dicom-seg", qa_ct, tmp_path / "seg")
    assert (report.count, report.dropped) == (1, {"questions and answers": 2})
    seg = segread(tmp_path / "seg" / "ct" / "seg.dcm")
    about = [seg.get_segment_description(n) for n in (1, 2)]
    assert [str(d.segment_label) for d in about] == ["liver", "liver tumour"]
    assert [(d.segmented_property_type.value, d.segmented_property_category.value) for d in about] == [
        ("10200004", "91723000"),
        ("liver_tumour", "49755003"),
    ]
    assert (seg.PatientID, str(about[0].algorithm_type.value)) == ("P1", "MANUAL")
    again = tmp_path / "back" / "qa.jsonl"
    assert import_file("dicom-seg", tmp_path / "seg", again).count == 2
    masks = {key[2]: mask for key, mask in masks_of(again).items()}
    for (_, _, label), mask in masks_of(qa_ct).items():
        assert np.array_equal(masks[label], mask)
    one, other = read_qa(again)
    assert (one.patient_id, one.modality, one.image == other.image) == ("P1", "CT", True)
    assert one.turns[0].targets[0].mask != other.turns[0].targets[0].mask
    image = read_image(again.parent / one.image)
    assert isinstance(image, Volume)
    assert np.allclose(nib.load(again.parent / one.turns[0].targets[0].mask).affine, image.affine, atol=1e-4)
    assert check_file(again) == []
    export_file("dicom-seg", again, tmp_path / "third")
    third = segread(next((tmp_path / "third").rglob("seg.dcm")))
    kept = third.get_segment_description(2)
    assert (kept.segmented_property_type.value, str(kept.segment_label)) == ("liver_tumour", "liver tumour")
    assert str(kept.algorithm_type.value) == "SEMIAUTOMATIC"


def test_a_segmentation_off_its_series_is_named(qa_ct: Path, tmp_path: Path) -> None:
    export_file("dicom-seg", qa_ct, tmp_path / "seg")
    folder, out = tmp_path / "seg" / "ct", tmp_path / "back.jsonl"
    (folder / "series" / "0002.dcm").unlink()
    with pytest.raises(QAFileError, match=r"seg\.dcm: frame \d+ lies 2\.50 mm from the nearest image"):
        import_file("dicom-seg", tmp_path / "seg", out)
    for path in (folder / "series").iterdir():
        path.unlink()
    with pytest.raises(
        QAFileError, match=r"seg\.dcm: the series .* is not there; name its folder with --images"
    ):
        import_file("dicom-seg", tmp_path / "seg", out)
    (folder / "seg.dcm").write_bytes((folder / "seg.dcm").read_bytes()[:-40])
    with pytest.raises(QAFileError, match=r"seg\.dcm: the segmentation cannot be read"):
        import_file("dicom-seg", tmp_path / "seg", out)
    (folder / "seg.dcm").unlink()
    with pytest.raises(QAFileError, match="holds no DICOM segmentation"):
        import_file("dicom-seg", tmp_path / "seg", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("Liver", ("10200004", "SCT")),
        ("left kidney", ("64033007", "SCT")),
        ("lungs", ("39607008", "SCT")),
        ("optic disc", ("optic_disc", "99MEDSEGR")),
    ],
)
def test_concepts_are_snomed_where_pydicom_knows_them(label: str, code: tuple[str, str]) -> None:
    found = concept(label)
    assert (found.value, found.scheme_designator) == code
    assert category(label).value == "91723000"


@pytest.mark.data
def test_real_segmentations_are_read_voxel_by_voxel(dicom_dir: Path, tmp_path: Path, masks_of: Any) -> None:
    """dcmqi's SEG of three slices, without 'spatial locations preserved'; the NRRD beside it is dcmqi's own decoding."""
    import SimpleITK

    folder = dicom_dir / "ct_dcmqi_3slice"
    out = tmp_path / "qa.jsonl"
    options = ReadOptions(images=folder / "series", dataset="dcmqi")
    import_file("dicom-seg", folder / "seg" / "liver.dcm", out, options)
    ((key, mask),) = masks_of(out).items()
    assert key[2] == "liver"
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "seg" / "liver_seg.nrrd")))
    assert mask.sum() == np.count_nonzero(expected)
    assert np.array_equal(np.transpose(mask, (2, 1, 0)), expected > 0)
    (rows,) = [json.loads(p.read_text()) for p in tmp_path.rglob("*.segments.json")]
    assert rows[0]["type"] == {"value": "T-62000", "scheme": "SRT", "meaning": "Liver"}
    assert check_file(out) == []
    export_file("dicom-seg", out, tmp_path / "seg")
    import_file("dicom-seg", tmp_path / "seg", tmp_path / "again.jsonl")
    ((_, again),) = masks_of(tmp_path / "again.jsonl").items()
    assert np.array_equal(again, mask)


@pytest.mark.data
def test_a_real_segmentation_of_overlapping_segments(dicom_dir: Path, tmp_path: Path, masks_of: Any) -> None:
    folder = dicom_dir / "ct_dcmqi_3slice"
    out = tmp_path / "qa.jsonl"
    import_file(
        "dicom-seg", folder / "seg" / "partial_overlaps.dcm", out, ReadOptions(images=folder / "series")
    )
    seg = segread(folder / "seg" / "partial_overlaps.dcm")
    numbers = [
        int(g.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for g in seg.PerFrameFunctionalGroupsSequence
    ]
    for (_, _, label), mask in masks_of(out).items():
        (number,) = [
            n
            for n in seg.segment_numbers
            if str(seg.get_segment_description(n).segment_label).replace("_", " ") == label
        ]
        frames = [n for n, segment in enumerate(numbers) if segment == number]
        assert mask.sum() == seg.pixel_array[frames].sum() > 0


@pytest.mark.data
def test_thirty_one_segments_equal_the_label_map_they_were_made_from(
    dicom_dir: Path, tmp_path: Path, masks_of: Any
) -> None:
    """The NIfTI lies on the same grid with its rows reversed."""
    folder = dicom_dir / "ct_totalseg"
    import_file("dicom-seg", folder, tmp_path / "qa.jsonl")
    labels = np.asarray(nib.load(folder / "seg_totalsegmentator.nii.gz").dataobj)[:, ::-1]
    masks = masks_of(tmp_path / "qa.jsonl")
    assert len(masks) == 31
    for mask in masks.values():
        (value,) = np.unique(labels[mask])
        assert value > 0
        assert (labels == value).sum() == mask.sum()
