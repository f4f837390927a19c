"""Commands about imaging models: `models list|show|add|verify|seal|remove`, and `infer`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.compose.console import Json, context_of, foundations_of, print_json, print_rows, wide_console
from services.platform.errors import OslerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.imaging.compute import Compute
    from services.imaging.host.catalog import Listed
    from services.imaging.host.contract import Card
    from services.imaging.host.files import Series
    from services.imaging.host.registry import Entry, Registry

models_app = typer.Typer(
    help="The imaging models: what is installed, whether it is as its makers left it, and adding one. docs/models.md tells more.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(models_app, name="models")
    app.command()(infer)


@models_app.command("list")
def list_models(
    ctx: typer.Context,
    catalog: Annotated[bool, typer.Option("--catalog", help="Show what can be added by name instead.")] = False,
    as_json: Json = False,
) -> None:
    """Lists installed models and analysers with task, version and licence."""
    if catalog:
        rows = [_catalog_row(listed) for listed in _catalog(ctx).values()]
        print_json(rows) if as_json else print_rows("Catalogue", rows, "the catalogue is empty")
        return
    from services.imaging.host.registry import analysers

    rows = [_row(entry) for entry in _registry(ctx).entries()]
    rows += [_analyser_row(analysis.card) for analysis in analysers().values()]
    print_json(rows) if as_json else print_rows(
        "Models", rows, "no models; `osler models list --catalog` shows some to add"
    )


def _catalog_row(listed: Listed) -> dict[str, Any]:
    return {
        "name": listed.name,
        "version": listed.version,
        "task": listed.task,
        "modality": listed.modality,
        "finds": ", ".join(display for _, _, display in listed.codes),
        "licence": listed.licence,
        "runs": listed.runs,
    }


def _row(entry: Entry) -> dict[str, Any]:
    package = entry.package
    if package is None:
        about = _other(entry) if entry.refusal is None else {}
        state = "of another room" if entry.refusal is None else f"broken: {entry.refusal.message}"
        return {
            "name": entry.name,
            "version": about.get("version", ""),
            "task": about.get("title", ""),
            "format": "coefficients" if entry.refusal is None else "",
            "licence": about.get("licence", ""),
            "state": state,
        }
    return {
        "name": entry.name,
        "version": package.metadata.version,
        "task": package.metadata.task,
        "format": str(package.format),
        "licence": package.licence,
        "state": "sealed" if package.manifest else "no manifest",
    }


def _other(entry: Entry) -> dict[str, Any]:
    import json

    about: dict[str, Any] = json.loads((entry.folder / "metadata.json").read_text(encoding="utf-8"))
    return about


def _analyser_row(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "task": card.task,
        "format": "analyser",
        "licence": card.licence,
        "state": "built in",
    }


@models_app.command()
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name that `osler models list` shows.")],
    as_json: Json = False,
) -> None:
    """Shows a model's card: what for, what not for, licence, inputs, figures, sources."""
    from services.imaging.host.card import card_of
    from services.imaging.host.registry import analysers

    registry = _registry(ctx)
    known = analysers()
    if name in known:
        _show_card(known[name].card, {}, "", as_json)
        return
    entry = registry.entry(name)
    if entry.package is None and entry.refusal is None:
        print_json(_other(entry)) if as_json else typer.echo(_readme(entry) or f"{name} has no card")
        return
    package = registry.package(name)
    figures = dict(package.metadata.eval_metrics)
    _show_card(card_of(package), figures, _readme(entry), as_json)


def _readme(entry: Entry) -> str:
    path = entry.folder / "docs" / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _show_card(card: Card, figures: dict[str, Any], readme: str, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(card), "figures": figures})
        return
    lines = [
        f"{card.name} {card.version} ({card.kind})",
        f"  task: {card.task}",
        f"  intended use: {card.intended_use}",
        f"  licence: {card.licence}",
        *(
            f"  takes: {role.name}: {'/'.join(role.modalities) or 'any'} {role.description}".rstrip()
            for role in card.roles
        ),
        *(f"  limit: {limit}" for limit in card.limits),
        *(f"  figure: {name} {value}" for name, value in figures.items()),
        *(f"  source: {source}" for source in card.citations),
    ]
    if card.weights_sha256:
        lines.append(f"  weights SHA-256: {card.weights_sha256}")
    typer.echo("\n".join(lines))
    if readme:
        typer.echo(f"\n{readme}")


@models_app.command()
def add(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A bundle folder or zip, an https address of a zip, or a name of the catalogue.")
    ],
    name: Annotated[str, typer.Option(help="Call it this instead of the folder's name.")] = "",
    sha256: Annotated[str, typer.Option(help="Refuse a zip with another SHA-256 than this one.")] = "",
    as_json: Json = False,
) -> None:
    """Installs a model: checks its metadata, configuration and weights, runs it once, and seals what is there.

    Nothing of the package is executed as Python: weights are read as tensors, and the configuration may only name classes of
    MONAI and torch. A package that needs more is refused with the place and the reason.

    Examples: `osler models add spleen_ct_segmentation`, `osler models add ./my_bundle.zip --sha256 9f86...`
    """
    registry = _registry(ctx)
    say = wide_console(stderr=True).print
    with tempfile.TemporaryDirectory() as scratch:
        path, origin, digest, listed_name = _source(ctx, source, Path(scratch))
        entry = registry.add(path, name or listed_name, origin=origin, sha256=sha256 or digest, report=say)
    if as_json:
        print_json(_row(entry))
        return
    _show_card(_card(entry), {}, "", False)
    typer.echo(f"\ninstalled; run it with: osler infer {entry.name} PATH --out FOLDER")


def _card(entry: Entry) -> Card:
    from services.imaging.host.card import card_of

    if entry.package is None:
        raise entry.refusal or OslerError(f"{entry.name} has no card")
    return card_of(entry.package)


def _source(ctx: typer.Context, source: str, scratch: Path) -> tuple[Path, str, str, str]:
    """File or folder, where it came from, the digest that the catalogue states, and the name that it gives."""
    from services.imaging.host import catalog

    settings = context_of(ctx).settings().models
    if "://" not in source:
        if Path(source).exists():
            return Path(source), Path(source).resolve().name, "", ""
        listed = catalog.find(_catalog(ctx), source)
        url, digest, name = catalog.address(listed, settings.catalog_url), listed.sha256, listed.name
    else:
        url, digest, name = source, "", ""
    with _bar("fetching") as report:
        return catalog.fetch(url, scratch, settings.max_download_mb << 20, report), url, digest, name


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import Progress

    with Progress(console=wide_console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


@models_app.command()
def verify(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="One model; without it, every installed one.")] = "",
    as_json: Json = False,
) -> None:
    """Checks that models are as they were sealed: files, metadata, licence, configuration, and a run on a known input.

    Exits with 1 when a check fails.
    """
    registry = _registry(ctx)
    names = [name] if name else [entry.name for entry in registry.entries()]
    rows = []
    for each in names:
        for check in registry.verify(each):
            rows.append({"model": each, "check": check.name, "passed": check.passed, "detail": check.detail})
    failed = [row for row in rows if not row["passed"]]
    print_json(rows) if as_json else print_rows("Verification", rows, "no models are installed")
    if failed:
        raise OslerError(f"{len(failed)} of {len(names)} models are not as they should be: {failed[0]['detail']}")


@models_app.command()
def seal(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A package that you made or changed.")],
    origin: Annotated[str, typer.Option(help="How it was made, for example the command.")] = "",
    as_json: Json = False,
) -> None:
    """Writes manifest.json for a package of your own: the SHA-256 of its files, and what a run on a known input gives."""
    from services.imaging.host import manifest
    from services.imaging.host.registry import seal as sealed

    # What was recorded before describes the package as it was.
    (folder / manifest.NAME).unlink(missing_ok=True)
    sealed(folder.resolve(), origin, wide_console(stderr=True).print)
    found = manifest.read(folder)
    if as_json and found is not None:
        print_json(asdict(found))


@models_app.command()
def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A model that was added.")],
) -> None:
    """Deletes a model that was added; those that came with Osler stay."""
    _registry(ctx).remove(name)
    typer.echo(f"removed {name}")


def infer(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A name that `osler models list` shows.")],
    path: Annotated[
        str,
        typer.Argument(help="A DICOM folder or file, a NIfTI or grey picture, or the UID of a study in the archive."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made when absent.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="ROLE=PATH for each further series of a model that takes several; PATH above is the first role."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Runs one model or analyser on images and writes what it gives: JSON, NIfTI, and DICOM SEG and SR for a DICOM series.

    Each series of a fitting modality is one run, in a folder of its own. What cannot be run is told with the reason; the exit
    status is 1 when nothing could be.

    Example: `osler infer hippocampus crop.nii.gz --out results --json`
    """
    from services.imaging.compute import open_compute

    settings = context_of(ctx).settings()
    card = _card_of(ctx, model)
    found = _read(ctx, path)
    further = dict(_further(item) for item in role or ())
    compute = open_compute(settings)
    try:
        rows = _run_all(compute, card, found, further, out)
    finally:
        compute.close()
    if as_json:
        print_json({"model": f"{card.name}@{card.version}", "runs": rows})
    else:
        _tell(rows)
    if not any("error" not in row for row in rows):
        raise OslerError(f"nothing could be run: {rows[0]['error']['message']}" if rows else "nothing could be run")


def _card_of(ctx: typer.Context, model: str) -> Card:
    from services.imaging.host.card import card_of
    from services.imaging.host.registry import analysers

    if model in (known := analysers()):
        return known[model].card
    return card_of(_registry(ctx).package(model))


def _further(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign:
        raise OslerError(f"--role takes ROLE=PATH, not {text!r}")
    return name, Path(path)


def _read(ctx: typer.Context, path: str) -> Sequence[Series]:
    from services.imaging.host.files import read_path

    uid = path.replace(".", "")
    if not Path(path).exists() and uid.isdigit() and "." in path:
        return _from_archive(ctx, path)
    return read_path(Path(path))


def _from_archive(ctx: typer.Context, study_uid: str) -> Sequence[Series]:
    from services.clinical.dicom.series import read_manifest_series
    from services.imaging.host.files import read_datasets
    from services.ingest import store
    from services.ingest.archive import build_manifest

    with foundations_of(ctx, ("ingest",)) as foundations:
        with foundations.database.session() as session:
            rows = store.study_rows(session, study_uid)
        if rows is None:
            raise OslerError("no study in the archive has that UID; `osler import FOLDER` stores one")
        manifest = build_manifest(*rows, revision=1, accession="")
        wanted = [series for series in manifest.series if not series.derived]
        return [
            one
            for series in wanted
            for one in read_datasets(read_manifest_series(manifest, series.series_instance_uid, foundations.blobs))
        ]


def _run_all(
    compute: Compute, card: Card, found: Sequence[Series], further: dict[str, Path], out: Path
) -> list[dict[str, Any]]:
    from services.imaging.host.files import fitting, read_path

    others = {}
    for name, path in further.items():
        series = read_path(path)[0]
        if series.volume is None:
            raise series.refusal or OslerError(f"the series for {name} cannot be read")
        others[name] = series.volume
    rows = []
    for number, series in enumerate(fitting(card, found), start=1):
        rows.append(_run_one(compute, card, series, others, out / f"{number:02d}"))
    return rows


def _run_one(compute: Compute, card: Card, series: Series, others: dict[str, Any], out: Path) -> dict[str, Any]:
    from services.imaging.host.calls import Call
    from services.imaging.host.contract import Inputs
    from services.imaging.host.files import write_result

    row: dict[str, Any] = {"series": series.name}
    began = time.perf_counter()
    try:
        if series.volume is None:
            raise series.refusal or OslerError("the series cannot be read")
        inputs = Inputs({card.roles[0].name: series.volume, **others})
        with _bar(f"{card.name}") as report:
            result = compute.run(card.name, inputs, Call(report=report))
    except RefusedError as error:
        about = {"reason": error.reason, "message": error.message, "missing": error.missing, "remedy": error.remedy}
        return {**row, "error": about}
    written = write_result(card, result, series, out, datetime.now(UTC).replace(microsecond=0))
    return {
        **written.document,
        **row,
        "seconds": round(time.perf_counter() - began, 3),
        "files": [str(path) for path in written.files],
    }


def _tell(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        typer.echo(f"series {row['series'][-32:]}")
        if "error" in row:
            typer.echo(f"  refused ({row['error']['reason']}): {row['error']['message']}; {row['error']['remedy']}")
            continue
        for item in row["measurements"]:
            spread = f" ({item['interval'][0]:.4g} to {item['interval'][1]:.4g})" if item["interval"] else ""
            typer.echo(f"  {item['region']}: {item['name']} {item['value']:.5g} {item['unit']}{spread}")
        for item in row["findings"]:
            typer.echo(
                f"  {item['name']}: {item['probability']:.3f} {'' if item['calibrated'] else '(not calibrated)'}"
            )
        for caution in row["cautions"]:
            typer.echo(f"  caution: {caution}")
        for path in row["files"]:
            typer.echo(f"  wrote {path}")


def _registry(ctx: typer.Context) -> Registry:
    from services.imaging.host.registry import registry_of

    return registry_of(context_of(ctx).settings())


def _catalog(ctx: typer.Context) -> dict[str, Listed]:
    from services.imaging.host import catalog

    return catalog.read(context_of(ctx).settings().models.path / "catalog.yaml")
