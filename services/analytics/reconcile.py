"""The lake against the stream: the same events, each once, with the same content; by partition, count and checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from services.analytics import lake
from services.platform.bus import EventLog
from services.platform.events import CATALOGUE, Event, unpack


@dataclass
class PartitionAccount:
    """One partition of one topic. Checksums: of ids and contents, whatever the order; equal when both sides hold the same.

    `missing` and `different`: events of the stream that the lake lacks, or holds otherwise. `waiting`: missing so far,
    in the room's buffer for the next file.
    """

    topic: str
    partition: int
    in_stream: int = 0
    in_lake: int = 0
    waiting: int = 0
    missing: int = 0
    different: int = 0
    stream_checksum: str = ""
    lake_checksum: str = ""
    _sums: list[int] = field(default_factory=lambda: [0, 0], repr=False)

    @property
    def equal(self) -> bool:
        return not (self.missing or self.different or self.waiting)


@dataclass(frozen=True)
class TopicAccount:
    """`doubled`: rows of the lake beyond one for each event. `only_in_lake`: events that the broker keeps no more."""

    topic: str
    partitions: tuple[PartitionAccount, ...]
    doubled: int
    only_in_lake: int

    @property
    def equal(self) -> bool:
        return not self.doubled and all(partition.equal for partition in self.partitions)


def reconcile(
    log: EventLog, folder: Path, waiting: Collection[str], on_topic: Callable[[str], None] = lambda _: None
) -> list[TopicAccount]:
    """Compares every topic. `waiting`: event ids in the buffer. Raises RetryableError when the stream is away."""
    accounts = []
    for topic in CATALOGUE:
        on_topic(topic)
        accounts.append(_topic(log, folder, topic, waiting))
    return accounts


def _topic(log: EventLog, folder: Path, topic: str, waiting: Collection[str]) -> TopicAccount:
    name = lake.view_name(topic)
    rows = lake.query(folder, f"SELECT event_id, data FROM {name}")  # noqa: S608 - a name of the catalogue
    kept = {row["event_id"]: _digest(row["event_id"], json.loads(row["data"])) for row in rows}
    partitions: dict[int, PartitionAccount] = {}
    seen: set[str] = set()
    for record in log.read([topic]):
        if record.event.id in seen or record.event.type != topic:
            continue
        seen.add(record.event.id)
        account = partitions.setdefault(record.partition, PartitionAccount(topic, record.partition))
        _count(account, record.event, kept.get(record.event.id), waiting)
    for account in partitions.values():
        account.stream_checksum, account.lake_checksum = (f"{total % 2**64:016x}" for total in account._sums)
    ordered = tuple(partitions[number] for number in sorted(partitions))
    return TopicAccount(topic, ordered, len(rows) - len(kept), len(kept.keys() - seen))


def _count(account: PartitionAccount, event: Event, held: int | None, waiting: Collection[str]) -> None:
    told = _digest(event.id, MessageToDict(unpack(event)))
    account.in_stream += 1
    account._sums[0] += told
    if held is None:
        account.waiting += event.id in waiting
        account.missing += event.id not in waiting
        return
    account.in_lake += 1
    account._sums[1] += held
    account.different += held != told


def _digest(event_id: str, data: object) -> int:
    text = json.dumps([event_id, data], sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
