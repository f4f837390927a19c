"""Announces studies whose quiet period has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from services.platform.errors import OslerError

_log = logging.getLogger(__name__)


class QuietClock:
    """`services.platform.room.Background`: calls `tick` every `interval_s` seconds in a thread of its own."""

    def __init__(self, tick: Callable[[], object], interval_s: float) -> None:
        self._tick = tick
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to tick."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="quiet-clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends after a tick that runs."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self._tick()
            except OslerError as error:
                _log.warning("studies are not announced now: %s", error)
            except Exception as error:
                # One study that cannot be announced must not stop the clock for the others.
                _log.error("studies are not announced: %s", type(error).__name__)
