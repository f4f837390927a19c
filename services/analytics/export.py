"""Figures for others: whole tables of counts, with small cells left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from services.analytics import lake
from services.analytics.settings import monitor
from services.platform.errors import OslerError

# Views without a patient in them, and the columns that count patients or what stands for them.
COUNTS: dict[str, tuple[str, ...]] = {
    "volumes": ("events", "patients"),
    "turnaround_by_step": ("runs",),
    "late_events": ("events", "later_than_a_day"),
    "alert_acceptance": ("answered", "accepted"),
    "card_outcomes": ("cards",),
    "adherence_by_rule": ("done", "not_done", "still_open"),
    "duplicates_avoided": ("warnings", "accepted", "avoided"),
}


def rows_of(folder: Path, view: str) -> list[dict[str, Any]]:
    """Rows of a view of `COUNTS`. Where a count is 1 to 10 (`monitor.yaml`) every figure of the row is None.

    Raises OslerError for other views: they hold rows of single patients.
    """
    if view not in COUNTS:
        raise OslerError(f"{view!r} cannot be given away: it is no table of counts; these are: {', '.join(COUNTS)}")
    least = monitor().least_cell
    rows = []
    for row in lake.query(folder, f"SELECT * FROM {view}"):  # noqa: S608 - a name of COUNTS
        small = any(0 < (row[name] or 0) < least for name in COUNTS[view])
        figures = {name for name, value in row.items() if isinstance(value, int | float)} | set(COUNTS[view])
        shown = {name: None if small and name in figures else value for name, value in row.items()}
        # What was commonest among few says who they were.
        if small and "commonest_override" in shown:
            shown["commonest_override"] = None
        rows.append({**shown, "suppressed": small})
    return rows


def write(folder: Path, view: str, out: Path) -> int:
    """Writes a view as CSV or Parquet, by the name's ending; the number of rows. Raises OslerError for another ending."""
    rows = rows_of(folder, view)
    table = pa.Table.from_pylist(rows)
    if out.suffix == ".csv":
        pyarrow.csv.write_csv(table, out)
    elif out.suffix == ".parquet":
        pq.write_table(table, out)
    else:
        raise OslerError(f"{out.name}: name the file .csv or .parquet")
    return len(rows)
