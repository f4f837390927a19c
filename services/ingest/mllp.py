"""HL7 v2 listener: MLLP over TCP, original acknowledgement mode, one answer for each message in its order.

Source: HL7 v2.5.1 section 2.9.2 (original mode); MLLP Release 1 (services/ingest/mllp_framing.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from services.clinical.refusals import from_refusal
from services.ingest import hl7v2
from services.ingest.mllp_framing import Deframer, Frame, frame
from services.ingest.records import BATCH, HL7_DOOR, Records
from services.platform.errors import ConfigurationError, RefusedError, RetryableError

_READ_BYTES = 64 * 1024
_STOP_S = 10.0
_log = logging.getLogger(__name__)


def answers(records: Records, contents: Sequence[bytes]) -> list[bytes]:
    """Takes in messages together and returns their acknowledgements: AA when kept (or kept before), AE or AR when refused.

    A refused message is quarantined first. AR with error 207 asks the sender to send it again later.
    """
    try:
        taken = records.receive_batch(contents)
    except RetryableError as error:
        _log.warning("HL7 v2 messages not taken in now: %s", error)
        return [hl7v2.acknowledge(content, _control_id(), retry=True) for content in contents]
    return [
        hl7v2.acknowledge(content, _control_id(), refused=from_refusal(row.refusals[0]) if row.refusals else None)
        for content, row in zip(contents, taken, strict=True)
    ]


def _control_id() -> str:
    return uuid.uuid4().hex[:20]


_FAULTS = {
    "truncated_frame": "the connection or the next message came before the end of the message",
    "outside_frame": "text outside an MLLP frame",
    "oversized": "the message is larger than hl7.max_message_kb; only its beginning was kept",
}


class MllpListener:
    """`services.platform.room.Background` around an asyncio server in a thread of its own.

    `port` 0 picks a free one; after `start`, `port` is the real one. `limit`: bytes of one message.
    """

    def __init__(self, records: Records, host: str, port: int, limit: int) -> None:
        self._records = records
        self._host, self.port, self._limit = host, port, limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        # The database takes one writer at a time: whatever waits while it writes is taken in together, next.
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="mllp")
        self._waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._taking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listens. Raises ConfigurationError when the port is taken."""
        ready: list[OSError | None] = []
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up, ready)), name="mllp", daemon=True)
        self._thread.start()
        up.wait()
        if ready and ready[0] is not None:
            raise ConfigurationError(f"hl7.port: cannot listen on {self._host}:{self.port} ({ready[0]})") from ready[0]

    def stop(self) -> None:
        """Stops listening; messages being taken in are finished and answered."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._pool.shutdown(wait=False)

    async def _serve(self, up: threading.Event, ready: list[OSError | None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        # Those of them that wait for their sender, and hold no message that is being taken in.
        self._idle: set[asyncio.Task[Any]] = set()
        try:
            server = await asyncio.start_server(self._connected, self._host, self.port)
        except OSError as error:
            ready.append(error)
            return
        finally:
            if ready:
                up.set()
        self.port = server.sockets[0].getsockname()[1]
        ready.append(None)
        up.set()
        async with server:
            await self._stopping.wait()
            server.close()
            for waiting in self._idle:
                waiting.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=_STOP_S / 2)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        deframer = Deframer(self._limit)
        try:
            while data := await self._next(reader):
                # A sender may send on without waiting: its messages are taken in together and answered in their order.
                for reply in [self._reply(piece) for piece in deframer.feed(data)]:
                    if ack := await reply:
                        writer.write(frame(ack))
                        await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            _log.info("HL7 v2 sender went away")
        finally:
            for piece in deframer.close():
                await self._keep_fault(piece)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        """The next bytes; b"" at the end of the stream or of the listener."""
        assert self._stopping is not None
        task = asyncio.current_task()
        if task is None or self._stopping.is_set():
            return b""
        self._idle.add(task)
        try:
            return await reader.read(_READ_BYTES)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            task.uncancel()
            return b""
        finally:
            self._idle.discard(task)

    def _reply(self, piece: Frame) -> Awaitable[bytes]:
        """The acknowledgement of a frame, once it is kept; b"" when none is due."""
        return self._faulty(piece) if piece.fault else self._taken(piece.content)

    async def _faulty(self, piece: Frame) -> bytes:
        await self._keep_fault(piece)
        # Only the oversized message was one: the sender of a fragment does not wait for an answer.
        if piece.fault != "oversized":
            return b""
        return hl7v2.acknowledge(
            piece.content, _control_id(), refused=RefusedError("hl7v2.oversized", _FAULTS["oversized"])
        )

    def _taken(self, content: bytes) -> asyncio.Future[bytes]:
        ack: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((content, ack))
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take_waiting())
        return ack

    async def _take_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            contents = [content for content, _ in batch]
            try:
                made = await loop.run_in_executor(self._pool, answers, self._records, contents)
            except Exception:
                _log.exception("HL7 v2 messages not taken in")
                made = [hl7v2.acknowledge(content, _control_id(), retry=True) for content in contents]
            for (_, ack), answer in zip(batch, made, strict=True):
                if not ack.done():
                    ack.set_result(answer)

    async def _keep_fault(self, piece: Frame) -> None:
        error = RefusedError(f"hl7v2.{piece.fault}", _FAULTS[piece.fault], remedy="send the message again")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pool, self._records.refuse, HL7_DOOR, piece.content, error)
        except RetryableError as fault:
            _log.warning("a broken HL7 v2 frame could not be kept: %s", fault)
