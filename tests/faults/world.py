"""Everything that runs in the suite: three brokers, PostgreSQL behind a line that can be cut, and Osler's rooms."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from tests.faults.disk import Disk
from tests.faults.network import Network
from tests.faults.rooms import Trigger, forkserver, run, stop_quietly
from tests.fixtures.cut_proxy import CutProxy
from tests.fixtures.kafka.broker import KafkaCluster, Node
from tests.peers import PostgresServer, free_port

BROKERS = 3
ROOMS = ("ingest", "fusion", "board", "analytics")
# Two members of one group, so that partitions change hands.
PROCESSES = ("ingest", "fusion", "fusion", "board", "analytics")


@dataclass
class Member:
    """One process of a room, started again whenever it ends."""

    room: str
    trigger: Trigger = field(default_factory=Trigger)
    process: Any = None
    deaths: int = 0

    def skew(self, seconds: int) -> None:
        self.trigger.skew_s.value = seconds


class World:
    """Root, in a network and mount namespace of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)  # PostgreSQL does not run as root
        self.network = Network(BROKERS)
        self.disk = Disk(folder / "home", 96)
        self.broker_disks = [Disk(folder / f"broker{number}", 192) for number in range(1, BROKERS + 1)]
        nodes = [
            Node(number, self.network.address(number), 9092, 9093, self.network.within(number))
            for number in range(1, BROKERS + 1)
        ]
        self.cluster = KafkaCluster([disk.folder / "node" for disk in self.broker_disks], nodes)
        self.database_disk = Disk(folder / "database", 320)
        tempfile.tempdir = str(self.database_disk.folder)
        self.postgres = PostgresServer()
        tempfile.tempdir = None
        self.line = CutProxy(self.postgres.port)
        self.members = [Member(room) for room in PROCESSES]
        self.dicom_port = free_port()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def start(self) -> None:
        self.cluster.start()
        self.postgres.start()
        direct = self.postgres.fresh_database()
        self.settings = self._settings(direct.replace(f":{self.postgres.port}/", f":{self.line.port}/"))
        with _environment({**self.settings, "OSLER_DATABASE__URL": direct}):
            self.foundations: Foundations = lay_foundations(Settings.load())
        self.foundations.settings.identity_key()
        migrate_all(self.foundations.database, ROOMS)
        with _environment({"LD_PRELOAD": str(_clock(self.folder))}):
            forkserver.Process(target=_nothing).start()
        for member in self.members:
            self._launch(member)
        self._supervisor.start()

    def close(self) -> None:
        self._closing.set()
        if self._supervisor.ident is not None:
            self._supervisor.join()
        for member in self.members:
            if member.process is not None:
                stop_quietly(member.process)
        with suppress(Exception):
            self.foundations.close()
        self.line.close()
        self.cluster.kill()
        with suppress(RuntimeError):
            self.postgres.stop(how="immediate")
        for disk in (self.disk, self.database_disk, *self.broker_disks):
            disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def of(self, room: str, chance: random.Random) -> Member:
        return chance.choice([member for member in self.members if member.room == room])

    def revive(self) -> None:
        """Starts again whatever server has ended."""
        for broker in self.cluster.brokers:
            if not broker.running:
                broker.kill()
                broker.launch()
        process = self.postgres._process
        if process is None or process.poll() is not None:
            self.postgres._process = None
            # What a server that ended by itself left behind names a process that is gone.
            (self.postgres._data / "postmaster.pid").unlink(missing_ok=True)
            self.postgres.start()

    def _settings(self, url: str) -> dict[str, str]:
        return {
            "OSLER_HOME": str(self.disk.folder / "osler"),
            "OSLER_BUS__BACKEND": "kafka",
            "OSLER_BUS__BOOTSTRAP_SERVERS": ",".join(self.cluster.bootstrap),
            "OSLER_BUS__PARTITIONS": "2",
            "OSLER_DATABASE__URL": url,
            "OSLER_DICOM__PORT": str(self.dicom_port),
            "OSLER_DICOM__QUIET_PERIOD_S": "1",
            "OSLER_HL7__PORT": "0",
            "OSLER_TELEMETRY__PROMETHEUS_PORT": "0",
            "OMP_NUM_THREADS": "1",
        }

    def _launch(self, member: Member) -> None:
        log_file = self.folder / f"{member.room}.log"
        arguments = (member.room, self.settings, str(log_file), member.trigger)
        member.process = forkserver.Process(target=run, args=arguments, daemon=True)
        member.process.start()

    def _supervise(self) -> None:
        while not self._closing.wait(0.1):
            for member in self.members:
                if not member.process.is_alive():
                    member.process.join()
                    member.deaths += 1
                    self._launch(member)


def _nothing() -> None:
    """The first process of the fork server, so that it starts with the environment of that moment."""


def _clock(folder: Path) -> Path:
    """The library through which the rooms see the time of day (skew.c)."""
    library = folder / "skew.so"
    source = Path(__file__).with_name("skew.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class _environment:
    """Environment variables for the length of a block."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._values}
        os.environ.update(self._values)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def wait_until(condition: Any, timeout_s: float, pause_s: float = 0.1) -> bool:
    """True as soon as the condition holds; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause_s)
    return False
