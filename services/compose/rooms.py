"""Builds rooms by name, with what they stand on."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.platform.blobs import BlobStore, open_blobs
from services.platform.bus import EventLog, open_log
from services.platform.config import ROOMS, Settings
from services.platform.database import Database, migrate, open_database
from services.platform.deadletter import register_replay
from services.platform.errors import ConfigurationError
from services.platform.quarantine import Quarantine
from services.platform.room import Room, RoomContext
from services.platform.security import Security

if TYPE_CHECKING:
    from services.ingest.folder import Importer


@dataclass(frozen=True)
class Foundations:
    """Everything that rooms share in one process."""

    settings: Settings
    database: Database
    log: EventLog
    blobs: BlobStore
    quarantine: Quarantine
    security: Security

    def context(self) -> RoomContext:
        return RoomContext(self.settings, self.database, self.blobs, self.quarantine, self.security)

    def close(self) -> None:
        self.log.close()
        self.database.close()


def lay_foundations(settings: Settings) -> Foundations:
    """Opens log, database and blob storage, and makes the home folder."""
    settings.home.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    blobs, log = open_blobs(settings), open_log(settings)
    quarantine = Quarantine(database, blobs)
    register_replay(quarantine, log)
    return Foundations(settings, database, log, blobs, quarantine, Security.from_settings(settings))


def migrate_all(database: Database, rooms: Iterable[str] = ROOMS) -> None:
    """Brings the tables of the platform and the rooms to the newest version."""
    migrate(database, "platform")
    for room in rooms:
        if _has_tables(room):
            migrate(database, room)


def _has_tables(room: str) -> bool:
    return importlib.util.find_spec(f"services.{room}.store") is not None


def build_room(name: str, foundations: Foundations) -> Room:
    """One room. Raises ConfigurationError for an unknown name, or one whose extra is not installed."""
    if name not in ROOMS:
        raise ConfigurationError(f"there is no room {name!r}; rooms: {', '.join(ROOMS)}")
    try:
        module = importlib.import_module(f"services.{name}.room")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("services"):
            raise
        raise ConfigurationError(
            f"room {name!r} needs the package {error.name!r}: install the extra osler[{name}]"
        ) from None
    room: Room = module.build(foundations.context())
    return room


def importer(foundations: Foundations) -> Importer:
    """The ingest room's doors for files."""
    from services.ingest.room import build_importer

    return build_importer(foundations.context())
