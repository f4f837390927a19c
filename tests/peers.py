"""Real peers for the contract and end-to-end tests: a Kafka broker and a PostgreSQL server on loopback.

A machine without them skips these tests and says how to get them; OSLER_REQUIRE_PEERS=1 makes that a failure.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest

_FROM_DEBIAN = Path("/usr/lib/postgresql")


def require_or_skip(reason: str) -> NoReturn:
    """Ends a test whose peer is missing: skips it, or fails it when OSLER_REQUIRE_PEERS=1."""
    if os.environ.get("OSLER_REQUIRE_PEERS") == "1":
        pytest.fail(f"OSLER_REQUIRE_PEERS=1, but: {reason}", pytrace=False)
    pytest.skip(reason)


# Below the range that the kernel hands to outgoing connections (32768 on Linux): a port from there may be taken between
# being found and being listened on.
_FIRST_PORT, _LAST_PORT = 12_000, 32_000
_handed_out = itertools.count()


def free_ports(length: int) -> int:
    """First of `length` TCP ports in a row on loopback that are free now; never handed out twice in a process.

    Workers of pytest-xdist draw from ranges of their own, so that they do not race for one port.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = (_LAST_PORT - _FIRST_PORT) // workers
    start = os.getpid() * 97
    for _ in range(share):
        offsets = [(start + next(_handed_out)) % share for _ in range(length)]
        first = _FIRST_PORT + worker * share + offsets[0]
        if offsets[-1] - offsets[0] == length - 1 and all(_is_free(first + n) for n in range(length)):
            return first
    raise RuntimeError(f"no {length} free ports in a row between {_FIRST_PORT} and {_LAST_PORT}")


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    return free_ports(1)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wait_for_port(
    port: int, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60.0, host: str = "127.0.0.1"
) -> None:
    """Returns once a server listens. Raises RuntimeError with the end of its log when it dies or stays silent."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}:\n{log.read_text()[-3000:]}")


class PostgresServer:
    """A throw-away PostgreSQL cluster. `initdb` refuses root, so root runs it as the user nobody."""

    def __init__(self) -> None:
        binaries = sorted(_FROM_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
        found = str(binaries[-1]) if binaries else shutil.which("initdb")
        if found is None:
            require_or_skip("no PostgreSQL server: apt-get install postgresql")
        self._binaries = Path(found).resolve().parent
        # Not under pytest's folder, which is closed to the user that the server runs as.
        self._folder = Path(tempfile.mkdtemp(prefix="osler-postgres-"))
        self._data = self._folder / "data"
        self._log = self._folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self._folder, "nobody")
        self._run(
            "initdb", "-D", str(self._data), "-U", "osler", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_user(),
                    str(self._binaries / "postgres"),
                    *("-D", str(self._data), "-p", str(self.port), "-k", str(self._folder)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=log,
            )
        wait_for_port(self.port, self._process, self._log)
        self._wait_until_ready()

    def _wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """After a crash it listens first and recovers then."""
        deadline = time.monotonic() + timeout_s
        command = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(command, check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL is not ready:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self, *, how: str = "fast") -> None:
        """Stops the server; "immediate" is as good as a crash."""
        if self._process is not None:
            self._run("pg_ctl", "-D", str(self._data), "-m", how, "-w", "stop")
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stops the server and deletes its files."""
        self.stop(how="immediate")
        shutil.rmtree(self._folder)

    def fresh_database(self) -> str:
        """Makes an empty database and returns its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(6)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "osler", name)
        return f"postgresql+psycopg://osler@127.0.0.1:{self.port}/{name}"

    def _as_user(self) -> list[str]:
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user(), str(self._binaries / program), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{program} failed: {result.stderr[-2000:]}")
