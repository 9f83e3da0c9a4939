"""What a language model has to offer to the annotation: one call, and three ways to fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from medsegr.errors import MedSegRError

Message = Mapping[str, str]  # role ("user" or "assistant") and content


class Unavailable(MedSegRError):
    """No answer after every retry; the same request may work later."""


class RequestRefused(MedSegRError):
    """This request will never be answered (too long, not allowed); others may be."""


class EmptyReply(MedSegRError):
    """The model answered without text, or was cut off."""


class Backend(Protocol):
    """A language model. `complete` is called from several threads; any other `MedSegRError` than the three above means that
    no request can work (a wrong key, an unknown model)."""

    @property
    def provenance(self) -> Mapping[str, str]:
        """Kind of backend, model and where it runs: no key, no local path."""

    def complete(self, messages: Sequence[Message]) -> str:
        """The model's reply to a conversation."""

    def close(self) -> None:
        """Give up what is waiting; nothing is called afterwards."""
