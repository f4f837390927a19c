"""Rooms as processes: signals, supervision, restarts, and no orphans. Real processes throughout."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from services.platform import supervisor
from services.platform.supervisor import EX_CONFIG, Command, Supervisor, open_log_file

PRELUDE = """
import os, signal, socket, sys, time
def tell(state):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(state.encode(), os.environ["NOTIFY_SOCKET"])
"""
STEADY = 'tell("READY=1"); print("up", flush=True); signal.sigwait({signal.SIGTERM}); print("down", flush=True)'


def command(name: str, code: str) -> Command:
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
    return Command(name, (sys.executable, "-c", PRELUDE + block + textwrap.dedent(code)))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_children_start_tell_that_they_are_ready_and_stop(tmp_path: Path) -> None:
    made = Supervisor([command("a", STEADY), command("b", STEADY)], log_folder=tmp_path, announce=lambda _: None)
    running = asyncio.create_task(made.run())
    assert await made.wait_ready(10)
    assert made.states == {"a": "ready", "b": "ready"}
    made.request_stop()
    assert await running == 0
    assert made.states == {"a": "stopped", "b": "stopped"}
    assert (tmp_path / "a.log").read_text() == (tmp_path / "b.log").read_text() == "up\ndown\n"


async def test_a_child_that_ends_starts_again_after_a_growing_wait(tmp_path: Path) -> None:
    said: list[str] = []
    count = tmp_path / "count"
    code = f"""
    open({str(count)!r}, "a").write("x")
    if len(open({str(count)!r}).read()) < 3:
        sys.exit(9)
    {STEADY}
    """
    made = Supervisor([command("a", code)], announce=said.append, first_wait_s=0.05)
    running = asyncio.create_task(made.run())
    assert await made.wait_ready(10)
    assert count.read_text() == "xxx"
    assert [line for line in said if "ended" in line] == [
        "a ended with 9; starts again in 0.05 s",
        "a ended with 9; starts again in 0.1 s",
    ]
    made.request_stop()
    assert await running == 0
    assert "a | up" in said, "without a log folder lines come with the room's name in front"


async def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f'open({str(pid_file)!r}, "w").write(str(os.getpid()))\n{STEADY}'
    made = Supervisor([command("a", code)], log_folder=tmp_path, announce=lambda _: None, first_wait_s=0.05)
    running = asyncio.create_task(made.run())
    assert await made.wait_ready(10)
    first = int(pid_file.read_text())
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first))
    await until(lambda: made.states["a"] == "ready" and int(pid_file.read_text() or 0) not in (0, first))
    made.request_stop()
    assert await running == 0


async def test_a_wrong_setting_stops_everything_and_is_not_tried_again() -> None:
    said: list[str] = []
    made = Supervisor([command("a", STEADY), command("b", "sys.exit(78)")], announce=said.append)
    assert await asyncio.wait_for(made.run(), 15) == EX_CONFIG
    assert "b cannot start: a setting is wrong" in said
    assert made.states["a"] == "stopped"


async def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    code = 'signal.signal(signal.SIGTERM, signal.SIG_IGN); tell("READY=1"); time.sleep(60)'
    made = Supervisor([command("a", code)], log_folder=tmp_path, announce=lambda _: None, grace_s=0.3)
    running = asyncio.create_task(made.run())
    assert await made.wait_ready(10)
    made.request_stop()
    assert await asyncio.wait_for(running, 5) == 0


async def test_readiness_has_an_end(tmp_path: Path) -> None:
    made = Supervisor([command("a", "time.sleep(60)")], log_folder=tmp_path, announce=lambda _: None, grace_s=0.2)
    running = asyncio.create_task(made.run())
    assert not await made.wait_ready(0.5)
    made.request_stop()
    assert await running == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f'open({str(pid_file)!r}, "w").write(str(os.getpid()))\ntell("READY=1"); time.sleep(60)'
    child = Command("a", (sys.executable, "-c", PRELUDE + code))
    script = f"""
from pathlib import Path
from services.platform.supervisor import Command, supervise
supervise([Command("a", {tuple(child.argv)!r})], log_folder=Path({str(tmp_path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        pid = int(pid_file.read_text())
        assert alive(pid)
        parent.kill()
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_supervise_shows_who_is_ready_and_obeys_a_signal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    ready: list[float] = []

    def when_ready() -> None:
        ready.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    status = supervisor.supervise([command("a", STEADY)], log_folder=tmp_path, console=console, when_ready=when_ready)
    assert status == 0
    assert len(ready) == 1
    assert (tmp_path / "a.log").read_text() == "up\ndown\n"


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LARGEST_LOG", 10)
    for text in (b"first lines\n", b"second\n", b"third\n"):
        with open_log_file(tmp_path / "logs", "a") as file:
            file.write(text)
    assert (tmp_path / "logs" / "a.log.1").read_bytes() == b"first lines\n"
    assert (tmp_path / "logs" / "a.log").read_bytes() == b"second\nthird\n"


SERVE = """
import sys
from pathlib import Path
from services.platform import host, logs
from services.platform.blobs import open_blobs
from services.platform.bus import open_log
from services.platform.config import Settings
from services.platform.database import migrate, open_database
from services.platform.quarantine import Quarantine
from services.platform.room import Room
from services.platform.security import Security

settings = Settings(home=Path(sys.argv[1]), telemetry={"prometheus_port": 0})
logs.configure(settings, room="twin")
database = open_database(settings)
migrate(database, "platform")
host.run_rooms(
    [Room("twin", idle=lambda force: False)], settings=settings, database=database, log=open_log(settings),
    quarantine=Quarantine(database, open_blobs(settings)), security=Security(settings),
)
print("ended well")
"""


async def test_a_supervised_room_becomes_ready_and_drains(tmp_path: Path) -> None:
    child = Command("twin", (sys.executable, "-u", "-c", SERVE, str(tmp_path / "home")))
    made = Supervisor([child], log_folder=tmp_path, announce=lambda _: None)
    running = asyncio.create_task(made.run())
    assert await made.wait_ready(40)
    made.request_stop()
    assert await running == 0
    text = (tmp_path / "twin.log").read_text()
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if not line.startswith("{")]
    assert lines[0].startswith("operations listens on 127.0.0.1:")
    assert lines[-2:] == ["stopping: running work is finished first", "ended well"]
