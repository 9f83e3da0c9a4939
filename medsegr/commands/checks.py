"""The single checks of `medsegr doctor`: each looks at one thing and says in one sentence what it found. None raises."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medsegr.errors import MedSegRError
from medsegr.golden import ask_golden, read_golden
from medsegr.model.checkpoint import REQUIRED, read_config, resolve
from medsegr.model.large.adapter import is_large, large_weights
from medsegr.model.question import file_sha256, find_sentence_encoder

GIB = 2**30
PYTHONS = ((3, 11), (3, 12))
DISK_GIB = 2.0
MEMORY_GIB = 4.0
BREAKING = {
    "pydicom": "pydicom-seg, which monailabel imports, does not work with pydicom 3: the server would not start",
    "numpy": "pydicom-seg asks for numpy below 2",
    "setuptools": "Python 3.12 has no distutils without it, and monailabel imports that",
}
"""What breaks when one of these packages is missing or does not fit its pin; the others only get a warning."""


class Status(Enum):
    """How a check ended. FAIL: medsegr or its server will not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and one sentence about it."""

    name: str
    status: Status
    detail: str


def every_check(checkpoint: str, device: str) -> Iterator[Check]:
    """All checks, cheap ones first."""
    yield python_version(sys.version_info[:2])
    yield from packages(pins("medsegr"), installed_version)
    yield torch_pair(importlib.import_module)
    yield gpu()
    yield disk(Path.cwd())
    yield memory(psutil.virtual_memory().available)
    yield from weights(checkpoint)
    yield golden_question(checkpoint, device)


def python_version(version: tuple[int, int]) -> Check:
    """3.11 and 3.12 are what the pins were seen working on."""
    found = f"Python {version[0]}.{version[1]}"
    if version in PYTHONS:
        return Check("Python", Status.OK, found)
    return Check("Python", Status.FAIL, f"{found}; expected 3.11 or 3.12.")


def pins(distribution: str) -> list[Requirement] | None:
    """The run-time requirements of an installed distribution; None where it is not installed."""
    try:
        listed = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Requirement(line) for line in listed)
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages(wanted: list[Requirement] | None, version_of: Callable[[str], str | None]) -> Iterator[Check]:
    """One row for everything that fits, and one for each package that does not."""
    if wanted is None:
        yield Check(
            "packages", Status.WARN, "medsegr is not installed, so its pins are unknown: pip install -e ."
        )
        return
    fitting = 0
    for pin in wanted:
        found = version_of(pin.name)
        if found is not None and pin.specifier.contains(found, prereleases=True):
            fitting += 1
            continue
        reason = BREAKING.get(canonicalize_name(pin.name))
        status = Status.FAIL if found is None or reason else Status.WARN
        state = f"{found or 'missing'}; expected {pin.specifier}{f' ({reason})' if reason else ''}"
        yield Check(pin.name, status, f"{state}: pip install '{pin.name}{pin.specifier}'")
    yield Check("packages", Status.OK, f"{fitting} of {len(wanted)} at their pins.")


def torch_pair(load: Callable[[str], object]) -> Check:
    """torch and torchvision must come from the same build, else torchvision's operators are missing."""
    name = "torch, torchvision"
    try:
        load("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return Check(
            name, Status.FAIL, f"They do not fit together ({_line(error)}); install both from the same index."
        )
    return Check(name, Status.OK, "They load together.")


def gpu() -> Check:
    """A GPU is welcome and not needed."""
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", Status.OK, "None; the CPU is enough for the embedded weights.")
    properties = torch.cuda.get_device_properties(0)
    return Check("GPU", Status.OK, f"{properties.name}, {properties.total_memory / GIB:.0f} GiB.")


def disk(folder: Path) -> Check:
    """Room for masks, the turn store and converted studies."""
    free = shutil.disk_usage(folder).free / GIB
    if free >= DISK_GIB:
        return Check("disk", Status.OK, f"{free:.0f} GiB free.")
    return Check(
        "disk", Status.WARN, f"{free:.1f} GiB free; {DISK_GIB:.0f} GiB are advised for masks and studies."
    )


def memory(available_bytes: int) -> Check:
    """Memory for the model and a volume or two."""
    available = available_bytes / GIB
    if available >= MEMORY_GIB:
        return Check("memory", Status.OK, f"{available:.0f} GiB available.")
    return Check("memory", Status.WARN, f"{available:.1f} GiB available; {MEMORY_GIB:.0f} GiB are advised.")


def weights(checkpoint: str) -> Iterator[Check]:
    """The files of the checkpoint, their SHA-256, and the sentence encoder that it was trained with."""
    if is_large(checkpoint):
        for name, there, detail in large_weights(checkpoint):
            yield Check(name, Status.OK if there else Status.FAIL, detail)
        return
    try:
        directory = resolve(checkpoint)
        config = read_config(directory)
        recorded = json.loads((directory / "meta.json").read_text(encoding="utf-8"))["sha256"]
        yield hashes(directory, recorded)
    except MedSegRError as error:
        yield Check("weights", Status.FAIL, str(error))
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Check(
            "weights",
            Status.FAIL,
            f"meta.json of the checkpoint is damaged ({_line(error)}); copy the checkpoint anew.",
        )
        return
    if config.question_encoder == "scratch":
        return
    try:
        found = find_sentence_encoder(config.sentence_encoder, config.sentence_encoder_sha256)
    except MedSegRError as error:
        yield Check("sentence encoder", Status.FAIL, str(error))
    else:
        detail = f"{config.sentence_encoder}, SHA-256 {config.sentence_encoder_sha256[:12]}…, in {found}"
        yield Check("sentence encoder", Status.OK, detail)


def hashes(directory: Path, recorded: Mapping[str, str]) -> Check:
    """Every weight file that has to be there has the SHA-256 that meta.json records."""
    unrecorded = [name for name in REQUIRED if name.endswith(".safetensors") and name not in recorded]
    if unrecorded:
        return Check("weights", Status.FAIL, f"meta.json records no SHA-256 of {', '.join(unrecorded)}.")
    wrong = [name for name, digest in recorded.items() if not _has(directory / name, digest)]
    if wrong:
        return Check(
            "weights", Status.FAIL, f"Missing or changed: {', '.join(wrong)}; copy the checkpoint anew."
        )
    total = sum((directory / name).stat().st_size for name in recorded) / 2**20
    return Check("weights", Status.OK, f"{len(recorded)} files, {total:.1f} MiB, SHA-256 as recorded.")


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def golden_question(checkpoint: str, device: str) -> Check:
    """Ask the question that the checkpoint brings and compare the mask with the stored one."""
    from medsegr.predictor import Predictor

    name = "golden question"
    try:
        golden = read_golden(resolve(checkpoint))
        if golden is None:
            return Check(name, Status.WARN, "The checkpoint brings none, so its answers cannot be compared.")
        reached = ask_golden(Predictor.from_pretrained(checkpoint, device=device), golden)
    except MedSegRError as error:
        return Check(name, Status.FAIL, str(error))
    except Exception as error:  # noqa: BLE001  whatever a broken installation raises here is the finding
        return Check(name, Status.FAIL, f"The model failed ({type(error).__name__}: {_line(error)}).")
    if reached < golden.min_dice:
        return Check(
            name,
            Status.FAIL,
            f"Dice {reached:.3f} with the stored mask of the {golden.label}; expected {golden.min_dice} or more.",
        )
    return Check(name, Status.OK, f"{golden.label}: Dice {reached:.3f} with the stored mask.")


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
