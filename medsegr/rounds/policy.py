"""When a round starts by itself, and what it may use. Plain values; the server asks `due` from time to time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time

from medsegr.errors import MedSegRError

NIGHT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
OPTIONS = ("train_after", "train_night", "train_minutes", "train_device", "train_processes")
"""Names of the server's options (`--conf NAME VALUE`), in the order of the fields of `Policy`."""


class PolicyError(MedSegRError):
    """An option about rounds has a value that cannot be used."""


@dataclass(frozen=True)
class Policy:
    """`after_corrections`: that many new ones start a round (0: never); `night`: "02:00-05:00", local time, between which any
    new correction does (None: never); `max_minutes` bounds a round; `device` auto, cpu, cuda or cuda:N; `processes` share
    its work.
    """

    after_corrections: int = 0
    night: str | None = None
    max_minutes: float = 30.0
    device: str = "auto"
    processes: int = 1

    def __post_init__(self) -> None:
        if self.after_corrections < 0:
            raise PolicyError("`train_after` must be a number of corrections, 0 for never.")
        if self.night is not None:
            _hours(self.night)
        if not 0 < self.max_minutes <= 24 * 60:
            raise PolicyError("`train_minutes` must be more than 0 minutes and at most 1440.")
        if not DEVICE.fullmatch(self.device):
            raise PolicyError("`train_device` must be auto, cpu, cuda or cuda:N.")
        if not 1 <= self.processes <= 64:
            raise PolicyError("`train_processes` must be between 1 and 64.")

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Policy:
        """The policy of the server's options (see `OPTIONS`; others are passed over); raises `PolicyError`."""
        night = options.get("train_night", "off").strip().lower()
        return cls(
            after_corrections=_whole(options, "train_after", 0),
            night=None if night in ("", "off", "false", "none") else night,
            max_minutes=_number(options, "train_minutes", 30.0),
            device=options.get("train_device", options.get("device", "auto")).strip().lower(),
            processes=_whole(options, "train_processes", 1),
        )


def due(policy: Policy, new_corrections: int, now: datetime) -> str | None:
    """Why a round should start at `now` (the server's local time), given the corrections since the last one; None if it
    should not.
    """
    if policy.after_corrections and new_corrections >= policy.after_corrections:
        return f"{new_corrections} corrections since the last round; {policy.after_corrections} start one."
    if policy.night is not None and new_corrections > 0 and _within(policy.night, now.time()):
        return f"It is night ({policy.night}) and there are {new_corrections} new corrections."
    return None


def _within(night: str, at: time) -> bool:
    start, end = _hours(night)
    return start <= at < end if start < end else at >= start or at < end


def _hours(night: str) -> tuple[time, time]:
    """Start and end; a night may go past midnight."""
    found = NIGHT.fullmatch(night)
    hours = [int(number) for number in found.groups()] if found else []
    if not found or hours[:2] == hours[2:]:
        raise PolicyError('`train_night` must be off or two different times such as "02:00-05:00".')
    return time(hours[0], hours[1]), time(hours[2], hours[3])


def _whole(options: Mapping[str, str], name: str, default: int) -> int:
    text = str(options.get(name, default)).strip()
    if not re.fullmatch(r"\d{1,6}", text):
        raise PolicyError(f"`{name}` must be a whole number of at least 0.")
    return int(text)


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except ValueError as error:
        raise PolicyError(f"`{name}` must be a number.") from error
