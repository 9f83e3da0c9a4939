"""Masks that somebody sent: put on the image's grid exactly, or refused in one sentence."""

from __future__ import annotations

import gzip
import io
import itertools
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, write_label_map
from medsegr.imaging.label_reading import read_label_map, read_raw_labels

TILT = np.radians(20)
AFFINE = np.array(
    [
        [-0.7, 0.0, 0.0, 30.0],
        [0.0, -0.7 * np.cos(TILT), 2.5 * np.sin(TILT), 20.0],
        [0.0, 0.7 * np.sin(TILT), 2.5 * np.cos(TILT), -40.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
SHAPE = (6, 5, 4)
VOLUME = Volume(np.broadcast_to(np.float32(0), SHAPE), AFFINE, None)
PICTURE = Picture(np.broadcast_to(np.uint8(0), (4, 7)), None, (0.5, 0.25))
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
FLAT = np.random.default_rng(1).integers(0, 3, (4, 7)).astype(np.uint8)


def nrrd_bytes(payload: bytes, encoding: str = "raw", **more: str) -> bytes:
    """An NRRD file on the volume's grid, written by hand."""
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    fields = {
        "type": "uint8",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "6 5 4",
        "space directions": " ".join(
            "(" + ",".join(repr(float(v)) for v in lps[:3, i]) + ")" for i in range(3)
        ),
        "encoding": encoding,
        "space origin": "(" + ",".join(repr(float(v)) for v in lps[:3, 3]) + ")",
        **{name.replace("_", " "): value for name, value in more.items()},
    }
    head = "NRRD0004\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v) + "\n"
    return head.encode() + payload


def read(path: Path, content: bytes | None = None, reference: Any = VOLUME) -> Any:
    if content is not None:
        path.write_bytes(content)
    return read_label_map(path, reference, "The mask `m1`")


def refusal(path: Path, content: bytes, reference: Any = VOLUME) -> str:
    with pytest.raises(ImageError) as caught:
        read(path, content, reference)
    text = str(caught.value)
    assert (
        text.startswith("The mask `m1`") and text.endswith(".") and "\n" not in text and str(path) not in text
    )
    return text


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.nii"])
def test_what_we_write_comes_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_label_map(path, LABELS, VOLUME)
    found = read(path)
    assert np.array_equal(found.values, LABELS) and not found.moved and path.name.endswith(found.suffix)


def test_raw_and_gzip_nrrd_are_x_fastest(tmp_path: Path) -> None:
    payload = LABELS.tobytes(order="F")
    for content in (nrrd_bytes(payload), nrrd_bytes(gzip.compress(payload), "gzip")):
        assert np.array_equal(read(tmp_path / "a", content).values, LABELS)
        head, _, values = content.partition(b"\n\n")
        windows = head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + values
        assert np.array_equal(read(tmp_path / "a", windows).values, LABELS)
    big = LABELS.astype(">i2")
    content = nrrd_bytes(big.tobytes(order="F"), type="int16", endian="big")
    assert np.array_equal(read(tmp_path / "a", content).values, LABELS)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_permuted_and_reversed_axes_are_put_right_exactly(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    for back in itertools.product((False, True), repeat=3):
        values, affine = LABELS.transpose(axes), AFFINE[:, [*axes, 3]].copy()
        for axis in range(3):
            if back[axis]:
                affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
                affine[:3, axis] *= -1
        values = values[tuple(slice(None, None, -1 if b else 1) for b in back)]
        nib.save(nib.Nifti1Image(np.ascontiguousarray(values), affine), tmp_path / "a.nii.gz")
        sitk.WriteImage(
            sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "a.nrrd"), useCompression=True
        )
        for name in ("a.nii.gz", "a.nrrd"):
            found = read(tmp_path / name)
            assert np.array_equal(found.values, LABELS), (axes, back, name)
            assert found.moved == (axes != (0, 1, 2) or any(back))


def test_ras_and_las_nrrd_lie_where_itk_puts_them(tmp_path: Path) -> None:
    for space, signs in (("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("RAS", (1, 1, 1))):
        affine = np.diag([*signs, 1]) @ AFFINE
        directions = " ".join("(" + ",".join(map(repr, affine[:3, i].tolist())) + ")" for i in range(3))
        origin = "(" + ",".join(map(repr, affine[:3, 3].tolist())) + ")"
        payload = LABELS.tobytes(order="F")
        path = tmp_path / "a.nrrd"
        path.write_bytes(nrrd_bytes(payload, space=space, space_directions=directions, space_origin=origin))
        if space != "LAS":
            image = sitk.ReadImage(str(path))
            assert np.allclose(image.GetOrigin(), (np.diag([-1, -1, 1, 1]) @ AFFINE)[:3, 3])
        assert np.array_equal(read(path).values, LABELS)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_taken(tmp_path: Path, dtype: Any) -> None:
    mask = LABELS > 1
    values = mask.astype(np.uint8 if dtype is bool else dtype)
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    found = read(tmp_path / "a.nii.gz").values
    assert found.dtype.kind in "iu" and np.array_equal(found != 0, mask)


def test_fractions_and_infinities_are_not(tmp_path: Path) -> None:
    for bad in (0.5, np.nan, np.inf, 1e20):
        values = np.zeros(SHAPE, np.float32)
        values[1, 1, 1] = bad
        nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii")
        assert "whole numbers" in refusal(tmp_path / "b", (tmp_path / "a.nii").read_bytes())


def test_another_grid_is_refused_and_both_are_named(tmp_path: Path) -> None:
    half = AFFINE.copy()
    half[:3, 3] += half[:3, 0] / 2
    cases: list[tuple[tuple[int, ...], np.ndarray]] = [
        ((6, 5, 5), AFFINE), ((6, 5, 4), np.eye(4)), ((6, 5, 4), half), ((6, 5, 4), np.diag([2.0, 2, 2, 1]) @ AFFINE),
    ]  # fmt: skip
    for shape, affine in cases:
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), tmp_path / "a.nii")
        text = refusal(tmp_path / "b", (tmp_path / "a.nii").read_bytes())
        assert (
            " x ".join(map(str, shape)) in text
            and "the image has 6 x 5 x 4 voxels of 0.7 x 0.7 x 2.5 mm" in text
        )
    assert "no place in space" in refusal(
        tmp_path / "b", nrrd_bytes(LABELS.tobytes(order="F"), space="", space_directions="", space_origin="")
    )


def test_a_picture_takes_rasters_of_its_own_size(tmp_path: Path) -> None:
    for name in ("a.nrrd", "a.nii.gz", "a.png"):
        write_label_map(tmp_path / name, FLAT, PICTURE)
        assert np.array_equal(read(tmp_path / name, reference=PICTURE).values, FLAT)
    head = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 7 4 1\nencoding: raw\n\n"
    assert np.array_equal(read(tmp_path / "b", head + FLAT.tobytes(), PICTURE).values, FLAT)
    Image.fromarray(FLAT > 0).save(tmp_path / "bits.png")
    assert np.array_equal(read(tmp_path / "bits.png", reference=PICTURE).values, FLAT > 0)
    turned = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 4 7\nencoding: raw\n\n"
    assert "4 x 7 values" in refusal(tmp_path / "b", turned + FLAT.tobytes(), PICTURE)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 7, 3), np.uint8)).save(buffer, "PNG")
    assert "mode RGB" in refusal(tmp_path / "b", buffer.getvalue(), PICTURE)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mask.nrrd", nrrd_bytes(LABELS.tobytes(order="F")))
    return buffer.getvalue()


def nifti(change: Callable[[Any], None] = lambda header: None) -> bytes:
    image = nib.Nifti1Image(LABELS, AFFINE)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    change(header)
    content[:348] = header.binaryblock
    return bytes(content)


HOSTILE = {
    "empty": b"",
    "text": b"not a mask" * 100,
    "zip": zipped(),
    "truncated raw": nrrd_bytes(LABELS.tobytes(order="F")[:-1]),
    "truncated gzip": nrrd_bytes(gzip.compress(LABELS.tobytes(order="F"))[:-6], "gzip"),
    "no data": nrrd_bytes(b"").rstrip(b"\n"),
    "too much data": nrrd_bytes(LABELS.tobytes(order="F") + b"\0"),
    "detached": nrrd_bytes(b"", data_file="/etc/passwd"),
    "detached, other spelling": nrrd_bytes(b"", datafile="LIST"),
    "detached behind a long comment": nrrd_bytes(b"").replace(
        b"\nencoding", b"\n#" + b"x" * 2_000_000 + b"\ndata file: /etc/passwd\nencoding"
    ),
    "skipped": nrrd_bytes(LABELS.tobytes(order="F"), byte_skip="-1"),
    "text encoding": nrrd_bytes(b"1 " * 120, "ascii"),
    "bzip2": nrrd_bytes(b"BZh9", "bzip2"),
    "no type": nrrd_bytes(LABELS.tobytes(order="F"), type=""),
    "block type": nrrd_bytes(LABELS.tobytes(order="F"), type="block"),
    "four axes": nrrd_bytes(LABELS.tobytes(order="F") * 2, dimension="4", sizes="2 6 5 4"),
    "negative sizes": nrrd_bytes(LABELS.tobytes(order="F"), sizes="-6 -5 4"),
    "huge sizes": nrrd_bytes(b"", sizes="2000000 2000000 2000000"),
    "nonsense header": b"NRRD0004\nno field here\n\n",
    "not a number in space": nrrd_bytes(LABELS.tobytes(order="F"), space_origin="(nan,0,0)"),
    "gzip of nothing": gzip.compress(b""),
    "truncated NIfTI": nifti()[:-1],
    "long NIfTI": nifti() + b"\0",
    "NIfTI far offset": nifti(lambda h: h.__setitem__("vox_offset", 2e9)),
    "NIfTI negative offset": nifti(lambda h: h.__setitem__("vox_offset", -5)),
    "NIfTI unknown type": nifti(lambda h: h.__setitem__("datatype", 1234)),
    "NIfTI colour": nifti(lambda h: h.__setitem__("datatype", 128)),
    "NIfTI time": nifti(lambda h: h.__setitem__("dim", [4, 6, 5, 2, 2, 1, 1, 1])),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_damaged_and_hostile_files_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    assert "root:" not in refusal(tmp_path / "a", content)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


BOMB = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_label_reading as t
for name in ("bomb.nrrd", "bomb.nii.gz"):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        t.read(Path(sys.argv[1]) / name)
    except t.ImageError as error:
        print(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


def test_a_gzip_bomb_is_never_inflated(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
        for _ in range(300):
            packed.write(bytes(2**20))
    bomb = buffer.getvalue()
    (tmp_path / "bomb.nrrd").write_bytes(nrrd_bytes(bomb, "gzip"))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(nifti()) + bomb)
    command = [sys.executable, "-c", BOMB, str(tmp_path), str(Path(__file__).parent)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "more data than its header says" in line and int(line.split()[1]) < 20_000  # KiB, not 300 MiB


def test_headerless_bytes_are_x_fastest(tmp_path: Path) -> None:
    path = tmp_path / "label.bin"
    path.write_bytes(LABELS.tobytes(order="F"))
    assert np.array_equal(read_raw_labels(path, VOLUME).values, LABELS)
    path.write_bytes(FLAT.tobytes())
    assert np.array_equal(read_raw_labels(path, PICTURE).values, FLAT)
    with pytest.raises(ImageError, match="28 bytes; 120"):
        read_raw_labels(path, VOLUME)


def test_a_small_file_that_inflates_to_much_takes_little_memory(tmp_path: Path) -> None:
    """No more is inflated than the header's type and grid can hold."""
    side = 128
    volume = Volume(np.broadcast_to(np.uint8(0), (side,) * 3), np.eye(4), None)
    geometry = {"sizes": f"{side} {side} {side}", "space": "right-anterior-superior",
                "space_directions": "(1,0,0) (0,1,0) (0,0,1)", "space_origin": "(0,0,0)"}  # fmt: skip
    content = nrrd_bytes(gzip.compress(bytes(16 * side**3), 1), "gzip", **geometry)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more data"):
            read(tmp_path / "bomb.nrrd", content, volume)
        assert tracemalloc.get_traced_memory()[1] < 4 * side**3
    finally:
        tracemalloc.stop()
