"""The commands: simulate, calibrate, displace, open-ms, warps. The long ones resume where they stopped."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.registration_study import cases, displaced, images
from services.registration import quality

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)

Data = Annotated[
    Path, typer.Option(help="Folder of the data sets, as docs/development.md says.", envvar="OSLER_SHARED_DATA")
]
Out = Annotated[Path, typer.Option(help="Folder of results (JSON lines); a second run adds what is missing.")]
_OUT = Path("var/registration_study")


@app.command()
def simulate(data: Data, out: Out = _OUT, rounds: Annotated[int, typer.Option(min=1)] = 6) -> None:
    """Makes registrations with known errors: about 100 CPU seconds and 73 cases for each round."""
    path = out / "cases.jsonl"
    for number in range(rounds):
        for name, load in images.sources(data):
            add(path, f"{name}-{number}", lambda n=name, f=load, k=number: cases.simulated(n, f, k))  # type: ignore[misc]
        for label, patient, fixed, moving in displaced.pairs():
            sides = [images.sarcoma(data, patient, series) for series in (fixed, moving)]
            add(path, f"real-{label}-{number}", lambda s=sides, n=label, k=number: cases.real(s[0], s[1], n, k))  # type: ignore[misc]
        add(path, f"wrong-{number}", lambda k=number: cases.wrong(data, k))  # type: ignore[misc]


@app.command()
def calibrate(
    out: Out = _OUT,
    write: Annotated[bool, typer.Option(help="Write services/registration/calibration.yaml first.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Fits the limits of a good verdict to the simulated cases and prints how well they hold. Seconds."""
    from pipelines.registration_study import calibrate as calibration

    rows = cases.read(out / "cases.jsonl")
    table: dict[str, Any] = {"limits": calibration.write(rows)} if write else {}
    importlib.reload(quality)
    importlib.reload(calibration)
    table |= {"held out": calibration.rates(calibration.held_out(rows)), "all": calibration.rates(rows)}
    show(table, as_json=as_json)


@app.command()
def displace(
    data: Data,
    out: Out = _OUT,
    count: Annotated[int, typer.Option(min=2, help="Displacements of each pair.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Displaces the sarcoma PET, CT and MR by up to 25 degrees and 60 mm and registers again: 6 CPU seconds each."""
    path = out / "displaced.jsonl"
    sides = {
        label: (images.sarcoma(data, patient, fixed), images.sarcoma(data, patient, moving))
        for label, patient, fixed, moving in displaced.pairs()
    }
    for number in range(count):
        for label, (fixed, moving) in sides.items():
            key = f"{label} {number}"
            add(path, key, lambda f=fixed, m=moving, k=number: iter([displaced.attempt(f, m, k)]))  # type: ignore[misc]
    rows = cases.read(path)
    table = {
        label: displaced.figures([row for row in rows if row["key"].startswith(label)], *both)
        for label, both in sides.items()
    }
    show(table, as_json=as_json)


@app.command("open-ms")
def open_ms(
    data: Data, as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False
) -> None:
    """Registers FLAIR, T1 and T2 of both visits of open-ms and compares with its reference affines: 30 CPU seconds."""
    from pipelines.registration_study import sclerosis

    show(sclerosis.figures(data), as_json=as_json)


@app.command()
def warps(
    data: Data,
    out: Out = _OUT,
    count: Annotated[int, typer.Option(min=1, help="Warps of each image.")] = 10,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Bends T1 and CT by up to 15 mm and undoes it: 100 CPU seconds each."""
    from pipelines.registration_study import warps as study

    path = out / "warps.jsonl"
    made = {"mni": images.mni(), "CT": images.sarcoma(data, "STS_044", "CT")}
    for number in range(count):
        for name, volume in made.items():
            add(path, f"{name} {number}", lambda v=volume, k=number: iter([study.attempt(v, k, True, threads)]))  # type: ignore[misc]
    rows = cases.read(path)
    show({name: study.figures([row for row in rows if row["key"].startswith(name)]) for name in made}, as_json=as_json)


def show(table: dict[str, Any], *, as_json: bool) -> None:
    """Prints figures: one line for each name, or one JSON document."""
    if as_json:
        typer.echo(json.dumps(table, indent=1))
        return
    for name, figures in table.items():
        typer.echo(f"{name}: {figures}")


def add(path: Path, key: str, work: Callable[[], Iterator[dict[str, Any]]]) -> None:
    """Appends the rows of one piece of work, all or none, unless its key is there already."""
    if key in {row.get("key") for row in cases.read(path)}:
        return
    rows = [{"key": key, **row} for row in work()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    typer.echo(f"{key}: {len(rows)} rows", err=True)


if __name__ == "__main__":
    app(prog_name="python -m pipelines.registration_study")
