"""Outbox to log: everything announced is published, in order, however relays die."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest

from services.platform.bus import EventLog
from services.platform.database import Database
from services.platform.errors import RetryableError
from services.platform.events import Event
from services.platform.outbox import Relay
from tests.contract.events import STUDY, by_key, ids, study_event


def _announce(database: Database, numbers: range, room: str = "ingest") -> None:
    for number in numbers:
        with database.transaction(room) as transaction:
            transaction.emit(study_event(f"{number:04d}", f"key{number % 5}"))


def _in_order(log: EventLog) -> bool:
    """Repeats are allowed (readers drop them); first appearances are in order."""
    return all(list(dict.fromkeys(events)) == sorted(set(events)) for events in by_key(log.read([STUDY])).values())


def test_what_is_announced_is_published_once_in_order(setting_database: Database, setting_log: EventLog) -> None:
    _announce(setting_database, range(30))
    relay = Relay(setting_database, setting_log, "ingest")
    assert relay.drain() == 30
    assert relay.drain() == 0
    assert sorted(ids(setting_log.read([STUDY]))) == [f"{number:04d}" for number in range(30)]
    assert _in_order(setting_log)


def test_a_relay_leaves_the_events_of_other_rooms_alone(setting_database: Database, setting_log: EventLog) -> None:
    _announce(setting_database, range(3), room="fusion")
    assert Relay(setting_database, setting_log, "ingest").drain() == 0
    assert Relay(setting_database, setting_log, "fusion").pending() == 3


class _DiesAfterPublishing:
    """The real log, in a process that dies between publishing and marking."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def publish(self, events: Sequence[Event]) -> None:
        self._log.publish(events)
        raise KeyboardInterrupt


def test_a_relay_that_dies_between_publishing_and_marking_publishes_again(
    setting_database: Database, setting_log: EventLog
) -> None:
    _announce(setting_database, range(5))
    with pytest.raises(KeyboardInterrupt):
        Relay(setting_database, _DiesAfterPublishing(setting_log), "ingest").drain()
    assert Relay(setting_database, setting_log, "ingest").drain() == 5
    assert set(ids(setting_log.read([STUDY]))) == {f"{number:04d}" for number in range(5)}
    assert _in_order(setting_log)


def test_relays_of_one_room_at_once_keep_the_order(setting_database: Database, setting_log: EventLog) -> None:
    relays = [Relay(setting_database, setting_log, "ingest", interval_s=0.02) for _ in range(3)]
    for relay in relays:
        relay.start()
    writers = [threading.Thread(target=_announce, args=(setting_database, range(start, 90, 3))) for start in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    deadline = time.monotonic() + 30
    while relays[0].pending() and time.monotonic() < deadline:
        time.sleep(0.05)
    for relay in relays:
        relay.stop()
    assert sorted(ids(setting_log.read([STUDY]))) == [f"{number:04d}" for number in range(90)]


class _Down:
    """A log whose broker is away."""

    def publish(self, events: Sequence[Event]) -> None:
        raise RetryableError("broker down")


def test_events_wait_while_the_log_is_down(setting_database: Database, setting_log: EventLog) -> None:
    _announce(setting_database, range(4))
    with pytest.raises(RetryableError):
        Relay(setting_database, _Down(), "ingest").drain()
    relay = Relay(setting_database, setting_log, "ingest", keep=timedelta(0))
    assert relay.pending() == 4
    assert relay.drain() == 4
    assert relay.purge() == 4
