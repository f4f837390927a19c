"""`python -m services.platform.migrations.new <room> "message"`: writes a room's next migration from its tables.

The room's `store.py` (the platform's `tables.py`) holds its MetaData as `metadata`. The newest schema is built in a
temporary database and compared with it; read what comes out before you commit it.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from alembic import command

from services.platform.database import Database, migrate
from services.platform.migrations import alembic_config, versions_folder

_USAGE = 'usage: python -m services.platform.migrations.new <room> "what changes"'


def new_migration(room: str, message: str) -> Path:
    """Writes the next version of `room` and returns its path."""
    folder = versions_folder(room)
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"services.{room}.{'tables' if room == 'platform' else 'store'}")
    number = len(list(folder.glob("*.py"))) + 1
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(f"sqlite:///{scratch}/scratch.db")
        migrate(database, room)
        config = alembic_config(room)
        config.attributes["metadata"] = module.metadata
        with database.schema_change() as connection:
            config.attributes["connection"] = connection
            script = command.revision(
                config, message, autogenerate=True, rev_id=f"{room}_{number:04d}", version_path=str(folder)
            )
        database.close()
    return Path(script.path)  # type: ignore[union-attr]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(_USAGE)
    print(new_migration(sys.argv[1], sys.argv[2]))
