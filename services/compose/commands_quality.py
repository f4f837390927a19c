"""The command `quality`: the gate on a folder or a file, before or without sending it anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from services.compose.console import Json, print_json, print_rows
from services.platform.errors import OslerError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from services.imaging.quality import Quality


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(quality)


def quality(
    path: Annotated[Path, typer.Argument(help="DICOM file, or folder with DICOM files at any depth.", exists=True)],
    as_json: Json = False,
) -> None:
    """Judges each image series: accept, warn or reject, why, and what to do before the patient leaves.

    Looks at missing slices and geometry, motion, noise, cut-off anatomy, contrast phase and protocol, laterality, burned-in
    text and implausible SUV. Nothing is stored or sent. Exit status: 0 when all are accepted or warned about, 2 when one is
    rejected. Example: `osler quality ./scan --json | jq '.[] | select(.verdict != "accept")'`.
    """
    from rich.progress import track

    from services.imaging.quality import Verdict, assess_series

    rows: list[dict[str, Any]] = []
    groups = _series(path)
    for datasets in track(groups, "judging", console=Console(stderr=True), disable=as_json or len(groups) < 2):
        rows.append(_row(datasets, assess_series(datasets)))
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            title = f"{row['verdict'].upper()}: {row['modality']}, {row['instances']} image(s), series {row['series']}"
            print_rows(title, row["issues"], f"{title}: nothing to mend")
    raise typer.Exit(2 if any(row["verdict"] == Verdict.REJECT.name.lower() for row in rows) else 0)


def _series(path: Path) -> list[list[Dataset]]:
    """Image instances under `path`, by series, in the order of their UIDs."""
    import pydicom

    from services.clinical.dicom.pixels import PIXEL_KEYWORDS, open_instance
    from services.imaging.routing import rules

    found: dict[str, list[Dataset]] = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        try:
            dataset = open_instance(file)
        except (pydicom.errors.InvalidDicomError, EOFError, OSError):
            continue
        held = any(keyword in dataset for keyword in PIXEL_KEYWORDS) or "Rows" in dataset
        if held and str(dataset.get("Modality", "")) not in rules()["not_volumes"]:
            found.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    if not found:
        raise OslerError(f"no DICOM images in {path}; name a folder or a file that holds some")
    return [found[uid] for uid in sorted(found)]


def _row(datasets: list[Dataset], judged: Quality) -> dict[str, Any]:
    return {
        "series": judged.series_instance_uid,
        "modality": str(datasets[0].get("Modality", "") or ""),
        "instances": len(datasets),
        "verdict": judged.verdict.name.lower(),
        "issues": [
            {"verdict": i.verdict.name.lower(), "code": i.code, "what": i.message, "what_to_do": i.remedy}
            for i in judged.issues
        ],
    }
