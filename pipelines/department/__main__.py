"""What the order of the worklist does to critical studies.

    python -m pipelines.department [--days 14] [--replications 20] [--seed 1] [--set studies_per_day=320] [--json]

Assumptions are in `department.yaml`; `--set` changes one of them.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipelines.department.compare import compare
from pipelines.department.model import parameters

_ROWS = {
    "immediate_mean": "critical (immediate): mean",
    "immediate_p95": "critical (immediate): 95th percentile",
    "immediate_within_60": "critical (immediate): share read within 60 min",
    "immediate_flagged_mean": "  of these flagged by imaging: mean",
    "immediate_missed_mean": "  of these missed by imaging: mean",
    "hours_mean": "critical (hours): mean",
    "others_mean": "others: mean",
    "others_p95": "others: 95th percentile",
    "longest": "longest of all",
    "overtaken_by": "most by which a later study was read before an earlier one",
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.department",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", type=int, default=14, help="days of a replication (default 14)")
    parser.add_argument("--replications", type=int, default=20, help="replications (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first replication (default 1)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an assumption, changed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def main() -> None:
    options = _options()
    rows = parameters()
    for change in options.set:
        name, _, value = change.partition("=")
        if name not in rows:
            raise SystemExit(f"department.yaml has no {name!r}; it has {', '.join(rows)}")
        rows[name] = yaml.safe_load(value)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("simulating", total=options.replications)
        result = compare(
            rows,
            options.days,
            options.replications,
            options.seed,
            lambda done, total: progress.update(task, completed=done),
        )
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    title = f"Turnaround in minutes, {result['replications']} x {result['days']} days, load {result['load']:.2f}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in result["orders"]:
        table.add_column(name, justify="right")
    for key, words in _ROWS.items():
        cells = [order[key] for order in result["orders"].values()]
        digits = 2 if key == "immediate_within_60" else 0
        table.add_row(words, *(f"{c['mean']:.{digits}f} ± {c['half']:.{digits}f}" for c in cells))
    console = Console(width=140)
    console.print(table)
    difference = result["difference_to_fifo"]["osler"]["immediate_mean"]
    console.print(
        f"osler against fifo on the same studies: critical studies {difference['mean']:+.0f} ± {difference['half']:.0f} min; "
        f"bound on overtaking {result['overtaking_bound_minutes']:.0f} min"
    )


if __name__ == "__main__":
    main()
