"""Events on their way to the lake: buffered with the inbox mark, so that each reaches a file once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, delete, func, insert, select, update
from sqlalchemy.orm import Session

from services.platform.events import Event
from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

BUFFER = Table(
    "analytics_buffer",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", String(255), nullable=False, unique=True),
    Column("event_type", String(255), nullable=False),
    Column("source", String(255), nullable=False),
    Column("patient_key", String(64), nullable=False),
    Column("event_time", UtcDateTime, nullable=False),
    Column("known_time", UtcDateTime, nullable=False),
    Column("received_time", UtcDateTime, nullable=False),
    Column("traceparent", String(128), nullable=False),
    Column("data", Text, nullable=False),
    Column("context", Text, nullable=False, server_default="{}"),
    Column("batch", String(36)),
    Index("ix_analytics_buffer_batch", "batch", "id"),
)


class LakeRow(NamedTuple):
    """One event as a row of the lake; `data` is the payload as JSON (protobuf's mapping), `context` what to group it by."""

    event_id: str
    event_type: str
    source: str
    patient_key: str
    event_time: datetime
    known_time: datetime
    received_time: datetime
    traceparent: str
    data: str
    context: str


def add(session: Session, event: Event, data: str, context: str = "{}") -> None:
    """Buffers an event. An event id that waits already is left as it is."""
    if session.execute(select(BUFFER.c.id).where(BUFFER.c.event_id == event.id)).first():
        return
    row = LakeRow(
        event.id, event.type, event.source, event.key, event.time, event.known_time, datetime.now(UTC),
        event.traceparent, data, context,
    )  # fmt: skip
    session.execute(insert(BUFFER).values(**row._asdict()))


def waiting(session: Session) -> tuple[int, datetime | None]:
    """How many events wait for a file, and since when the oldest does."""
    row = session.execute(select(func.count(BUFFER.c.id), func.min(BUFFER.c.received_time))).one()
    return int(row[0]), row[1]


def open_batches(session: Session) -> list[str]:
    """Batches that were begun and not finished (a process died in between)."""
    return list(session.execute(select(BUFFER.c.batch).where(BUFFER.c.batch.is_not(None)).distinct()).scalars())


def begin_batch(session: Session, batch: str, limit: int) -> int:
    """Claims up to `limit` waiting events, oldest first, for one batch."""
    oldest = select(BUFFER.c.id).where(BUFFER.c.batch.is_(None)).order_by(BUFFER.c.id).limit(limit)
    ids = list(session.execute(oldest).scalars())
    if ids:
        session.execute(update(BUFFER).where(BUFFER.c.id.in_(ids)).values(batch=batch))
    return len(ids)


def batch_rows(session: Session, batch: str) -> list[LakeRow]:
    columns = [BUFFER.c[name] for name in LakeRow._fields]
    return [
        LakeRow(*row) for row in session.execute(select(*columns).where(BUFFER.c.batch == batch).order_by(BUFFER.c.id))
    ]


def finish_batch(session: Session, batch: str) -> None:
    session.execute(delete(BUFFER).where(BUFFER.c.batch == batch))


def waiting_ids(session: Session) -> frozenset[str]:
    """Ids of the events that wait for a file."""
    return frozenset(session.execute(select(BUFFER.c.event_id)).scalars())
