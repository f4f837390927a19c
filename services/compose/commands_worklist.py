"""Commands of the reading room: `worklist`, `report draft|list|show|edit|redraft|sign|diff`, `critical`."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.compose.console import Json, foundations_of, print_json, print_rows
from services.platform.errors import OslerError

if TYPE_CHECKING:
    from services.alerts.reports.desk import ReportDesk, Stored
    from services.compose.rooms import Foundations
    from services.platform.audit import Action

report_app = typer.Typer(
    help="Reports: drafted by Osler, edited and signed by a person. Nothing is final without a signature.",
    no_args_is_help=True,
)
critical_app = typer.Typer(
    help="Critical results: proposed by Osler, confirmed or rejected by a reader, tracked until acknowledged.",
    no_args_is_help=True,
)
_REPORT = typer.Argument(help="Report id, or its first characters; `osler report list` prints them.")
_TASK = typer.Argument(help="Id of the critical result, or its first characters; `osler critical list` prints them.")
_BY = typer.Option("--by", help="Who does this; your login name without it. Noted in the audit trail.")


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("worklist")(worklist)
    app.add_typer(report_app, name="report")
    app.add_typer(critical_app, name="critical")


def worklist(
    ctx: typer.Context, limit: Annotated[int, typer.Option(help="Rows at most.")] = 50, as_json: Json = False
) -> None:
    """Lists the studies that wait for a reading, soonest due first, and why each stands where it does.

    The weights are data (services/alerts/worklist/priority.yaml). What waits longest moves up by itself: docs/reports.md.
    """
    from services.alerts.worklist.door import rows

    with foundations_of(ctx, ["alerts"]) as foundations:
        found = rows(foundations.database, datetime.now(UTC), limit)
    if as_json:
        print_json(found)
        return
    table = [
        {
            "priority": row["priority"],
            "urgency": f"{row['urgency']:.2f}",
            "study": _short_uid(row["study_instance_uid"]),
            "patient": row["patient_key"][:12],
            "modalities": "/".join(row["modalities"]),
            "why": "; ".join(reason["text"] for reason in row["reasons"]),
            "wait": row["waiting"],
        }
        for row in found
    ]
    print_rows(f"{len(table)} studies to read", table, "nothing waits to be read")


def _short_uid(uid: str) -> str:
    return uid if len(uid) <= 16 else f"…{uid[-12:]}"


@report_app.command("draft")
def draft(
    ctx: typer.Context,
    study: Annotated[
        str, typer.Argument(help="Study instance UID, its end, or the beginning of a patient key; all without it.")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files of each report.")] = None,
    forms: Annotated[
        str, typer.Option("--forms", help="Which files: html, docx, pdf, sr, fhir, json; several with commas.")
    ] = "html,docx,pdf,sr,fhir",
    as_json: Json = False,
) -> None:
    """Drafts reports of studies: critical results first, measurements beside the earlier ones, impression, recommendations.

    A study that has a report is shown as it is. Needs an installation that has seen the study (`osler up`).

    Example: `osler --home var report draft --out reports`
    """
    with _desk(ctx) as (foundations, desk):
        uids = _studies(foundations, study)
        if not uids:
            raise OslerError(f"no study fits {study!r}; `osler worklist` lists what waits to be read")
        made = [desk.draft(uid) for uid in uids]
        for stored in made:
            _note(ctx, foundations, "C", "report", stored.row.report_id, getpass.getuser())
        files = _write(foundations, desk, made, out, forms) if out else []
        found = [_told(stored) for stored in made]
    if as_json:
        print_json({"reports": found, "files": [str(path) for path in files]})
        return
    _print(found)
    for path in files:
        typer.echo(f"wrote {path}")


def _studies(foundations: Foundations, given: str) -> list[str]:
    """UIDs of studies with images that a word means: UID, end of one, or beginning of a patient key."""
    from services.alerts import worklist_store

    with foundations.database.session() as session:
        items = worklist_store.workitems(session, kinds=["reading"])
    return list(
        dict.fromkeys(
            item.study_instance_uid
            for item in items
            if item.study_instance_uid.endswith(given) or item.patient_key.startswith(given)
        )
    )


def _write(foundations: Foundations, desk: ReportDesk, reports: list[Stored], out: Path, forms: str) -> list[Path]:
    from services.alerts.reports.output import Printer

    out.mkdir(parents=True, exist_ok=True)
    printer = Printer(desk, foundations.blobs)
    written = []
    for stored in reports:
        for form in (name.strip() for name in forms.split(",") if name.strip()):
            made = printer.make(stored, form)
            path = out / made.name
            path.write_bytes(made.content)
            written.append(path)
    return written


@report_app.command("list")
def list_reports(ctx: typer.Context, as_json: Json = False) -> None:
    """Lists the reports that changed last, with status and who signed."""
    with _desk(ctx) as (_, desk):
        found = [_told(stored) for stored in desk.recent()]
    if as_json:
        print_json(found)
        return
    rows = [
        {
            "report": row["report_id"][:8],
            "study": _short_uid(row["study_instance_uid"]),
            "date": row["study_date"],
            "modalities": "/".join(row["modalities"]),
            "status": row["status"],
            "version": row["version"],
            "signed by": next((v["signed_by"] for v in reversed(row["versions"]) if v["signed_by"]), ""),
        }
        for row in found
    ]
    print_rows(f"{len(rows)} reports", rows, "no report yet; `osler report draft` makes one")


@report_app.command("show")
def show(
    ctx: typer.Context,
    report: Annotated[str, _REPORT],
    out: Annotated[Path | None, typer.Option("--out", help="Write the files into this folder instead.")] = None,
    forms: Annotated[str, typer.Option("--forms", help="Which files, with --out.")] = "html,docx,pdf,sr,fhir",
    as_json: Json = False,
) -> None:
    """Prints a report's latest version as text, or writes the version that counts as files."""
    with _desk(ctx) as (foundations, desk):
        stored = desk.get(_report_id(desk, report))
        _note(ctx, foundations, "R", "report", stored.row.report_id, getpass.getuser())
        files = _write(foundations, desk, [stored], out, forms) if out else []
        found = _told(stored)
    if as_json:
        print_json(found)
    elif files:
        typer.echo("\n".join(f"wrote {path}" for path in files))
    else:
        _print([found])


@report_app.command("edit")
def edit(
    ctx: typer.Context,
    report: Annotated[str, _REPORT],
    section: Annotated[str, typer.Option("--section", help="critical, clinical, technique, comparison, findings, "
                                         "impression, recommendations or limitations.")],
    text: Annotated[list[str] | None, typer.Option("--line", help="A line of the section; repeat for more.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Text file, one line each.")] = None,
    by: Annotated[str, _BY] = "",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Replaces the lines of one section. The draft stays; `osler report diff` shows what changed."""
    lines = text or [line for line in (file.read_text("utf-8").splitlines() if file else []) if line.strip()]
    if not lines:
        raise OslerError("give the new lines with --line or --file")
    who = by or getpass.getuser()
    with _desk(ctx) as (foundations, desk):
        stored = desk.get(_report_id(desk, report))
        _note(ctx, foundations, "U", "report", stored.row.report_id, who)
        found = _told(desk.edit(stored.row.report_id, stored.latest.version, {section: lines}, by=who))
    if as_json:
        print_json(found)
    else:
        _print([found])


@report_app.command("redraft")
def redraft(ctx: typer.Context, report: Annotated[str, _REPORT], as_json: Json = False) -> None:
    """Drafts a report anew from what is known now. Refused once a person has edited it."""
    with _desk(ctx) as (foundations, desk):
        stored = desk.get(_report_id(desk, report))
        _note(ctx, foundations, "U", "report", stored.row.report_id, getpass.getuser())
        found = _told(desk.draft(stored.row.study_instance_uid, redraft=True))
    if as_json:
        print_json(found)
    else:
        _print([found])


@report_app.command("sign")
def sign(
    ctx: typer.Context,
    report: Annotated[str, _REPORT],
    version: Annotated[int, typer.Option("--version", help="The version that you have read; see `report show`.")],
    by: Annotated[str, _BY] = "",
    as_json: Json = False,
) -> None:
    """Signs a version: you have read the images and answer for the text. Only this makes a report final.

    Refused when the report changed since that version, or while a proposed critical result is undecided.
    """
    who = by or getpass.getuser()
    with _desk(ctx) as (foundations, desk):
        stored = desk.get(_report_id(desk, report))
        seen = next((v for v in stored.versions if v.version == version), None)
        if seen is None:
            raise OslerError(f"the report has no version {version}; the latest is {stored.latest.version}")
        _note(ctx, foundations, "E", "report-signature", stored.row.report_id, who)
        found = _told(desk.sign(stored.row.report_id, version, seen.body_sha256, by=who))
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['report_id'][:8]} version {version}: {found['status']}, signed by {who}")


@report_app.command("diff")
def diff(ctx: typer.Context, report: Annotated[str, _REPORT], as_json: Json = False) -> None:
    """Shows what people changed in the draft that Osler made, by section, and the share of lines that stood."""
    from dataclasses import asdict

    from services.alerts.reports.differences import as_text
    from services.alerts.reports.model import section_rows

    with _desk(ctx) as (foundations, desk):
        identity = _report_id(desk, report)
        _note(ctx, foundations, "R", "report", identity, getpass.getuser())
        found = desk.differences(identity)
    if as_json:
        print_json(asdict(found))
        return
    titles = {name: str(row["title"]) for name, row in section_rows().items()}
    for line in as_text(found, titles):
        typer.echo(line)
    typer.echo(f"{found.kept_share:.0%} of the draft's lines stand unchanged")


@critical_app.command("list")
def list_critical(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also acknowledged and rejected ones.")] = False,
    as_json: Json = False,
) -> None:
    """Lists critical results that nobody has acknowledged, the nearest deadline first, and whom to ask now."""
    from services.alerts.reports import communication
    from services.alerts.reports.door import told

    with _desk(ctx) as (_, desk):
        found = [told(item) for item in desk.communications(states=() if everything else communication.OPEN)]
    if as_json:
        print_json(found)
        return
    rows = [
        {
            "task": row["task_id"][:8],
            "what": row["statement"],
            "state": row["state"],
            "deadline": row["deadline"][:16],
            "overdue": "yes" if row["overdue"] else "",
            "ask": row["ask"],
        }
        for row in found
    ]
    print_rows(f"{len(rows)} critical results", rows, "no critical result waits")


def _act(ctx: typer.Context, task: str, action: Any, by: str, detail: str, recipient: str, as_json: bool) -> None:
    from services.alerts.reports.door import told

    who = by or getpass.getuser()
    with _desk(ctx) as (foundations, desk):
        known = [t.item.task_id for t in desk.communications(states=()) if t.item.task_id.startswith(task)]
        identity = _only(known, "critical result", task)
        _note(ctx, foundations, "U", f"critical-result-{action}", identity, who)
        found = told(desk.act(identity, action, by=who, detail=detail, recipient=recipient))
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{identity[:8]}: {found['state']}" + (f"; ask {found['ask']}" if found["ask"] else ""))


@critical_app.command("confirm")
def confirm(
    ctx: typer.Context,
    task: Annotated[str, _TASK],
    to: Annotated[str, typer.Option("--to", help="Who is to be told.")],
    by: Annotated[str, _BY] = "",
    as_json: Json = False,
) -> None:
    """Confirms a proposed critical result and names who is to be told."""
    _act(ctx, task, "confirm", by, "", to, as_json)


@critical_app.command("attempt")
def attempt(
    ctx: typer.Context,
    task: Annotated[str, _TASK],
    detail: Annotated[str, typer.Option("--how", help="How and whom, for example 'telephone, no answer'.")],
    by: Annotated[str, _BY] = "",
    as_json: Json = False,
) -> None:
    """Notes an attempt to tell."""
    _act(ctx, task, "attempt", by, detail, "", as_json)


@critical_app.command("acknowledge")
def acknowledge(
    ctx: typer.Context,
    task: Annotated[str, _TASK],
    to: Annotated[str, typer.Option("--to", help="Who took it.")],
    detail: Annotated[str, typer.Option("--how", help="How, and that it was read back.")],
    by: Annotated[str, _BY] = "",
    as_json: Json = False,
) -> None:
    """Closes a critical result: somebody took it and read it back."""
    _act(ctx, task, "acknowledge", by, detail, to, as_json)


@critical_app.command("reject")
def reject(
    ctx: typer.Context,
    task: Annotated[str, _TASK],
    why: Annotated[str, typer.Option("--why", help="Why it is not critical.")],
    by: Annotated[str, _BY] = "",
    as_json: Json = False,
) -> None:
    """Says that a proposed result is not critical, and why."""
    _act(ctx, task, "reject", by, why, "", as_json)


@contextmanager
def _desk(ctx: typer.Context) -> Iterator[tuple[Foundations, ReportDesk]]:
    from services.alerts.reports.desk import ReportDesk

    with foundations_of(ctx, ["alerts"]) as foundations:
        yield foundations, ReportDesk(foundations.database, foundations.blobs)


def _note(ctx: typer.Context, foundations: Foundations, action: Action, kind: str, identity: str, who: str) -> None:
    """One row in the audit trail, before anything is shown or done."""
    from services.compose.console import context_of
    from services.platform.audit import Audit

    Audit.from_settings(foundations.database, context_of(ctx).settings()).record(who, action, kind, identity)


def _report_id(desk: ReportDesk, given: str) -> str:
    known = [s.row.report_id for s in desk.recent(10_000) if s.row.report_id.startswith(given)]
    return _only(known, "report", given)


def _only(known: list[str], what: str, given: str) -> str:
    if len(known) != 1:
        raise OslerError(f"{len(known) or 'no'} {what}s begin with {given!r}; give the whole id")
    return known[0]


def _told(stored: Stored) -> dict[str, Any]:
    from services.alerts.reports.door import plain

    return plain(stored)


def _print(found: list[dict[str, Any]]) -> None:
    """Reports as text."""
    from services.alerts.reports.model import section_rows

    for row in found:
        report = row["report"]
        typer.echo(
            f"== report {row['report_id'][:8]}, version {row['version']}: {row['status']}\n"
            f"   study {report['study_instance_uid']} of {report['study_date'] or 'unknown date'}, "
            f"patient {report['patient_key'][:12]}"
        )
        for section in report["sections"]:
            typer.echo(f"\n{section_rows()[section['name']]['title']}")
            numbered = section_rows()[section["name"]].get("numbered")
            for number, line in enumerate(section["lines"], start=1):
                typer.echo(f"  {f'{number}.' if numbered else '-'} {line['text']}")
            if section["table"]:
                columns = section["table"]["columns"]
                print_rows("", [dict(zip(columns, cells, strict=True)) for cells in section["table"]["rows"]], "")
        typer.echo("")
