"""Consumer groups on Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaConfigurationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.structs import MemberState, OffsetAndMetadata

from services.platform.bus.log import MALFORMED_EXTENSION, Partition, Record
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.events import Event, from_headers

if TYPE_CHECKING:
    from services.platform.bus.kafka_log import KafkaEventLog

READ_SETTINGS: dict[str, Any] = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "fetch_max_wait_ms": 200,
    "max_poll_records": 200,
}
# A handler may compute for minutes between polls; the client's own thread keeps the heartbeat meanwhile.
_LONGEST_HANDLING_MS = 60 * 60 * 1000
_CALL_TIMEOUT_MS = 15_000
# How soon a group notices partitions that were added.
_METADATA_AGE_MS = 15_000
# A rebalance that lasts longer than this will not come to an end for this member.
_REBALANCE_S = 15.0
# How often a member looks whether it is still alive in its group.
_PULSE_S = 2.0
_EXPELLED = (CommitFailedError, IllegalGenerationError, UnknownMemberIdError)


class _Arrivals(ConsumerRebalanceListener):
    """Hears when the group has given this member its partitions."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing: what was not committed comes again elsewhere."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._heard()


class KafkaGroupConsumer:
    """One member of a group; see `Consumer`."""

    def __init__(
        self, log: KafkaEventLog, connection: Mapping[str, Any], group: str, topics: Sequence[str], session_s: float
    ) -> None:
        self._settings = {
            **connection,
            **READ_SETTINGS,
            "group_id": group,
            "max_poll_interval_ms": _LONGEST_HANDLING_MS,
            "session_timeout_ms": int(session_s * 1000),
            "heartbeat_interval_ms": int(session_s * 300),
            "metadata_max_age_ms": _METADATA_AGE_MS,
        }
        self._log = log
        self._group = group
        self._session_s = session_s
        self._topics = sorted(topics)
        self._places = set(log.places(topics))
        self._join()

    def _join(self) -> None:
        self._consumer = KafkaConsumer(**self._settings)
        self._consumer.subscribe(self._topics, listener=_Arrivals(self._settle))
        # A member that leads its group before it knows the topics would leave their partitions to nobody; one that comes
        # to know them just after joining would join a second time.
        self._consumer.topics()
        # Of each partition: the offset after the last record given out, and after the last one done.
        self._given: dict[TopicPartition, int] = {}
        self._done: dict[TopicPartition, int] = {}
        # When this member stops waiting for the group to take it back by itself.
        self._patience_ends: float | None = None
        # Since when every look at its pulse found it a settled member; None while it is not.
        self._steady_since: float | None = None
        self._next_pulse = 0.0

    def _settle(self) -> None:
        self._patience_ends = None

    def _doubt(self, patience_s: float) -> None:
        if self._patience_ends is None:
            self._patience_ends = time.monotonic() + patience_s

    def _feel_pulse(self) -> None:
        """Two kinds of member poll without end and hear of no rebalance any more.

        A settled one whose heartbeat has stopped: the client stops it for good when one fails in a way that it does not
        expect. And one whose poll ended between its answer from the group and its taking up of the partitions, when the
        reason for joining is gone by the next poll: the client forgets the answer, and fetches nothing.
        """
        now = time.monotonic()
        if now < self._next_pulse:
            return
        self._next_pulse = now + _PULSE_S
        state = self._consumer.group_metadata().state
        if state == MemberState.REBALANCING:
            self._doubt(_REBALANCE_S)
        if state != MemberState.STABLE:
            self._steady_since = None
            return
        self._steady_since = self._steady_since or now
        beat_ago = self._consumer.metrics()["consumer-coordinator-metrics"]["last-heartbeat-seconds-ago"]
        if min(beat_ago, now - self._steady_since) > self._session_s:
            self._doubt(0.0)

    def _join_again(self) -> None:
        """A member that the group has dropped (a handler held the interpreter longer than the session) does not find its
        way back by itself: its client spins instead. A new member starts where the group's offsets are."""
        with suppress(KafkaError, OSError, TimeoutError):
            self._consumer.close(autocommit=False, timeout_ms=_CALL_TIMEOUT_MS)
        self._join()

    def poll(self, timeout_s: float) -> list[Record]:
        with kafka_faults():
            self._feel_pulse()
            if self._patience_ends is not None and time.monotonic() > self._patience_ends:
                self._join_again()
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
            for place, records in polled.items():
                self._given[place] = records[-1].offset + 1
            if not polled:
                self._commit(self._passed_markers())
        return [record_of(record) for records in polled.values() for record in records]

    def commit(self, records: Sequence[Record]) -> None:
        ends: dict[TopicPartition, int] = {}
        for record in records:
            place = TopicPartition(*record.place)
            ends[place] = max(ends.get(place, 0), record.offset + 1)
        with kafka_faults():
            self._commit(ends)

    def pause(self, places: Collection[Partition]) -> None:
        wanted = {TopicPartition(*place) for place in places} & self._consumer.assignment()
        paused = self._consumer.paused()
        self._consumer.resume(*(paused - wanted))
        self._consumer.pause(*(wanted - paused))

    def assignment(self) -> set[Partition]:
        return {(place.topic, place.partition) for place in self._consumer.assignment()}

    def caught_up(self) -> bool:
        with kafka_faults():
            mine = self._consumer.assignment()
            if not mine:
                return False
            ends = self._log.ends(list(mine))
            if any(self._position(place) < end for place, end in ends.items()):
                return False
            if mine == self._places:
                return True
            lag = self._log.lag(self._group, self._topics)
            return not any(lag[place.topic, place.partition] for place in self._places - mine)

    def close(self) -> None:
        with kafka_faults():
            self._consumer.close(autocommit=False, timeout_ms=_CALL_TIMEOUT_MS)

    def _commit(self, ends: Mapping[TopicPartition, int]) -> None:
        held = self._consumer.assignment()
        offsets = {place: OffsetAndMetadata(end, "", -1) for place, end in ends.items() if place in held}
        if not offsets:
            if ends and not held:
                self._doubt(_REBALANCE_S)
            return
        try:
            self._consumer.commit(offsets, timeout_ms=_CALL_TIMEOUT_MS)
        except RebalanceInProgressError:
            self._doubt(_REBALANCE_S)
            return  # the records come again to the member that has the partition then
        except _EXPELLED:
            self._doubt(0.0)
            return
        self._done.update(ends)

    def _passed_markers(self) -> dict[TopicPartition, int]:
        """Positions that moved on over transaction markers alone, so that the lag of an idle group is zero."""
        idle = [
            place
            for place in self._consumer.assignment()
            if place not in self._given or self._done.get(place, -1) >= self._given[place]
        ]
        positions = {place: self._position(place) for place in idle}
        return {place: position for place, position in positions.items() if position > self._done.get(place, 0)}

    def _position(self, place: TopicPartition) -> int:
        try:
            return int(self._consumer.position(place, timeout_ms=_CALL_TIMEOUT_MS) or 0)
        except IllegalStateError:
            return -1  # taken away meanwhile


def record_of(record: Any) -> Record:
    """A Kafka record as ours. One that is no CloudEvent is given out marked, so that its reader can refuse it."""
    headers = [(name, value or b"") for name, value in record.headers]
    value = record.value or b""
    try:
        event = from_headers(headers, value)
    except ValueError as error:
        event = _foreign(record, value, str(error))
    return Record(record.topic, record.partition, record.offset, event)


def _foreign(record: Any, value: bytes, problem: str) -> Event:
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return Event(
        id=f"{record.topic}-{record.partition}-{record.offset}",
        type=record.topic,
        source="/unknown",
        key="",
        data=value,
        time=at,
        known_time=at,
        extensions={MALFORMED_EXTENSION: problem},
    )


@contextmanager
def kafka_faults() -> Iterator[None]:
    """Brokers that are down, slow or changing leaders come out as RetryableError."""
    try:
        yield
    except KafkaConfigurationError as error:
        raise ConfigurationError(f"bus.security or bus.bootstrap_servers: {error}") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise RetryableError(f"Kafka: {type(error).__name__}: check that the brokers run and can be reached") from error
