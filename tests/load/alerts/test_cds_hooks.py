"""CDS Hooks under 50 calls a second with warm data: the real door and the real advisor in processes of their own, beside a bare
FastAPI route in one, driven the same way in the same run. Prints; holds only that every call was answered with cards."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.alerts import store
from services.clinical.identity import patient_key
from services.compose.rooms import lay_foundations, migrate_all
from services.platform.config import Settings
from tests.peers import free_port
from tests.unit.alerts.test_cds_answers import CT, EVERYTHING, LOW_EGFR
from tests.unit.alerts.test_hooks import SYSTEM, advice

RATE, SECONDS = 50, int(os.environ.get("OSLER_LOAD_SECONDS", "20"))
# Warm data: units, code sets and connections are there.
_WARM = 150
BARE = (
    "from fastapi import FastAPI\napp = FastAPI()\n@app.post('/cds')\nasync def cds(body: dict): return {'cards': []}\n"
)


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Base URLs of the door and of the bare route, and a token for the door."""
    ports = {name: free_port() for name in ("alerts", "advisor", "bare", "ingest")}
    configuration = {
        "home": str(tmp_path / "home"),
        "http": {"ports": {"alerts": ports["alerts"]}},
        "grpc": {"ports": {"advisor": ports["advisor"]}},
        "telemetry": {"prometheus_port": 0},
    }
    file = tmp_path / "osler.yaml"
    file.write_text(json.dumps(configuration), encoding="utf-8")
    found = lay_foundations(Settings.load(file))
    migrate_all(found.database, ["alerts", "advisor"])
    key = patient_key(found.settings.identity_key(), SYSTEM, "42")
    with found.database.transaction("alerts") as tx:
        store.save_advice(tx.session, advice(key, count=3))
    token = found.security.token_provider("alerts")()
    found.close()
    (tmp_path / "bare.py").write_text(BARE, encoding="utf-8")
    osler = [sys.executable, "-m", "services.cli", "--config", str(file), "serve"]
    bare = [sys.executable, "-m", "uvicorn", "bare:app", "--port", str(ports["bare"]), "--log-level", "warning"]
    log = (tmp_path / "log").open("w")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    running = [
        subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment)
        for command in ([*osler, "alerts"], [*osler, "advisor"], bare)
    ]
    try:
        base = f"http://127.0.0.1:{ports['alerts']}"
        _wait(f"{base}/cds-services")
        _wait(f"http://127.0.0.1:{ports['bare']}/docs")
        yield {"door": base, "bare": f"http://127.0.0.1:{ports['bare']}", "token": token}
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)
        log.close()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=2)
            return
        except httpx.TransportError:
            time.sleep(0.3)
    raise TimeoutError(url)


def _stolen_s() -> float:
    """Processor time that a hypervisor kept from this machine (proc(5), /proc/stat), seconds: it explains stray tails."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


def body(hook: str, **context: Any) -> dict[str, Any]:
    return {
        "hook": hook, "hookInstance": str(uuid.uuid4()), "prefetch": {**EVERYTHING, "kidney": LOW_EGFR},
        "context": {"userId": "Practitioner/1", "patientId": "p", **context},
    }  # fmt: skip


async def drive(
    call: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]],
) -> tuple[list[float], list[httpx.Response]]:
    """Starts a call every 1/RATE s whatever the others do; milliseconds of each, from when it was due."""
    times: list[float] = []
    answers: list[httpx.Response] = []

    async def one(client: httpx.AsyncClient, due: float) -> None:
        answers.append(await call(client))
        times.append((time.perf_counter() - due) * 1000)

    async with httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=100), trust_env=False) as client:
        for _ in range(_WARM):
            await call(client)
        # The caller's own garbage collection would count as the door's time.
        gc.collect()
        gc.freeze()
        start, tasks = time.perf_counter() + 0.1, []
        for n in range(RATE * SECONDS):
            due = start + n / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(client, due)))
        await asyncio.gather(*tasks)
    return times, answers


@pytest.mark.slow
async def test_cards_at_fifty_calls_a_second(addresses: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    headers = {"authorization": f"Bearer {addresses['token']}"}
    draft = {"resourceType": "Bundle", "entry": [{"resource": CT}]}

    def hook(name: str, **context: Any) -> Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]:
        url = f"{addresses['door']}/cds-services/osler-{name}"
        return lambda client: client.post(url, json=body(name, **context), headers=headers)

    lines = []
    cases = {
        "bare FastAPI route": lambda client: client.post(f"{addresses['bare']}/cds", json=body("patient-view")),
        "patient-view": hook("patient-view"),
        "order-sign, checked by the advisor": hook("order-sign", draftOrders=draft),
    }
    for name, call in cases.items():
        before = _stolen_s()
        times, answers = await drive(call)
        stolen = _stolen_s() - before
        assert {answer.status_code for answer in answers} == {200}
        if not name.startswith("bare"):
            assert all(answer.json()["cards"] for answer in answers)
        times.sort()
        p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
        lines.append((name, p50, p99, stolen))
    with capsys.disabled():
        print(f"\n{RATE} calls a second for {SECONDS} s")
        for name, p50, p99, stolen in lines:
            ratio = p50 / lines[0][1]
            print(f"{name:36} p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, {ratio:.1f} x the bare p50; stolen {stolen:.2f} s")
