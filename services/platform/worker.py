"""From log to handlers: each event takes effect once, in order per key, and nothing is lost.

A record is tried until it is done, or refused, or out of tries; then its offset is committed. While one record waits
for its next try, only its partition waits with it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.message import DecodeError, Message
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from osler.common.v1.common_pb2 import Refusal
from prometheus_client import Counter, Histogram

from services.platform import inbox
from services.platform.bus import MALFORMED_EXTENSION, Consumer, EventLog, Partition, Record
from services.platform.database import Database
from services.platform.deadletter import bury
from services.platform.errors import RefusedError, RetryableError
from services.platform.events import Event, UnknownEventTypeError, unpack
from services.platform.outbox import Relay
from services.platform.quarantine import Quarantine, refusal_of
from services.platform.room import Handler, Room

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer(__name__)
_HANDLED = Counter("osler_events_handled_total", "Events handled, by outcome", ["group", "type", "outcome"])
_SECONDS = Histogram(
    "osler_event_seconds",
    "Time to handle an event",
    ["group", "type"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900),
)
_AGE = Histogram(
    "osler_event_age_seconds",
    "From when Osler knew of an event until its handling was done",
    ["group", "type"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 86400),
)
_POLL_S = 0.5
_DRAIN_POLL_S = 0.02
# How long one partition is worked on before the others get their turn and the offsets are committed.
_SLICE_S = 1.0
_LONGEST_OUTAGE_WAIT_S = 30.0


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again, and when to give up.

    The wait before try n is `base_s * 2**(n-1)`, at most `longest_s`, shortened at random by up to half.
    RetryableError is tried until `deadline_s` after the first try; other errors `tries` times; a record whose handling
    ended with the death of the process `crashes` times.
    """

    base_s: float = 0.5
    longest_s: float = 60.0
    deadline_s: float = 24 * 3600.0
    tries: int = 3
    crashes: int = 10

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after this many failures (1 or more)."""
        full = min(self.base_s * 2.0 ** min(failures - 1, 30), self.longest_s)
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


@dataclass(frozen=True)
class Step:
    """One record that left the worker: `outcome` is "done", "repeated" or "refused"."""

    room: str
    event: Event
    outcome: str
    seconds: float
    reason: str = ""


@dataclass
class _Queue:
    """Records of one partition in this worker's hands; the first one's state."""

    records: deque[Record] = field(default_factory=deque)
    begun: bool = False
    failures: int = 0
    not_before: float = 0.0
    # Set once the first record is refused, until that is stored: storing it again must not run the handler again.
    refusal: Refusal | None = None

    def drop_first(self) -> Record:
        self.begun, self.failures, self.not_before, self.refusal = False, 0, 0.0, None
        return self.records.popleft()


class Worker:
    """Consumes for one room; the consumer group is the room's name. Works in one thread; run several for more."""

    def __init__(
        self,
        room: Room,
        database: Database,
        log: EventLog,
        quarantine: Quarantine,
        *,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.room = room
        self.group = room.name
        self._database = database
        self._log = log
        self._quarantine = quarantine
        self._policy = policy or RetryPolicy()
        self._queues: dict[Partition, _Queue] = {}
        self._consumer: Consumer | None = None
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set; the record in hand is finished first. Outlives a log or database that is down."""
        self._stop = stop
        failures = 0
        while not stop.is_set():
            try:
                self._turn(_POLL_S, None)
                failures = 0
            except RetryableError as fault:
                failures += 1
                wait_s = min(self._policy.wait_s(failures), _LONGEST_OUTAGE_WAIT_S)
                _log.warning("worker of %s waits %.1f s: %s", self.group, wait_s, fault)
                stop.wait(wait_s)
        self.close()

    def drain(self, on_step: Callable[[Step], None] | None = None) -> int:
        """Works until nothing is left to consume, waiting for retries; the number of records that left.

        Raises RetryableError when the log cannot be reached.
        """
        if not self.room.handlers:
            return 0
        left = 0
        while not self._stop.is_set():
            left += self._turn(_DRAIN_POLL_S, on_step)
            if not any(queue.records for queue in self._queues.values()) and self._joined().caught_up():
                break
        return left

    def close(self) -> None:
        """Leaves the group; records in hand that are not done come again elsewhere."""
        consumer, self._consumer = self._consumer, None
        queues, self._queues = self._queues, {}
        try:
            for queue in queues.values():
                if queue.begun:
                    inbox.let_go(self._database, self.group, queue.records[0].event.id)
            if consumer is not None:
                consumer.close()
        except RetryableError as fault:
            _log.warning("worker of %s left its group without saying so: %s", self.group, fault)

    def _joined(self) -> Consumer:
        if self._consumer is None:
            self._consumer = self._log.consumer(self.group, sorted(self.room.handlers))
        return self._consumer

    def _turn(self, timeout_s: float, on_step: Callable[[Step], None] | None) -> int:
        """Polls once, then works on each partition for a while; the number of records that left."""
        consumer = self._joined()
        self._take(consumer, timeout_s)
        left = 0
        for queue in list(self._queues.values()):
            finished: list[Record] = []
            until = time.monotonic() + _SLICE_S
            while queue.records and queue.not_before <= time.monotonic() <= until and not self._stop.is_set():
                step = self._try_first(queue)
                if step is None:
                    break
                finished.append(queue.drop_first())
                if on_step is not None:
                    on_step(step)
            if finished:
                consumer.commit(finished)
            left += len(finished)
        return left

    def _take(self, consumer: Consumer, timeout_s: float) -> None:
        """Polls; waits only while nothing in hand is due."""
        busy = {place: queue for place, queue in self._queues.items() if queue.records}
        consumer.pause(busy)
        now = time.monotonic()
        dues = [queue.not_before - now for queue in busy.values()]
        for record in consumer.poll(max(0.0, min([timeout_s, *dues]))):
            self._queues.setdefault(record.place, _Queue()).records.append(record)
        for place in set(self._queues) - consumer.assignment():
            del self._queues[place]

    def _try_first(self, queue: _Queue) -> Step | None:
        """Tries the first record; None when it must be tried again later."""
        event = queue.records[0].event
        began = time.monotonic()
        outcome = "refused"
        try:
            if queue.refusal is None:
                outcome, queue.refusal = self._attempt(event, queue)
            if queue.refusal is not None:
                bury(self._database, self._quarantine, self.group, event, queue.refusal)
        except RetryableError as fault:
            queue.failures += 1
            wait_s = self._policy.wait_s(queue.failures)
            queue.not_before = time.monotonic() + wait_s
            _log.warning("%s tries %s again in %.1f s: %s", self.group, event.type, wait_s, fault)
            return None
        seconds = time.monotonic() - began
        _HANDLED.labels(self.group, event.type, outcome).inc()
        _SECONDS.labels(self.group, event.type).observe(seconds)
        if outcome == "done":
            _AGE.labels(self.group, event.type).observe(
                max(0.0, (datetime.now(UTC) - event.known_time).total_seconds())
            )
        return Step(self.room.name, event, outcome, seconds, queue.refusal.reason if queue.refusal else "")

    def _attempt(self, event: Event, queue: _Queue) -> tuple[str, Refusal | None]:
        """Runs the handler once. Raises RetryableError when it is to be tried again."""
        begun = inbox.begin(self._database, self.group, event.id, first_here=not queue.begun)
        queue.begun = not begun.handled
        if begun.handled:
            return "repeated", None
        if begun.unfinished >= self._policy.crashes:
            return "refused", _gave_up(event, "worker.crashed", f"its handling ended {begun.unfinished} processes")
        try:
            return ("done" if self._handle(event) else "repeated"), None
        except RefusedError as error:
            return "refused", refusal_of(error, event.id)
        except RetryableError as error:
            if (datetime.now(UTC) - begun.first_at).total_seconds() <= self._policy.deadline_s:
                raise
            return "refused", _gave_up(event, "worker.deadline", f"it still fails after its deadline: {error}")
        except Exception as error:
            kind = f"{type(error).__name__} at {_place_of(error)}"
            if inbox.count_failure(self._database, self.group, event.id) < self._policy.tries:
                raise RetryableError(kind) from error
            return "refused", _gave_up(event, "worker.failed", f"its handling fails with {kind}")

    def _handle(self, event: Event) -> bool:
        """Both phases of the handler; False when the event was handled elsewhere meanwhile."""
        context = propagate.extract({"traceparent": event.traceparent})
        with _tracer.start_as_current_span(
            f"{event.type} process",
            context=context,
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.operation.type": "process",
                "messaging.destination.name": event.type,
                "messaging.message.id": event.id,
                "messaging.consumer.group.name": self.group,
            },
            record_exception=False,  # its message could hold patient data
            set_status_on_exception=False,
        ) as span:
            try:
                handler, message = self._parse(event)
                effect = handler(event, message)
                with self._database.transaction(self.room.name) as transaction:
                    first = inbox.mark(transaction.session, self.group, event.id)
                    if first:
                        effect(transaction)
                return first
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def _parse(self, event: Event) -> tuple[Handler, Message]:
        handler = self.room.handlers.get(event.type)
        if handler is None or MALFORMED_EXTENSION in event.extensions:
            problem = event.extensions.get(MALFORMED_EXTENSION, f"{self.group} does not handle this type")
            raise RefusedError("event.unexpected", problem, remedy="correct the producer of this topic")
        try:
            return handler, unpack(event)
        except (UnknownEventTypeError, DecodeError) as error:
            raise RefusedError(
                "event.malformed",
                f"the payload is no {event.type} message: {type(error).__name__}",
                remedy="correct the producer of this topic",
            ) from error


def drain_all(
    workers: Sequence[Worker],
    relays: Sequence[Relay],
    idle: Sequence[Callable[[bool], bool]] | None = None,
    *,
    force: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> int:
    """Runs relays, workers and idle hooks in turn until none has anything left to do; the number of records handled.

    `idle` defaults to the hooks of the workers' rooms; each is called with `force`. `on_step` hears of each record.
    """
    hooks = [worker.room.idle for worker in workers if worker.room.idle] if idle is None else idle
    handled = 0
    while True:
        moved = sum(relay.drain() for relay in relays)
        for worker in workers:
            steps = worker.drain(on_step)
            handled += steps
            moved += steps + sum(relay.drain() for relay in relays if steps)
        # sum, not any: every hook gets its turn.
        if not moved and not sum(hook(force) for hook in hooks):
            return handled


def _gave_up(event: Event, reason: str, what: str) -> Refusal:
    return Refusal(
        reason=reason,
        message=f"{event.type} could not be handled: {what}",
        remedy="repair the cause, then replay this item",
        subject=event.id,
    )


def _place_of(error: Exception) -> str:
    """Where an error was raised, without its message: that could hold patient data."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
