"""The demo patient as files, and Osler running in both settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cohort import demo
from tests.e2e.running import RunningOsler
from tests.fixtures.kafka.broker import KafkaBroker
from tests.peers import PostgresServer


@pytest.fixture(scope="session")
def demo_patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    demo.write(folder)
    return folder


def _embedded(folder: Path) -> Iterator[RunningOsler]:
    osler = RunningOsler(folder / "home")
    osler.start()
    yield osler
    osler.stop()


def _kafka_and_postgres(folder: Path) -> Iterator[RunningOsler]:
    broker, server = KafkaBroker(folder / "kafka"), PostgresServer()
    broker.start()
    server.start()
    try:
        settings = {
            "OSLER_BUS__BACKEND": "kafka",
            "OSLER_BUS__BOOTSTRAP_SERVERS": broker.bootstrap,
            "OSLER_BUS__PARTITIONS": "2",
            "OSLER_DATABASE__URL": server.fresh_database(),
        }
        osler = RunningOsler(folder / "home", settings)
        osler.start()
        yield osler
        osler.stop()
    finally:
        broker.stop()
        server.remove()


SETTINGS = {"embedded": _embedded, "kafka+postgres": _kafka_and_postgres}


@pytest.fixture(
    scope="session",
    params=[
        "embedded",
        pytest.param("kafka+postgres", marks=[pytest.mark.kafka, pytest.mark.postgres]),
    ],
)
def osler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningOsler]:
    """Osler with every room as a process of its own."""
    yield from SETTINGS[request.param](tmp_path_factory.mktemp("osler"))
