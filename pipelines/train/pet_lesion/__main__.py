"""The command: train the PET lesion networks, measure trained ones again, or show where they fail."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

from pipelines.train.common import DataError, rounded
from pipelines.train.pet_lesion import fit
from pipelines.train.pet_lesion.bundle import Track, cross_validate, read_members, write_bundle
from pipelines.train.pet_lesion.data import Patient, load_patient, patient_ids
from pipelines.train.pet_lesion.gallery import write_gallery
from pipelines.train.pet_lesion.run import fit_folds
from services.platform.errors import RefusedError

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)
DEFAULTS = fit.Recipe()
MODEL = Path("models/pet-lesion")

Data = Annotated[
    Path,
    typer.Option(
        envvar="OSLER_PET_LESION_DATA",
        help="Folder with NAME/PET_image.nii.gz (SUV by body weight) and NAME/PET_mask.nii.gz for each patient.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, in place of bars and tables.")]
Bundle = Annotated[Path, typer.Option(help="Bundle folder.")]


def _load(data: Path, as_json: bool) -> list[Patient]:
    return [load_patient(data, one) for one in track(patient_ids(data), "reading patients", disable=as_json)]


def _bar(as_json: bool) -> Track:
    def bar(patients: Iterable[Patient]) -> Iterable[Patient]:
        return track(list(patients), "held-out patients", disable=as_json)

    return bar


def _reporter(bars: Progress, as_json: bool, fold: int) -> fit.Report:
    task = None if as_json else bars.add_task(f"fold {fold}", total=None, figures="")

    def report(one: fit.Progress) -> None:
        if task is None:
            line = {"fold": fold, "epoch": one.epoch, "of": one.epochs, "loss": round(one.loss, 4)}
            print(json.dumps({**line, "seconds": round(one.seconds, 1)}), flush=True)
            return
        bars.update(task, completed=one.epoch, total=one.epochs, figures=f"loss {one.loss:.3f}")

    return report


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rounded(summary)))
        return
    table = Table("given", "Dice, median", "95 % interval", "mean", title=f"{summary['patients']} held-out patients")
    for name, one in {**summary["model"], **summary["thresholds"]}.items():
        interval = f"{one['dice']['ci95_low']:.3f} to {one['dice']['ci95_high']:.3f}"
        table.add_row(name, f"{one['dice']['median']:.3f}", interval, f"{one['dice_mean']['mean']:.3f}")
    Console().print(table)


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    data: Data = Path("."),
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")] = MODEL,
    work: Annotated[Path, typer.Option(help="Where finished networks are kept.")] = Path("var/train/pet-lesion"),
    resume: Annotated[bool, typer.Option(help="Do not fit again what lies in --work.")] = False,
    only: Annotated[str, typer.Option(help="Fit only these folds, such as '0,3', and write no bundle yet.")] = "",
    epochs: Annotated[
        int, typer.Option(help="Passes over the sampled voxels (under 1 s each on one core).")
    ] = DEFAULTS.epochs,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and variation.")] = DEFAULTS.seed,
    as_json: AsJson = False,
) -> None:
    """Train one network for each of five folds, take cross-validated figures, and write the bundle with its card.

    About a minute on one core; stopped and started again with --resume it goes on with the next fold:

        python -m pipelines.train.pet_lesion --data DIR --out models/pet-lesion --work WORK --resume
    """
    if context.invoked_subcommand is not None:
        return
    recipe = replace(DEFAULTS, epochs=epochs, seed=seed)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    try:
        folds = [int(part) for part in only.split(",")] if only else None
        patients = _load(data, as_json)
        with Progress(*columns, TextColumn("{task.fields[figures]}"), disable=as_json) as bars:
            members = fit_folds(patients, recipe, work, lambda fold: _reporter(bars, as_json, fold), resume, folds)
        if not only and members:
            _show(write_bundle(out, members, patients, recipe, _bar(as_json)), as_json)
    except (DataError, ValueError, IndexError) as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def evaluate(
    data: Data = Path("."),
    bundle: Bundle = MODEL,
    out: Annotated[Path | None, typer.Option(help="Where the figures go. Default: the bundle's docs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle again by cross-validation: each patient by the network that never saw it.

    python -m pipelines.train.pet_lesion evaluate --data DIR --bundle models/pet-lesion --json
    """
    torch.set_num_threads(1)
    try:
        members = read_members(bundle)
        summary = cross_validate(members, _load(data, as_json), out or bundle / "docs", _bar(as_json))
    except (DataError, RefusedError) as error:
        raise typer.BadParameter(str(error)) from error
    _show(summary, as_json)


@app.command()
def gallery(
    data: Data = Path("."),
    bundle: Bundle = MODEL,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/pet-lesion"),
    count: Annotated[int, typer.Option(min=1, max=31, help="How many patients.")] = 6,
) -> None:
    """Draw the patients with the lowest Dice: the expert's outline green, the network's red.

    python -m pipelines.train.pet_lesion gallery --data DIR --out OUT
    """
    torch.set_num_threads(1)
    try:
        shown = write_gallery(read_members(bundle), _load(data, False), out, count)
    except (DataError, RefusedError) as error:
        raise typer.BadParameter(str(error)) from error
    print(f"{', '.join(shown)}: {out / 'gallery.png'}")


if __name__ == "__main__":
    app(prog_name="python -m pipelines.train.pet_lesion")
