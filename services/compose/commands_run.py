"""Commands that run Osler: `up`, `serve`, `process`, `demo`, `migrate`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from services.compose.console import Context, Json, context_of, foundations_of, print_json, wide_console
from services.platform.errors import ConfigurationError, OslerError

if TYPE_CHECKING:
    from services.compose import process
    from services.platform.config import Settings
    from services.platform.worker import Step

_STEPS = {
    "ingest": "filing results",
    "imaging": "measuring images",
    "registration": "aligning images",
    "fusion": "joining the record",
    "twin": "predicting",
    "advisor": "advising",
}


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.callback()(common)
    app.command()(up)
    app.command()(serve)
    app.command("process")(process_command)
    app.command()(demo)
    app.command()(migrate)


def common(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder of everything that Osler keeps on this machine.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file (YAML); docs/settings.md lists every key.")] = None,
) -> None:
    """Options before the command's name."""
    ctx.obj = Context(home.absolute() if home else None, config.absolute() if config else None)


def up(
    ctx: typer.Context,
    demo: Annotated[bool, typer.Option("--demo", help="Bring in the synthetic demo patient.")] = False,
    data: Annotated[Path | None, typer.Option(help="Bring in a folder of DICOM, FHIR and HL7 v2 files.")] = None,
) -> None:
    """Starts every room on this machine, keeps them running, and shows where to look. Ctrl-C stops."""
    from services.compose.rooms import lay_foundations, migrate_all
    from services.platform.config import ROOMS
    from services.platform.supervisor import room_command, supervise

    context = context_of(ctx)
    settings = context.settings()
    console = Console()
    if data is not None and not data.exists():
        raise OslerError(f"{data} is not there: name a folder of DICOM, FHIR or HL7 v2 files")
    foundations = lay_foundations(settings)
    migrate_all(foundations.database)
    foundations.security.ensure_credentials()
    foundations.close()
    os.environ["OSLER_HOME"] = str(settings.home)
    if context.config:
        os.environ["OSLER_CONFIG"] = str(context.config)

    def when_ready() -> None:
        _welcome(console, settings)
        if demo or data:
            _bring_in(console, settings, data)

    status = supervise(
        [room_command(room) for room in ROOMS],
        log_folder=settings.home / "logs",
        console=console,
        when_ready=when_ready,
    )
    raise typer.Exit(status)


def _welcome(console: Console, settings: Settings) -> None:
    http = settings.http
    console.print(f"\nOsler is up. Board: [bold]http://{http.host}:{http.port('board')}[/bold]")
    console.print(f"  CDS Hooks   http://{http.host}:{http.port('alerts')}/cds-services")
    console.print(f"  DICOMweb    http://{http.host}:{http.port('ingest')}/dicom-web")
    console.print(f"  DICOM       {settings.dicom.ae_title} at {settings.dicom.host}:{settings.dicom.port}")
    console.print(f"  HL7 v2      {settings.hl7.host}:{settings.hl7.port} (MLLP)")
    if settings.auth.mode == "embedded":
        console.print(f"  users       {settings.home / 'first-run-credentials.txt'}")
    console.print(f"  logs        {settings.home / 'logs'}\n", highlight=False)


def _bring_in(console: Console, settings: Settings, data: Path | None) -> None:
    """Feeds the folder (or the demo patient) through the ingest room's doors."""
    from services.compose.rooms import importer, lay_foundations
    from services.platform import logs

    logs.configure(settings, room="import")
    foundations = lay_foundations(settings)
    door = importer(foundations)
    try:
        with tempfile.TemporaryDirectory(prefix="osler-demo-") as scratch, console.status("making the demo patient"):
            parts = [data] if data else _demo_parts(Path(scratch))
            for part in parts:
                summary = door.folder(part)
                console.print(
                    f"{part.name}: {summary.files} files, {summary.stored} images stored, {summary.records} records, "
                    f"{summary.duplicates} already there, {len(summary.refused)} refused"
                )
    finally:
        foundations.close()
    console.print("The case builds up on the board while images are measured and aligned.\n")


def _demo_parts(scratch: Path) -> list[Path]:
    from pipelines.cohort.demo import write

    write(scratch)
    return [scratch / "dicom", scratch / "fhir", scratch / "hl7"]


def serve(
    ctx: typer.Context,
    rooms: Annotated[
        list[str],
        typer.Argument(help="ingest, imaging, registration, fusion, twin, advisor, alerts, board, analytics."),
    ],
) -> None:
    """Serves rooms in this process: what a container runs, and what `up` starts for each room."""
    from services.compose.rooms import build_room, lay_foundations, migrate_all
    from services.platform import logs
    from services.platform.config import ROOMS
    from services.platform.host import run_rooms

    settings = context_of(ctx).settings()
    logs.configure(settings, room=rooms[0] if len(rooms) == 1 else "several")
    unknown = [room for room in rooms if room not in ROOMS]
    if unknown:
        raise ConfigurationError(f"there is no room {', '.join(unknown)}; rooms: {', '.join(ROOMS)}")
    foundations = lay_foundations(settings)
    try:
        migrate_all(foundations.database, rooms)
        run_rooms(
            [build_room(room, foundations) for room in rooms],
            settings=settings,
            database=foundations.database,
            log=foundations.log,
            quarantine=foundations.quarantine,
            security=foundations.security,
        )
    finally:
        foundations.close()


def process_command(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for case.json, dicom/ (SEG, SR, REG) and fhir/bundle.json.")],
    dicom: Annotated[list[Path] | None, typer.Option(help="Folder, file or zip of DICOM; repeat for more.")] = None,
    fhir: Annotated[
        list[Path] | None, typer.Option(help="FHIR R4 bundle, NDJSON, .gz or folder; repeat for more.")
    ] = None,
    hl7: Annotated[list[Path] | None, typer.Option(help="HL7 v2 messages, file or folder; repeat for more.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a case from files, without servers.

    Exit status 0: the case is complete. 2: some input was refused and is named in case.json. 1: it failed.
    """
    from services.compose import process, reading
    from services.platform import logs

    inputs = process.Inputs(dicom or [], fhir or [], hl7 or [])
    if not inputs.each():
        raise OslerError("nothing to process: name at least one of --dicom, --fhir, --hl7")
    settings = context_of(ctx).settings()
    logs.configure(settings.model_copy(update={"log": settings.log.model_copy(update={"level": "error"})}))
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(), console=console, transient=True,
    ) as bars:  # fmt: skip
        outcome = process.run(inputs, out, settings, _Bars(bars).progress())
    if as_json:
        print_json(outcome.document)
    else:
        reading.show(wide_console(), outcome.patients, outcome.document)
        state = "complete" if outcome.document["complete"] else "not complete"
        Console().print(f"case {state}: {out / 'case.json'} and {len(outcome.files) - 1} more files")
    raise typer.Exit(outcome.exit_status)


class _Bars:
    """Progress of reading and of each room as bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def progress(self) -> process.Progress:
        from services.compose import process

        return process.Progress(self._reading, self._step)

    def _task(self, name: str, total: int | None) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, note="")
        return self._tasks[name]

    def _reading(self, path: Path, done: int, total: int) -> None:
        self._bars.update(self._task(f"reading {path.name}", total), completed=done, note=f"{done} of {total} files")

    def _step(self, step: Step) -> None:
        self._done[step.room] = self._done.get(step.room, 0) + 1
        note = f"{self._done[step.room]} done, last {step.seconds:.1f} s"
        self._bars.update(self._task(_STEPS.get(step.room, step.room), None), note=note)


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
) -> None:
    """Writes the synthetic demo patient as files: dicom/, fhir/, hl7/, truth.json."""
    from pipelines.cohort.demo import write

    console = Console(stderr=True)
    with console.status("making the demo patient") as status:
        write(out, on_step=status.update)
    console.print(f"demo patient written to {out}")


def migrate(ctx: typer.Context) -> None:
    """Brings all tables to the newest version (what a cluster runs as a job before an upgrade)."""
    from services.platform.config import ROOMS

    with foundations_of(ctx, ROOMS):
        Console().print("tables are up to date")
