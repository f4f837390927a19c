"""Events and reading helpers for the contract tests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from osler.events.v1 import events_pb2

from services.platform.bus import Consumer, Record
from services.platform.events import Event, pack

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
STUDY = "osler.study.received.v1"
FINDINGS = "osler.findings.ready.v1"


def plain_event(id: str, key: str = "k", type: str = "osler.test.v1", data: bytes = b"") -> Event:
    return Event(id, type, "/osler/test", key, data, AT, AT)


def study_event(id: str, key: str = "k") -> Event:
    return pack(events_pb2.StudyReceived(), source="ingest", key=key, id=id, time=AT)


def take(consumer: Consumer, count: int, timeout_s: float = 20.0) -> list[Record]:
    """Polls until `count` records came."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.poll(0.2)
    assert len(records) >= count, f"{len(records)} of {count} records came in {timeout_s} s"
    return records


def settle(consumer: Consumer, timeout_s: float = 20.0) -> list[Record]:
    """Polls until the consumer is caught up; what came."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        records += consumer.poll(0.1)
        if consumer.caught_up():
            return records
    raise AssertionError(f"not caught up after {timeout_s} s")


def ids(records: Iterable[Record]) -> list[str]:
    return [record.event.id for record in records]


def by_key(records: Iterable[Record]) -> dict[str, list[str]]:
    """Event ids of each key, in the order in which they came."""
    order: dict[str, list[str]] = {}
    for record in records:
        order.setdefault(record.event.key, []).append(record.event.id)
    return order
