"""What a group has handled, and what it has in hand: the reader's half of exactly-once effects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from services.platform.database import Database
from services.platform.outbox import insert_new
from services.platform.tables import ATTEMPT, INBOX


@dataclass(frozen=True)
class Begun:
    """A try that begins. `unfinished` counts earlier processes that took the event up and never let go of it."""

    handled: bool
    unfinished: int
    first_at: datetime


def begin(database: Database, group: str, event_id: str, *, first_here: bool) -> Begun:
    """Notes that the group takes an event up, unless it has handled it. `first_here`: first try of this process."""
    now = datetime.now(UTC)
    this = (ATTEMPT.c.consumer_group == group) & (ATTEMPT.c.event_id == event_id)
    if is_handled(database, group, event_id):
        return Begun(True, 0, now)
    with database.transaction(group, durable=False) as transaction:
        key = {"consumer_group": group, "event_id": event_id}
        insert_new(transaction.session, ATTEMPT, [{**key, "first_at": now, "unfinished": 0, "failures": 0}])
        row = transaction.session.execute(select(ATTEMPT.c.unfinished, ATTEMPT.c.first_at).where(this)).one()
        if first_here:
            transaction.session.execute(update(ATTEMPT).where(this).values(unfinished=ATTEMPT.c.unfinished + 1))
            return Begun(False, row.unfinished, row.first_at)
        return Begun(False, row.unfinished - 1, row.first_at)


def is_handled(database: Database, group: str, event_id: str) -> bool:
    """True when the effect of the event is committed."""
    with database.session() as session:
        query = select(INBOX.c.event_id).where(INBOX.c.consumer_group == group, INBOX.c.event_id == event_id)
        return session.execute(query).first() is not None


def mark(session: Session, group: str, event_id: str) -> bool:
    """Marks an event as handled in the transaction of its effect; False when it is already."""
    row = {"consumer_group": group, "event_id": event_id, "handled_at": datetime.now(UTC)}
    forget(session, group, event_id)
    return insert_new(session, INBOX, [row]) == 1


def forget(session: Session, group: str, event_id: str) -> None:
    """Drops the count of tries of an event that is no longer in hand."""
    session.execute(delete(ATTEMPT).where(ATTEMPT.c.consumer_group == group, ATTEMPT.c.event_id == event_id))


def count_failure(database: Database, group: str, event_id: str) -> int:
    """Counts a failed try; how many there are now, over all processes."""
    this = (ATTEMPT.c.consumer_group == group) & (ATTEMPT.c.event_id == event_id)
    with database.transaction(group, durable=False) as transaction:
        transaction.session.execute(update(ATTEMPT).where(this).values(failures=ATTEMPT.c.failures + 1))
        return transaction.session.scalar(select(ATTEMPT.c.failures).where(this)) or 0


def let_go(database: Database, group: str, event_id: str) -> None:
    """Notes that this process gives an event back in good order."""
    this = (ATTEMPT.c.consumer_group == group) & (ATTEMPT.c.event_id == event_id) & (ATTEMPT.c.unfinished > 0)
    with database.transaction(group, durable=False) as transaction:
        transaction.session.execute(update(ATTEMPT).where(this).values(unfinished=ATTEMPT.c.unfinished - 1))
