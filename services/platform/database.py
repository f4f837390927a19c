"""State of the rooms: SQLAlchemy 2 over SQLite (one machine) or PostgreSQL.

Writes go through `Database.transaction(room)`, which commits rows and outgoing events together.
"""

from __future__ import annotations

import fcntl
import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from services.platform import sqlite
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.events import Event
from services.platform.migrations import migrate
from services.platform.outbox import add_to_outbox
from services.platform.tables import UtcDateTime, room_metadata

if TYPE_CHECKING:
    from services.platform.config import Settings

# SQLSTATE classes and codes of PostgreSQL that may pass: connection, rollback (deadlock, serialization), resources,
# operator intervention, lock not available, I/O error. PostgreSQL 17, appendix A.
_PASSING_STATES = ("08", "40", "53", "57", "55P03", "58030")


class DatabaseTransaction:
    """One transaction of a room; see `services.platform.room.Transaction`."""

    def __init__(self, session: Session, room: str) -> None:
        self._session = session
        self._room = room
        self._outgoing: list[tuple[str, Event]] = []

    @property
    def session(self) -> Session:
        return self._session

    def emit(self, event: Event) -> None:
        """Puts an event in the outbox. The same event id twice is one event."""
        self.emit_to(event.type, event)

    def emit_to(self, topic: str, event: Event) -> None:
        """As `emit`, to a given topic (dead letters)."""
        self._outgoing.append((topic, event))

    def flush_outgoing(self) -> bool:
        """Writes the announced events; True when there were any."""
        if self._outgoing:
            self._session.flush()
            add_to_outbox(self._session, self._room, self._outgoing)
        return bool(self._outgoing)


class Database:
    """Connections to one database, shared by threads. `url` as SQLAlchemy writes it (`sqlite:///...`, `postgresql+psycopg://...`)."""

    def __init__(self, url: str, *, password: str = "", pool_size: int = 5) -> None:
        try:
            parsed = sqlalchemy.make_url(url)
        except sqlalchemy.exc.ArgumentError:
            raise ConfigurationError(
                "database.url is not a database URL: use sqlite:///file or postgresql+psycopg://..."
            ) from None
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if password:
            parsed = parsed.set(password=password)
        self._file = _sqlite_file(parsed)
        if self._file is not None:
            self.engine = _sqlite_engine(parsed, self._file)
        else:
            self.engine = sqlalchemy.create_engine(
                parsed, pool_size=pool_size, max_overflow=pool_size * 2, pool_pre_ping=True
            )
        # One snapshot for all statements of a read, as SQLite gives it.
        snapshot: dict[str, Any] = (
            {} if self._file else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        self._reading = self.engine.execution_options(osler_access="read", **snapshot)
        self._writing = self.engine.execution_options(osler_access="write")
        self._noting = self.engine.execution_options(osler_access="note")
        self._writer = threading.Lock()
        self._listeners: dict[str, list[threading.Event]] = {}

    @property
    def is_sqlite(self) -> bool:
        return self._file is not None

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for reads, on one snapshot. Writing through it fails."""
        with self.faults(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def transaction(self, room: str, *, durable: bool = True) -> Iterator[DatabaseTransaction]:
        """One write transaction: commits rows and emitted events together, or nothing.

        Not `durable`: survives the death of the process but perhaps not a power cut, and costs less.
        Raises RetryableError for faults that may pass (locked, disk full, connection lost, deadlock).
        """
        engine = self._writing if durable else self._noting
        with self.faults(), self._turn(), Session(engine, expire_on_commit=False) as session:
            transaction = DatabaseTransaction(session, room)
            with session.begin():
                if not (durable or self._file):
                    session.execute(sqlalchemy.text("SET LOCAL synchronous_commit = off"))
                yield transaction
                announced = transaction.flush_outgoing()
        if announced:
            for listener in self._listeners.get(room, []):
                listener.set()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Writers of one process take turns: SQLite's own wait for its lock is a poll that sleeps up to 100 ms."""
        if self._file is None:
            yield
            return
        if not self._writer.acquire(timeout=sqlite.BUSY_TIMEOUT_MS / 1000):
            raise RetryableError("database: locked by another writer of this process")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """A connection in one transaction for changing tables (migrations)."""
        with self.faults(), self.engine.connect() as plain:
            # SQLite rebuilds a table to change it, which foreign keys would follow; they switch off before it begins.
            connection = plain.execution_options(osler_access="schema")
            with connection.begin():
                yield connection

    def notify(self, room: str, listener: threading.Event) -> None:
        """Sets `listener` whenever this process commits events of the room."""
        self._listeners.setdefault(room, []).append(listener)

    @contextmanager
    def exclusive(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Holds a named lock between all processes on this database; yields False when not waiting and it is taken.

        The lock goes with the process or connection that holds it, however it ends.
        """
        with self.faults():
            if self._file is not None:
                with _file_lock(self._file.with_name(f"{self._file.name}.{name}.lock"), wait) as held:
                    yield held
            else:
                with _advisory_lock(self.engine, f"{self.engine.url.database}:{name}", wait) as held:
                    yield held

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turns faults that may pass into RetryableError."""
        try:
            yield
        except PoolTimeoutError as error:
            raise RetryableError("database: all connections are busy; try again or raise database.pool_size") from error
        except DBAPIError as error:
            fault = _passing_fault(error)
            if fault is None:
                raise
            raise RetryableError(f"database: {fault}") from error

    def close(self) -> None:
        self.engine.dispose()


def open_database(settings: Settings) -> Database:
    """The database that the settings name."""
    group = settings.database
    return Database(group.url, password=group.password.get_secret_value(), pool_size=group.pool_size)


def _sqlite_file(url: sqlalchemy.URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise ConfigurationError("database.url needs a file (sqlite:///path): several threads and processes share it")
    return Path(url.database)


def _sqlite_engine(url: sqlalchemy.URL, file: Path) -> Engine:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RetryableError(f"database folder {file.parent} cannot be made: {error.strerror}") from error
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": sqlite.BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        sqlite.prepare(connection)

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        access = connection.get_execution_options().get("osler_access", "any")
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if access == 'read' else 'OFF'}")
        connection.exec_driver_sql(f"PRAGMA foreign_keys = {'OFF' if access == 'schema' else 'ON'}")
        connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if access == 'note' else 'FULL'}")
        # A write transaction takes the write lock first: upgrading later fails at once when another writer was faster.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if access in ("write", "note", "schema") else "BEGIN")

    return engine


def _passing_fault(error: DBAPIError) -> str | None:
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        return sqlite.passing_fault(origin)
    state = str(getattr(origin, "sqlstate", None) or "")
    if error.connection_invalidated or (isinstance(error, sqlalchemy.exc.OperationalError) and not state):
        return "connection lost or refused; check that the server runs and database.url is right"
    return f"passing fault (SQLSTATE {state})" if state.startswith(_PASSING_STATES) else None


@contextmanager
def _file_lock(path: Path, wait: bool) -> Iterator[bool]:
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def _advisory_lock(engine: Engine, name: str, wait: bool) -> Iterator[bool]:
    number = lock_number(name)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        function = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
        held = connection.scalar(sqlalchemy.text(f"SELECT {function}(:number)"), {"number": number})
        if held is False:
            yield False
            return
        try:
            yield True
        finally:
            if not connection.invalidated:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:number)"), {"number": number})


def lock_number(name: str) -> int:
    """A 64-bit key for PostgreSQL's advisory locks."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


__all__ = ["Database", "DatabaseTransaction", "UtcDateTime", "lock_number", "migrate", "open_database", "room_metadata"]
