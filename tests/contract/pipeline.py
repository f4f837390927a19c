"""A small chain of rooms for the crash tests: ingest announces studies, imaging turns each into findings, fusion counts them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from osler.events.v1 import events_pb2

from services.platform.blobs import BlobStore
from services.platform.bus import EventLog, KafkaEventLog, SqliteEventLog
from services.platform.database import Database, room_metadata
from services.platform.events import Event, event_id, pack
from services.platform.outbox import Relay
from services.platform.quarantine import Quarantine
from services.platform.room import Effect, Room, Transaction
from services.platform.worker import RetryPolicy, Worker, drain_all
from tests.contract.events import FINDINGS, STUDY
from tests.contract.processes import tell_stacks

_metadata = room_metadata()
SEEN = sa.Table(
    "test_seen",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("room", sa.String(20), nullable=False),
    sa.Column("event_key", sa.String(64), nullable=False),
    sa.Column("event_id", sa.String(64), nullable=False),
)
# A crash is expected here far more often than from any real handler.
_POLICY = RetryPolicy(base_s=0.01, longest_s=0.05, crashes=1000)


def create_tables(database: Database) -> None:
    _metadata.create_all(database.engine)


def _see(tx: Transaction, room: str, event: Event) -> None:
    tx.session.execute(sa.insert(SEEN).values(room=room, event_key=event.key, event_id=event.id))


def imaging() -> Room:
    def on_study(event: Event, _message: Any) -> Effect:
        def effect(tx: Transaction) -> None:
            _see(tx, "imaging", event)
            findings = events_pb2.FindingsReady()
            tx.emit(pack(findings, source="imaging", key=event.key, id=event_id("imaging", event.id)))

        return effect

    return Room("imaging", {STUDY: on_study})


def fusion() -> Room:
    return Room("fusion", {FINDINGS: lambda event, _message: lambda tx: _see(tx, "fusion", event)})


def open_log(place: str) -> EventLog:
    """`place` is a file, or `kafka:` and the address of a broker."""
    if place.startswith("kafka:"):
        return KafkaEventLog(place.removeprefix("kafka:"), partitions=4, patience_s=4, session_s=1.5)
    return SqliteEventLog(place, 4)


class _Dying:
    """Passes calls through to the real thing, and ends the process (SIGKILL) at the n-th point of interest."""

    def __init__(self, inner: Any, countdown: Callable[[], None], names: frozenset[str]) -> None:
        self._inner, self._countdown, self._names = inner, countdown, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "consumer":
            return lambda *args: _Dying(found(*args), self._countdown, self._names)
        return self._wrapped(found) if name in self._names else found

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*args: Any, **options: Any) -> Any:
            self._countdown()
            result = call(*args, **options)
            self._countdown()
            return result

        return around


def countdown_to_death(points: int) -> Callable[[], None]:
    left = points

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def process_everything(place: str, url: str, folder: str, points: int = 0) -> None:
    """Runs the chain to its end; dies at the given point (before or after a publication, a commit of offsets or of rows)."""
    tell_stacks(Path(folder))
    database = Database(url)
    log: Any = open_log(place)
    if points:
        count = countdown_to_death(points)
        log = _Dying(log, count, frozenset({"publish", "commit"}))
        sa.event.listen(database.engine, "commit", lambda _connection: count())
    quarantine = Quarantine(database, BlobStore(Path(folder).as_uri()))
    workers = [Worker(room, database, log, quarantine, policy=_POLICY) for room in (imaging(), fusion())]
    relays = [Relay(database, log, room) for room in ("ingest", "imaging", "fusion")]
    drain_all(workers, relays)
    for worker in workers:
        worker.close()
    log.close()
    database.close()
