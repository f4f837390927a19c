"""The flow on a real Kafka broker and a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.flow import *  # noqa: F403 - the same tests in both settings
from tests.e2e.running import RunningOsler
from tests.fixtures.kafka.broker import KafkaBroker
from tests.peers import PostgresServer

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.fixture(scope="module")
def osler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningOsler]:
    """Osler with every room as a process of its own."""
    folder = tmp_path_factory.mktemp("osler")
    broker, server = KafkaBroker(folder / "kafka"), PostgresServer()
    broker.start()
    server.start()
    settings = {
        "OSLER_BUS__BACKEND": "kafka",
        "OSLER_BUS__BOOTSTRAP_SERVERS": broker.bootstrap,
        "OSLER_BUS__PARTITIONS": "2",
        "OSLER_DATABASE__URL": server.fresh_database(),
    }
    found = RunningOsler(folder / "home", settings)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        broker.stop()
        server.remove()
