"""Fifty people look at the board at once: how long pages take. Prints the figures; fails only where an answer is wrong.

OMP_NUM_THREADS=1 python -m pytest tests/load/board -s
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from services.compose.rooms import lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.http import SESSION_COOKIE
from services.platform.security import Principal
from tests.peers import free_port
from tests.unit.board.conftest import KEY, Feed, seed

VIEWERS = 50
ROUNDS = 6


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A board in a process of its own with one case; its address and a session cookie."""
    port = free_port()
    monkeypatch.setenv("OSLER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OSLER_HTTP__PORTS__BOARD", str(port))
    monkeypatch.setenv("OSLER_TELEMETRY__PROMETHEUS_PORT", "0")
    foundations = lay_foundations(Settings.load())
    migrate_all(foundations.database, ["board"])
    seed(Feed(foundations, None))  # type: ignore[arg-type]
    cookie = foundations.security.session(Principal("board", frozenset({"board"})), 3600)
    foundations.close()
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "services.cli", "serve", "board"], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/healthz", trust_env=False).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.5)
    yield address, cookie
    process.terminate()
    process.wait(60)


@pytest.mark.slow
def test_fifty_viewers(served: tuple[str, str]) -> None:
    address, cookie = served
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

    viewers = [threading.Thread(target=look) for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    for path, times in spent.items():
        name = path.replace(KEY, "KEY")
        quantiles = statistics.quantiles(times, n=20)
        print(
            f"{name}: {len(times)} requests of {VIEWERS}, median {statistics.median(times):.3f} s, p95 {quantiles[18]:.3f} s"
        )
    assert wrong == []
    assert all(len(times) == VIEWERS * ROUNDS for times in spent.values())
