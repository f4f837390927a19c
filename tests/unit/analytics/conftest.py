"""A lake, filled through the room's own handler and flusher."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.analytics.worker import Flusher, buffer
from services.platform.blobs import BlobStore, open_blobs
from services.platform.config import Settings
from services.platform.database import Database, migrate
from services.platform.events import Event, unpack


@dataclass(frozen=True)
class Lake:
    """`take` hands events to the room, `flush` writes what waits to files under `folder`."""

    database: Database
    blobs: BlobStore
    folder: Path

    def take(self, *events: Event) -> None:
        handle = buffer(self.blobs)
        with self.database.transaction("analytics") as tx:
            for event in events:
                handle(event, unpack(event))(tx)

    def flush(self) -> bool:
        return Flusher(self.database, self.folder).flush(force=True)

    def fill(self, events: Iterable[Event]) -> None:
        self.take(*events)
        self.flush()


@pytest.fixture
def lake_of(tmp_path: Path) -> Lake:
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    migrate(database, "platform")
    migrate(database, "analytics")
    return Lake(database, open_blobs(Settings.load(home=tmp_path)), tmp_path / "lake")
