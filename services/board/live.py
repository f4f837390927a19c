"""What happens while people look: server-sent events to every browser that shows the same meeting or case.

Source: WHATWG HTML, section 9.2 (server-sent events). Messages go to the browsers connected to this process; a
deployment with several board processes needs sessions pinned to one of them.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

_HEARTBEAT_S = 15.0
_LONGEST_QUEUE = 200
_POLL_S = 0.7


class Hub:
    """Channels to which browsers listen. Used from one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Queue[str]]] = defaultdict(set)
        self._last: dict[tuple[str, str], str] = {}

    def publish(self, channel: str, kind: str, data: Mapping[str, Any], *, keep: bool = False) -> None:
        """Tells everybody on the channel; with `keep`, newcomers are told as well. Slow listeners miss the oldest."""
        message = f"event: {kind}\ndata: {json.dumps(dict(data), separators=(',', ':'))}\n\n"
        if keep:
            self._last[channel, kind] = message
        for queue in self._listeners.get(channel, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    def forget(self, channel: str, kind: str) -> None:
        self._last.pop((channel, kind), None)

    def watched(self, prefix: str) -> list[str]:
        """Channels with listeners whose name starts so."""
        return [name for name, queues in self._listeners.items() if queues and name.startswith(prefix)]

    async def stream(self, *channels: str) -> AsyncIterator[str]:
        """Messages of the channels until the browser goes; a comment every 15 s keeps proxies from closing it."""
        queue: asyncio.Queue[str] = asyncio.Queue(_LONGEST_QUEUE)
        for channel in channels:
            self._listeners[channel].add(queue)
        try:
            yield "retry: 1000\n\n"
            for (channel, _), message in list(self._last.items()):
                if channel in channels:
                    yield message
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), _HEARTBEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            for channel in channels:
                self._listeners[channel].discard(queue)
                if not self._listeners[channel]:
                    del self._listeners[channel]


async def watch_cases(hub: Hub, changed: Callable[[list[str]], Mapping[str, str]]) -> None:
    """Tells `case:<key>` when the case changed: `changed` gives a stamp for each key. One query for all, every 0.7 s."""
    known: dict[str, str] = {}
    while True:
        keys = [name.removeprefix("case:") for name in hub.watched("case:")]
        stamps = await asyncio.to_thread(changed, keys) if keys else {}
        for key, stamp in stamps.items():
            if known.get(key, stamp) != stamp:
                hub.publish(f"case:{key}", "changed", {"stamp": stamp})
        known = dict(stamps)
        await asyncio.sleep(_POLL_S)
