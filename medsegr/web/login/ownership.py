"""Turns belong to whoever asked: another's look like those that never were, to everybody but an administrator."""

from __future__ import annotations

from medsegr.rounds.errors import StoreError
from medsegr.rounds.store import Turn, TurnStore
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import User

NOT_YOURS = "You have no turn of this id; `GET /medsegr/turns` lists yours."


def turn_of(user: User, store: TurnStore, turn_id: str) -> Turn:
    """The turn, if this user may see it.

    Raises `Refusal` 403, the same for another user's turn and for none; an administrator gets `StoreError` for none.
    """
    try:
        turn = store.get(turn_id)
    except StoreError:
        if user.admin:
            raise
        raise Refusal(403, NOT_YOURS) from None
    if not user.may_see(turn.editor):
        raise Refusal(403, NOT_YOURS)
    return turn


def turn_editor(user: User) -> str | None:
    """Whose turns this user may list; None for everybody's."""
    return None if user.admin else user.name
