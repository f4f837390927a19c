"""Loaded models within a budget of memory, and models set aside after they crashed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.imaging.host.contract import Analysis
from services.imaging.host.refusals import refused


@dataclass(frozen=True)
class Held:
    """A loaded analysis and the bytes of its weights."""

    analysis: Analysis
    size_bytes: int


class ModelCache:
    """Least recently used models leave when the weights exceed `budget_bytes`; one model is always kept."""

    def __init__(self, load: Callable[[str], Held], budget_bytes: int) -> None:
        self._load = load
        self._budget = budget_bytes
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Analysis:
        """The analysis, loaded when absent. Raises what loading raises."""
        with self._lock:
            if key not in self._held:
                loaded = self._load(key)
                self._make_room(loaded.size_bytes)
                self._held[key] = loaded
            self._held.move_to_end(key)
            return self._held[key].analysis

    def _make_room(self, size: int) -> None:
        while self._held and self.size_bytes + size > self._budget:
            self._held.popitem(last=False)

    def drop(self, key: str) -> None:
        """Lets one go, if it is there."""
        with self._lock:
            self._held.pop(key, None)

    @property
    def size_bytes(self) -> int:
        return sum(held.size_bytes for held in self._held.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Least recently used first."""
        return tuple(self._held)


class Breaker:
    """Sets a model aside after `limit` crashes in a row; after `pause_s` one trial decides. Other models go on."""

    def __init__(self, limit: int, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._pause, self._clock = limit, pause_s, clock
        self._crashes: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Raises RefusedError `model.set_aside`. Lets one trial through when the pause is over."""
        with self._lock:
            until = self._until.get(name)
            if until is None:
                return
            left = until - self._clock()
            if left > 0:
                raise refused(
                    "set_aside",
                    f"{name} crashed {self._crashes[name]} times in a row and rests for another {left:.0f} s",
                    f"Run `osler models verify {name}`; other models are not affected.",
                    name,
                )
            self._until[name] = self._clock() + self._pause

    def crashed(self, name: str) -> None:
        with self._lock:
            self._crashes[name] = self._crashes.get(name, 0) + 1
            if self._crashes[name] >= self._limit:
                self._until[name] = self._clock() + self._pause

    def worked(self, name: str) -> None:
        with self._lock:
            self._crashes.pop(name, None)
            self._until.pop(name, None)

    def set_aside(self, name: str) -> bool:
        with self._lock:
            return self._until.get(name, float("-inf")) > self._clock()
