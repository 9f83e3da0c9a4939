"""Errors that the user can mend: each is one sentence saying what was wrong and what is expected.

The command line prints them on one line and the server turns them into a 4xx; any other exception is a defect of ours.
"""

from __future__ import annotations


class MedSegRError(ValueError):
    """Base of every error that is the caller's to mend."""


class ImageError(MedSegRError):
    """An image is missing, unreadable, empty or of an unsupported kind."""


class QAFileError(MedSegRError):
    """A MedSeg-QA file breaks its schema; the message names file and line."""


class CheckpointError(MedSegRError):
    """A checkpoint directory is missing, incomplete, damaged or of another format version."""


class QuestionError(MedSegRError):
    """A question, its history or one of its options cannot be used."""


class Cancelled(MedSegRError):
    """The caller withdrew a question while it was being answered."""
