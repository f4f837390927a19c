"""Alembic's environment: runs on the connection that `migrate` opened, in its transaction."""

from typing import Any, Literal

from alembic import context

from services.platform.tables import UtcDateTime

config = context.config
connection = config.attributes["connection"]
room = config.attributes["room"]
target_metadata = config.attributes.get("metadata")


def _is_of_room(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or (name is not None and name.startswith(f"{room}_"))


def _render(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """A migration names the column type of the database, which outlives our Python class."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=connection,
    target_metadata=target_metadata,
    version_table=f"alembic_version_{room}",
    include_name=_is_of_room,
    render_item=_render,
    render_as_batch=True,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
