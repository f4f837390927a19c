"""Back-pressure from the bus to those who send images: while too much waits for it, nothing more is let in.

What was accepted is safe in the database whatever the bus does; but a bus that stays away must not fill the disk, and
whoever sends must learn that what he sends goes nowhere for now. C-STORE answers "out of resources" (DICOM PS3.4 table
B.2-1), which a sender's queue tries again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from services.platform.database import Database
from services.platform.errors import RetryableError
from services.platform.outbox import waiting

_LOOK_EVERY_S = 1.0
# Let in again well below the limit, so that the door does not flap.
_EASED = 0.8


class Backlog:
    """How full a room's outbox is. `limit`: events; 0 is no limit. Safe for threads; looks at most once a second."""

    def __init__(
        self, database: Database, room: str, limit: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._room = room
        self._limit = limit
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._looked_at = float("-inf")
        self._full = False

    def check(self) -> None:
        """Raises RetryableError while too many events wait for the bus, or the database cannot say."""
        if self._limit and self._is_full():
            raise RetryableError(
                f"more than {self._limit} events wait for the event bus: check that it runs; what was accepted is kept"
            )

    def _is_full(self) -> bool:
        with self._looking:
            if self._monotonic() - self._looked_at >= _LOOK_EVERY_S:
                with self._database.session() as session:
                    count = waiting(session, self._room, self._limit + 1)
                self._full = count > self._limit * (_EASED if self._full else 1.0)
                self._looked_at = self._monotonic()
            return self._full
