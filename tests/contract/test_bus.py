"""What the rooms may rely on from an event log, checked on the SQLite log and on a real Kafka broker."""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, MemberToRemove

from services.platform.bus import MALFORMED_EXTENSION, REPLAY_EXTENSION, EventLog, KafkaEventLog
from services.platform.bus.sqlite_log import partition_of
from services.platform.errors import RetryableError
from services.platform.events import Event
from services.platform.topics import broker_settings
from tests.contract.conftest import PARTITIONS
from tests.contract.events import AT, by_key, ids, plain_event, settle, take
from tests.fixtures.kafka.broker import KafkaBroker

TOPIC = "osler.test.v1"
_few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)


@_few
@given(batches=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), min_size=1, max_size=5))
def test_events_of_one_key_come_in_the_order_in_which_they_were_published(
    log: EventLog, batches: list[list[str]]
) -> None:
    topic = f"t{uuid.uuid4().hex}"
    numbers = itertools.count()
    events = [[plain_event(str(next(numbers)), key, topic) for key in batch] for batch in batches]
    for batch in events:
        log.publish(batch)
    expected: dict[str, list[str]] = {}
    for event in itertools.chain(*events):
        expected.setdefault(event.key, []).append(event.id)
    assert by_key(log.read([topic])) == expected


@_few
@given(subject=_text, key=_text, data=st.binary(max_size=50), extension=_text, offset_h=st.integers(-12, 12))
def test_every_attribute_of_an_event_survives(
    log: EventLog, subject: str, key: str, data: bytes, extension: str, offset_h: int
) -> None:
    topic = f"t{uuid.uuid4().hex}"
    event = Event(
        id="1",
        type=topic,
        source="/osler/ingest",
        key=key,
        data=data,
        time=AT + timedelta(hours=offset_h, microseconds=7),
        known_time=AT,
        subject=subject,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        extensions={"note": extension},
    )
    log.publish([event])
    (record,) = log.read([topic])
    assert record.event == event


@pytest.mark.parametrize("key", ["", "a", "patient-7f3a", "Übermaß", "0" * 64])
def test_a_key_has_the_same_partition_on_every_back_end(log: EventLog, key: str) -> None:
    log.publish([plain_event("1", key)])
    (record,) = log.read([TOPIC])
    assert record.partition == partition_of(key, PARTITIONS)


def test_a_batch_is_published_as_a_whole_or_not_at_all(log: EventLog) -> None:
    log.publish([plain_event("before")])
    unencodable = plain_event("2", key="\ud800")
    with pytest.raises(UnicodeEncodeError):
        log.publish([plain_event("1"), unencodable])
    log.publish([plain_event("after")])
    assert ids(log.read([TOPIC])) == ["before", "after"]


def test_what_was_not_committed_comes_again_and_what_was_does_not(log: EventLog) -> None:
    log.publish([plain_event(str(number)) for number in range(5)])
    first = log.consumer("imaging", [TOPIC])
    records = take(first, 5)
    first.commit(records[:2])
    first.close()
    second = log.consumer("imaging", [TOPIC])
    assert ids(settle(second)) == ["2", "3", "4"]
    second.close()


def test_each_group_gets_every_event(log: EventLog) -> None:
    log.publish([plain_event("1"), plain_event("2")])
    for group in ("imaging", "fusion"):
        consumer = log.consumer(group, [TOPIC])
        assert ids(settle(consumer)) == ["1", "2"]
        consumer.close()


def test_consumers_of_one_group_share_the_partitions_and_inherit_them(log: EventLog) -> None:
    keys = [f"key{number}" for number in range(40)]
    first = log.consumer("imaging", [TOPIC])
    first.poll(0.5)
    second = log.consumer("imaging", [TOPIC])
    _balance(first, second)
    log.publish([plain_event(key, key) for key in keys])
    received = {"first": [], "second": []}
    for _ in range(100):
        for name, consumer in (("first", first), ("second", second)):
            records = consumer.poll(0.1)
            consumer.commit(records)
            received[name] += ids(records)
        if len(received["first"]) + len(received["second"]) >= len(keys):
            break
    assert received["first"]
    assert received["second"]
    assert sorted(received["first"] + received["second"]) == sorted(keys)
    second.close()
    log.publish([plain_event(f"{key} again", key) for key in keys])
    assert len(take(first, len(keys))) == len(keys)
    assert len(first.assignment()) == PARTITIONS
    first.close()


def _balance(first, second) -> None:
    for _ in range(100):
        assert first.poll(0.1) + second.poll(0.1) == []
        mine, yours = first.assignment(), second.assignment()
        if mine and yours and len(mine | yours) == PARTITIONS and not mine & yours:
            return
    pytest.fail(f"partitions were not shared: {mine} and {yours}")


def test_a_paused_partition_waits_while_the_others_flow(log: EventLog) -> None:
    keys = [f"key{number}" for number in range(16)]
    log.publish([plain_event("held", "a")])
    consumer = log.consumer("imaging", [TOPIC])
    (held,) = take(consumer, 1)
    consumer.pause({held.place})
    log.publish([plain_event(key, key) for key in keys])
    flowing = [key for key in keys if partition_of(key, PARTITIONS) != held.partition]
    assert sorted(ids(take(consumer, len(flowing)))) == sorted(flowing)
    assert consumer.poll(0.3) == []
    consumer.pause(set())
    assert len(take(consumer, len(keys) - len(flowing))) == len(keys) - len(flowing)
    consumer.close()


def test_lag_counts_what_a_group_has_not_done(log: EventLog) -> None:
    log.publish([plain_event(str(number)) for number in range(3)])
    assert sum(log.lag("imaging", [TOPIC]).values()) >= 3
    consumer = log.consumer("imaging", [TOPIC])
    consumer.commit(take(consumer, 3))
    settle(consumer)
    consumer.poll(0.5)
    assert sum(log.lag("imaging", [TOPIC]).values()) == 0
    consumer.close()


def test_a_group_can_be_reset_to_the_beginning_and_to_the_end_but_not_while_it_works(log: EventLog) -> None:
    log.publish([plain_event("1"), plain_event("2")])
    consumer = log.consumer("imaging", [TOPIC])
    consumer.commit(take(consumer, 2))
    with pytest.raises(RetryableError, match="live consumers"):
        log.reset("imaging", [TOPIC])
    consumer.close()
    log.reset("imaging", [TOPIC])
    again = log.consumer("imaging", [TOPIC])
    assert ids(settle(again)) == ["1", "2"]
    again.close()
    log.reset("imaging", [TOPIC], to="latest")
    none = log.consumer("imaging", [TOPIC])
    assert settle(none) == []
    none.close()


def test_reading_starts_at_an_offset_or_at_a_time(log: EventLog) -> None:
    log.publish([plain_event(str(number)) for number in range(4)])
    everything = list(log.read([TOPIC]))
    assert ids(everything) == ["0", "1", "2", "3"]
    third = everything[2]
    assert ids(log.read([TOPIC], from_offsets={third.place: third.offset})) == ["2", "3"]
    assert ids(log.read([TOPIC], since=datetime.now(UTC) - timedelta(hours=1))) == ["0", "1", "2", "3"]
    assert ids(log.read([TOPIC], since=datetime.now(UTC) + timedelta(hours=1))) == []


def test_following_sees_what_is_published_later(log: EventLog) -> None:
    log.publish([plain_event("early")])
    follower = log.read([TOPIC], follow=True)
    assert next(follower).event.id == "early"
    threading.Timer(0.3, log.publish, [[plain_event("late")]]).start()
    assert next(follower).event.id == "late"
    follower.close()


def test_a_replayed_event_is_published_again(log: EventLog) -> None:
    log.publish([plain_event("1")])
    replayed = plain_event("1")
    log.publish([Event(**{**replayed.__dict__, "extensions": {REPLAY_EXTENSION: "a"}})])
    assert ids(log.read([TOPIC])) == ["1", "1"]


def test_dead_letters_have_their_own_topic(log: EventLog) -> None:
    log.publish_to("imaging.dlq", [plain_event("1")])
    assert log.topics() == ["imaging.dlq"]
    (record,) = log.read(["imaging.dlq"])
    assert (record.topic, record.event.type) == ("imaging.dlq", TOPIC)


@pytest.mark.kafka
def test_a_member_that_the_group_dropped_finds_its_way_back(kafka_broker: KafkaBroker) -> None:
    """As after a handler that held the interpreter for longer than the session."""
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=1, session_s=3)
    topic, group = f"t{uuid.uuid4().hex}", f"g{uuid.uuid4().hex}"
    log.publish_to(topic, [plain_event("1")])
    consumer = log.consumer(group, [topic])
    held = settle(consumer)
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap)
    members = admin.describe_groups([group])[group]["members"]
    admin.remove_group_members(group, [MemberToRemove(member_id=m["member_id"]) for m in members])
    consumer.commit(held)
    again = take(consumer, 1)
    assert ids(again) == ["1"]
    consumer.commit(again)
    log.publish_to(topic, [plain_event("2")])
    assert ids(take(consumer, 1)) == ["2"]
    assert admin.describe_groups([group])[group]["group_state"] == "Stable"
    admin.close()
    consumer.close()
    log.close()


@pytest.mark.kafka
def test_a_member_whose_heartbeat_has_stopped_joins_again_though_nothing_comes(kafka_broker: KafkaBroker) -> None:
    """Nothing is committed here that the group could refuse: only the silence tells."""
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=1, session_s=2)
    topic, group = f"t{uuid.uuid4().hex}", f"g{uuid.uuid4().hex}"
    log.publish_to(topic, [plain_event("1")])
    consumer = log.consumer(group, [topic])
    consumer.commit(settle(consumer))
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap)

    def members() -> set[str]:
        return {m["member_id"] for m in admin.describe_groups([group])[group]["members"]}

    first = members()
    consumer._consumer._coordinator._close_heartbeat()
    deadline = time.monotonic() + 40
    while not members() - first and time.monotonic() < deadline:
        assert consumer.poll(0.2) == []
    assert len(members() - first) == 1
    assert consumer.caught_up()
    admin.close()
    consumer.close()
    log.close()


@pytest.mark.kafka
def test_a_member_joins_once_and_finds_its_way_out_of_an_answer_that_it_missed(kafka_broker: KafkaBroker) -> None:
    """Polls shorter than the group's answer, on a busy machine: the client takes the answer for taken, and waits."""
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=1, session_s=2)
    topic, group = f"t{uuid.uuid4().hex}", f"g{uuid.uuid4().hex}"
    log.publish_to(topic, [plain_event("1")])
    consumer = log.consumer(group, [topic])
    consumer.commit(settle(consumer))
    coordinator = consumer._consumer._coordinator
    assert coordinator._generation.generation_id == 1
    coordinator._assignment_snapshot = {}  # as if the topic's partitions had been unknown when it joined
    while not coordinator.rejoining:
        consumer.poll(0)
    time.sleep(1.0)  # the answer comes while nobody polls
    log.publish_to(topic, [plain_event("2")])
    assert ids(take(consumer, 1, timeout_s=40)) == ["2"]
    consumer.close()
    log.close()


@pytest.mark.kafka
def test_a_foreign_record_is_given_out_marked(kafka_broker: KafkaBroker) -> None:
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=1)
    topic = f"t{uuid.uuid4().hex}"
    log.publish_to(topic, [plain_event("1")])
    producer = KafkaProducer(bootstrap_servers=kafka_broker.bootstrap)
    producer.send(topic, value=b"not ours").get(timeout=10)
    producer.close()
    records = list(log.read([topic]))
    assert records[0].event.extensions == {}
    assert "not a CloudEvent" in records[1].event.extensions[MALFORMED_EXTENSION]
    log.close()


@pytest.mark.kafka
def test_a_batch_that_kafka_refuses_leaves_no_trace_and_holds_nothing_back(kafka_broker: KafkaBroker) -> None:
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=1, patience_s=10)
    topic = f"t{uuid.uuid4().hex}"
    too_large = plain_event("2", data=random.Random(1).randbytes(3_000_000))
    with pytest.raises(RetryableError, match="MessageSizeTooLarge"):
        log.publish_to(topic, [plain_event("1"), too_large])
    log.publish_to(topic, [plain_event("3")])
    assert ids(log.read([topic])) == ["3"]
    log.close()


@pytest.mark.kafka
def test_topics_are_made_with_the_retention_that_the_catalogue_declares(kafka_broker: KafkaBroker) -> None:
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=3)
    declared = {name: broker_settings(name) for name in ("osler.patient.updated.v1", "osler.record.received.v1")}
    log.lag("nobody", list(declared))
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap)
    found = admin.describe_configs([ConfigResource("topic", name) for name in declared], config_filter="all")["topic"]
    admin.close()
    log.close()
    for name, wanted in declared.items():
        assert {key: found[name][key]["value"] for key in wanted} == wanted


@pytest.mark.kafka
def test_a_broker_that_dies_loses_nothing(tmp_path) -> None:
    broker = KafkaBroker(tmp_path / "broker")
    broker.start()
    log = KafkaEventLog(broker.bootstrap, partitions=PARTITIONS, patience_s=3, session_s=2)
    try:
        log.publish([plain_event(f"before {number}", f"key{number}") for number in range(20)])
        consumer = log.consumer("imaging", [TOPIC])
        records = take(consumer, 20)
        consumer.commit(records[:10])
        broker.kill()
        with pytest.raises(RetryableError):
            log.publish([plain_event("lost?")])
        broker.start()
        _publish_when_back(log, plain_event("after"))
        # What was not committed may come again before it.
        wanted = time.monotonic() + 120
        while "after" not in ids(take(consumer, 1, timeout_s=120)):
            assert time.monotonic() < wanted
        consumer.close()
        assert sorted(set(ids(log.read([TOPIC])))) == sorted({*ids(records), "after"})
    finally:
        log.close()
        broker.kill()


def _publish_when_back(log: EventLog, event: Event) -> None:
    """A broker that listens again still recovers for a while."""
    deadline = time.monotonic() + 60
    while True:
        try:
            log.publish([event])
            return
        except RetryableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
