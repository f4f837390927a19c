"""A running Osler for tests: `osler up` in a process of its own, on free ports, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from services.compose.rooms import Foundations, lay_foundations
from services.platform.config import ROOMS, Settings
from tests.peers import free_port, free_ports

GRPC_ROOMS = ("ingest", "imaging", "registration", "fusion", "twin", "advisor")
HTTP_ROOMS = ("ingest", "alerts", "board", "analytics")


@dataclass
class RunningOsler:
    """`settings`: more environment, for example another bus or database."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.ports = {f"grpc/{room}": free_port() for room in GRPC_ROOMS}
        self.ports |= {f"http/{room}": free_port() for room in HTTP_ROOMS}
        self.ports |= {"dicom": free_port(), "hl7": free_port(), "operations": free_ports(len(ROOMS) + 1)}

    @property
    def environment(self) -> dict[str, str]:
        named = {f"OSLER_GRPC__PORTS__{room.upper()}": self.ports[f"grpc/{room}"] for room in GRPC_ROOMS}
        named |= {f"OSLER_HTTP__PORTS__{room.upper()}": self.ports[f"http/{room}"] for room in HTTP_ROOMS}
        named |= {
            "OSLER_DICOM__PORT": self.ports["dicom"],
            "OSLER_HL7__PORT": self.ports["hl7"],
            "OSLER_TELEMETRY__PROMETHEUS_PORT": self.ports["operations"],
            "OSLER_DICOM__QUIET_PERIOD_S": 4,
            "OMP_NUM_THREADS": 1,
        }
        plain = {name: str(value) for name, value in named.items()}
        return {**os.environ, "OSLER_HOME": str(self.home), **plain, **self.settings}

    def start(self, timeout_s: float = 400.0) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "up"], stdout=log, stderr=log, env=self.environment
            )
        self.wait_until(lambda: all(self.ready(room) for room in ROOMS), "every room is ready", timeout_s)

    def ready(self, room: str) -> bool:
        port = self.ports["operations"] + ROOMS.index(room)
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def wait_until(self, condition: Callable[[], Any], what: str, timeout_s: float, pause_s: float = 1.0) -> Any:
        """The condition's first true answer. Fails with the ends of the logs when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self._process is None or self._process.poll() is None, f"osler up ended: {self.tails()}"
            found = condition()
            if found:
                return found
            time.sleep(pause_s)
        raise AssertionError(f"not within {timeout_s:g} s: {what}\n{self.tails()}")

    def tails(self) -> str:
        files = [self.home / "up.log", *sorted((self.home / "logs").glob("*.log"))]
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-1500:]}" for f in files if f.exists())

    def room_pid(self, room: str) -> int:
        """The process that serves a room, found among the children of `osler up`."""
        assert self._process is not None
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent == self._process.pid and words[-3:-1] == [b"serve", room.encode()]:
                return int(entry.name)
        raise LookupError(room)

    def kill(self, room: str) -> None:
        """Ends a room's process at once, as a crash would; the supervisor starts it again."""
        os.kill(self.room_pid(room), signal.SIGKILL)

    def osler(self, *arguments: str, status: int = 0) -> str:
        """Runs an `osler` command against this installation; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    @contextmanager
    def foundations(self) -> Iterator[Foundations]:
        """The installation's log, database and blobs, as its own processes see them."""
        with mock.patch.dict(os.environ, self.environment):
            settings = Settings.load()
        found = lay_foundations(settings)
        try:
            yield found
        finally:
            found.close()

    def token(self, role: str) -> str:
        return self.osler("token", "--role", role).strip()

    def client(self, room: str, role: str = "clinician") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token(role)}"}
        return httpx.Client(base_url=self.url(room), headers=headers, timeout=60, trust_env=False)

    def url(self, room: str) -> str:
        return f"http://127.0.0.1:{self.ports[f'http/{room}']}"

    def password(self, user: str) -> str:
        lines = (self.home / "first-run-credentials.txt").read_text(encoding="utf-8").splitlines()
        return next(line.split()[1] for line in lines if line.split()[:1] == [user])
