"""Fifty people look at the board at once: how long pages and images take. Prints the figures; fails where an answer is wrong.

OMP_NUM_THREADS=1 python -m pytest tests/load/board -s
"""

from __future__ import annotations

import gzip
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from osler.events.v1 import events_pb2
from osler.ingest.v1 import ingest_pb2

from pipelines.cohort import acquisition, demo, dicom
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.http import SESSION_COOKIE
from services.platform.security import Principal
from tests.peers import free_port
from tests.unit.board.conftest import KEY, Feed, seed

VIEWERS = 50
ROUNDS = 6


def add_ct(foundations: Foundations) -> str:
    """A study with one CT of 96 slices, handed to the board as ingest would; the series' UID."""
    visit = demo.visits()[0]
    array = acquisition.ct(list(visit.lesions), visit.pose, 1)
    slices = dicom.image_series(demo.PERSON, visit, "CT", "CT", array, acquisition.CT_GRID, visit.start)
    manifest = ingest_pb2.StudyManifest(
        study_instance_uid=slices[0].StudyInstanceUID, patient_key=KEY, revision=1, study_description="CT"
    )
    series = manifest.series.add(series_instance_uid=slices[0].SeriesInstanceUID, modality="CT")
    for dataset in slices:
        written = io.BytesIO()
        dataset.save_as(written, enforce_file_format=True)
        instance = series.instances.add(sop_instance_uid=dataset.SOPInstanceUID)
        instance.content.CopyFrom(
            foundations.blobs.put(written.getvalue(), "application/dicom", dataset.SOPInstanceUID)
        )
    received = events_pb2.StudyReceived(patient_key=KEY, study_instance_uid=manifest.study_instance_uid, revision=1)
    received.manifest.CopyFrom(foundations.blobs.put(manifest.SerializeToString(), "application/protobuf", "m/ct"))
    received.study_time.FromDatetime(visit.start)
    Feed(foundations, None).handle(received, KEY, "ct", "ingest")  # type: ignore[arg-type]
    return str(series.series_instance_uid)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A board in a process of its own with one case; its address, a session cookie, and the UID of a CT."""
    port = free_port()
    monkeypatch.setenv("OSLER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OSLER_HTTP__PORTS__BOARD", str(port))
    monkeypatch.setenv("OSLER_TELEMETRY__PROMETHEUS_PORT", "0")
    foundations = lay_foundations(Settings.load())
    migrate_all(foundations.database, ["board"])
    seed(Feed(foundations, None))  # type: ignore[arg-type]
    series = add_ct(foundations)
    cookie = foundations.security.session(Principal("board", frozenset({"board"})), 3600)
    foundations.close()
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "services.cli", "serve", "board"], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 300
    while True:
        try:
            if httpx.get(f"{address}/healthz", trust_env=False).status_code == 200:
                break
        except httpx.HTTPError:
            assert process.poll() is None, (tmp_path / "serve.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the board does not answer"
            time.sleep(0.5)
    yield address, cookie, series
    process.terminate()
    process.wait(60)


@pytest.mark.slow
def test_fifty_viewers(served: tuple[str, str, str]) -> None:
    address, cookie, _ = served
    spent: dict[str, list[float]] = {"/": [], f"/case/{KEY}": [], f"/case/{KEY}/part/findings": []}
    wrong: list[int] = []

    def look() -> None:
        with httpx.Client(base_url=address, cookies={SESSION_COOKIE: cookie}, trust_env=False, timeout=60) as browser:
            for _ in range(ROUNDS):
                for path, times in spent.items():
                    began = time.perf_counter()
                    answer = browser.get(path, headers={"accept": "text/html"})
                    times.append(time.perf_counter() - began)
                    if answer.status_code != 200:
                        wrong.append(answer.status_code)
                    time.sleep(1.0)  # people read

    everybody(look)
    for path, times in spent.items():
        say(path.replace(KEY, "KEY"), times)
    assert wrong == []
    assert all(len(times) == VIEWERS * ROUNDS for times in spent.values())


@pytest.mark.slow
def test_fifty_viewers_of_one_volume(served: tuple[str, str, str]) -> None:
    """All open the same CT: it is made once, sent whole to each, in parts as asked, and not again to who holds it."""
    address, cookie, series = served
    path = f"/case/{KEY}/volume/{series}/in/{series}.nii.gz"
    spent: dict[str, list[float]] = {"whole": [], "64 kB of it": [], "unchanged": []}
    wrong: list[tuple[int, int]] = []
    sizes: set[int] = set()

    def look() -> None:
        with httpx.Client(base_url=address, cookies={SESSION_COOKIE: cookie}, trust_env=False, timeout=120) as browser:
            whole = timed(spent["whole"], lambda: browser.get(path))
            part = timed(spent["64 kB of it"], lambda: browser.get(path, headers={"range": "bytes=65536-131071"}))
            held = {"if-none-match": whole.headers["etag"]}
            same = timed(spent["unchanged"], lambda: browser.get(path, headers=held))
            if part.content != whole.content[65536:131072] or (part.status_code, same.status_code) != (206, 304):
                wrong.append((part.status_code, same.status_code))
            sizes.add(len(whole.content))
            assert "private" in whole.headers["cache-control"]

    with httpx.Client(base_url=address, cookies={SESSION_COOKIE: cookie}, trust_env=False, timeout=120) as browser:
        made: list[float] = []
        content = timed(made, lambda: browser.get(path)).content
    everybody(look)
    raw = len(gzip.decompress(content))
    print(f"volume of {raw / 1e6:.1f} MB sent as {len(content) / 1e6:.1f} MB, made in {made[0]:.2f} s")
    for name, times in spent.items():
        say(name, times)
    assert wrong == []
    assert sizes == {len(content)}
    assert raw == pytest.approx(2 * np.prod(acquisition.CT_GRID.size), rel=0.01)


def timed(times: list[float], ask: Callable[[], httpx.Response]) -> httpx.Response:
    began = time.perf_counter()
    answer = ask()
    times.append(time.perf_counter() - began)
    return answer


def everybody(look: Callable[[], None]) -> None:
    viewers = [threading.Thread(target=look) for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()


def say(name: str, times: list[float]) -> None:
    p95 = statistics.quantiles(times, n=20)[18]
    middle = statistics.median(times)
    load = os.getloadavg()[0]
    print(f"{name}: {len(times)} requests of {VIEWERS}, median {middle:.3f} s, p95 {p95:.3f} s (load {load:.1f})")
