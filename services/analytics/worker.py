"""Takes every event to the lake."""

from __future__ import annotations

import json
import logging
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from services.analytics import lake, store
from services.analytics.context import context_of
from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.events import Event
from services.platform.room import Effect, Handler, Transaction

log = logging.getLogger(__name__)
BATCH_ROWS = 5000
# A file at least this often when something waits: fresh figures, without a swarm of tiny files.
MAX_WAIT = timedelta(seconds=20)


def buffer(blobs: BlobStore) -> Handler:
    """Keeps each event for the next file, with what it is grouped by."""

    def handle(event: Event, message: Message) -> Effect:
        data, context = MessageToJson(message, indent=None), json.dumps(context_of(message, blobs), sort_keys=True)

        def effect(tx: Transaction) -> None:
            store.add(tx.session, event, data, context)

        return effect

    return handle


class Flusher:
    """Moves buffered events into Parquet files. Safe to kill at any point: a begun batch is written again, same name."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def flush(self, force: bool) -> bool:
        """Writes what waits when it is enough, old enough, or `force`; True when a file was written."""
        started = time.monotonic()
        with self._database.session() as session:
            count, since = store.waiting(session)
            unfinished = store.open_batches(session)
        due = since is not None and datetime.now(UTC) - since >= MAX_WAIT
        if not (unfinished or (count and (force or due or count >= BATCH_ROWS))):
            return False
        with self._database.exclusive("analytics-lake", wait=False) as held:
            if not held:
                return False
            for batch in unfinished or [self._begin()]:
                self._finish(batch)
        log.info("lake written: %d events in %.2f s", count, time.monotonic() - started)
        return True

    def _begin(self) -> str:
        batch = str(uuid.uuid4())
        with self._database.transaction("analytics") as tx:
            store.begin_batch(tx.session, batch, BATCH_ROWS)
        return batch

    def _finish(self, batch: str) -> None:
        with self._database.session() as session:
            rows = store.batch_rows(session, batch)
        lake.write_batch(self._folder, batch, rows)
        with self._database.transaction("analytics") as tx:
            store.finish_batch(tx.session, batch)
