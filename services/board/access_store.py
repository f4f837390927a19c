"""SQL of access to cases."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from services.board.access import CaseAccess, Grant, Kind
from services.board.tables import GRANT, ITEM, PARTICIPANT, RESTRICTION


def case_access(session: Session, patient_key: str, subject: str) -> CaseAccess:
    """Restriction, grants and meetings of one case, as they concern `subject`."""
    restricted = session.execute(select(RESTRICTION.c.patient_key).where(RESTRICTION.c.patient_key == patient_key))
    meetings = (
        select(ITEM.c.item_id)
        .join(PARTICIPANT, PARTICIPANT.c.meeting_id == ITEM.c.meeting_id)
        .where(ITEM.c.patient_key == patient_key, PARTICIPANT.c.subject == subject)
        .limit(1)
    )
    return CaseAccess(
        restricted.first() is not None, grants(session, patient_key), session.execute(meetings).first() is not None
    )


def grants(session: Session, patient_key: str) -> list[Grant]:
    """Every grant ever given for a case, newest first."""
    rows = session.execute(select(GRANT).where(GRANT.c.patient_key == patient_key).order_by(GRANT.c.at.desc()))
    return [Grant(r.subject, r.kind, r.reason, r.granted_by, r.at, r.until) for r in rows]


def grant(
    session: Session,
    patient_key: str,
    subject: str,
    kind: Kind,
    *,
    reason: str,
    by: str,
    at: datetime,
    until: datetime | None = None,
) -> None:
    values = {
        "grant_id": str(uuid.uuid4()), "patient_key": patient_key, "subject": subject, "kind": kind, "reason": reason,
        "granted_by": by, "at": at, "until": until,
    }  # fmt: skip
    session.execute(insert(GRANT).values(values))


def take_back(session: Session, patient_key: str, subject: str) -> None:
    """Ends the membership of a case's team."""
    ended = delete(GRANT).where(GRANT.c.patient_key == patient_key, GRANT.c.subject == subject, GRANT.c.kind == "team")
    session.execute(ended)


def restrict(session: Session, patient_key: str, by: str, at: datetime) -> None:
    free(session, patient_key)
    session.execute(insert(RESTRICTION).values(patient_key=patient_key, restricted_by=by, at=at))


def free(session: Session, patient_key: str) -> None:
    """Takes a restriction back."""
    session.execute(delete(RESTRICTION).where(RESTRICTION.c.patient_key == patient_key))
