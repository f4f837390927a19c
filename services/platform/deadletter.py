"""Events that a group could not handle: a dead-letter topic for machines, the quarantine for people, and the way back.

Stored form: the CloudEvents 1.0 JSON format (structured mode) with `data_base64`.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from osler.common.v1.common_pb2 import Refusal

from services.platform import inbox
from services.platform.bus import REPLAY_EXTENSION, EventLog, dead_letter_topic
from services.platform.database import Database
from services.platform.events import CONTENT_TYPE, Event
from services.platform.quarantine import Quarantine

_DOOR = "event"
_CORE = {
    "specversion", "id", "type", "source", "subject", "time", "knowntime", "partitionkey", "datacontenttype",
    "data_base64", "traceparent",
}  # fmt: skip


def door_of(group: str) -> str:
    """The quarantine door of events that `group` refused."""
    return f"{_DOOR}:{group}"


def bury(database: Database, quarantine: Quarantine, group: str, event: Event, refusal: Refusal) -> None:
    """Quarantines a refused event and announces it on the group's dead-letter topic. Doing it twice changes nothing."""
    quarantine.add(door_of(group), encode_event(event), refusal)
    letter = replace(event, extensions={**event.extensions, "oslergroup": group, "oslerreason": refusal.reason})
    with database.transaction(group) as transaction:
        inbox.forget(transaction.session, group, event.id)
        transaction.emit_to(dead_letter_topic(group), letter)


def register_replay(quarantine: Quarantine, log: EventLog) -> None:
    """Lets quarantined events be replayed: they are published again, and groups that handled them pass them over."""

    def publish_again(content: bytes) -> None:
        event = decode_event(content)
        log.publish([replace(event, extensions={**event.extensions, REPLAY_EXTENSION: uuid.uuid4().hex})])

    replay: Callable[[bytes], None] = publish_again
    quarantine.register(_DOOR, replay)


def encode_event(event: Event) -> bytes:
    """An event as JSON; the same event gives the same bytes."""
    attributes = {
        **{name: value for name, value in event.extensions.items() if name != REPLAY_EXTENSION},
        "specversion": "1.0",
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "time": event.time.isoformat(),
        "knowntime": event.known_time.isoformat(),
        "partitionkey": event.key,
        "datacontenttype": CONTENT_TYPE,
        "traceparent": event.traceparent,
        "data_base64": base64.b64encode(event.data).decode(),
    }
    return json.dumps({name: value for name, value in attributes.items() if value}, sort_keys=True).encode()


def decode_event(content: bytes) -> Event:
    """The inverse of `encode_event`. Raises ValueError or KeyError for anything else."""
    attributes: dict[str, str] = json.loads(content)
    return Event(
        id=attributes["id"],
        type=attributes["type"],
        source=attributes["source"],
        key=attributes.get("partitionkey", ""),
        data=base64.b64decode(attributes.get("data_base64", "")),
        time=datetime.fromisoformat(attributes["time"]),
        known_time=datetime.fromisoformat(attributes["knowntime"]),
        subject=attributes.get("subject", ""),
        traceparent=attributes.get("traceparent", ""),
        extensions={name: value for name, value in attributes.items() if name not in _CORE},
    )
