"""How many DICOM instances per second eight scanners get into the archive through C-STORE, each study announced.

CT slices of 512 x 512, sent by dcmtk's `storescu`, durable when accepted (file and index are on the disk). In the same run:
Orthanc as it comes, and a bare pynetdicom listener that writes files and syncs nothing. Published for Orthanc with eight
clients: 110/s, at best 213/s. OSLER_LOAD_MINUTES makes the memory test longer than its default of one minute; 30 for the
full one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.platform.bus import SqliteEventLog
from services.platform.database import Database
from tests.load.ingest.dicom_load import OrthancDoor, OslerDoor, make_files, send
from tests.peers import free_port, wait_for_port

pytestmark = [pytest.mark.slow, pytest.mark.dcmtk]
CLIENTS = int(os.environ.get("OSLER_LOAD_CLIENTS", "8"))
EACH = int(os.environ.get("OSLER_LOAD_EACH", "100"))
PER_STUDY = min(50, EACH)
PROCESSES = 2


def announced(home: Path, wanted: int, timeout_s: float = 60.0) -> int:
    """Studies that the event log holds, once there are as many as wanted."""
    log = SqliteEventLog(home / "events.db")
    deadline = time.monotonic() + timeout_s
    while True:
        found = len({record.event.id for record in log.read(["osler.study.received.v1"])})
        if found >= wanted or time.monotonic() > deadline:
            log.close()
            return found
        time.sleep(0.2)


def held(home: Path) -> int:
    database = Database(f"sqlite:///{home / 'osler.db'}")
    try:
        with database.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM ingest_instance").scalar_one())
    finally:
        database.close()


def machine_busy() -> float:
    """Load average of the last minute: what else ran while this was measured."""
    return os.getloadavg()[0]


def test_rate_beside_orthanc_and_a_bare_loop(tmp_path, capsys):
    count, studies = CLIENTS * EACH, CLIENTS * -(-EACH // PER_STUDY)
    folders = make_files(tmp_path / "images", CLIENTS, EACH, PER_STUDY)
    rates: dict[str, float] = {}
    cpu: dict[str, float] = {}
    before = machine_busy()
    door = OslerDoor(tmp_path / "osler", PROCESSES)
    door.start()
    try:
        used = door.cpu_s()
        rates["Osler"] = count / send(folders, door.port, door.title)
        cpu["Osler"] = (door.cpu_s() - used) / count * 1000
        assert announced(tmp_path / "osler/home", studies) == studies
        assert held(tmp_path / "osler/home") == count
    finally:
        door.stop()
    shutil.rmtree(tmp_path / "osler/home")
    orthanc = OrthancDoor(tmp_path / "peer")
    orthanc.start()
    try:
        used = orthanc.cpu_s()
        rates["Orthanc"] = count / send(folders, orthanc.port, orthanc.title)
        cpu["Orthanc"] = (orthanc.cpu_s() - used) / count * 1000
        assert orthanc.held() == count
    finally:
        orthanc.stop()
    shutil.rmtree(tmp_path / "peer")
    rates["bare loop"] = count / _bare(tmp_path / "bare", folders)
    with capsys.disabled():
        print(
            f"\nC-STORE, {CLIENTS} clients, {count} CT slices of 0.5 MB, load before {before:.1f}, after {machine_busy():.1f}"
        )
        for name, rate in rates.items():
            print(
                f"  {name:10s} {rate:6.0f} instances/s, Osler is {rates['Osler'] / rate:.2f} of it"
                + (f"; {cpu[name]:.1f} ms of CPU each" if name in cpu else "")
            )


def _bare(folder: Path, folders: list[Path]) -> float:
    port, log = free_port(), folder.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.ingest.bare_scp", str(port), str(folder)], stdout=out, stderr=out
        )
    try:
        wait_for_port(port, process, log)
        return send(folders, port, "BARE")
    finally:
        process.kill()
        process.wait()


def test_memory_stays_flat(tmp_path, capsys):
    """The slope of resident memory over the second half of a run, in MB an hour; the caches fill in the first."""
    minutes = float(os.environ.get("OSLER_LOAD_MINUTES", "1"))
    door = OslerDoor(tmp_path / "osler", 1)
    door.start()
    samples: list[tuple[float, float]] = []
    sent, round_ = 0, 0
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < minutes * 60:
            folders = make_files(tmp_path / f"round{round_}", 2, 20, 20, first_study=round_ * 100)
            send(folders, door.port, door.title)
            sent += 40
            round_ += 1
            samples.append((time.monotonic() - begun, door.resident_mb()))
            shutil.rmtree(tmp_path / f"round{round_ - 1}")
            # The archive's files are not what is looked at here.
            shutil.rmtree(tmp_path / "osler/home/blobs/studies", ignore_errors=True)
    finally:
        door.stop()
    later = samples[len(samples) // 2 :]
    slope, _ = statistics.linear_regression([t for t, _ in later], [m for _, m in later])
    with capsys.disabled():
        print(
            f"\nmemory over {minutes:g} min and {sent} instances: {samples[0][1]:.0f} MB after the first,"
            f" {samples[-1][1]:.0f} MB at the end, slope of the second half {slope * 3600:+.0f} MB/h"
        )
    assert samples[-1][1] - later[0][1] < 30
