"""The command: train the pneumonia ensemble, measure a trained one again, or show where it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipelines.train.common import DataError, rounded, write_json
from pipelines.train.pneumonia import fit
from pipelines.train.pneumonia.bundle import read_fitted, write_bundle
from pipelines.train.pneumonia.data import PARTS, load_part
from pipelines.train.pneumonia.evaluate import fitted, summarise
from pipelines.train.pneumonia.gallery import write_gallery
from pipelines.train.pneumonia.run import fit_ensemble
from services.platform.errors import RefusedError

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)
DEFAULTS = fit.Recipe()

Data = Annotated[
    Path,
    typer.Option(envvar="OSLER_PNEUMONIA_DATA", help="pneumoniamnist_train_val.npz of MedMNIST v2, or its folder."),
]
Bundle = Annotated[Path, typer.Option(help="Bundle folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, in place of bars and tables.")]
PartName = Annotated[str, typer.Option(help=f"Part of the set to measure on: {', '.join(PARTS)}.")]
MODEL = Path("models/pneumonia")


def _reporter(bars: Progress, as_json: bool) -> fit.Report:
    tasks: dict[int, Any] = {}

    def report(one: fit.Progress) -> None:
        if as_json:
            line = {"fold": one.fold, "epoch": one.epoch, "of": one.epochs, "loss": round(one.loss, 4)}
            print(json.dumps({**line, "seconds": round(one.seconds, 1)}), flush=True)
            return
        if one.fold not in tasks:
            tasks[one.fold] = bars.add_task(f"fold {one.fold}", total=one.epochs, figures="")
        bars.update(tasks[one.fold], completed=one.epoch, figures=f"loss {one.loss:.3f}")

    return report


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rounded(summary)))
        return
    table = Table("figure", "value", "95 % interval", title=f"{summary['images']} images no member was fitted on")
    rows = {"AUC": summary["auc"], "ECE": summary["calibration"]["ece"], **summary["at_half"]}
    for name, one in rows.items():
        table.add_row(name, f"{one['value']:.3f}", f"{one['ci95_low']:.3f} to {one['ci95_high']:.3f}")
    Console().print(table)


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    data: Data = Path("."),
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")] = MODEL,
    work: Annotated[Path, typer.Option(help="Where finished members are kept.")] = Path("var/train/pneumonia"),
    resume: Annotated[bool, typer.Option(help="Do not fit again what lies in --work.")] = False,
    only: Annotated[str, typer.Option(help="Fit only these folds, such as '0,3', and write no bundle yet.")] = "",
    epochs: Annotated[
        int, typer.Option(help="Passes over the rarer class, twice each (3 s on one core).")
    ] = DEFAULTS.epochs,
    seed: Annotated[int, typer.Option(help="Seed of folds, weights, order and variation.")] = DEFAULTS.seed,
    as_json: AsJson = False,
) -> None:
    """Train the five members, calibrate them inside the training part, and write the bundle with its card.

    About 8 minutes on one core; stopped and started again with --resume it goes on with the next fold:

        python -m pipelines.train.pneumonia --data DIR --out models/pneumonia --work WORK --resume
    """
    if context.invoked_subcommand is not None:
        return
    recipe = replace(DEFAULTS, epochs=epochs, seed=seed)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    try:
        folds = [int(part) for part in only.split(",")] if only else None
        parts = load_part(data, "train"), load_part(data, "val")
        with Progress(*columns, TextColumn("{task.fields[figures]}"), disable=as_json) as bars:
            members = fit_ensemble(parts[0], recipe, work, _reporter(bars, as_json), resume, folds)
    except (DataError, ValueError, IndexError) as error:
        raise typer.BadParameter(str(error)) from error
    if not only and members:
        _show(write_bundle(out, fitted(members, parts[0], recipe), parts[0], parts[1], recipe), as_json)


@app.command()
def evaluate(
    data: Data = Path("."),
    bundle: Bundle = MODEL,
    part: PartName = "val",
    out: Annotated[
        Path | None, typer.Option(help="File for the figures; the card's own are docs/evaluation.json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle again on a part that its members never saw; the figures come out the same as in the card.

    python -m pipelines.train.pneumonia evaluate --data DIR --bundle models/pneumonia --json
    """
    torch.set_num_threads(1)
    try:
        if part == "train":
            raise DataError("the members were fitted on the training part; its cross-validation is in every summary")
        fitting = load_part(data, "train")
        model, recipe = read_fitted(bundle, fitting)
        summary = summarise(model, fitting, load_part(data, part), recipe)
    except (DataError, RefusedError) as error:
        raise typer.BadParameter(str(error)) from error
    if out:
        write_json(out, rounded(summary))
    _show(summary, as_json)


@app.command()
def gallery(
    data: Data = Path("."),
    bundle: Bundle = MODEL,
    part: PartName = "val",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/pneumonia"),
    count: Annotated[int, typer.Option(min=1, max=100, help="How many of each kind.")] = 8,
) -> None:
    """Write the images that are furthest from their label, enlarged, with what was stated.

    python -m pipelines.train.pneumonia gallery --data DIR --out OUT
    """
    torch.set_num_threads(1)
    try:
        model, _ = read_fitted(bundle, load_part(data, "train"))
        rows = write_gallery(model, load_part(data, part), out, count)
    except (DataError, RefusedError) as error:
        raise typer.BadParameter(str(error)) from error
    print(f"{len(np.unique(rows))} pictures in {out}")


if __name__ == "__main__":
    app(prog_name="python -m pipelines.train.pneumonia")
