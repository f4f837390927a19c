"""Rooms as servers, with a real database, event log, gRPC and HTTP on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from osler.advisor.v1 import advisor_pb2, advisor_pb2_grpc
from osler.events.v1 import events_pb2

from services.platform import host, http, rpc
from services.platform.audit import Audit
from services.platform.blobs import open_blobs
from services.platform.bus import open_log
from services.platform.config import Settings
from services.platform.database import migrate, open_database
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.events import Event, event_id, pack
from services.platform.quarantine import Quarantine
from services.platform.room import Room, Transaction
from services.platform.security import Security

ADVISOR = "osler.advisor.v1.AdvisorService"
FEEDBACK = "osler.alert.feedback.v1"


class Advisor(advisor_pb2_grpc.AdvisorServiceServicer):
    def GetAdvice(self, request: Any, context: Any) -> Any:
        return advisor_pb2.GetAdviceResponse()


class Listener:
    def __init__(self, order: list[str]) -> None:
        self.order = order

    def start(self) -> None:
        self.order.append("listener started")

    def stop(self) -> None:
        self.order.append("listener stopped")


class World:
    """One room `advisor` that handles feedback events and serves gRPC and HTTP."""

    def __init__(self, home: Path, **settings: Any) -> None:
        ports = {
            "grpc": {"ports": {"advisor": 0}},
            "http": {"ports": {"alerts": 0}},
            "telemetry": {"prometheus_port": 0},
        }
        self.settings = Settings(home=home, bus={"partitions": 1}, **(ports | settings))
        self.security = Security(self.settings)
        self.database = open_database(self.settings)
        migrate(self.database, "platform")
        self.log = open_log(self.settings)
        self.quarantine = Quarantine(self.database, open_blobs(self.settings))
        self.audit = Audit.from_settings(self.database, self.settings)
        self.order: list[str] = []
        self.handled: list[str] = []
        self.idles: list[bool] = []
        self.work = threading.Event()
        self.work.set()
        self.begun = threading.Event()

    def handle(self, event: Event, message: Any) -> Any:
        self.begun.set()
        self.work.wait(5)

        def effect(tx: Transaction) -> None:
            self.handled.append(event.id)
            self.order.append("event handled")

        return effect

    def idle(self, force: bool) -> bool:
        self.idles.append(force)
        if len(self.idles) == 1:
            raise RetryableError("not now")
        return False

    def rooms(self) -> tuple[Room, Room]:
        app = http.create_app("alerts", settings=self.settings, security=self.security)
        advisor = Room(
            "advisor",
            handlers={FEEDBACK: self.handle},
            grpc=[(ADVISOR, lambda server: advisor_pb2_grpc.add_AdvisorServiceServicer_to_server(Advisor(), server))],
            background=[Listener(self.order)],
            idle=self.idle,
        )
        return advisor, Room("alerts", http=app)

    def parts(self) -> host.Parts:
        return host.Parts(self.settings, self.database, self.log, self.quarantine, self.security, self.audit)

    def announce(self, number: int) -> str:
        feedback = events_pb2.AlertFeedback()
        event = pack(feedback, source="alerts", key="k", id=event_id("test", str(number)), time=datetime.now(UTC))
        with self.database.transaction("alerts") as tx:
            tx.emit(event)
        return event.id

    def close(self) -> None:
        self.log.close()
        self.database.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.work.set()
    made.close()


async def until(condition: Any, seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_process_serves_every_part_of_its_rooms(world: World) -> None:
    running = host.Host(world.rooms(), world.parts())
    await running.start()
    assert set(running.addresses) == {"advisor/grpc", "alerts/http", "operations"}
    sent = world.announce(1)
    provider = world.security.token_provider("board")
    async with rpc.channel(running.addresses["advisor/grpc"], world.settings, provider) as channel:
        await advisor_pb2_grpc.AdvisorServiceStub(channel).GetAdvice(advisor_pb2.GetAdviceRequest(patient_key="k"))
    async with httpx.AsyncClient() as client:
        door = f"http://{running.addresses['alerts/http']}"
        operations = f"http://{running.addresses['operations']}"
        assert (await client.get(f"{door}/healthz")).status_code == 200
        assert (await client.get(f"{door}/metrics")).status_code == 404
        assert (await client.get(f"{operations}/readyz")).status_code == 200
        assert "osler_requests_total" in (await client.get(f"{operations}/metrics")).text
    await until(lambda: world.handled == [sent])
    await until(lambda: len(world.idles) >= 2)
    assert world.order[0] == "listener started"
    assert set(world.idles) == {False}
    assert world.audit.verify_chain().rows == 1
    await running.stop()


async def test_stopping_finishes_the_event_in_hand_and_empties_the_outbox(world: World) -> None:
    running = host.Host(world.rooms(), world.parts())
    await running.start()
    world.work.clear()
    sent = world.announce(1)
    assert await asyncio.to_thread(world.begun.wait, 8)
    assert running.ready()
    stopping = asyncio.create_task(running.stop())
    await until(running._stop_threads.is_set)
    assert world.order == ["listener started", "listener stopped"]
    assert not running.ready()
    assert world.handled == []
    late = world.announce(2)
    world.work.set()
    await stopping
    assert world.handled == [sent]
    assert world.order.index("listener stopped") < world.order.index("event handled")
    assert [record.event.id for record in world.log.read([FEEDBACK])] == [sent, late]
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith(("worker-", "idle-", "outbox-", "watch-"))
    ]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{running.addresses['alerts/http']}/healthz")
    await running.stop()


async def test_what_was_not_handled_comes_again_after_a_restart(world: World) -> None:
    running = host.Host(world.rooms(), world.parts())
    await running.start()
    world.work.clear()
    sent = [world.announce(number) for number in range(3)]
    assert await asyncio.to_thread(world.begun.wait, 8)
    stopping = asyncio.create_task(running.stop())
    await until(running._stop_threads.is_set)
    world.work.set()
    await stopping
    assert world.handled == sent[:1]
    again = host.Host(world.rooms(), world.parts())
    await again.start()
    await until(lambda: len(world.handled) == 3)
    await again.stop()
    assert world.handled == sent


async def test_a_taken_port_stops_the_start_and_leaves_nothing_running(tmp_path: Path) -> None:
    taken = host.bind("127.0.0.1", 0, "test")
    taken.listen()
    port = taken.getsockname()[1]
    world = World(tmp_path, http={"ports": {"alerts": port}})
    running = host.Host(world.rooms(), world.parts())
    with pytest.raises(ConfigurationError, match=f"alerts/http cannot listen on 127.0.0.1:{port}"):
        await running.start()
    assert world.order == []
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith(("worker-", "idle-", "outbox-", "watch-"))
    ]
    taken.close()
    world.close()


async def test_a_room_whose_idle_hook_keeps_failing_is_not_ready(world: World) -> None:
    def broken(force: bool) -> bool:
        raise ValueError("a bug")

    running = host.Host([Room("advisor", idle=broken)], world.parts())
    await running.start()
    assert running.ready()
    await until(lambda: not running.ready())
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{running.addresses['operations']}/readyz")
    assert answer.status_code == 503
    await running.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_relay_that_died_is_started_again(world: World) -> None:
    publish = world.log.publish

    def fails_once(events: Any) -> None:
        world.log.publish = publish
        raise SystemExit

    running = host.Host(world.rooms(), world.parts())
    await running.start()
    world.log.publish = fails_once
    sent = world.announce(1)
    await until(lambda: world.handled == [sent])
    await running.stop()


async def test_health_follows_the_database(world: World, tmp_path: Path) -> None:
    running = host.Host(world.rooms(), world.parts())
    await running.start()
    assert running.ready()
    file, away = tmp_path / "osler.db", tmp_path / "away.db"
    file.rename(away)
    file.mkdir()
    world.database.engine.dispose()
    assert not running.ready()
    (server,) = running._servers
    await server.refresh()
    async with grpc.aio.insecure_channel(running.addresses["advisor/grpc"]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=ADVISOR))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    file.rmdir()
    away.rename(file)
    await until(running.ready)
    await running.stop()


async def test_doors_answer_without_waiting_for_the_clients_acknowledgement() -> None:
    bound = host.bind("127.0.0.1", 0, "door")
    nodelay: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nodelay.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    server = await asyncio.start_server(connected, sock=bound)
    _, writer = await asyncio.open_connection(*bound.getsockname())
    assert await asyncio.wait_for(nodelay, 10)
    writer.close()
    server.close()


def test_ports_say_who_wanted_them() -> None:
    taken = host.bind("127.0.0.1", 0, "first")
    taken.listen()
    with pytest.raises(ConfigurationError, match="second cannot listen"):
        host.bind("127.0.0.1", taken.getsockname()[1], "second")
    taken.close()
