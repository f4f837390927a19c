"""SQL of meetings: agenda, participants, comments, decisions with votes and signatures, follow-up tasks."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from services.board.meeting import (
    Comment,
    Decision,
    Discussion,
    Item,
    Meeting,
    Participant,
    Recorded,
    Signature,
    Task,
    Vote,
)
from services.board.tables import COMMENT, DECISION, ITEM, MEETING, PARTICIPANT, SIGNATURE, TASK, VOTE
from services.platform.rpc import NotFoundError


def _new_id() -> str:
    return str(uuid.uuid4())


def add_meeting(session: Session, title: str, starts_at: datetime, place: str, by: str) -> str:
    """A planned meeting; its id."""
    identity = _new_id()
    values = {"title": title, "starts_at": starts_at, "place": place, "status": "planned", "created_by": by}
    session.execute(insert(MEETING).values(meeting_id=identity, **values))
    return identity


def meetings(session: Session) -> list[tuple[Meeting, int]]:
    """Every meeting with the length of its agenda, newest first."""
    count = select(func.count()).where(ITEM.c.meeting_id == MEETING.c.meeting_id).scalar_subquery()
    rows = session.execute(select(MEETING, count.label("cases")).order_by(MEETING.c.starts_at.desc()))
    return [(_meeting(row), row.cases) for row in rows]


def meeting(session: Session, meeting_id: str) -> Meeting:
    """Raises NotFoundError."""
    row = session.execute(select(MEETING).where(MEETING.c.meeting_id == meeting_id)).first()
    if row is None:
        raise NotFoundError("there is no such meeting")
    return _meeting(row)


def _meeting(r: Any) -> Meeting:
    return Meeting(r.meeting_id, r.title, r.starts_at, r.place, r.status, r.created_by)


def set_status(session: Session, meeting_id: str, status: str) -> None:
    session.execute(update(MEETING).where(MEETING.c.meeting_id == meeting_id).values(status=status))


def add_item(session: Session, meeting_id: str, patient_key: str, question: str, presenter: str) -> str:
    """Puts a case at the end of the agenda, once; the item's id."""
    here = select(ITEM).where(ITEM.c.meeting_id == meeting_id)
    known = session.execute(here.where(ITEM.c.patient_key == patient_key)).first()
    if known is not None:
        changed = update(ITEM).where(ITEM.c.item_id == known.item_id)
        session.execute(changed.values(question=question or known.question, presenter=presenter or known.presenter))
        return str(known.item_id)
    last = session.execute(select(func.max(ITEM.c.position)).where(ITEM.c.meeting_id == meeting_id)).scalar() or 0
    identity = _new_id()
    values = {"patient_key": patient_key, "position": last + 1, "question": question, "presenter": presenter}
    session.execute(insert(ITEM).values(item_id=identity, meeting_id=meeting_id, **values))
    return identity


def remove_item(session: Session, item_id: str) -> None:
    session.execute(delete(ITEM).where(ITEM.c.item_id == item_id))


def move_item(session: Session, meeting_id: str, item_id: str, by: int) -> None:
    """One place up (-1) or down (+1)."""
    order = [item.item_id for item in items(session, meeting_id)]
    if item_id not in order:
        raise NotFoundError("this case is not on the agenda")
    place = order.index(item_id)
    target = min(max(place + by, 0), len(order) - 1)
    order.insert(target, order.pop(place))
    for position, identity in enumerate(order, start=1):
        session.execute(update(ITEM).where(ITEM.c.item_id == identity).values(position=position))


def items(session: Session, meeting_id: str) -> list[Item]:
    """The agenda in order."""
    rows = session.execute(select(ITEM).where(ITEM.c.meeting_id == meeting_id).order_by(ITEM.c.position))
    return [Item(r.item_id, r.meeting_id, r.patient_key, r.position, r.question, r.presenter) for r in rows]


def item(session: Session, meeting_id: str, patient_key: str) -> Item:
    """A case's place on an agenda. Raises NotFoundError."""
    found = next((i for i in items(session, meeting_id) if i.patient_key == patient_key), None)
    if found is None:
        raise NotFoundError("this case is not on the meeting's agenda")
    return found


def join(session: Session, meeting_id: str, subject: str, discipline: str, remote: bool) -> None:
    """Takes part, as one discipline; joining again changes it."""
    here = (PARTICIPANT.c.meeting_id == meeting_id) & (PARTICIPANT.c.subject == subject)
    session.execute(delete(PARTICIPANT).where(here))
    values = {"discipline": discipline, "remote": remote, "joined_at": datetime.now(UTC)}
    session.execute(insert(PARTICIPANT).values(meeting_id=meeting_id, subject=subject, **values))


def participants(session: Session, meeting_id: str) -> list[Participant]:
    rows = session.execute(
        select(PARTICIPANT).where(PARTICIPANT.c.meeting_id == meeting_id).order_by(PARTICIPANT.c.joined_at)
    )
    return [Participant(r.subject, r.discipline, r.remote) for r in rows]


def add_comment(session: Session, item_id: str, author: str, discipline: str, text: str) -> None:
    values = {"author": author, "discipline": discipline, "at": datetime.now(UTC), "text": text}
    session.execute(insert(COMMENT).values(comment_id=_new_id(), item_id=item_id, **values))


def add_decision(session: Session, item_id: str, decision: Decision, author: str) -> str:
    """The next version of a decision; earlier ones stay, with their votes and signatures."""
    last = session.execute(select(func.max(DECISION.c.version)).where(DECISION.c.item_id == item_id)).scalar() or 0
    identity = _new_id()
    values = {"version": last + 1, "content": decision.to_json(), "author": author, "at": datetime.now(UTC)}
    session.execute(insert(DECISION).values(decision_id=identity, item_id=item_id, **values))
    return identity


def vote(session: Session, decision_id: str, subject: str, choice: str, reason: str) -> None:
    """One vote for each person; voting again changes it."""
    session.execute(delete(VOTE).where((VOTE.c.decision_id == decision_id) & (VOTE.c.subject == subject)))
    values = {"choice": choice, "reason": reason, "at": datetime.now(UTC)}
    session.execute(insert(VOTE).values(decision_id=decision_id, subject=subject, **values))


def sign(session: Session, decision_id: str, subject: str, discipline: str, digest: str) -> None:
    """One signature for each person; it stays as it was first given."""
    here = (SIGNATURE.c.decision_id == decision_id) & (SIGNATURE.c.subject == subject)
    if session.execute(select(SIGNATURE.c.subject).where(here)).first() is None:
        values = {"discipline": discipline, "digest": digest, "at": datetime.now(UTC)}
        session.execute(insert(SIGNATURE).values(decision_id=decision_id, subject=subject, **values))


def discussion(session: Session, found: Item) -> Discussion:
    """Everything about one case of a meeting."""
    comments = session.execute(select(COMMENT).where(COMMENT.c.item_id == found.item_id).order_by(COMMENT.c.at))
    rows = session.execute(
        select(DECISION).where(DECISION.c.item_id == found.item_id).order_by(DECISION.c.version.desc())
    )
    return Discussion(
        found,
        [Comment(c.author, c.discipline, c.at, c.text) for c in comments],
        [_recorded(session, row) for row in rows],
        tasks(session, item_id=found.item_id),
    )


def _recorded(session: Session, r: Any) -> Recorded:
    votes = session.execute(select(VOTE).where(VOTE.c.decision_id == r.decision_id).order_by(VOTE.c.at))
    signed = session.execute(select(SIGNATURE).where(SIGNATURE.c.decision_id == r.decision_id).order_by(SIGNATURE.c.at))
    return Recorded(
        r.decision_id, r.version, Decision.from_json(r.content), r.author, r.at,
        [Vote(v.subject, v.choice, v.reason, v.at) for v in votes],
        [Signature(s.subject, s.discipline, s.digest, s.at) for s in signed],
    )  # fmt: skip


def add_task(session: Session, found: Item, title: str, owner: str, due_on: date | None, by: str) -> None:
    values = {
        "task_id": _new_id(), "item_id": found.item_id, "patient_key": found.patient_key, "title": title, "owner": owner,
        "due_on": due_on, "status": "open", "changed_by": by, "changed_at": datetime.now(UTC),
    }  # fmt: skip
    session.execute(insert(TASK).values(values))


def set_task(session: Session, task_id: str, status: str, by: str) -> None:
    changed = {"status": status, "changed_by": by, "changed_at": datetime.now(UTC)}
    session.execute(update(TASK).where(TASK.c.task_id == task_id).values(changed))


def task(session: Session, task_id: str) -> Task:
    """Raises NotFoundError."""
    row = session.execute(select(TASK).where(TASK.c.task_id == task_id)).first()
    if row is None:
        raise NotFoundError("there is no such task")
    return _task(row)


def tasks(session: Session, *, item_id: str = "", patient_key: str = "") -> list[Task]:
    """Tasks of an agenda item, of a patient, or all; open ones first, by day."""
    query = select(TASK).order_by(TASK.c.status.desc(), TASK.c.due_on, TASK.c.title)
    if item_id:
        query = query.where(TASK.c.item_id == item_id)
    if patient_key:
        query = query.where(TASK.c.patient_key == patient_key)
    return [_task(row) for row in session.execute(query)]


def _task(r: Any) -> Task:
    return Task(r.task_id, r.title, r.owner, r.due_on, r.status, r.changed_by, r.changed_at, r.patient_key)


def meetings_of(session: Session, patient_key: str) -> list[Meeting]:
    """Meetings with the case on their agenda, newest first."""
    query = (
        select(MEETING).join(ITEM, ITEM.c.meeting_id == MEETING.c.meeting_id).where(ITEM.c.patient_key == patient_key)
    )
    return [_meeting(row) for row in session.execute(query.order_by(MEETING.c.starts_at.desc()))]
