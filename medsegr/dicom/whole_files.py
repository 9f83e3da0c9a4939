"""Whole instances as bytes: as they are stored, or uncompressed for a client without codecs. The files stay as they are."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from medsegr.dicom.frames import as_delivered, frame_count, load_header, read_frames


def part_10(path: Path) -> bytes:
    """The file as it is; one without preamble and meta header gets them, its data set is unchanged."""
    data = path.read_bytes()
    if data[128:132] == b"DICM":
        return data
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    dataset.file_meta = load_header(io.BytesIO(data)).file_meta
    return _written(dataset)


def native_file(path: Path) -> bytes:
    """The instance in Explicit VR Little Endian, its frames as `read_frames` gives them; raises `ImageError`."""
    dataset = pydicom.dcmread(path, force=True)
    header = load_header(path)
    if (
        "PixelData" in dataset and int(dataset.get("BitsAllocated", 8)) > 1
    ):  # single bits are never compressed
        frames = read_frames(path, range(1, frame_count(header, ()) + 1))
        as_delivered(dataset)
        del dataset["AvailableTransferSyntaxUID"]
        pixels = b"".join(frames)
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
        dataset["PixelData"].VR = "OB" if int(dataset.BitsAllocated) <= 8 else "OW"
        dataset["PixelData"].is_undefined_length = False
    dataset.file_meta = header.file_meta
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    return _written(dataset)


def _written(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.preamble = b"\0" * 128
    dataset.save_as(stream, write_like_original=False)
    return stream.getvalue()
