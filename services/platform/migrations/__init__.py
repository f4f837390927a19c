"""Schema changes: one Alembic environment for all rooms, a version table and a folder of versions for each.

`python -m services.platform.migrations.new <room> "message"` writes the next version of a room.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

from services.platform.errors import ConfigurationError

if TYPE_CHECKING:
    from services.platform.database import Database

_HERE = Path(__file__).parent
_SERVICES = _HERE.parents[1]


def versions_folder(room: str) -> Path:
    return _SERVICES / room / "migrations" / "versions"


def alembic_config(room: str) -> Config:
    """Alembic's configuration for one room. Raises ConfigurationError for a room without migrations."""
    folder = versions_folder(room)
    if not folder.is_dir():
        raise ConfigurationError(f"room {room!r} has no migrations: expected {folder}")
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["room"] = room
    return config


def migrate(database: Database, room: str) -> None:
    """Brings a room's tables to the newest version. Safe from several processes at once; all or nothing.

    Migrate "platform" first: it holds what every room needs.
    """
    config = alembic_config(room)
    with database.exclusive("migrate"), database.schema_change() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
