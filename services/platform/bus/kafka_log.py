"""The event log on Kafka: CloudEvents 1.0 in binary content mode, transactional writes, committed reads."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    BrokerResponseError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    LeaderNotAvailableError,
    NonEmptyGroupError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
)

from services.platform.bus.kafka_consumer import READ_SETTINGS, KafkaGroupConsumer, kafka_faults, record_of
from services.platform.bus.log import Partition, Record
from services.platform.errors import RetryableError
from services.platform.events import Event, to_headers
from services.platform.topics import broker_settings

_log = logging.getLogger(__name__)
_BEING_CHOSEN = (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    LeaderNotAvailableError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
)
_LONGEST_ENDING_S = 120.0


class KafkaEventLog:
    """`EventLog` on Kafka. Safe for threads.

    `partitions` counts for topics that do not exist yet; their replication is the broker's default. `security` holds
    kafka-python settings (`security_protocol`, `sasl_mechanism`, `ssl_cafile`, ...). `patience_s` is how long a call
    waits for the brokers before it raises RetryableError; a consumer that is silent for `session_s` loses its partitions.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        partitions: int = 8,
        security: Mapping[str, Any] | None = None,
        patience_s: float = 15.0,
        session_s: float = 20.0,
    ) -> None:
        servers = [bootstrap] if isinstance(bootstrap, str) else list(bootstrap)
        self._partitions = partitions
        self._patience_s = patience_s
        self._session_s = session_s
        self._connection: dict[str, Any] = {
            "bootstrap_servers": servers,
            "bootstrap_timeout_ms": int(patience_s * 1000),
            "reconnect_backoff_max_ms": 2000,
            **(security or {}),
        }
        self._producing = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._ending: threading.Thread | None = None
        self._ending_since = 0.0
        self._administering = threading.Lock()
        self._admin: KafkaAdminClient | None = None
        self._known: set[str] = set()

    def publish(self, events: Sequence[Event]) -> None:
        self._append([(event.type, event) for event in events])

    def publish_to(self, topic: str, events: Sequence[Event]) -> None:
        self._append([(topic, event) for event in events])

    def consumer(self, group: str, topics: Sequence[str]) -> KafkaGroupConsumer:
        with kafka_faults():
            self._ensure(topics)
            return KafkaGroupConsumer(self, self._connection, group, topics, self._session_s)

    def read(
        self,
        topics: Sequence[str],
        *,
        from_offsets: Mapping[Partition, int] | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[Record]:
        with kafka_faults():
            self._ensure(topics)
            consumer = KafkaConsumer(**self._connection, **READ_SETTINGS)
            try:
                places = self.places(topics)
                consumer.assign(places)
                _seek(consumer, places, from_offsets or {}, since)
                ends = None if follow else self.ends(places)
                yield from _read_until(consumer, places, ends)
            finally:
                consumer.close(autocommit=False)

    def lag(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        """As `EventLog.lag`; an upper bound, since Kafka counts transaction markers as records."""
        with kafka_faults():
            self._ensure(topics)
            places = self.places(topics)
            ends = self.ends(places)
            starts = self._call_admin(
                lambda admin: admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
            )
            committed = self._call_admin(lambda admin: admin.list_group_offsets(group)).get(group, {})
            return {
                (place.topic, place.partition): ends[place]
                - (committed[place].offset if place in committed else starts[place].offset)
                for place in places
            }

    def reset(self, group: str, topics: Sequence[str], to: str = "earliest") -> None:
        if to not in ("earliest", "latest"):
            raise ValueError(f'reset goes to "earliest" or "latest", not {to!r}')
        spec = OffsetSpec.EARLIEST if to == "earliest" else OffsetSpec.LATEST
        with kafka_faults():
            self._ensure(topics)
            specs = dict.fromkeys(self.places(topics), spec)
            try:
                results = self._call_admin(lambda admin: admin.reset_group_offsets(group, specs))
            except (NonEmptyGroupError, UnknownMemberIdError):
                raise _still_live(group) from None
        errors = {result["error"] for result in results.values()}
        if errors & {NonEmptyGroupError, UnknownMemberIdError}:
            raise _still_live(group)
        if any(error.errno for error in errors):
            raise RetryableError(f"offsets of group {group!r} cannot be reset: {errors}")

    def topics(self) -> list[str]:
        with kafka_faults():
            names = self._call_admin(lambda admin: admin.list_topics())
        return sorted(name for name in names if not name.startswith("__"))

    def close(self) -> None:
        with self._producing:
            self._end_producer(_close_quietly)
        with self._administering:
            if self._admin is not None:
                self._admin.close()
                self._admin = None

    def places(self, topics: Sequence[str]) -> list[TopicPartition]:
        """All partitions of the topics."""
        described = self._call_admin(lambda admin: admin.describe_topics(list(topics)))
        return [
            TopicPartition(topic["name"], partition["partition_index"])
            for topic in described
            for partition in topic["partitions"]
        ]

    def ends(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each partition ends, counting what open transactions hold back from readers: it comes soon."""
        found = self._call_admin(lambda admin: admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)))
        return {place: int(end.offset) for place, end in found.items()}

    def _append(self, entries: Sequence[tuple[str, Event]]) -> None:
        """One Kafka transaction. A producer that failed is ended, and its transaction with it: its state is unknown."""
        messages = [
            {"topic": topic, "value": event.data, "key": event.key.encode(), "headers": to_headers(event)}
            for topic, event in entries
        ]
        if not messages:
            return
        with kafka_faults(), self._producing:
            self._wait_for_ending()
            self._ensure(sorted({topic for topic, _ in entries}))
            try:
                self._within_patience(lambda: self._send(messages))
            except BaseException:
                self._end_producer(_abort_quietly)
                raise

    def _send(self, messages: Sequence[dict[str, Any]]) -> None:
        if self._producer is None:
            patience_ms = int(self._patience_s * 1000)
            self._producer = KafkaProducer(
                **self._connection,
                transactional_id=f"osler-{uuid.uuid4()}",
                # A process that dies within a transaction holds back readers until it times out.
                transaction_timeout_ms=patience_ms,
                max_block_ms=patience_ms,
                request_timeout_ms=patience_ms,
                delivery_timeout_ms=patience_ms + 1000,
                compression_type="gzip",
            )
            self._producer.init_transactions()
        self._producer.begin_transaction()
        sent = [self._producer.send(**message) for message in messages]
        self._producer.flush(self._patience_s)
        for future in sent:
            future.get(timeout=self._patience_s)
        self._producer.commit_transaction()

    def _within_patience(self, work: Callable[[], None]) -> None:
        """Runs work that may wait for the brokers for ever (commit of a transaction) no longer than `patience_s`."""
        outcome: list[BaseException | None] = []

        def run() -> None:
            try:
                work()
                outcome.append(None)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, name="kafka-publish", daemon=True)
        thread.start()
        thread.join(self._patience_s * 2)
        if not outcome:
            raise RetryableError(f"Kafka did not take the events within {self._patience_s * 2:.0f} s")
        if outcome[0] is not None:
            raise outcome[0]

    def _end_producer(self, how: Callable[[KafkaProducer, float], None]) -> None:
        """Ends the producer in a thread: that may take as long as the brokers are away."""
        producer, self._producer = self._producer, None
        if producer is not None:
            # Long enough for what it holds to expire; a producer closed earlier complains when it is collected.
            arguments = (producer, self._patience_s * 2)
            self._ending = threading.Thread(target=how, args=arguments, name="kafka-end", daemon=True)
            self._ending_since = time.monotonic()
            self._ending.start()
            self._ending.join(self._patience_s)

    def _wait_for_ending(self) -> None:
        """One failed producer at a time: an outage must not pile up threads."""
        if self._ending is None:
            return
        self._ending.join(self._patience_s)
        if self._ending.is_alive() and time.monotonic() - self._ending_since < _LONGEST_ENDING_S:
            raise RetryableError("Kafka has not ended the last transaction: check that the brokers run")
        self._ending = None

    def _ensure(self, topics: Sequence[str]) -> None:
        """Makes missing topics. The broker's own creation is not relied upon: it would choose the partitions."""
        missing = [topic for topic in topics if topic not in self._known]
        if not missing:
            return
        present = set(self._call_admin(lambda admin: admin.list_topics()))
        new = [topic for topic in missing if topic not in present]
        if new:
            wanted = {topic: {"num_partitions": self._partitions, "configs": broker_settings(topic)} for topic in new}
            try:
                self._call_admin(lambda admin: admin.create_topics(wanted))
            except TopicAlreadyExistsError:
                _log.debug("another process made one of %s first", new)
            self._call_admin(lambda admin: admin.wait_for_topics(missing, timeout_ms=int(self._patience_s * 1000)))
        self._known.update(missing)

    def _call_admin(self, call: Callable[[KafkaAdminClient], Any]) -> Any:
        """Waits for leaders and coordinators that are being chosen, as on a cluster that has just started."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._call_admin_once(call)
            except _BEING_CHOSEN:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _call_admin_once(self, call: Callable[[KafkaAdminClient], Any]) -> Any:
        with self._administering:
            if self._admin is None:
                self._admin = KafkaAdminClient(**self._connection)
            try:
                return call(self._admin)
            except BrokerResponseError:
                raise
            except KafkaError:
                self._admin.close()
                self._admin = None
                raise


def _seek(
    consumer: KafkaConsumer,
    places: Sequence[TopicPartition],
    from_offsets: Mapping[Partition, int],
    since: datetime | None,
) -> None:
    times = {place: int(since.timestamp() * 1000) for place in places} if since else {}
    found = consumer.offsets_for_times(times) if times else {}
    for place in places:
        offset = from_offsets.get((place.topic, place.partition))
        if offset is None and since and found.get(place) is None:
            consumer.seek_to_end(place)
        elif offset is None and since:
            consumer.seek(place, found[place].offset)
        elif offset is None:
            consumer.seek_to_beginning(place)
        else:
            consumer.seek(place, offset)


def _read_until(
    consumer: KafkaConsumer, places: Sequence[TopicPartition], ends: Mapping[TopicPartition, int] | None
) -> Iterator[Record]:
    while True:
        for place, records in consumer.poll(timeout_ms=500).items():
            for record in records:
                if ends is None or record.offset < ends[place]:
                    yield record_of(record)
        if ends is not None and all(consumer.position(place) >= ends[place] for place in places):
            return


def _abort_quietly(producer: KafkaProducer, timeout_s: float) -> None:
    """Ends the open transaction too, which would hold back the readers of its topics."""
    try:
        producer.abort_transaction()
    except KafkaError as error:
        _log.debug("aborting a transaction: %s", type(error).__name__)
    _close_quietly(producer, timeout_s)


def _close_quietly(producer: KafkaProducer, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except KafkaError as error:
        _log.debug("closing a producer: %s", type(error).__name__)


def _still_live(group: str) -> RetryableError:
    return RetryableError(f"group {group!r} has live consumers: stop them, then reset its offsets")
