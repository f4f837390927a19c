"""What the commands share: where settings come from, and how answers are printed.

Commands import what they need when they run, so that `osler --help` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from services.compose.rooms import Foundations
    from services.platform.config import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@dataclass(frozen=True)
class Context:
    """The options before the command's name."""

    home: Path | None = None
    config: Path | None = None

    def settings(self) -> Settings:
        from services.platform.config import Settings

        overrides = {"home": self.home} if self.home else {}
        return Settings.load(self.config, **overrides)


def context_of(ctx: typer.Context) -> Context:
    found = ctx.obj
    return found if isinstance(found, Context) else Context()


@contextmanager
def foundations_of(ctx: typer.Context, rooms: Sequence[str] = ()) -> Iterator[Foundations]:
    """Log, database and blobs of the installation, with the tables that the command needs."""
    from services.compose.rooms import lay_foundations, migrate_all

    foundations = lay_foundations(context_of(ctx).settings())
    try:
        migrate_all(foundations.database, rooms)
        yield foundations
    finally:
        foundations.close()


def wide_console(*, stderr: bool = False) -> Console:
    """The terminal as it is; 160 columns when the output goes to a file or a pipe."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=160)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=1, default=str, ensure_ascii=False))


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    """Rows of the same keys as a table; `empty` when there are none."""
    console = wide_console()
    if not rows:
        console.print(empty)
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
