"""The lake: Parquet files by event type and day, and DuckDB over them.

A file is named after its batch, so writing a batch again after a crash overwrites the same file: each event is in the
lake once. Layout: `<lake>/<event type>/date=YYYY-MM-DD/<batch>.parquet` (Hive partitioning).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from services.analytics.store import LakeRow
from services.platform.errors import OslerError, RetryableError
from services.platform.events import CATALOGUE

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([(name, _TIME if name.endswith("_time") else pa.string()) for name in LakeRow._fields])
VIEWS = Path(__file__).with_name("views.sql")


class QueryError(OslerError):
    """A query that DuckDB refuses; the message is DuckDB's own."""


def write_batch(lake: Path, batch: str, rows: Sequence[LakeRow]) -> list[Path]:
    """Writes one file for each event type and day in the batch. Raises RetryableError when the disk refuses."""
    parts: dict[tuple[str, str], list[LakeRow]] = defaultdict(list)
    for row in rows:
        parts[(row.event_type, f"{row.known_time:%Y-%m-%d}")].append(row)
    return [
        _write_part(lake / type_ / f"date={day}" / f"{batch}.parquet", part) for (type_, day), part in parts.items()
    ]


def _write_part(path: Path, rows: Sequence[LakeRow]) -> Path:
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema=SCHEMA)
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, unfinished, compression="zstd")
        os.replace(unfinished, path)
    except OSError as error:
        raise RetryableError(f"the lake cannot be written ({error.strerror}); free space or fix its folder") from error
    return path


def view_name(event_type: str) -> str:
    """`osler.study.received.v1` -> `study_received`."""
    return "_".join(event_type.removeprefix("osler.").split(".")[:-1])


def connect(lake: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB with one view for each event type (empty ones too) and the figures of `views.sql`; reads the lake only."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    empty = ", ".join(
        f"NULL::{'TIMESTAMPTZ' if name.endswith('_time') else 'VARCHAR'} AS {name}" for name in LakeRow._fields
    )
    for type_ in CATALOGUE:
        files = str(lake / type_ / "*" / "*.parquet").replace("'", "''")
        present = any((lake / type_).glob("*/*.parquet"))
        source = f"read_parquet('{files}', hive_partitioning = false)" if present else f"(SELECT {empty} LIMIT 0)"
        connection.execute(f"CREATE VIEW {view_name(type_)} AS SELECT * FROM {source}")  # noqa: S608 - names of the catalogue
    connection.execute(VIEWS.read_text(encoding="utf-8"))
    # From here on the query may read what the views read, and nothing else on this machine.
    folder = str(lake).replace("'", "''")
    connection.execute(f"SET allowed_directories = ['{folder}/']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def query(lake: Path, sql: str) -> list[dict[str, Any]]:
    """Rows of a query over the views. Raises QueryError with DuckDB's reason."""
    with connect(lake) as connection:
        try:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.Error as error:
            raise QueryError(f"the query failed: {error}") from None
