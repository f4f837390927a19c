"""Command line: `python -m pipelines.cohort --out DIR`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipelines.cohort import demo


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.cohort",
        description="Write the synthetic demo patient: DICOM at two visits, a FHIR bundle, HL7 messages, truth.json.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to (created when missing)")
    parser.add_argument("--json", action="store_true", help="print the ground truth as JSON")
    options = parser.parse_args()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as progress:
        task = progress.add_task("starting")
        truth = demo.write(options.out, on_step=lambda step: progress.update(task, description=step))
    print(json.dumps(truth) if options.json else f"demo patient written to {options.out}")


if __name__ == "__main__":
    main()
