"""Events per second through Kafka and back, and how old they are when they arrive: one broker, one producer and one consumer
process of Osler's own log, in Kafka transactions of many events.

The bare loop is kafka-python without Osler: the same bytes and headers, without transactions. OSLER_LOAD_SECONDS (default
20) is the length of each part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer
from osler.events.v1 import events_pb2

from services.platform.bus import KafkaEventLog
from services.platform.events import Event, event_id, pack, to_headers
from tests.contract.processes import forkserver
from tests.fixtures.kafka.broker import KafkaBroker

pytestmark = [pytest.mark.slow, pytest.mark.kafka]
SECONDS = float(os.environ.get("OSLER_LOAD_SECONDS", "20"))
BATCH = 500
TOPIC = "osler.study.received.v1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    found = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    found.start()
    yield found
    found.kill()


def made(run: str, number: int) -> Event:
    message = events_pb2.StudyReceived(
        patient_key=f"{number % 997:032x}", study_instance_uid=f"1.2.3.{number}", revision=1
    )
    message.manifest.uri, message.manifest.sha256 = f"file:///archive/studies/1.2.3.{number}/manifest-1.pb", "0" * 64
    return pack(message, source="ingest", key=message.patient_key, id=event_id(run, str(number)))


def produce(bootstrap: str, run: str, seconds: float, rate: float, told) -> None:
    """Publishes for so long: as fast as it can, or `rate` events a second in batches that arrive when they are due."""
    log = KafkaEventLog(bootstrap, partitions=4)
    log.publish([made(run + "warm", 0)])
    begun, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds:
        due = BATCH if not rate else min(BATCH, int(elapsed * rate) - sent)
        if due <= 0:
            time.sleep(0.02)
            continue
        log.publish([made(run, sent + n) for n in range(due)])
        sent += due
    told.put(("sent", sent, time.monotonic() - begun, time.process_time()))
    log.close()


def consume(bootstrap: str, group: str, started, stop, told) -> None:
    """Consumes until told to stop: how many, over how long, and how old they were on arrival."""
    log = KafkaEventLog(bootstrap, partitions=4)
    consumer = log.consumer(group, [TOPIC])
    # To the end of what is there.
    while not consumer.caught_up():
        consumer.poll(0.2)
    started.set()
    count, first, last = 0, 0.0, 0.0
    ages: list[float] = []
    while not stop.is_set():
        records = consumer.poll(0.2)
        if not records:
            continue
        now = datetime.now(UTC)
        last = time.monotonic()
        first = first or last
        ages += [(now - record.event.known_time).total_seconds() for record in records]
        count += len(records)
        consumer.commit(records)
    told.put(("taken", count, last - first, ages, time.process_time()))
    consumer.close()
    log.close()


def run_both(bootstrap: str, name: str, rate: float) -> tuple[float, float, np.ndarray]:
    """(events produced per second, consumed per second, ages on arrival in seconds)."""
    told, started, stop = forkserver.Queue(), forkserver.Event(), forkserver.Event()
    taking = forkserver.Process(target=consume, args=(bootstrap, name, started, stop, told))
    taking.start()
    assert started.wait(120)
    giving = forkserver.Process(target=produce, args=(bootstrap, name, SECONDS, rate, told))
    giving.start()
    _, sent, took, _ = told.get(timeout=SECONDS * 10 + 60)
    log = KafkaEventLog(bootstrap, partitions=4)
    deadline = time.monotonic() + SECONDS * 4 + 60
    # Markers of transactions count as lag: at most one of each partition is left.
    while sum(log.lag(name, [TOPIC]).values()) > 4 and time.monotonic() < deadline:
        time.sleep(0.5)
    log.close()
    stop.set()
    _, count, span, ages, _ = told.get(timeout=60)
    giving.join()
    taking.join()
    assert count == sent + 1, f"{sent + 1} events were published, {count} came"
    return sent / took, count / span, np.array(ages)


def bare_loop(bootstrap: str) -> tuple[float, float]:
    """kafka-python alone, one side after the other: (produced per second, consumed per second)."""
    events = [made("bare", n) for n in range(BATCH)]
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type="gzip")
    begun, sent = time.monotonic(), 0
    while time.monotonic() - begun < SECONDS / 4:
        for event in events:
            producer.send(TOPIC + ".bare", event.data, event.key.encode(), to_headers(event))
        sent += len(events)
        producer.flush()
    produced = sent / (time.monotonic() - begun)
    producer.close()
    consumer = KafkaConsumer(
        TOPIC + ".bare", bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_poll_records=500
    )
    begun, count = 0.0, 0
    while count < sent:
        for records in consumer.poll(1000).values():
            begun = begun or time.monotonic()
            count += len(records)
    consumer.close()
    return produced, count / (time.monotonic() - begun)


def test_events_per_second_and_their_age(broker, capsys):
    before = os.getloadavg()[0]
    produced, consumed, _ = run_both(broker.bootstrap, "full", 0.0)
    through = min(produced, consumed)
    _, _, ages = run_both(broker.bootstrap, "half", through / 2)
    log = KafkaEventLog(broker.bootstrap, partitions=4)
    log._ensure([TOPIC + ".bare"])
    log.close()
    bare = bare_loop(broker.bootstrap)
    with capsys.disabled():
        print(
            f"\nKafka, transactions of {BATCH}, producer and consumer at once for {SECONDS:.0f} s, load before {before:.1f}:"
            f"\n  produced {produced:,.0f}/s, consumed {consumed:,.0f}/s"
            f"\n  at half of that ({through / 2:,.0f}/s): age on arrival p50 {np.quantile(ages, 0.5):.3f} s,"
            f" p99 {np.quantile(ages, 0.99):.3f} s"
            f"\n  kafka-python alone, one side after the other, no transactions: {bare[0]:,.0f}/s and {bare[1]:,.0f}/s;"
            f" ratio {through / min(bare):.2f}"
        )
