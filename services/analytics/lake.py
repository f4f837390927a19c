"""The lake: Parquet files by event type and day, and DuckDB over them.

A file is named after its batch, so writing a batch again after a crash overwrites the same file: each event is in the
lake once. Layout: `<lake>/<event type>/date=YYYY-MM-DD/<batch>.parquet` (Hive partitioning).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from services.analytics.store import LakeRow
from services.platform.errors import OslerError, RetryableError
from services.platform.events import CATALOGUE

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([(name, _TIME if name.endswith("_time") else pa.string()) for name in LakeRow._fields])
_HERE = Path(__file__).parent
VIEWS = sorted((_HERE / "views").glob("*.sql"))
ORDERS = _HERE / "order_modality.yaml"


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
    """DuckDB with one view for each event type (empty ones too), `events`, and those of `views/`; reads the lake only."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    empty = ", ".join(
        f"NULL::{'TIMESTAMPTZ' if name.endswith('_time') else 'VARCHAR'} AS {name}" for name in LakeRow._fields
    )
    for type_ in CATALOGUE:
        files = str(lake / type_ / "*" / "*.parquet").replace("'", "''")
        source = f"(SELECT {empty} LIMIT 0)"
        if any((lake / type_).glob("*/*.parquet")):
            # Files of before a column was added have none.
            read = f"read_parquet('{files}', hive_partitioning = false, union_by_name = true)"
            source += f" UNION ALL BY NAME SELECT * FROM {read}"  # noqa: S608 - names of the catalogue
        connection.execute(f"CREATE VIEW {view_name(type_)} AS {source}")
    union = " UNION ALL ".join(f"SELECT * FROM {view_name(type_)}" for type_ in CATALOGUE)  # noqa: S608 - names of the catalogue
    connection.execute(f"CREATE VIEW events AS {union}")
    connection.execute("CREATE TABLE order_modality (code VARCHAR PRIMARY KEY, modality VARCHAR)")
    orders = yaml.safe_load(ORDERS.read_text(encoding="utf-8"))["orders"]
    connection.executemany("INSERT INTO order_modality VALUES (?, ?)", list(orders.items()))
    for views in VIEWS:
        connection.execute(views.read_text(encoding="utf-8"))
    # From here on the query may read what the views read, and nothing else on this machine.
    folder = str(lake).replace("'", "''")
    connection.execute(f"SET allowed_directories = ['{folder}/']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def query(lake: Path, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows of a query over the views; `values` for its `$names`. Raises QueryError with DuckDB's reason."""
    with connect(lake) as connection:
        try:
            cursor = connection.execute(sql, dict(values) if values else None)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.Error as error:
            raise QueryError(f"the query failed: {error}") from None
