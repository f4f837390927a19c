"""Transactional outbox: events wait in the transaction's database until a relay has published them.

Source: the transactional outbox pattern. Delivery is at least once; consumers drop repeats by their inbox.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.platform.errors import RetryableError
from services.platform.events import Event
from services.platform.tables import OUTBOX

if TYPE_CHECKING:
    from services.platform.bus import EventLog
    from services.platform.database import Database

# Large content travels by reference; this stays below Kafka's default limit of 1 MiB for a record.
MAX_EVENT_BYTES = 768 * 1024
_BATCH = 200
_log = logging.getLogger(__name__)


def insert_new(session: Session, table: Any, rows: Sequence[dict[str, Any]]) -> int:
    """Inserts rows, leaving out those whose key is there already; the number inserted."""
    if not rows:
        return 0
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    # RETURNING, because drivers do not promise a row count for INSERT.
    statement = dialect.insert(table).on_conflict_do_nothing().returning(next(iter(table.primary_key)))
    return len(session.execute(statement, list(rows)).all())


def add_to_outbox(session: Session, room: str, outgoing: Sequence[tuple[str, Event]]) -> None:
    """Writes (topic, event) pairs for the room's relay, keeping order per key. Raises ValueError for a huge event."""
    _order_concurrent_writers(session, room, {event.key for _, event in outgoing})
    insert_new(session, OUTBOX, [_row(room, topic, _traced(event)) for topic, event in outgoing])


def waiting(session: Session, room: str, at_most: int) -> int:
    """How many events of a room wait to be published, counted no further than `at_most`."""
    some = select(OUTBOX.c.id).where(OUTBOX.c.room == room, OUTBOX.c.sent_at.is_(None)).limit(at_most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def _order_concurrent_writers(session: Session, room: str, keys: set[str]) -> None:
    """On PostgreSQL ids are given before commit: without this, a later id of one key could be seen first."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for key in sorted(keys):
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"outbox:{room}:{key}", 0))))


def _traced(event: Event) -> Event:
    if event.traceparent:
        return event
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return replace(event, traceparent=carrier.get("traceparent", ""))


def _row(room: str, topic: str, event: Event) -> dict[str, Any]:
    if len(event.data) > MAX_EVENT_BYTES:
        raise ValueError(
            f"event {event.type} has {len(event.data)} bytes, more than {MAX_EVENT_BYTES}: put the content in blob"
            " storage and send its reference"
        )
    return {
        "room": room,
        "topic": topic,
        "event_id": event.id,
        "type": event.type,
        "source": event.source,
        "event_key": event.key,
        "subject": event.subject,
        "time": event.time,
        "known_time": event.known_time,
        "traceparent": event.traceparent,
        "extensions_json": json.dumps(dict(event.extensions)),
        "data": event.data,
        "created_at": datetime.now(UTC),
    }


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.event_id,
        type=row.type,
        source=row.source,
        key=row.event_key,
        data=bytes(row.data),
        time=row.time,
        known_time=row.known_time,
        subject=row.subject,
        traceparent=row.traceparent,
        extensions=json.loads(row.extensions_json),
    )


class Relay:
    """Publishes a room's outbox to the log, in order. Several may run: one at a time works, the others stand by."""

    def __init__(
        self,
        database: Database,
        log: EventLog,
        room: str,
        *,
        interval_s: float = 0.5,
        keep: timedelta = timedelta(days=7),
    ) -> None:
        self._database = database
        self._log = log
        self.room = room
        self._interval_s = interval_s
        self._keep = keep
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        database.notify(room, self._wake)

    def start(self) -> None:
        """Publishes in a background thread until `stop`."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"outbox-{self.room}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def drain(self) -> int:
        """Publishes all that is pending now; the number of events. Raises RetryableError when log or database fails."""
        with self._database.exclusive(f"outbox-{self.room}"):
            return self._publish_pending()

    def pending(self) -> int:
        """How many events wait."""
        with self._database.session() as session:
            query = select(func.count()).where(OUTBOX.c.room == self.room, OUTBOX.c.sent_at.is_(None))
            return session.scalar(query) or 0

    def purge(self) -> int:
        """Deletes events published longer ago than `keep`; the number deleted."""
        horizon = datetime.now(UTC) - self._keep
        with self._database.transaction(self.room) as transaction:
            statement = delete(OUTBOX).where(OUTBOX.c.room == self.room, OUTBOX.c.sent_at < horizon)
            return int(transaction.session.connection().execute(statement).rowcount)

    def _run(self) -> None:
        wait_s = self._interval_s
        purged_at = datetime.now(UTC)
        while not self._stopping.is_set():
            self._wake.wait(wait_s)
            self._wake.clear()
            try:
                with self._database.exclusive(f"outbox-{self.room}", wait=False) as held:
                    if held:
                        self._publish_pending()
                if datetime.now(UTC) - purged_at > timedelta(hours=1):
                    self.purge()
                    purged_at = datetime.now(UTC)
                wait_s = self._interval_s
            except RetryableError as fault:
                wait_s = min(wait_s * 2, 30.0)
                _log.warning("outbox of %s waits %.1f s: %s", self.room, wait_s, fault)

    def _publish_pending(self) -> int:
        published = 0
        while rows := self._pending_rows():
            for topic, batch in groupby(rows, key=lambda row: row.topic if row.topic != row.type else None):
                events = [_event(row) for row in batch]
                self._log.publish(events) if topic is None else self._log.publish_to(topic, events)
            with self._database.transaction(self.room) as transaction:
                ids = [row.id for row in rows]
                transaction.session.execute(
                    update(OUTBOX).where(OUTBOX.c.id.in_(ids)).values(sent_at=datetime.now(UTC))
                )
            published += len(rows)
        return published

    def _pending_rows(self) -> Sequence[Row[Any]]:
        with self._database.session() as session:
            query = select(OUTBOX).where(OUTBOX.c.room == self.room, OUTBOX.c.sent_at.is_(None))
            return session.execute(query.order_by(OUTBOX.c.id).limit(_BATCH)).all()
