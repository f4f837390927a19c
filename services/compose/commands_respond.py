"""The command `respond`: response criteria on a table of lesions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.compose.console import Json, print_json, wide_console

if TYPE_CHECKING:
    from rich.console import Console

    from services.advisor.response.lesions import Assessment, Concern, Judged, Options
    from services.platform.errors import RefusedError

Criteria = Literal["recist1.1", "irecist", "mrecist", "rano2", "percist", "lugano", "pcwg3", "gcig", "ca125", "psa"]

_EPILOG = """
**Examples**

`osler respond lesions.csv` judges every visit by RECIST 1.1.

`osler respond lesions.csv --criteria irecist --json` gives iRECIST as one JSON document.

`osler respond glioma.csv --criteria rano2 --radiotherapy-end 2024-03-01`

`osler respond --example --criteria percist > lesions.csv` writes a small table to start from.

**The table** has one row for each lesion at each visit, and fact rows (role `fact`) for what else a criterion needs:

`date,lesion,role,organ,side,node,longest,short_axis,unit,state,value`

`2024-01-10,L1,target,liver,,,42,,mm,,`

`2024-03-06,L1,,,,,25,,mm,,`

`2024-03-06,psa,fact,,,,,,ng/mL,,3.1`

The earliest date is the baseline. `state` is one of measured, too small, absent, present, increased, progressed, equivocal,
not evaluated. All columns, facts and rules: docs/response.md. Exit status 1 when the table cannot be judged.
"""


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=_EPILOG)(respond)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("write the day as YYYY-MM-DD") from None


def respond(
    lesions: Annotated[Path | None, typer.Argument(help="The lesion table (CSV, UTF-8).")] = None,
    criteria: Annotated[Criteria, typer.Option(help="Which criterion.")] = "recist1.1",
    confirm: Annotated[
        bool, typer.Option(help="CR and PR must be confirmed for the best overall response (RECIST 1.1, mRECIST).")
    ] = True,
    confirmation_days: Annotated[int, typer.Option(min=1, help="How much later a response must be met again.")] = 28,
    stable_days: Annotated[
        int, typer.Option(min=0, help="How long stable disease must last to be a best response.")
    ] = 42,
    start: Annotated[
        date | None, typer.Option(parser=_day, help="Start of treatment, if not the baseline's date.")
    ] = None,
    radiotherapy_end: Annotated[
        date | None, typer.Option(parser=_day, help="End of radiotherapy (RANO 2.0): later visits count.")
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print an example table of the criterion and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judges response at every visit of a lesion table, with the arithmetic spelled out."""
    from services.advisor.response import criteria as known
    from services.advisor.response import examples, lesion_table
    from services.advisor.response.lesions import Options
    from services.platform.errors import RefusedError

    if example:
        typer.echo(examples.text(criteria), nl=False)
        return
    if lesions is None:
        raise typer.BadParameter("name the lesion table (CSV), or use --example", param_hint="LESIONS")
    options = Options(confirm, confirmation_days, stable_days, start, radiotherapy_end)
    try:
        found = known.assess(criteria, lesion_table.read(_text(lesions)), options)
    except RefusedError as refusal:
        _refuse(refusal, as_json=as_json)
        raise typer.Exit(1) from None
    if as_json:
        print_json(document(found, options))
    else:
        show(wide_console(), found)


def _text(path: Path) -> str:
    from services.platform.errors import RefusedError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RefusedError("lesion_table.unreadable", f"the lesion table cannot be opened: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RefusedError(
            "lesion_table.encoding", "the lesion table is not UTF-8 text", remedy="save it as CSV in UTF-8"
        ) from None


def _refuse(refusal: RefusedError, *, as_json: bool) -> None:
    """What is missing and who supplies it; the table gets no category."""
    if as_json:
        plain = {name: getattr(refusal, name) for name in ("reason", "message", "missing", "remedy", "subject")}
        print_json({"refusal": plain})
        return
    console = wide_console(stderr=True)
    console.print(f"osler: {refusal.message} [{refusal.reason}]", style="red", markup=False, highlight=False)
    for item in refusal.missing:
        console.print(f"  missing: {item}", markup=False, highlight=False)
    if refusal.remedy:
        console.print(f"  {refusal.remedy}", markup=False, highlight=False)


def document(found: Assessment, options: Options) -> dict[str, Any]:
    """The assessment as JSON."""
    return {
        "criterion": found.criterion,
        "version": found.version,
        "citations": list(found.citations),
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "baseline": found.baseline_at.isoformat(),
        "visits": [_visit(item) for item in found.judged],
        "best": {"label": found.best, "reason": found.best_reason},
        "progressed_at": found.progressed_at.isoformat() if found.progressed_at else None,
        "notes": list(found.notes),
        "statements": [asdict(item) for item in found.concerns],
    }


def _visit(item: Judged) -> dict[str, Any]:
    return {
        "date": item.at.isoformat(),
        "category": item.label,
        "parts": dict(item.parts),
        "baseline": item.baseline,
        "nadir": item.nadir,
        "current": item.current,
        "unit": item.unit,
        "change_percent": item.change_percent,
        "from_nadir_percent": item.from_nadir_percent,
        "arithmetic": list(item.arithmetic),
        "notes": list(item.notes),
        "statements": [asdict(concern) for concern in item.concerns],
    }


def show(console: Console, found: Assessment) -> None:
    """A table of the visits, then the arithmetic of each."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{found.criterion} from the baseline of {found.baseline_at}", title_justify="left")
    for name in ("visit", "category", "baseline", "smallest", "now", "from baseline", "from smallest", "parts"):
        table.add_column(name)
    for item in found.judged:
        values = [_value(item.baseline, item.unit), _value(item.nadir, item.unit), _now(item)]
        changes = [_percent(item.change_percent), _percent(item.from_nadir_percent)]
        table.add_row(str(item.at), item.label, *values, *changes, escape(_parts(item.parts)))
    console.print(table)
    for item in found.judged:
        console.print(f"\n{item.at}: {item.label}", style="bold", highlight=False)
        _lines(console, [*item.arithmetic, *item.notes])
        _statements(console, item.concerns)
    since = f"; progression dates from {found.progressed_at}" if found.progressed_at else ""
    console.print(f"\nBest overall response: {found.best}", style="bold", highlight=False)
    _lines(console, [f"{found.best_reason}{since}.", *found.notes])
    _statements(console, found.concerns)
    for citation in found.citations:
        console.print(f"Source: {citation}", style="dim", markup=False, highlight=False)


def _now(item: Judged) -> str:
    """Without a sum for a visit that cannot be judged: it may lack lesions."""
    return "" if item.label == "NE" else _value(item.current, item.unit)


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.1f} {unit}"


def _percent(change: float | None) -> str:
    return "" if change is None else f"{change:+.1f} %"


def _parts(parts: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def _lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(f"  {line}", markup=False, highlight=False)


def _statements(console: Console, concerns: tuple[Concern, ...]) -> None:
    for concern in concerns:
        console.print(f"  ! {concern.message} [{concern.reason}]", style="yellow", markup=False, highlight=False)
        if concern.missing:
            console.print(f"    missing: {', '.join(concern.missing)}", markup=False, highlight=False)
        if concern.remedy:
            console.print(f"    {concern.who or 'to do'}: {concern.remedy}", markup=False, highlight=False)
