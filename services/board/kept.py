"""What takes long to make and is asked for by many at once: made once, and kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Kept:
    """Contents by key, in at most `bytes_limit` bytes; those that nobody asked for longest go first.

    Whoever asks for what somebody else is making waits for it. A failure is not kept: the next one tries again.
    """

    def __init__(self, bytes_limit: int) -> None:
        self._limit = bytes_limit
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The content of `key`, made when it is not held. Raises what `make` raises."""
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                found = self._find(key)
            if found is not None:
                return found
            try:
                made = make()
                self._keep(key, made)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return made

    def _find(self, key: Hashable) -> bytes | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def _keep(self, key: Hashable, content: bytes) -> None:
        with self._lock:
            self._held[key] = content
            while sum(map(len, self._held.values())) > self._limit and len(self._held) > 1:
                self._held.popitem(last=False)
