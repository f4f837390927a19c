"""Settings and faults of the SQLite side that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from services.platform import sqlite
from services.platform.database import Database, migrate
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.migrations.new import new_migration
from services.platform.tables import OUTBOX


@pytest.mark.parametrize("url", ["not a url", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_work_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"database\.url"):
        Database(url)


def test_a_full_database_is_a_passing_fault(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate(database, "platform")
    with pytest.raises(RetryableError, match="free space"), database.transaction("test") as transaction:  # noqa: PT012
        connection = transaction.session.connection()
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # the file may not grow any more
        connection.exec_driver_sql("CREATE TABLE filler AS SELECT randomblob(1000000) AS bytes")
    database.close()


def test_a_database_that_another_process_holds_is_a_passing_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PRAGMAS", ("PRAGMA busy_timeout = 50", *sqlite._PRAGMAS[1:]))
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate(database, "platform")
    with database.transaction("test") as holder:
        holder.session.execute(sa.delete(OUTBOX))
        with pytest.raises(RetryableError, match="locked"), database.transaction("test") as late:
            late.session.execute(sa.delete(OUTBOX))
        with database.session() as reader:
            assert reader.scalar(sa.select(sa.func.count()).select_from(OUTBOX)) == 0
    database.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RetryableError, match="cannot be made"):
        Database(f"sqlite:///{tmp_path}/file/state.db")


def test_a_room_without_migrations_is_named(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/state.db")
    with pytest.raises(ConfigurationError, match="no_such_room"):
        migrate(database, "no_such_room")
    database.close()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "broken_0001.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision = 'broken_0001'\ndown_revision = None\n"
        "def upgrade():\n"
        "    op.create_table('broken_half', sa.Column('id', sa.Integer, primary_key=True))\n"
        "    op.execute('SELECT * FROM there_is_no_such_table')\n"
    )
    monkeypatch.setattr("services.platform.migrations.versions_folder", lambda _room: folder)
    database = Database(f"sqlite:///{tmp_path}/state.db")
    with pytest.raises(sa.exc.OperationalError):
        migrate(database, "broken")
    assert sa.inspect(database.engine).get_table_names() == []
    database.close()


def test_a_new_migration_holds_what_the_tables_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "versions"
    for module in ("services.platform.migrations", "services.platform.migrations.new"):
        monkeypatch.setattr(f"{module}.versions_folder", lambda _room: folder)
    text = new_migration("platform", "all tables").read_text()
    assert "revision = 'platform_0001'" in text
    assert "create_table('platform_outbox'" in text
    assert "services.platform" not in text
    assert "create_table" not in new_migration("platform", "nothing").read_text()
