"""Commands about what flows: `import`, `events`, `quarantine`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from services.compose.console import Json, foundations_of, print_json, print_rows
from services.platform.errors import OslerError, RefusedError

if TYPE_CHECKING:
    from services.compose.rooms import Foundations
    from services.platform.bus import Record
    from services.platform.quarantine import QuarantineItem

events_app = typer.Typer(help="The event stream.", no_args_is_help=True)
quarantine_app = typer.Typer(
    help="Input that was refused: nothing is lost, everything can go in again.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("import")(import_command)
    app.add_typer(events_app, name="events")
    app.add_typer(quarantine_app, name="quarantine")


def import_command(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="Folder, file or zip of DICOM, FHIR R4 or HL7 v2.", exists=True)],
    as_json: Json = False,
) -> None:
    """Brings files into this installation, through the same doors as the network's."""
    from services.compose.rooms import importer

    with foundations_of(ctx, ["ingest"]) as foundations:
        summary = importer(foundations).folder(path)
    row = {
        "files": summary.files,
        "images_stored": summary.stored,
        "records": summary.records,
        "already_there": summary.duplicates,
        "studies": len(summary.studies),
        "refused": len(summary.refused),
    }
    reasons = [
        {"file": name, "reason": r.reason, "message": r.message, "remedy": r.remedy} for name, r in summary.refused
    ]
    if as_json:
        print_json({**row, "refusals": reasons})
    else:
        print_rows("Imported", [row], "")
        print_rows("Refused", reasons, "nothing was refused")
    raise typer.Exit(2 if reasons else 0)


def _record(record: Record) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    from services.platform.events import unpack

    event = record.event
    return {
        "specversion": "1.0",
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "time": event.time.isoformat(),
        "knowntime": event.known_time.isoformat(),
        "partitionkey": event.key,
        "traceparent": event.traceparent,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "data": MessageToDict(unpack(event), preserving_proto_field_name=True),
    }


@events_app.command("tail")
def tail(
    ctx: typer.Context,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Event type; repeat for more. Default: all.")
    ] = None,
    since: Annotated[
        float | None, typer.Option(help="Start this many minutes ago instead of at the beginning.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Wait for what comes next.")] = False,
    as_json: Json = False,
) -> None:
    """Prints events as they are in the log; with `--json` one CloudEvent a line."""
    from services.platform.events import CATALOGUE

    unknown = set(types or ()) - set(CATALOGUE)
    if unknown:
        raise OslerError(f"unknown event type {', '.join(sorted(unknown))}; known: {', '.join(CATALOGUE)}")
    start = datetime.now(UTC) - timedelta(minutes=since) if since is not None else None
    console = Console()
    with foundations_of(ctx) as foundations:
        for record in foundations.log.read(types or list(CATALOGUE), since=start, follow=follow):
            if as_json:
                typer.echo(json.dumps(_record(record), ensure_ascii=False))
            else:
                event = record.event
                console.print(f"{event.known_time:%H:%M:%S} {event.type:34} patient {event.key[:12]} {event.subject}")


def _item(item: QuarantineItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "door": item.door,
        "reason": item.refusal.reason,
        "message": item.refusal.message,
        "missing": ", ".join(item.refusal.missing),
        "remedy": item.refusal.remedy,
        "added_at": item.added_at.isoformat(timespec="seconds"),
        "replayed_at": item.replayed_at.isoformat(timespec="seconds") if item.replayed_at else None,
    }


@quarantine_app.command("list")
def quarantine_list(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also what went in again since.")] = False,
    as_json: Json = False,
) -> None:
    """Lists what was refused, with the reason and what to do."""
    with foundations_of(ctx) as foundations:
        rows = [_item(item) for item in foundations.quarantine.list(include_replayed=everything)]
    if as_json:
        print_json(rows)
    else:
        print_rows("Quarantine", rows, "the quarantine is empty")


@quarantine_app.command("export")
def quarantine_export(
    ctx: typer.Context,
    item_id: Annotated[str, typer.Argument(help="Id from `osler quarantine list`.")],
    out: Annotated[Path, typer.Option(help="File to write the refused bytes to.")],
) -> None:
    """Writes the refused bytes to a file, to look at or repair. They may hold patient data."""
    with foundations_of(ctx) as foundations:
        out.write_bytes(_known(foundations.quarantine.content, item_id))
    Console().print(f"written to {out}")


@quarantine_app.command("replay")
def quarantine_replay(
    ctx: typer.Context,
    item_ids: Annotated[list[str] | None, typer.Argument(help="Ids from `osler quarantine list`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Replay every waiting item.")] = False,
    as_json: Json = False,
) -> None:
    """Puts refused input through its door again, after its cause was mended."""
    from services.compose.rooms import build_room
    from services.platform.config import ROOMS

    if not item_ids and not everything:
        raise OslerError("name the items to replay, or --all")
    with foundations_of(ctx, ROOMS) as foundations:
        items = foundations.quarantine.list(include_replayed=True)
        doors = {item.id: item.door for item in items}
        wanted = [item.id for item in items if item.replayed_at is None] if everything else item_ids or []
        # A room registers how its doors replay; imaging is heavy to load.
        for room in {"imaging" if doors.get(item_id) == "imaging" else "ingest" for item_id in wanted}:
            build_room(room, foundations)
        rows = replay_items(foundations, wanted)
    if as_json:
        print_json(rows)
    else:
        print_rows("Replayed", rows, "nothing to replay")
    raise typer.Exit(2 if any(row["reason"] for row in rows) else 0)


def replay_items(foundations: Foundations, item_ids: Sequence[str]) -> list[dict[str, str]]:
    """Puts quarantined items in again, one after the other: a row for each, with the reason where it was refused."""
    rows = []
    for item_id in item_ids:
        try:
            _known(foundations.quarantine.replay, item_id)
            rows.append({"id": item_id, "outcome": "accepted", "reason": ""})
        except RefusedError as error:
            rows.append({"id": item_id, "outcome": "refused again", "reason": f"{error.reason}: {error.message}"})
    return rows


def _known(call: Any, item_id: str) -> Any:
    try:
        return call(item_id)
    except LookupError as error:
        raise OslerError(str(error.args[0] if error.args else error)) from None
