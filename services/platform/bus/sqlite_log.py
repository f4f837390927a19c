"""The embedded event log: one SQLite file that several processes of one machine share."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path

from services.platform import sqlite
from services.platform.bus.log import REPLAY_EXTENSION, Partition, Record
from services.platform.bus.sqlite_consumer import SqliteConsumer, drop_dead_members
from services.platform.errors import RetryableError
from services.platform.events import Event

_SCHEMA = resources.files("services.platform.bus").joinpath("sqlite_log.sql")
_COLUMNS = (
    "topic, partition, record_offset, event_id, type, source, event_key, subject, time, known_time, traceparent,"
    " extensions, data"
)
_PAGE = 200


@cache
def partition_of(key: str, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner chooses it (murmur2, sign bit cleared)."""
    from kafka.partitioner import murmur2

    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


class SqliteEventLog:
    """`EventLog` in one SQLite file (WAL). Safe for threads and for several processes on one machine.

    `partitions` counts for topics that do not exist yet. `lease_s` is how long a silent consumer keeps its partitions;
    those of a process that has died on this machine are free at once.
    """

    def __init__(self, path: str | Path, partitions: int = 4, *, lease_s: float = 15.0) -> None:
        self.path = Path(path)
        self._partitions = partitions
        self._lease_s = lease_s
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._published = threading.Condition()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RetryableError(f"event log folder {self.path.parent} cannot be made: {error.strerror}") from error
        with self.write() as connection:
            for statement in _SCHEMA.read_text().split(";"):
                connection.execute(statement)

    def publish(self, events: Sequence[Event]) -> None:
        self._append([(event.type, event) for event in events])

    def publish_to(self, topic: str, events: Sequence[Event]) -> None:
        self._append([(topic, event) for event in events])

    def consumer(self, group: str, topics: Sequence[str]) -> SqliteConsumer:
        self._ensure(topics)
        return SqliteConsumer(self, group, topics, self._lease_s)

    def read(
        self,
        topics: Sequence[str],
        *,
        from_offsets: Mapping[Partition, int] | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[Record]:
        positions = dict(from_offsets or {})
        earliest = since.astimezone(UTC).isoformat() if since else ""
        end = None if follow else self._last_sequence()
        while True:
            batch = [row for place in self._places(topics) for row in self._page(place, positions, earliest, end)]
            batch.sort()
            for _, record in batch:
                yield record
            if not batch:
                if not follow:
                    return
                self.wait(0.2)

    def _page(
        self, place: Partition, positions: dict[Partition, int], earliest: str, end: int | None
    ) -> list[tuple[int, Record]]:
        rows = (
            self.connection()
            .execute(
                f"SELECT {_COLUMNS}, sequence FROM records WHERE topic = ? AND partition = ? AND record_offset >= ?"  # noqa: S608
                " AND appended_at >= ? AND sequence <= ? ORDER BY record_offset LIMIT ?",
                (*place, positions.get(place, 0), earliest, end if end is not None else 2**62, _PAGE),
            )
            .fetchall()
        )
        if rows:
            positions[place] = rows[-1][2] + 1
        return [(row[-1], _record(row)) for row in rows]

    def lag(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        with self.faults():
            committed = {
                (topic, partition): offset
                for topic, partition, offset in self.connection().execute(
                    "SELECT topic, partition, next_offset FROM offsets WHERE consumer_group = ?", (group,)
                )
            }
            return {place: self._end(place) - committed.get(place, 0) for place in self._places(topics)}

    def reset(self, group: str, topics: Sequence[str], to: str = "earliest") -> None:
        if to not in ("earliest", "latest"):
            raise ValueError(f'reset goes to "earliest" or "latest", not {to!r}')
        with self.write() as connection:
            drop_dead_members(connection, group)
            if connection.execute("SELECT 1 FROM members WHERE consumer_group = ?", (group,)).fetchone():
                raise RetryableError(f"group {group!r} has live consumers: stop them, then reset its offsets")
            for place in self._places(topics):
                offset = 0 if to == "earliest" else self._end(place)
                connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?)", (group, *place, offset))

    def topics(self) -> list[str]:
        with self.faults():
            return [name for (name,) in self.connection().execute("SELECT name FROM topics ORDER BY name")]

    def close(self) -> None:
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, check_same_thread=False, cached_statements=64)
            sqlite.prepare(connection)
            self._local.connection = connection
            with self._guard:
                self._connections.append(connection)
        return connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One write transaction; passing faults come out as RetryableError.

        Offsets and leases need not survive a power cut: losing them only brings records again.
        """
        with self.faults():
            connection = self.connection()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            fault = sqlite.passing_fault(error)
            if fault is None:
                raise
            raise RetryableError(f"event log {self.path.name}: {fault}") from error

    def fetch(self, place: Partition, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records of one partition from an offset on."""
        rows = self.connection().execute(
            f"SELECT {_COLUMNS} FROM records WHERE topic = ? AND partition = ? AND record_offset >= ?"  # noqa: S608
            " ORDER BY record_offset LIMIT ?",
            (*place, offset, limit),
        )
        return [_record(row) for row in rows]

    def wait(self, timeout_s: float) -> None:
        """Returns when this process publishes, or after the timeout: other processes are seen by looking again."""
        with self._published:
            self._published.wait(timeout_s)

    def _append(self, entries: Sequence[tuple[str, Event]]) -> None:
        if not entries:
            return
        appended_at = datetime.now(UTC).isoformat()
        with self.write() as connection:
            counts = {topic: self._ensure_topic(connection, topic) for topic in {topic for topic, _ in entries}}
            for topic, event in entries:
                partition = partition_of(event.key, counts[topic])
                connection.execute(_INSERT, _row(topic, partition, event, appended_at))
        with self._published:
            self._published.notify_all()

    def _ensure(self, topics: Sequence[str]) -> None:
        with self.write() as connection:
            for topic in topics:
                self._ensure_topic(connection, topic)

    def _ensure_topic(self, connection: sqlite3.Connection, topic: str) -> int:
        connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?)", (topic, self._partitions))
        (count,) = connection.execute("SELECT partitions FROM topics WHERE name = ?", (topic,)).fetchone()
        return int(count)

    def _places(self, topics: Sequence[str]) -> list[Partition]:
        known = dict(self.connection().execute("SELECT name, partitions FROM topics").fetchall())
        return [(topic, partition) for topic in topics for partition in range(known.get(topic, 0))]

    def _end(self, place: Partition) -> int:
        query = "SELECT COALESCE(MAX(record_offset) + 1, 0) FROM records WHERE topic = ? AND partition = ?"
        return int(self.connection().execute(query, place).fetchone()[0])

    def _last_sequence(self) -> int:
        with self.faults():
            return int(self.connection().execute("SELECT COALESCE(MAX(sequence), 0) FROM records").fetchone()[0])


_INSERT = """
INSERT OR IGNORE INTO records (topic, partition, record_offset, publication_id, appended_at, event_id, type, source,
  event_key, subject, time, known_time, traceparent, extensions, data)
VALUES (:topic, :partition,
  (SELECT COALESCE(MAX(record_offset) + 1, 0) FROM records WHERE topic = :topic AND partition = :partition),
  :publication, :appended_at, :id, :type, :source, :key, :subject, :time, :known_time, :traceparent, :extensions, :data)
"""


def _row(topic: str, partition: int, event: Event, appended_at: str) -> dict[str, object]:
    replay = event.extensions.get(REPLAY_EXTENSION)
    return {
        "topic": topic,
        "partition": partition,
        "publication": f"{event.id}#{replay}" if replay else event.id,
        "appended_at": appended_at,
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "key": event.key,
        "subject": event.subject,
        "time": event.time.isoformat(),
        "known_time": event.known_time.isoformat(),
        "traceparent": event.traceparent,
        "extensions": json.dumps(dict(event.extensions)),
        "data": event.data,
    }


def _record(row: Sequence[object]) -> Record:
    topic, partition, offset, id_, type_, source, key, subject, time_, known_time, traceparent, extensions, data = row[
        :13
    ]
    event = Event(
        id=str(id_),
        type=str(type_),
        source=str(source),
        key=str(key),
        data=bytes(data),  # type: ignore[call-overload]
        time=datetime.fromisoformat(str(time_)),
        known_time=datetime.fromisoformat(str(known_time)),
        subject=str(subject),
        traceparent=str(traceparent),
        extensions=json.loads(str(extensions)),
    )
    return Record(str(topic), int(str(partition)), int(str(offset)), event)
