"""Commands about figures: `osler analytics query|check|drift|fairness|forecasts|export`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from services.compose.console import Json, context_of, foundations_of, print_json, print_rows, wide_console
from services.platform.errors import OslerError

analytics_app = typer.Typer(
    help="Figures from the lake that keeps every event: what came, how long it took, what was advised and done, and whether"
    " the models still hold.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(analytics_app, name="analytics")


@contextmanager
def _lake(ctx: typer.Context) -> Iterator[Path]:
    from services.analytics.room import lake_folder

    yield lake_folder(context_of(ctx).settings())


def _print(title: str, rows: Sequence[dict[str, Any]], empty: str, as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_rows(title, [{name: _short(value) for name, value in row.items()} for row in rows], empty)


def _short(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value


@analytics_app.command("query")
def query(
    ctx: typer.Context,
    sql: Annotated[
        str,
        typer.Argument(
            help='DuckDB SQL over the views, e.g. "SELECT * FROM volumes". `osler analytics views` lists them.'
        ),
    ],
    as_json: Json = False,
) -> None:
    """Asks the lake in SQL. It reads the lake and nothing else on this machine."""
    from services.analytics import lake

    with _lake(ctx) as folder:
        rows = lake.query(folder, sql)
    if as_json:
        print_json(rows)
    else:
        print_rows("", rows, "no rows")


@analytics_app.command("views")
def views(ctx: typer.Context, as_json: Json = False) -> None:
    """Lists the views with their columns and how many rows each has."""
    from services.analytics import lake

    sql = "SELECT table_name AS view, string_agg(column_name, ', ' ORDER BY column_index) AS columns FROM duckdb_columns()"
    with _lake(ctx) as folder:
        rows = lake.query(folder, f"{sql} WHERE NOT internal GROUP BY table_name ORDER BY table_name")
        for row in rows:
            row["rows"] = lake.query(folder, f'SELECT count(*) AS n FROM "{row["view"]}"')[0]["n"]  # noqa: S608 - from the catalogue of views
    _print("Views", rows, "", as_json)


@analytics_app.command("check")
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Compares the lake with the stream: every event, once, with the same content. Ends with code 2 where they differ.

    An event that waits for the next file (at most 20 s) counts as a difference: run it again.
    """
    from services.analytics import store
    from services.analytics.reconcile import reconcile
    from services.analytics.room import lake_folder

    with foundations_of(ctx, ["analytics"]) as foundations, wide_console(stderr=True).status("reading") as status:
        with foundations.database.session() as session:
            waiting = store.waiting_ids(session)
        accounts = reconcile(
            foundations.log, lake_folder(foundations.settings), waiting, lambda topic: status.update(f"reading {topic}")
        )
    rows = [
        {name: value for name, value in asdict(partition).items() if not name.startswith("_")}
        for account in accounts
        for partition in account.partitions
    ]
    topics = [
        {"topic": a.topic, "equal": a.equal, "doubled": a.doubled, "only_in_lake": a.only_in_lake} for a in accounts
    ]
    if as_json:
        print_json({"equal": all(a.equal for a in accounts), "topics": topics, "partitions": rows})
    else:
        print_rows("Partitions", rows, "the stream is empty")
        print_rows("Topics", topics, "")
    raise typer.Exit(0 if all(a.equal for a in accounts) else 2)


@analytics_app.command("drift")
def drift(
    ctx: typer.Context,
    days: Annotated[int, typer.Option(min=1, help="Compare what came in the last days with all before.")] = 28,
    as_json: Json = False,
) -> None:
    """Shows whether measurements, risks, forecasts and priorities have changed. Ends with code 2 on an alarm.

    One value of each patient counts. The chance of any alarm while nothing changed is 1 % for each run.
    """
    from services.analytics.figures import drift_of

    with _lake(ctx) as folder:
        rows = [asdict(row) for row in drift_of(folder, datetime.now(UTC) - timedelta(days=days))]
    _print(f"Last {days} days against before", rows, "no signals yet", as_json)
    raise typer.Exit(2 if any(row["verdict"] == "alarm" for row in rows) else 0)


@analytics_app.command("fairness")
def fairness(
    ctx: typer.Context,
    outcome: Annotated[str, typer.Argument(help="rejected, warned, refused (an analysis) or lesion (one was found).")],
    by: Annotated[str, typer.Option(help="sex, age, site, scanner or manufacturer.")] = "sex",
    as_json: Json = False,
) -> None:
    """Shows how often something happens to studies by group, with the interval and the difference from everyone else.

    One study of each patient counts. Groups in which fewer than 11 had the outcome, or had it not, are not shown.
    """
    from services.analytics.figures import ATTRIBUTES, OUTCOMES, fairness_of

    attribute = next((name for name in ATTRIBUTES if name == by), None)
    if outcome not in OUTCOMES or attribute is None:
        raise OslerError(f"outcomes: {', '.join(OUTCOMES)}; --by: {', '.join(ATTRIBUTES)}")
    with _lake(ctx) as folder:
        rows = [asdict(row) | {"differs": row.differs} for row in fairness_of(folder, outcome, attribute)]
    _print(f"{outcome} by {by}", rows, "no studies yet", as_json)


@analytics_app.command("forecasts")
def forecasts(ctx: typer.Context, as_json: Json = False) -> None:
    """Holds the twin's forecasts beside what came later: shares inside the bands by month, and calibration."""
    from services.analytics.figures import calibration_of, coverage_of

    with _lake(ctx) as folder:
        covered, calibrated = coverage_of(folder), calibration_of(folder)
    if as_json:
        print_json(
            {"coverage": [asdict(row) for row in covered], "calibration": asdict(calibrated) if calibrated else None}
        )
        return
    empty = "no forecast has met its next measurement yet"
    _print("Forecasts and the next measurement", [asdict(row) for row in covered], empty, False)
    if calibrated is None:
        wide_console().print("no forecast probability of progression has met its truth yet")
        return
    wide_console().print(
        f"{calibrated.count} probabilities of progression: Brier {calibrated.brier:.3f}, calibration error "
        f"{calibrated.expected_calibration_error:.3f}, Spiegelhalter p {calibrated.p:.3f}"
    )
    _print("Probability of progression", [asdict(row) for row in calibrated.bins], "", False)


@analytics_app.command("export")
def export(
    ctx: typer.Context,
    view: Annotated[str, typer.Argument(help="A table of counts, e.g. volumes; a wrong name lists them.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv or .parquet.")],
    as_json: Json = False,
) -> None:
    """Writes figures to give away. Rows with a count of 1 to 10 keep their name and lose their figures."""
    from services.analytics.export import write

    with _lake(ctx) as folder:
        count = write(folder, view, out)
    if as_json:
        print_json({"view": view, "file": str(out), "rows": count})
    else:
        wide_console().print(f"{count} rows of {view} written to {out}")
