"""What every event log offers, whichever back end keeps it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.platform.events import Event

Partition = tuple[str, int]  # (topic, partition number)

# CloudEvents extension that tells a deliberate re-publication apart from an accidental one.
REPLAY_EXTENSION = "oslerreplay"
# Set by a consumer on a foreign record that is no CloudEvent; says what is wrong with it.
MALFORMED_EXTENSION = "oslermalformed"


@dataclass(frozen=True)
class Record:
    """One event at its place in the log. Offsets grow within a partition; gaps are allowed."""

    topic: str
    partition: int
    offset: int
    event: Event

    @property
    def place(self) -> Partition:
        return (self.topic, self.partition)


class Consumer(Protocol):
    """One member of a consumer group. Not safe to share between threads."""

    def poll(self, timeout_s: float) -> list[Record]:
        """New records of this member's partitions, in order within each; empty when none came in time.

        Raises RetryableError when the log cannot be reached.
        """

    def commit(self, records: Sequence[Record]) -> None:
        """Remembers for the group that these records, and all before them in their partitions, are done.

        A commit for a partition that another member took over meanwhile is ignored: its records come again there.
        """

    def pause(self, places: Collection[Partition]) -> None:
        """Holds back exactly these partitions from `poll` until the next call; the rest flow."""

    def assignment(self) -> set[Partition]:
        """The partitions that this member holds now."""

    def caught_up(self) -> bool:
        """True when `poll` has given all of this member's partitions, and the others of the group have done theirs."""

    def close(self) -> None:
        """Gives the partitions back at once. Uncommitted records go to the next member."""


class EventLog(Protocol):
    """An append-only log of events in topics, split into partitions by key, so that one key stays in order."""

    def publish(self, events: Sequence[Event]) -> None:
        """Appends each event to the topic of its type, all or none. Raises RetryableError when the log is down."""

    def publish_to(self, topic: str, events: Sequence[Event]) -> None:
        """As `publish`, to a given topic (dead letters)."""

    def consumer(self, group: str, topics: Sequence[str]) -> Consumer:
        """Joins a group. A group without committed offsets starts at the earliest record."""

    def read(
        self,
        topics: Sequence[str],
        *,
        from_offsets: Mapping[Partition, int] | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[Record]:
        """Reads without a group: from the given offsets, else from `since` (append time), else from the beginning.

        Ends at what was there when it began, or never with `follow`.
        """

    def lag(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        """How many records of each partition the group has not committed."""

    def reset(self, group: str, topics: Sequence[str], to: str = "earliest") -> None:
        """Moves the group's offsets to "earliest" or "latest". Raises RetryableError while it has live consumers."""

    def topics(self) -> list[str]: ...

    def close(self) -> None: ...


def dead_letter_topic(group: str) -> str:
    """The topic that takes what a group could not handle."""
    return f"{group}.dlq"
