"""The shape of a room: what a service gives to whatever process hosts it.

Each service has a `room.py` with `def build(context: RoomContext) -> Room`. `osler serve` hosts rooms as servers,
`osler process` drives the same handlers to completion without any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from services.platform.events import Event

if TYPE_CHECKING:
    import grpc.aio
    from fastapi import FastAPI

    from services.platform.blobs import BlobStore
    from services.platform.config import Settings
    from services.platform.database import Database
    from services.platform.quarantine import Quarantine
    from services.platform.security import Security


class Transaction(Protocol):
    """One database transaction: the room's rows, its outgoing events and the inbox mark commit together."""

    @property
    def session(self) -> Session: ...

    def emit(self, event: Event) -> None:
        """Puts an event in the outbox. The same event id twice is one event."""


# Phase two of a handler: writes rows and emits events. May run again after a crash; must not do slow work.
Effect = Callable[[Transaction], None]
# Phase one: reads and computes, outside any transaction. `message` is the parsed catalogue message.
# Raise RefusedError to dead-letter with a reason, RetryableError to try again later.
Handler = Callable[[Event, Any], Effect]


@dataclass(frozen=True)
class RoomContext:
    """What the host hands to a room."""

    settings: Settings
    database: Database
    blobs: BlobStore
    quarantine: Quarantine
    security: Security


class Background(Protocol):
    """A listener or timer of a room (DICOM SCP, MLLP, quiet-period clock). Both calls return promptly."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Room:
    """What a service offers to its host.

    `handlers`: event type -> handler; the consumer group is the room's name. `grpc`: adders of servicers, with the
    full service names for health and reflection. `http`: the room's web application, if it has a door.
    `idle`: called when nothing is left to consume, to announce work that waited (a study whose quiet period ended);
    returns True when it did something. `osler process` calls it with force=True.
    """

    name: str
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    grpc: Sequence[tuple[str, Callable[[grpc.aio.Server], None]]] = ()
    http: FastAPI | None = None
    background: Sequence[Background] = ()
    idle: Callable[[bool], bool] | None = None


__all__ = ["Background", "Effect", "Handler", "Message", "Room", "RoomContext", "Transaction"]
