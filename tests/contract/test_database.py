"""Transactions, migrations and locks, checked on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from services.platform.database import Database, migrate, room_metadata
from services.platform.errors import RetryableError
from services.platform.tables import AUDIT, OUTBOX, UtcDateTime
from tests.contract.events import AT, study_event
from tests.contract.processes import forkserver
from tests.peers import PostgresServer

_metadata = room_metadata()
COUNTER = sa.Table(
    "test_counter",
    _metadata,
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
    sa.Column("at", UtcDateTime),
)


@pytest.fixture
def counter(database: Database) -> Database:
    _metadata.create_all(database.engine)
    with database.transaction("test") as transaction:
        transaction.session.execute(sa.insert(COUNTER).values(name="a", value=0, at=AT))
    return database


def _value(database: Database) -> int:
    with database.session() as session:
        return session.scalar(sa.select(COUNTER.c.value)) or 0


def _outbox_size(database: Database) -> int:
    with database.session() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(OUTBOX)) or 0


def test_rows_and_events_commit_together(counter: Database) -> None:
    with counter.transaction("test") as transaction:
        transaction.session.execute(sa.update(COUNTER).values(value=1))
        transaction.emit(study_event("1"))
    assert (_value(counter), _outbox_size(counter)) == (1, 1)


def test_rows_and_events_vanish_together(counter: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError), counter.transaction("test") as transaction:  # noqa: PT012
        transaction.session.execute(sa.update(COUNTER).values(value=1))
        transaction.emit(study_event("1"))
        transaction.session.execute(sa.insert(COUNTER).values(name="a", value=0))
    assert (_value(counter), _outbox_size(counter)) == (0, 0)


def test_the_same_event_id_is_announced_once(database: Database) -> None:
    for _ in range(2):
        with database.transaction("test") as transaction:
            transaction.emit(study_event("1"))
            transaction.emit(study_event("1"))
    assert _outbox_size(database) == 1


def test_an_event_that_should_travel_by_reference_is_refused(database: Database) -> None:
    huge = study_event("1")
    with pytest.raises(ValueError, match="blob storage"), database.transaction("test") as transaction:
        transaction.emit(type(huge)(**{**huge.__dict__, "data": bytes(800 * 1024)}))
    assert _outbox_size(database) == 0


def test_a_read_session_cannot_write(counter: Database) -> None:
    with pytest.raises(DBAPIError, match=r"read-?only"), counter.session() as session:
        session.execute(sa.update(COUNTER).values(value=1))
    with counter.transaction("test") as transaction:
        transaction.session.execute(sa.update(COUNTER).values(value=2))
    assert _value(counter) == 2


def test_a_read_session_sees_one_snapshot(counter: Database) -> None:
    with counter.session() as session:
        before = session.scalar(sa.select(COUNTER.c.value))
        with counter.transaction("test") as transaction:
            transaction.session.execute(sa.update(COUNTER).values(value=9))
        assert session.scalar(sa.select(COUNTER.c.value)) == before
    assert _value(counter) == 9


def test_times_come_back_aware_and_in_utc(counter: Database) -> None:
    with counter.session() as session:
        assert session.scalar(sa.select(COUNTER.c.at)) == AT
        assert session.scalar(sa.select(COUNTER.c.at)).tzinfo is UTC
    with pytest.raises(sa.exc.StatementError, match="without a zone"), counter.transaction("test") as transaction:
        transaction.session.execute(sa.update(COUNTER).values(at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_writers_in_many_threads_wait_for_each_other(counter: Database) -> None:
    def add() -> None:
        for _ in range(10):
            with counter.transaction("test") as transaction:
                value = transaction.session.scalar(sa.select(COUNTER.c.value).with_for_update())
                transaction.session.execute(sa.update(COUNTER).values(value=value + 1))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _value(counter) == 60


def _migrate(url: str, failures) -> None:
    try:
        database = Database(url)
        migrate(database, "platform")
        database.close()
    except Exception as error:
        failures.put(repr(error))


def test_processes_that_migrate_at_once_do_not_collide(database_url: str) -> None:
    failures = forkserver.Queue()
    processes = [forkserver.Process(target=_migrate, args=(database_url, failures)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert failures.empty(), failures.get()
    database = Database(database_url)
    migrate(database, "platform")
    with database.session() as session:
        assert session.scalar(sa.text("SELECT version_num FROM alembic_version_platform")).startswith("platform_")
    database.close()


def test_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from services.platform.tables import metadata

    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: name != "test_counter"}
        )
        differences = [change for change in compare_metadata(context, metadata) if change[0] != "remove_table"]
    assert differences == []


_AUDIT_ROW = {
    "at": AT,
    "principal": "p",
    "action": "read",
    "resource_type": "case",
    "resource_id_hash": "",
    "outcome": "success",
    "trace_id": "",
    "detail_json": "{}",
    "prev_hash": "",
    "hash": "a",
}


@pytest.mark.parametrize("change", [sa.update(AUDIT).values(principal="q"), sa.delete(AUDIT)], ids=["update", "delete"])
def test_the_audit_trail_cannot_be_changed(database: Database, change) -> None:
    with database.transaction("platform") as transaction:
        transaction.session.execute(sa.insert(AUDIT).values(_AUDIT_ROW))
    with pytest.raises(DBAPIError, match="append-only"), database.transaction("platform") as transaction:
        transaction.session.execute(change)
    with database.session() as session:
        assert session.scalar(sa.select(AUDIT.c.principal)) == "p"


def _hold(url: str, held, release) -> None:
    database = Database(url)
    with database.exclusive("thing"):
        held.set()
        release.wait(30)


def test_a_lock_holds_between_processes_and_goes_with_a_process_that_dies(
    database: Database, database_url: str
) -> None:
    held, release = forkserver.Event(), forkserver.Event()
    holder = forkserver.Process(target=_hold, args=(database_url, held, release))
    holder.start()
    assert held.wait(30)
    with database.exclusive("thing", wait=False) as mine:
        assert not mine
    with database.exclusive("another thing", wait=False) as mine:
        assert mine
    holder.kill()
    with database.exclusive("thing") as mine:
        assert mine
    holder.join()


@pytest.mark.postgres
def test_a_server_that_is_down_is_a_passing_fault() -> None:
    server = PostgresServer()
    server.start()
    database = Database(server.fresh_database())
    migrate(database, "platform")
    server.stop(how="immediate")
    with pytest.raises(RetryableError), database.transaction("test") as transaction:
        transaction.emit(study_event("1"))
    server.start()
    with database.transaction("test") as transaction:
        transaction.emit(study_event("1"))
    assert _outbox_size(database) == 1
    database.close()
    server.remove()
