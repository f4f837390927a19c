"""The command: train the hippocampus model, or measure a trained one again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

from pipelines.train.common import rounded
from pipelines.train.hippocampus import fit
from pipelines.train.hippocampus.data import Case, DataError, case_ids, load_case
from pipelines.train.hippocampus.evaluate import PARTS
from pipelines.train.hippocampus.run import Work, evaluate_bundle, parse_folds, train_bundle

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)
DEFAULTS = fit.Recipe()

Data = Annotated[
    Path | None,
    typer.Option(
        envvar="OSLER_HIPPOCAMPUS_DATA",
        help="Folder with images/*.nii.gz and labels/*.nii.gz: the Medical Segmentation Decathlon's Task04 crops "
        "(T1, 1 mm; labels 1 anterior, 2 posterior).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, in place of bars and tables.")]
Limit = Annotated[int, typer.Option(help="Use only the first N cases (0: all). For trying out, not for figures.")]


def _load(data: Path | None, limit: int, as_json: bool) -> list[Case]:
    if data is None:
        raise DataError("no data folder: give --data DIR, or set OSLER_HIPPOCAMPUS_DATA")
    ids = case_ids(data)
    ids = ids[:limit] if limit else ids
    return [load_case(data, one) for one in track(ids, "reading cases", disable=as_json)]


def _reporter(bars: Progress, as_json: bool, name: str) -> fit.Report:
    task = bars.add_task(name, total=None, figures="")

    def report(progress: fit.Progress, network: torch.nn.Module) -> None:
        if as_json:
            line = {"run": name, "epoch": progress.epoch, "of": progress.epochs, "loss": round(progress.loss, 4)}
            print(
                json.dumps({**line, "seconds": round(progress.seconds, 1), "held_out_dice": progress.dice}), flush=True
            )
            return
        dice = f"  held-out Dice {progress.dice[0]:.3f} / {progress.dice[1]:.3f}" if progress.dice else ""
        bars.update(task, completed=progress.epoch, total=progress.epochs, figures=f"loss {progress.loss:.3f}{dice}")

    return report


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rounded(summary)))
        return
    table = Table("part", "Dice", "95 % interval", "volume error, %", title=f"{summary['cases']} held-out cases")
    for part in PARTS:
        dice, volume = summary["dice"][part], summary["volume"][part]
        interval = f"{dice['ci95_low']:.3f} to {dice['ci95_high']:.3f}"
        table.add_row(part, f"{dice['mean']:.3f}", interval, f"{volume['mean_absolute_percent']:.1f}")
    Console().print(table)


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")] = Path("models/hippocampus"),
    folds: Annotated[
        str,
        typer.Option(
            help="Folds to hold out, one fit each: '0', '0,3' or 'all'. One fold: its weights are shipped. "
            "Several: the shipped weights come from one more fit on all cases, the figures from the folds."
        ),
    ] = "0",
    epochs: Annotated[int, typer.Option(help="Passes over the training cases (about 90 s each on one core).")] = (
        DEFAULTS.epochs
    ),
    stop_after: Annotated[
        int, typer.Option(help="End after this many epochs of the schedule (0: all).")
    ] = DEFAULTS.stop_after,
    batch_size: Annotated[int, typer.Option(help="Crops a step.")] = DEFAULTS.batch_size,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = DEFAULTS.seed,
    threads: Annotated[int, typer.Option(help="CPU threads. Part of the recipe: it changes the last digits.")] = (
        DEFAULTS.threads
    ),
    work: Annotated[Path, typer.Option(help="Where finished folds and the last epoch of a begun one are kept.")] = Path(
        "var/train/hippocampus"
    ),
    resume: Annotated[
        bool, typer.Option(help="Go on with what lies in --work, fold by fold and epoch by epoch.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1, mps.")] = "cpu",
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Train the hippocampus model and write its bundle: weights, configuration, held-out figures, model card.

    Train and measure on fold 0, some 40 minutes on one core:

        python -m pipelines.train.hippocampus --data DIR --out models/hippocampus

    Five-fold cross-validation and a last fit on all cases, some four hours on one core; stopped and started again it goes on
    with the next epoch:

        python -m pipelines.train.hippocampus --data DIR --out models/hippocampus --folds all --resume

    Measure the shipped weights again: python -m pipelines.train.hippocampus evaluate --help
    """
    if context.invoked_subcommand is not None:
        return
    recipe = fit.Recipe(epochs=epochs, stop_after=stop_after, batch_size=batch_size, seed=seed, threads=threads)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    try:
        chosen = parse_folds(folds)
        cases = _load(data, limit, as_json)
        with Progress(*columns, TextColumn("{task.fields[figures]}"), disable=as_json) as bars:
            summary = train_bundle(
                cases,
                chosen,
                out,
                recipe,
                lambda name: _reporter(bars, as_json, name),
                lambda held_out: held_out,
                Work(work, resume, device),
            )
    except DataError as error:
        raise typer.BadParameter(str(error)) from error
    _show(summary, as_json)


@app.command()
def evaluate(
    data: Data = None,
    bundle: Annotated[Path, typer.Option(help="Bundle folder with the weights to measure.")] = Path(
        "models/hippocampus"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Where held_out.json and held_out.csv go. Default: the bundle's docs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle again on the cases that its weights never saw.

    metadata.json records which weights go with which fold; the figures come out the same as in the model card.

        python -m pipelines.train.hippocampus evaluate --data DIR --bundle models/hippocampus
    """
    torch.set_num_threads(1)

    def bar(held_out: Iterable[Case]) -> Iterable[Case]:
        members: Sequence[Case] = list(held_out)
        return track(members, "held-out cases", disable=as_json)

    try:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        cases = _load(data, 0, as_json)
        summary = evaluate_bundle(cases, bundle, metadata["osler"]["evaluated"], out or bundle / "docs", bar)
    except (DataError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    _show(summary, as_json)


if __name__ == "__main__":
    app(prog_name="python -m pipelines.train.hippocampus")
