"""A room in a process of its own that can be told to die at the n-th passage of one point of its work.

The points stand before and after each step that leaves something behind: rows, offsets, a publication (also within its
Kafka transaction), a blob, a file of the lake (also before it is put in place).
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

POINTS = (
    "publish.before",
    "publish.within",
    "publish.after",
    "rows.before",
    "rows.after",
    "offsets.before",
    "offsets.after",
    "blob.before",
    "blob.after",
    "lake.before",
    "lake.half",
    "lake.after",
)
LAKE_POINTS = tuple(point for point in POINTS if point.startswith("lake"))

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(
    [
        "tests.faults.rooms",
        "services.compose.rooms",
        "services.ingest.room",
        "services.fusion.room",
        "services.board.room",
        "services.analytics.room",
        "services.platform.host",
        "services.platform.bus.kafka_log",
        "alembic.command",
        "psycopg",
        "sqlalchemy.dialects.postgresql.psycopg",
        "fsspec.implementations.local",
    ]
)


class Trigger:
    """Shared with the process: which point is armed, how many passages are left, whether deliveries are disturbed,
    and how wrong its clock is."""

    def __init__(self) -> None:
        self.point = forkserver.Value("i", -1)
        self.left = forkserver.Value("i", 0)
        self.died_at = forkserver.Value("i", -1)
        self.disturbed = forkserver.Value("i", 0)
        self.skew_s = forkserver.Value("i", 0)

    def arm(self, point: str, passage: int) -> None:
        self.left.value = passage
        self.point.value = POINTS.index(point)

    def disarm(self) -> None:
        self.point.value = -1

    def pass_by(self, point: str) -> None:
        """Called in the process; ends it at once (SIGKILL) at the armed passage."""
        number = POINTS.index(point)
        if self.point.value != number:
            return
        with self.left.get_lock():
            self.left.value -= 1
            dies = self.left.value == 0
        if dies:
            self.died_at.value = number
            self.point.value = -1
            os.kill(os.getpid(), signal.SIGKILL)


def run(room: str, settings: Mapping[str, str], log_file: str, trigger: Trigger) -> None:
    """Serves a room until SIGTERM, through the host that `osler serve` uses; without gRPC and HTTP doors."""
    os.environ.update(settings)
    with open(log_file, "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    skew = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "osler_clock_skew")
    skew.value = ctypes.addressof(trigger.skew_s.get_obj())
    from services.compose.rooms import build_room, lay_foundations
    from services.platform import logs
    from services.platform.config import Settings
    from services.platform.host import Host, Parts

    found = Settings.load()
    logs.configure(found, room=room)
    foundations = lay_foundations(found)
    _set_points(foundations.database, trigger)
    built = replace(build_room(room, foundations), grpc=(), http=None)
    parts = Parts(found, foundations.database, foundations.log, foundations.quarantine, foundations.security)
    asyncio.run(Host([built], parts, announce=lambda _text: None).run())


def _around(trigger: Trigger, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def around(*arguments: Any, **options: Any) -> Any:
        trigger.pass_by(f"{step}.before")
        result = call(*arguments, **options)
        trigger.pass_by(f"{step}.after")
        return result

    return around


def _set_points(database: Any, trigger: Trigger) -> None:
    from kafka import KafkaProducer

    from services.analytics import lake, worker
    from services.platform.blobs import BlobStore
    from services.platform.bus.kafka_consumer import KafkaGroupConsumer
    from services.platform.bus.kafka_log import KafkaEventLog

    # A file of the lake each second, so that short schedules meet the points around it.
    worker.MAX_WAIT = timedelta(seconds=1)
    dialect: Any = database.engine.dialect
    dialect.do_commit = _around(trigger, "rows", dialect.do_commit)
    patched: list[tuple[Any, str, str]] = [
        (KafkaGroupConsumer, "commit", "offsets"),
        (BlobStore, "put", "blob"),
        (lake, "write_batch", "lake"),
        (KafkaEventLog, "_append", "publish"),
    ]
    for owner, name, step in patched:
        setattr(owner, name, _around(trigger, step, getattr(owner, name)))
    commit, rename = KafkaProducer.commit_transaction, os.replace

    def commit_transaction(producer: KafkaProducer) -> None:
        trigger.pass_by("publish.within")
        commit(producer)

    def put_in_place(source: Any, target: Any) -> None:
        trigger.pass_by("lake.half")
        rename(source, target)

    KafkaProducer.commit_transaction = commit_transaction
    lake.os = type("os", (), {"replace": staticmethod(put_in_place)})  # type: ignore[attr-defined]
    _disturb(KafkaEventLog, trigger)


def _disturb(log: Any, trigger: Trigger) -> None:
    """While disturbed, publications come in another order, and every second event twice."""
    append = log._append

    def disturbed(self: Any, entries: Any) -> None:
        if trigger.disturbed.value:
            entries = [*reversed(entries), *entries[::2]]
        append(self, entries)

    log._append = disturbed


def stop_quietly(process: Any) -> None:
    """Ends a process as a crash would."""
    with suppress(ProcessLookupError):
        process.kill()
    process.join()
