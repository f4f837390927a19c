"""Eight scanners that send CT slices through C-STORE at once, and what listens to them: for the load tests of the door."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.fixtures.dicom_files import ROOT, ct
from tests.peers import free_port, require_or_skip, wait_for_port

ROWS = 512
_FIRST = 100_001


def make_files(folder: Path, clients: int, each: int, per_study: int = 50, first_study: int = 0) -> list[Path]:
    """One folder of `each` CT slices (512 x 512, 16 bit) for each client, in studies that tell how many slices they have."""
    pixels = bytes(range(256)) * (ROWS * ROWS * 2 // 256)
    study, series = f"{ROOT}.200000", f"{ROOT}.200000.1"
    template = ct(
        _FIRST, rows=ROWS, study=study, series=series, InstanceNumber=1, PatientID="LOAD-300000",
        NumberOfStudyRelatedInstances=per_study, PixelData=pixels,
    )  # fmt: skip
    folders = []
    for client in range(clients):
        target = folder / f"client{client}"
        target.mkdir(parents=True)
        folders.append(target)
        for number in range(each):
            owner = first_study + client * 1000 + number // per_study + 1
            content = template.replace(b".200000", f".{200000 + owner}".encode())
            content = content.replace(str(_FIRST).encode(), str(_FIRST + number).encode())
            content = content.replace(b"LOAD-300000", f"LOAD-{300000 + owner}".encode())
            (target / f"{number:05d}.dcm").write_bytes(content)
    return folders


def send(folders: list[Path], port: int, title: str) -> float:
    """Seconds until every client's `storescu` of dcmtk has sent its folder. Fails when one was refused."""
    if shutil.which("storescu") is None:
        require_or_skip("no dcmtk: apt-get install dcmtk")
    begun = time.monotonic()
    # Abort on the first status that is no success, so that only what was accepted is counted.
    commands = [["storescu", "-aec", title, "+sd", "+sp", "*.dcm", "127.0.0.1", str(port), str(f)] for f in folders]
    senders = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for command in commands]
    ends = [sender.communicate()[0] for sender in senders]
    for sender, said in zip(senders, ends, strict=True):
        assert sender.returncode == 0, said[-2000:]
    return time.monotonic() - begun


class OslerDoor:
    """`osler serve ingest` in `processes` processes that share one port, on SQLite and the embedded log."""

    title = "OSLER"

    def __init__(self, folder: Path, processes: int, settings: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._environments = [self._environment(settings or {}) for _ in range(processes)]
        self._processes: list[subprocess.Popen[bytes]] = []

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        own = {
            "OSLER_HOME": str(self._folder / "home"),
            "OSLER_DICOM__PORT": str(self.port),
            "OSLER_DICOM__SHARE_PORT": "true",
            "OSLER_HL7__PORT": "0",
            "OSLER_GRPC__PORTS__INGEST": str(free_port()),
            "OSLER_HTTP__PORTS__INGEST": str(free_port()),
            "OSLER_TELEMETRY__PROMETHEUS_PORT": "0",
            "OMP_NUM_THREADS": "1",
            # Each thread that builds blobs asks for an arena of its own otherwise.
            "MALLOC_ARENA_MAX": "2",
        }
        return {**os.environ, **own, **settings}

    def start(self) -> None:
        for number, environment in enumerate(self._environments):
            log = self._folder / f"door{number}.log"
            with log.open("ab") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "services.cli", "serve", "ingest"], stdout=out, stderr=out, env=environment
                )
            self._processes.append(process)
            wait_for_port(int(environment["OSLER_HTTP__PORTS__INGEST"]), process, log, 120)
        wait_for_port(self.port, self._processes[0], self._folder / "door0.log", 60)

    def resident_mb(self) -> float:
        """Memory of all its processes."""
        pages = [int(Path(f"/proc/{p.pid}/statm").read_text().split()[1]) for p in self._processes]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        fields = [Path(f"/proc/{p.pid}/stat").read_text().rpartition(")")[2].split() for p in self._processes]
        return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(60)


class OrthancDoor:
    """Orthanc with its own SQLite index and files, settings as it comes, but without authentication."""

    title = "ORTHANC"

    def __init__(self, folder: Path) -> None:
        program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        if not Path(program).exists():
            require_or_skip("no Orthanc: apt-get install orthanc")
        self.port, self._http = free_port(), free_port()
        (folder / "orthanc").mkdir(parents=True)
        settings = {
            "StorageDirectory": str(folder / "orthanc"),
            "IndexDirectory": str(folder / "orthanc"),
            "DicomPort": self.port,
            "HttpPort": self._http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
        }
        self._settings = folder / "orthanc.json"
        self._settings.write_text(json.dumps(settings))
        self._program, self._log = program, folder / "orthanc.log"

    def start(self) -> None:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen([self._program, str(self._settings)], stdout=out, stderr=out)
        wait_for_port(self.port, self._process, self._log, 60)

    def held(self) -> int:
        return int(httpx.get(f"http://127.0.0.1:{self._http}/statistics", trust_env=False).json()["CountInstances"])

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
