"""Runs rooms as servers in one process: workers, relays, gRPC, HTTP doors, listeners, idle hooks; and drains them.

Order of starting: relays, workers, gRPC, HTTP, listeners, so that nothing comes in before it can be handled. Stopping goes
the other way round: listeners close, running calls end, the event in hand is finished, the outbox is emptied.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from services.platform import http, logs, rpc, telemetry
from services.platform.audit import Audit
from services.platform.bus import EventLog
from services.platform.config import Settings
from services.platform.database import Database
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.outbox import Relay
from services.platform.quarantine import Quarantine
from services.platform.room import Background, Room
from services.platform.security import Security
from services.platform.tables import INBOX
from services.platform.worker import Worker

IDLE_PERIOD_S = 1.0
_LONGEST_RESTART_WAIT_S = 30.0
_BUS_CHECK_LIFE_S = 5.0
_JOIN_S = 60.0
# After the start, after the first work, and once everything has been used.
_SETTLE_AFTER_S = (5.0, 25.0, 270.0)

log = logs.get("host")
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """What rooms stand on in this process."""

    settings: Settings
    database: Database
    log: EventLog
    quarantine: Quarantine
    security: Security
    audit: Audit | None = None


@dataclass
class Host:
    """Several rooms in one process. `addresses` says where they listen once started: `room/grpc`, `room/http`,
    `operations` -> `host:port`.
    """

    rooms: Sequence[Room]
    parts: Parts
    announce: Announce = print
    workers_per_room: int = 1
    addresses: dict[str, str] = field(default_factory=dict)
    _stop_threads: threading.Event = field(default_factory=threading.Event)
    _draining: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)
    _failing: set[str] = field(default_factory=set)
    _relays: list[Relay] = field(default_factory=list)
    _servers: list[rpc.RunningServer] = field(default_factory=list)
    _doors: list[tuple[_Door, asyncio.Task[None]]] = field(default_factory=list)
    _listeners: list[tuple[str, Background]] = field(default_factory=list)
    _bus_checked: tuple[float, bool] = (float("-inf"), False)

    async def start(self) -> None:
        """Starts everything. Raises ConfigurationError, with all stopped again, when a part cannot start."""
        try:
            for room in self.rooms:
                self._start_events(room)
            for room in self.rooms:
                await self._start_grpc(room)
            for room in self.rooms:
                if room.http is not None:
                    room.http.state.audit = self.parts.audit
                    port = self.parts.settings.http.port(room.name)
                    await self._start_http(f"{room.name}/http", room.http, port)
            await self._start_operations()
            for room in self.rooms:
                self._start_background(room)
        except BaseException:
            await self.stop()
            raise

    async def run(self) -> None:
        """Starts, waits for SIGTERM or SIGINT, drains. A second signal ends the process at once."""
        wanted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: os._exit(130) if wanted.is_set() else wanted.set())
        try:
            await self.start()
            for name, address in sorted(self.addresses.items()):
                self.announce(f"{name} listens on {address}")
            notify("READY=1")
            settling = asyncio.create_task(_settle_memory())
            await wanted.wait()
            settling.cancel()
            notify("STOPPING=1")
            self.announce("stopping: running work is finished first")
        finally:
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def ready(self) -> bool:
        """True when this process can do its work: not stopping, threads alive, database and event log within reach."""
        if self._draining or self._failing:
            return False
        return self._database_answers() and self._log_answers()

    def _database_answers(self) -> bool:
        try:
            with self.parts.database.session() as session:
                session.execute(select(INBOX.c.event_id).limit(1))
        except (RetryableError, SQLAlchemyError) as error:
            log.warning("database_away", error=type(error).__name__)
            return False
        return True

    def _log_answers(self) -> bool:
        checked_at, answered = self._bus_checked
        if time.monotonic() - checked_at > _BUS_CHECK_LIFE_S:
            try:
                self.parts.log.topics()
                answered = True
            except RetryableError:
                answered = False
            self._bus_checked = (time.monotonic(), answered)
        return answered

    def _start_events(self, room: Room) -> None:
        parts = self.parts
        relay = Relay(parts.database, parts.log, room.name)
        self._relays.append(relay)
        relay.start()
        self._thread(f"watch-{room.name}", partial(self._watch, relay))
        if room.handlers:
            for number in range(self.workers_per_room):
                worker = Worker(room, parts.database, parts.log, parts.quarantine)
                self._thread(f"worker-{room.name}-{number}", partial(worker.run, self._stop_threads))
        if room.idle is not None:
            self._thread(f"idle-{room.name}", partial(self._idle, room.name, room.idle))

    def _thread(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._kept_alive, args=(name, work), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _kept_alive(self, name: str, work: Callable[[], None]) -> None:
        """Runs the work until the host stops; what it does not catch itself makes it start again after a wait."""
        failures = 0
        while not self._stop_threads.is_set():
            begun = time.monotonic()
            try:
                self._failing.discard(name)
                work()
            except Exception as error:
                failures = 1 if time.monotonic() - begun > _LONGEST_RESTART_WAIT_S else failures + 1
                wait_s = min(2.0 ** (failures - 1), _LONGEST_RESTART_WAIT_S)
                self._failing.add(name)
                log.error("thread_failed", thread=name, wait_s=wait_s, exc_info=error)
                self._stop_threads.wait(wait_s)

    def _watch(self, relay: Relay) -> None:
        """Starts a relay again when its thread ended over something that it does not handle itself."""
        name = f"outbox-{relay.room}"
        while not self._stop_threads.wait(IDLE_PERIOD_S):
            if any(thread.name == name for thread in threading.enumerate()):
                self._failing.discard(name)
                continue
            self._failing.add(name)
            log.error("thread_ended", thread=name)
            relay.start()

    def _idle(self, room: str, hook: Callable[[bool], bool]) -> None:
        while not self._stop_threads.wait(IDLE_PERIOD_S):
            try:
                while hook(False) and not self._stop_threads.is_set():
                    pass
            except RetryableError as error:
                log.warning("idle_waits", room=room, error=type(error).__name__)

    async def _start_grpc(self, room: Room) -> None:
        if not room.grpc:
            return
        parts = self.parts
        server = await rpc.serve(
            room.grpc,
            settings=parts.settings,
            security=parts.security,
            address=parts.settings.grpc.address(room.name),
            readiness=[self.ready],
            audit=parts.audit.rpc_hook if parts.audit else None,
        )
        self._servers.append(server)
        self.addresses[f"{room.name}/grpc"] = server.address

    async def _start_http(self, name: str, app: FastAPI, port: int) -> None:
        settings = self.parts.settings.http
        bound = bind(settings.host, port, name)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer than clients and proxies keep an idle connection (5 to 60 s), so that none writes into one just closed.
            timeout_keep_alive=75,
            root_path=settings.root_path if name != "operations" else "",
            timeout_graceful_shutdown=int(self.parts.settings.grpc.drain_s) or 1,
            ws="none",
        )
        door = _Door(config)
        task = asyncio.create_task(door.serve(sockets=[bound]), name=name)
        self._doors.append((door, task))
        while not door.started:
            if task.done():
                raise ConfigurationError(f"{name} could not start: its application failed on start-up, see the log")
            await asyncio.sleep(0.01)
        host, number = bound.getsockname()[:2]
        self.addresses[name] = f"{host}:{number}"

    async def _start_operations(self) -> None:
        settings = self.parts.settings
        port = settings.telemetry.operations_port(self.rooms[0].name if self.rooms else "")
        if port is None:
            return
        app = http.create_app(
            "operations", settings=settings, security=self.parts.security, readiness=[self.ready], metrics=True
        )
        await self._start_http("operations", app, port)

    def _start_background(self, room: Room) -> None:
        for listener in room.background:
            listener.start()
            self._listeners.append((room.name, listener))

    async def stop(self) -> None:
        """Drains: no new input, running calls and the event in hand end, the outbox is emptied. Safe to call twice."""
        self._draining = True
        for room, listener in reversed(self._listeners):
            await self._quietly(f"listener of {room}", asyncio.to_thread(listener.stop))
        self._listeners.clear()
        self._stop_threads.set()
        await asyncio.gather(*(server.stop() for server in self._servers))
        self._servers.clear()
        for door, task in self._doors:
            door.should_exit = True
            await self._quietly("HTTP door", task)
        self._doors.clear()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _JOIN_S)
        self._threads.clear()
        for relay in self._relays:
            await self._quietly(f"outbox of {relay.room}", asyncio.to_thread(_finish, relay))
        self._relays.clear()

    async def _quietly(self, what: str, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            log.warning("stop_incomplete", part=what, error=type(error).__name__)


async def _settle_memory() -> None:
    """Takes what lives as long as the process out of the garbage collector's sight.

    Modules, code tables and models are some hundred thousand objects, and looking through all of them stops every call for a
    quarter of a second, several times a minute. Tables are read when they are first needed: hence more than once.
    """
    for pause_s in _SETTLE_AFTER_S:
        await asyncio.sleep(pause_s)
        gc.collect()
        gc.freeze()


class _Door(uvicorn.Server):
    """A uvicorn server that leaves signals to the host."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _finish(relay: Relay) -> None:
    relay.stop()
    relay.drain()


def bind(host: str, port: int, name: str) -> socket.socket:
    """A listening socket. Raises ConfigurationError naming the door and the port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only for sockets that name their protocol; with it, the second part of an
    # answer waits some 40 ms for the client's acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"{name} cannot listen on {host}:{port} ({error.strerror}); stop what uses it or change the port"
        ) from error
    return bound


def notify(state: str) -> None:
    """Tells whoever supervises this process (sd_notify protocol of systemd: datagram to NOTIFY_SOCKET)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


def run_rooms(
    rooms: Sequence[Room],
    *,
    settings: Settings,
    database: Database,
    log: EventLog,
    quarantine: Quarantine,
    security: Security,
    audit: Audit | None = None,
    announce: Announce = print,
    workers_per_room: int = 1,
) -> None:
    """Runs rooms until SIGTERM or SIGINT, then drains them; blocks. Raises ConfigurationError when one cannot start."""
    parts = Parts(settings, database, log, quarantine, security, audit or Audit.from_settings(database, settings))
    telemetry.setup(f"osler-{rooms[0].name}" if len(rooms) == 1 else "osler", settings)
    try:
        asyncio.run(Host(rooms, parts, announce, workers_per_room).run())
    finally:
        telemetry.shutdown()
