"""How much machine a number of studies needs.

    python -m pipelines.capacity measure [--single 3] [--burst 4] [--begin-when FILE] [--json]
    python -m pipelines.capacity simulate [--per-day 10000] [--policy NAME] [--gpu] [--zone-lost] [--json]
    python -m pipelines.capacity document

`measure` starts an Osler of its own, feeds it through its doors and writes `pipelines/capacity/measured.yaml`.
`simulate` says what a day of so many studies takes. `document` writes the tables and the figure of docs/capacity.md anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from pipelines.capacity import model

_NOTE = "# What a study cost when it was measured: `python -m pipelines.capacity measure`.\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="measure what a study costs on this machine (some minutes)")
    measure.add_argument("--single", type=int, default=3, help="patients sent one at a time (default 3)")
    measure.add_argument("--burst", type=int, default=4, help="patients sent at once (default 4)")
    measure.add_argument("--port", type=int, default=0, help="first of 40 free ports (default: some)")
    measure.add_argument("--begin-when", type=Path, help="all prepared, wait for this file before anything is measured")
    simulate = commands.add_parser("simulate", help="a day of a health system")
    simulate.add_argument("--per-day", type=float, default=10_000, help="studies a day (default 10000)")
    simulate.add_argument("--hours", type=float, default=24, help="hours to simulate (default 24)")
    simulate.add_argument("--policy", choices=[*model.POLICIES, "fixed"], default="schedule and delay")
    simulate.add_argument("--gpu", action="store_true", help="imaging on GPUs that start from none")
    simulate.add_argument("--zone-lost", action="store_true", help="half of the pods vanish at the busiest hour")
    simulate.add_argument("--seed", type=int, default=1)
    commands.add_parser("document", help="write docs/capacity.md and its figure")
    for command in (measure, simulate):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from pipelines.capacity.measure import measure

    console = Console(stderr=True)

    def begin() -> None:
        if options.begin_when is not None:
            console.print(f"prepared; waiting for {options.begin_when}")
            while not options.begin_when.exists():
                time.sleep(0.2)

    port = options.port or random.randrange(12_000, 31_000, 50)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="osler-capacity-") as folder:
        found = measure(Path(folder), port, options.single, options.burst, console.print, begin)
    model.MEASURED.write_text(_NOTE + yaml.safe_dump(found, sort_keys=False, width=120), encoding="utf-8")
    console.print(f"written: {model.MEASURED}")
    return found


def _simulate(options: argparse.Namespace) -> dict[str, Any]:
    costs, rules = model.measured(), model.assumptions()
    fixed = options.policy == "fixed"
    cluster = model.Cluster(
        costs, rules,
        model.pods_for(options.per_day, costs, rules, options.gpu) if fixed else dict.fromkeys(model.VISITS, 1),
        None if fixed else model.POLICIES[options.policy](rules),
        gpu=options.gpu, zone_lost=options.zone_lost, limit=10**6 if fixed else 0,
    )  # fmt: skip
    return dataclasses.asdict(cluster.run(options.per_day, options.hours, options.seed))


def main() -> None:
    options = _options()
    if options.command == "document":
        from pipelines.capacity.report import write

        for path in write():
            print(f"written: {path}")
        return
    found = _measure(options) if options.command == "measure" else _simulate(options)
    print(json.dumps(found) if options.json else yaml.safe_dump(found, sort_keys=False))


if __name__ == "__main__":
    main()
