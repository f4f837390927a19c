"""Consumer groups of the embedded log: members with heartbeats, and leases on partitions.

Partition `p` of a topic belongs to the `p mod n`-th of the `n` live members that read the topic, so one key of several
topics stays with one member. A member that should give a partition up does so once nothing of it is in its hands.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.platform.bus.log import Partition, Record
from services.platform.errors import RetryableError

if TYPE_CHECKING:
    from services.platform.bus.sqlite_log import SqliteEventLog

_LOOK_AGAIN_S = 0.1
_RECORDS_PER_PARTITION = 32


class SqliteConsumer:
    """One member of a group; see `Consumer`. A background thread keeps it alive through long handlers."""

    def __init__(self, log: SqliteEventLog, group: str, topics: Sequence[str], lease_s: float) -> None:
        self._log = log
        self._group = group
        self._topics = sorted(topics)
        self._lease_s = lease_s
        self._member = uuid.uuid4().hex
        self._paused: frozenset[Partition] = frozenset()
        self._positions: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._wanted: set[Partition] = set()
        self._seen_members: tuple[str, ...] = ()
        self._rebalanced_at = 0.0
        self._closed = threading.Event()
        self._join()
        self._heart = threading.Thread(target=self._beat, name=f"lease-{group}", daemon=True)
        self._heart.start()

    def poll(self, timeout_s: float) -> list[Record]:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._log.faults():
                self._rebalance_when_due()
                records = self._take()
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            self._log.wait(min(left, _LOOK_AGAIN_S))

    def commit(self, records: Sequence[Record]) -> None:
        ends: dict[Partition, int] = {}
        for record in records:
            ends[record.place] = max(ends.get(record.place, 0), record.offset + 1)
        with self._log.write(durable=False) as connection:
            for place, end in ends.items():
                if self._holds(connection, place):
                    connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?)", (self._group, *place, end))
                    self._committed[place] = end

    def pause(self, places: Collection[Partition]) -> None:
        self._paused = frozenset(places)

    def assignment(self) -> set[Partition]:
        return set(self._positions)

    def caught_up(self) -> bool:
        with self._log.faults():
            self._rebalance_when_due()
            if any(self._log.fetch(place, offset, 1) for place, offset in self._positions.items()):
                return False
            lag = self._log.lag(self._group, self._topics)
            return not any(count for place, count in lag.items() if place not in self._positions)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._heart.join()
        with self._log.write(durable=False) as connection:
            _drop_member(connection, self._group, self._member)

    def _take(self) -> list[Record]:
        taken: list[Record] = []
        for place, offset in self._positions.items():
            if place in self._paused:
                continue
            records = self._log.fetch(place, offset, _RECORDS_PER_PARTITION)
            if records:
                self._positions[place] = records[-1].offset + 1
                taken += records
        return taken

    def _join(self) -> None:
        with self._log.write(durable=False) as connection:
            self._announce(connection)

    def _announce(self, connection: sqlite3.Connection) -> None:
        row = (self._group, self._member, this_process(), json.dumps(self._topics), time.time() + self._lease_s)
        connection.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)", row)

    def _beat(self) -> None:
        while not self._closed.wait(self._lease_s / 3):
            try:
                self._join()
            except RetryableError:
                continue  # the next beat tries again; a lease that lapses meanwhile only causes redelivery
            except sqlite3.ProgrammingError:
                return  # the log was closed under its consumers

    def _rebalance_when_due(self) -> None:
        rows = self._log.connection().execute(
            "SELECT member FROM members WHERE consumer_group = ? ORDER BY member", (self._group,)
        )
        members = tuple(member for (member,) in rows)
        fulfilled = self._wanted == set(self._positions) and members == self._seen_members
        if not fulfilled or time.monotonic() - self._rebalanced_at > self._lease_s / 3:
            self._rebalance()

    def _rebalance(self) -> None:
        with self._log.write(durable=False) as connection:
            drop_dead_members(connection, self._group)
            self._announce(connection)
            rows = connection.execute(
                "SELECT member, topics FROM members WHERE consumer_group = ? ORDER BY member", (self._group,)
            ).fetchall()
            self._seen_members = tuple(member for member, _ in rows)
            readers = {
                topic: [member for member, topics in rows if topic in json.loads(topics)] for topic in self._topics
            }
            self._wanted = {
                (topic, partition)
                for topic, partition in self._places(connection)
                if readers[topic][partition % len(readers[topic])] == self._member
            }
            leases = self._leases(connection)
            self._forget_lost(leases)
            self._give_back(connection)
            for place in sorted(self._wanted - set(self._positions)):
                if place not in leases:
                    self._lease(connection, place)
        self._rebalanced_at = time.monotonic()

    def _places(self, connection: sqlite3.Connection) -> list[Partition]:
        counts = dict(connection.execute("SELECT name, partitions FROM topics").fetchall())
        return [(topic, partition) for topic in self._topics for partition in range(counts.get(topic, 0))]

    def _leases(self, connection: sqlite3.Connection) -> dict[Partition, str]:
        rows = connection.execute(
            "SELECT topic, partition, member FROM leases WHERE consumer_group = ?", (self._group,)
        )
        return {(topic, partition): member for topic, partition, member in rows}

    def _forget_lost(self, leases: dict[Partition, str]) -> None:
        for place in [place for place in self._positions if leases.get(place) != self._member]:
            del self._positions[place]

    def _give_back(self, connection: sqlite3.Connection) -> None:
        for place in [place for place in self._positions if place not in self._wanted]:
            if self._positions[place] == self._committed[place]:
                connection.execute(
                    "DELETE FROM leases WHERE consumer_group = ? AND topic = ? AND partition = ?", (self._group, *place)
                )
                del self._positions[place]

    def _lease(self, connection: sqlite3.Connection, place: Partition) -> None:
        connection.execute("INSERT INTO leases VALUES (?, ?, ?, ?)", (self._group, *place, self._member))
        row = connection.execute(
            "SELECT next_offset FROM offsets WHERE consumer_group = ? AND topic = ? AND partition = ?",
            (self._group, *place),
        ).fetchone()
        self._positions[place] = self._committed[place] = int(row[0]) if row else 0

    def _holds(self, connection: sqlite3.Connection, place: Partition) -> bool:
        query = "SELECT 1 FROM leases WHERE consumer_group = ? AND topic = ? AND partition = ? AND member = ?"
        return connection.execute(query, (self._group, *place, self._member)).fetchone() is not None


def drop_dead_members(connection: sqlite3.Connection, group: str) -> None:
    """Frees the partitions of members that are silent for too long, or whose process is gone."""
    rows = connection.execute("SELECT member, process, expires_at FROM members WHERE consumer_group = ?", (group,))
    for member, process, expires_at in rows.fetchall():
        if expires_at < time.time() or is_dead(process):
            _drop_member(connection, group, member)


def _drop_member(connection: sqlite3.Connection, group: str, member: str) -> None:
    connection.execute("DELETE FROM leases WHERE consumer_group = ? AND member = ?", (group, member))
    connection.execute("DELETE FROM members WHERE consumer_group = ? AND member = ?", (group, member))


def this_process() -> str:
    """Names this process so that another on the same machine can tell whether it still runs."""
    return json.dumps([_namespace(), os.getpid(), _started(os.getpid())])


def is_dead(process: str) -> bool:
    """True only when the process was of this machine (and container) and is certainly gone."""
    namespace, pid, started = json.loads(process)
    return bool(namespace == _namespace() and started and _started(pid) != started)


def _namespace() -> list[str]:
    try:
        return [socket.gethostname(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        return [socket.gethostname(), ""]


def _started(pid: int) -> str:
    """Start of a live process in clock ticks since boot (field 22 of /proc/<pid>/stat); empty when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
