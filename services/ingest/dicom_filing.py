"""Instances that arrive at the same time are indexed in one transaction: one wait for the disk serves all of them.

Source: group commit, as databases do it. An instance counts as filed only when its transaction is on the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.ingest import store
from services.platform.database import Database
from services.platform.errors import OslerError, RetryableError

_RACES = 5
_LARGEST_BATCH = 100


@dataclass
class _Waiting:
    """One instance on its way in, and what became of it."""

    new: store.NewInstance
    now: datetime
    outcome: store.Indexed | None = None
    fault: Exception | None = None

    @property
    def done(self) -> bool:
        return self.outcome is not None or self.fault is not None


class Filer:
    """Safe for threads: each waits until its own instance is filed, and the first of those that wait files for all."""

    def __init__(self, database: Database, room: str) -> None:
        self._database = database
        self._room = room
        self._arriving = threading.Lock()
        self._filing = threading.Lock()
        self._waiting: list[_Waiting] = []

    def file(self, new: store.NewInstance, now: datetime) -> store.Indexed:
        """Indexes an instance that is kept already, durably. Raises its refusal, or RetryableError."""
        own = _Waiting(new, now)
        with self._arriving:
            self._waiting.append(own)
        with self._filing:
            while not own.done:
                with self._arriving:
                    batch, self._waiting = self._waiting[:_LARGEST_BATCH], self._waiting[_LARGEST_BATCH:]
                self._file_together(batch)
        if own.fault is not None:
            raise own.fault
        assert own.outcome is not None
        if own.outcome.refusal is not None:
            raise own.outcome.refusal
        return own.outcome

    def _file_together(self, batch: Sequence[_Waiting]) -> None:
        try:
            outcomes = self._index(batch)
        except Exception as fault:
            if len(batch) == 1 or isinstance(fault, OslerError):
                for one in batch:
                    one.fault = fault
                return
            # One that meets a fault of ours must not take the others with it.
            for one in batch:
                self._file_together([one])
            return
        for one, outcome in zip(batch, outcomes, strict=True):
            one.outcome = outcome

    def _index(self, batch: Sequence[_Waiting]) -> list[store.Indexed]:
        now = max(one.now for one in batch)
        for _ in range(_RACES):
            try:
                with self._database.transaction(self._room) as tx:
                    return store.add_instances(tx.session, [one.new for one in batch], now, derived=False)
            except store.LostRaceError:
                continue
        raise RetryableError("the index is written by others all the time: send the instance again")
