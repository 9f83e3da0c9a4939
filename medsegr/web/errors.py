"""Which HTTP status an error of the user's gets, and errors that carry their own."""

from __future__ import annotations

from medsegr import errors
from medsegr.dicom.archive import ArchiveError, UnknownSeries
from medsegr.errors import Cancelled, CheckpointError, MedSegRError
from medsegr.rounds.store import StoreError


class Refusal(MedSegRError):
    """A request that is not served, with its HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def status_of(error: MedSegRError) -> int:
    """The HTTP status that tells a client about `error`."""
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, StoreError | UnknownSeries):
        return 404
    if isinstance(error, ArchiveError):
        return 502
    if isinstance(error, Cancelled):
        return 409
    if isinstance(error, CheckpointError):
        return 503
    return 422


def revive(kind: str, sentence: str) -> MedSegRError:
    """The error that another process named: a class of `medsegr.errors`, `died`, or anything else for a
    defect of ours.
    """
    if kind == "died":
        return Refusal(503, sentence)
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, MedSegRError):
        return known(sentence)
    return Refusal(500, sentence)
