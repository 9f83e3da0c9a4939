"""What "Request rollback" is for users who are not administrators: a row of the audit, which administrators are shown until
another version takes charge.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from medsegr.rounds.audit import append
from medsegr.rounds.registry import FALLBACK, PROMOTE, ROLLBACK, Registry
from medsegr.rounds.tables import AuditRow
from medsegr.web.charge import NOTHING_BEFORE
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import User

REQUEST = "rollback_request"
NO_REASON = "Say why with `reason`; it is kept with the request."


def request_rollback(registry: Registry, editor: str, reason: str) -> dict[str, Any]:
    """Keep that `editor` asks for the version before the one in charge; raises `Refusal`."""
    if not reason.strip():
        raise Refusal(422, NO_REASON)
    if registry.previous() is None:
        raise Refusal(409, NOTHING_BEFORE)
    version = registry.current().name
    with registry.database.writing() as session:
        row = append(session, editor, REQUEST, version, {"reason": reason.strip()})
        return _told(session.get_one(AuditRow, row))


def open_requests(registry: Registry, user: User) -> list[dict[str, Any]]:
    """The newest request of each editor that `user` may see since a version took charge, oldest first."""
    with registry.database.session() as session:
        query = select(AuditRow).where(AuditRow.action == REQUEST, AuditRow.id > _last_change(session))
        found: dict[str, dict[str, Any]] = {}
        for row in session.scalars(query.order_by(AuditRow.id)):
            if user.may_see(row.editor):
                found.pop(row.editor, None)
                found[row.editor] = _told(row)
    return list(found.values())


def _last_change(session: Session) -> int:
    """The row of the audit with which the version in charge took charge; 0 where it always was."""
    changes = AuditRow.action.in_((PROMOTE, ROLLBACK, FALLBACK))
    return session.scalar(select(func.max(AuditRow.id)).where(changes)) or 0


def _told(row: AuditRow) -> dict[str, Any]:
    return {
        "editor": row.editor,
        "version": row.subject,
        "reason": row.detail["reason"],
        "created": row.created,
    }
