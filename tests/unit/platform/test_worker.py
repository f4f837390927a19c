"""The worker: retries, refusals, dead letters, order, traces."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from osler.events.v1 import events_pb2

from services.platform import inbox
from services.platform.blobs import BlobStore
from services.platform.bus import SqliteEventLog
from services.platform.bus.sqlite_log import partition_of
from services.platform.database import Database, migrate
from services.platform.deadletter import decode_event, encode_event, register_replay
from services.platform.errors import RefusedError, RetryableError
from services.platform.events import Event, event_id, pack
from services.platform.outbox import Relay
from services.platform.quarantine import Quarantine
from services.platform.room import Room
from services.platform.tables import ATTEMPT
from services.platform.worker import RetryPolicy, Step, Worker, drain_all

STUDY = "osler.study.received.v1"
FINDINGS = "osler.findings.ready.v1"
_QUICK = RetryPolicy(base_s=0.01, longest_s=0.02)


class House:
    """One database and one log, with a room whose handler the test gives."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder}/state.db")
        migrate(self.database, "platform")
        self.log = SqliteEventLog(folder / "events.db")
        self.quarantine = Quarantine(self.database, BlobStore(folder.as_uri() + "/blobs"))
        register_replay(self.quarantine, self.log)
        self.relay = Relay(self.database, self.log, "imaging")
        self.effects: list[str] = []

    def worker(self, handler: Callable[[Event, Any], None] = lambda _event, _message: None, **policy: Any) -> Worker:
        def phase_one(event: Event, message: Any) -> Any:
            handler(event, message)
            return lambda _tx: self.effects.append(event.id)

        room = Room("imaging", {STUDY: phase_one})
        return Worker(
            room, self.database, self.log, self.quarantine, policy=RetryPolicy(**{**_QUICK.__dict__, **policy})
        )

    def announce(self, *ids: str, key: str = "k") -> None:
        self.log.publish([_study(id_, key) for id_ in ids])

    def dead_letters(self) -> list[Event]:
        self.relay.drain()
        return [record.event for record in self.log.read(["imaging.dlq"])]


def _study(id_: str, key: str = "k") -> Event:
    return pack(events_pb2.StudyReceived(), source="ingest", key=key, id=id_)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.log.close()
    house.database.close()


def _fails(times: int, error: Exception, on: str = "1") -> Callable[[Event, Any], None]:
    left = [times]

    def handler(event: Event, _message: Any) -> None:
        if event.id == on and left[0] > 0:
            left[0] -= 1
            raise error

    return handler


def test_each_event_is_handled_once_however_often_it_comes(house: House) -> None:
    house.announce("1", "2")
    house.log.publish_to(STUDY, [Event(**{**_study("1").__dict__, "extensions": {"oslerreplay": "x"}})])
    steps: list[Step] = []
    worker = house.worker()
    assert worker.drain(steps.append) == 3
    assert house.effects == ["1", "2"]
    assert [step.outcome for step in steps] == ["done", "done", "repeated"]
    assert worker.drain() == 0


def test_a_passing_fault_is_tried_again_without_a_limit_on_tries(house: House) -> None:
    house.announce("1")
    house.worker(_fails(12, RetryableError("scanner archive away")), tries=2).drain()
    assert house.effects == ["1"]
    assert house.quarantine.list() == []


def test_a_fault_that_does_not_pass_by_the_deadline_is_dead_lettered(house: House) -> None:
    house.announce("1", "2")
    house.worker(_fails(10**6, RetryableError("archive away")), deadline_s=0.1).drain()
    (item,) = house.quarantine.list()
    assert item.refusal.reason == "worker.deadline"
    assert item.refusal.subject == "1"
    assert house.effects == ["2"]


def test_a_refused_event_is_kept_with_its_reason_and_can_be_replayed(house: House) -> None:
    house.announce("1", "2")
    error = RefusedError(
        "suv.missing_dose", "no dose", missing=["(0018,1074)"], remedy="ask the scanner", subject="1.2.3"
    )
    worker = house.worker(_fails(1, error))
    worker.drain()
    assert house.effects == ["2"]
    (letter,) = house.dead_letters()
    assert (letter.id, letter.extensions["oslerreason"]) == ("1", "suv.missing_dose")
    (item,) = house.quarantine.list()
    assert item.door == "event:imaging"
    assert list(item.refusal.missing) == ["(0018,1074)"]
    house.quarantine.replay(item.id)
    worker.drain()
    assert house.effects == ["2", "1"]
    assert house.quarantine.list() == []


def test_another_error_is_tried_a_few_times_and_its_message_stays_out_of_sight(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.announce("1")
    with caplog.at_level(logging.DEBUG, logger="services"):
        house.worker(_fails(10**6, ValueError("John Doe, born 1950")), tries=3).drain()
    (item,) = house.quarantine.list()
    assert item.refusal.reason == "worker.failed"
    assert "ValueError at test_worker.py" in item.refusal.message
    assert "Doe" not in item.refusal.message + caplog.text
    assert sum("again" in line for line in caplog.messages) == 2


def test_an_event_that_ends_its_process_again_and_again_is_dead_lettered(house: House) -> None:
    house.announce("1")

    def dies(_event: Event, _message: Any) -> None:
        raise KeyboardInterrupt  # passes every handler of errors, as a killed process would

    for _ in range(3):
        worker = house.worker(dies, crashes=3)
        with pytest.raises(KeyboardInterrupt):
            worker.drain()
        worker._consumer.close()  # the group notices; the worker never let go of the event
    house.worker(crashes=3).drain()
    assert house.effects == []
    assert [item.refusal.reason for item in house.quarantine.list()] == ["worker.crashed"]


def test_a_worker_that_is_closed_in_good_order_is_no_crash(house: House) -> None:
    house.announce("1")
    for _ in range(5):
        worker = house.worker(_fails(10**6, RetryableError("away")), base_s=60, longest_s=60, crashes=3)
        worker._turn(0.1, None)
        worker.close()
    with house.database.session() as session:
        assert session.scalar(sa.select(ATTEMPT.c.unfinished)) == 0
    house.worker(crashes=3).drain()
    assert house.effects == ["1"]


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff"])
def test_a_payload_that_cannot_be_parsed_is_refused(house: House, data: bytes) -> None:
    house.log.publish([Event(**{**_study("1").__dict__, "data": data})])
    house.worker().drain()
    assert [item.refusal.reason for item in house.quarantine.list()] == ["event.malformed"]


def test_a_failing_effect_leaves_no_rows_and_no_events(house: House) -> None:
    house.announce("1")
    tries = []

    def handler(_event: Event, _message: Any) -> Any:
        def effect(tx: Any) -> None:
            tx.emit(pack(events_pb2.FindingsReady(), source="imaging", key="k", id=f"f{len(tries)}"))
            tries.append(1)
            if len(tries) == 1:
                raise RetryableError("lost the connection")

        return effect

    Worker(Room("imaging", {STUDY: handler}), house.database, house.log, house.quarantine, policy=_QUICK).drain()
    assert len(tries) == 2
    house.relay.drain()
    assert [record.event.id for record in house.log.read([FINDINGS])] == ["f1"]


def test_only_the_partition_of_a_waiting_event_waits(house: House) -> None:
    other = next(key for key in map(str, range(99)) if partition_of(key, 4) != partition_of("k", 4))
    house.announce("1", "after 1")
    house.announce("elsewhere", key=other)
    house.worker(_fails(3, RetryableError("away")), base_s=0.1, longest_s=0.1).drain()
    assert house.effects == ["elsewhere", "1", "after 1"]


def test_a_worker_stops_between_records(house: House) -> None:
    house.announce("1", "2", "3")
    stop = threading.Event()
    worker = house.worker(lambda _event, _message: stop.set())
    worker.run(stop)
    assert house.effects == ["1"]
    house.worker().drain()
    assert house.effects == ["1", "2", "3"]


def test_a_worker_outlives_a_log_that_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = house.log.consumer
    calls = []

    def away_at_first(group: str, topics: list[str]) -> Any:
        calls.append(group)
        if len(calls) < 3:
            raise RetryableError("broker down")
        return consumer(group, topics)

    monkeypatch.setattr(house.log, "consumer", away_at_first)
    house.announce("1")
    stop = threading.Event()
    thread = threading.Thread(target=house.worker(lambda _event, _message: stop.set()).run, args=(stop,))
    thread.start()
    thread.join(20)
    assert house.effects == ["1"]


def test_the_trace_of_an_event_goes_on_in_the_handler_and_in_what_it_announces(house: House) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace_id}-b7ad6b7169203331-01"
    house.log.publish([Event(**{**_study("1").__dict__, "traceparent": parent})])
    seen = []

    def handler(event: Event, _message: Any) -> Any:
        seen.append(f"{trace.get_current_span().get_span_context().trace_id:032x}")
        findings = pack(events_pb2.FindingsReady(), source="imaging", key="k", id=event_id("imaging", event.id))
        return lambda tx: tx.emit(findings)

    Worker(Room("imaging", {STUDY: handler}), house.database, house.log, house.quarantine).drain()
    house.relay.drain()
    (record,) = house.log.read([FINDINGS])
    assert seen == [trace_id]
    assert record.event.traceparent.split("-")[1] == trace_id
    assert record.event.traceparent != parent


def test_drain_all_goes_on_until_idle_rooms_have_nothing_to_announce(house: House) -> None:
    waiting = ["late"]

    def quiet_period_over(force: bool) -> bool:
        if not (force and waiting):
            return False
        with house.database.transaction("imaging") as transaction:
            transaction.emit(_study(waiting.pop()))
        return True

    house.announce("1")
    handled = drain_all([house.worker()], [house.relay], [quiet_period_over])
    assert (handled, house.effects) == (2, ["1", "late"])


def test_waits_grow_and_are_bounded() -> None:
    policy = RetryPolicy(base_s=1, longest_s=8)
    waits = [[policy.wait_s(failures) for _ in range(50)] for failures in (1, 2, 3, 4, 50)]
    for bound, drawn in zip((1, 2, 4, 8, 8), waits, strict=True):
        assert bound / 2 <= min(drawn) <= max(drawn) <= bound
        assert len(set(drawn)) > 1


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(id_=_text.filter(bool), key=_text, subject=_text, data=st.binary(max_size=60), note=_text.filter(bool))
def test_an_event_survives_its_stored_form(id_: str, key: str, subject: str, data: bytes, note: str) -> None:
    event = Event(id_, STUDY, "/osler/ingest", key, data, *([_study("x").time] * 2), subject, "", {"note": note})
    assert decode_event(encode_event(event)) == event


def test_first_try_is_remembered_between_processes(house: House) -> None:
    first = inbox.begin(house.database, "imaging", "1", first_here=True)
    time.sleep(0.01)
    again = inbox.begin(house.database, "imaging", "1", first_here=True)
    assert (first.unfinished, again.unfinished) == (0, 1)
    assert again.first_at == first.first_at
