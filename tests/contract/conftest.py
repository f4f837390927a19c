"""Both sides of each pair: the SQLite log and a real Kafka broker, SQLite and a real PostgreSQL server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.errors import UnknownTopicOrPartitionError

from services.platform.blobs import BlobStore
from services.platform.bus import EventLog, KafkaEventLog, SqliteEventLog
from services.platform.database import Database, migrate
from services.platform.deadletter import register_replay
from services.platform.quarantine import Quarantine
from tests.fixtures.kafka.broker import KafkaBroker
from tests.peers import PostgresServer

PARTITIONS = 4
_KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
_POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", _KAFKA])
def bus_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["sqlite", _POSTGRES])
def database_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["embedded", pytest.param("servers", marks=[pytest.mark.kafka, pytest.mark.postgres])])
def setting(request: pytest.FixtureRequest) -> str:
    """SQLite everywhere, or Kafka with PostgreSQL."""
    return request.param


@pytest.fixture
def log(bus_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    yield from _open_log(bus_kind, request, tmp_path)


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _url(database_kind, request, tmp_path)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    yield from _open_database(database_url)


@pytest.fixture
def setting_log(setting: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    yield from _open_log("sqlite" if setting == "embedded" else "kafka", request, tmp_path)


@pytest.fixture
def setting_url(setting: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _url("sqlite" if setting == "embedded" else "postgres", request, tmp_path)


@pytest.fixture
def setting_database(setting_url: str) -> Iterator[Database]:
    yield from _open_database(setting_url)


@pytest.fixture
def quarantine(setting_database: Database, setting_log: EventLog, tmp_path: Path) -> Quarantine:
    quarantine = Quarantine(setting_database, BlobStore(f"file://{tmp_path}/blobs"))
    register_replay(quarantine, setting_log)
    return quarantine


def _open_log(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    if kind == "sqlite":
        log: EventLog = SqliteEventLog(tmp_path / "events.db", PARTITIONS)
        yield log
        log.close()
        return
    broker: KafkaBroker = request.getfixturevalue("kafka_broker")
    log = KafkaEventLog(broker.bootstrap, partitions=PARTITIONS, patience_s=10, session_s=3)
    yield log
    log.close()
    _empty(broker)


def _empty(broker: KafkaBroker) -> None:
    """Deletes all topics and groups."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    with contextlib.suppress(UnknownTopicOrPartitionError):  # listed, yet just deleted
        admin.delete_topics([name for name in admin.list_topics() if not name.startswith("__")])
    admin.delete_groups([group["group_id"] for group in admin.list_groups()])
    admin.close()


def _url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.fresh_database()


def _open_database(url: str) -> Iterator[Database]:
    database = Database(url)
    migrate(database, "platform")
    yield database
    database.close()
