"""`osler twin`: the digital twin from the command line, without any server."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from services.compose import commands_twin_calculators, commands_twin_validate
from services.compose.console import Json, context_of, foundations_of, print_json, print_rows, wide_console
from services.platform.errors import OslerError, RefusedError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from osler.twin.v1 import twin_pb2

    from services.compose.rooms import Foundations

app = typer.Typer(
    name="twin",
    help="The digital twin: how a tumour will go on, and what another course of treatment would change.\n\n"
    "Measurements come from a CSV file with the columns `date` (ISO 8601), `value` and `unit` (UCUM; mm where there is "
    "none), or from a patient that this installation knows (`--patient`). The same seed gives the same answer, here, "
    "over gRPC and in Python.",
    no_args_is_help=True,
)

commands_twin_calculators.register(app)
commands_twin_validate.register(app)

Measurements = Annotated[
    Path | None,
    typer.Option("--measurements", "-m", exists=True, dir_okay=False, help="CSV file: date, value, unit."),
]
Patient = Annotated[str, typer.Option(help="Patient key, instead of a file.")]
Quantity = Annotated[
    str,
    typer.Option(
        help="sum_longest_diameters (mm), metabolic_tumour_volume or total_lesion_glycolysis (mL), serum_tumour_marker (ug/L)."
    ),
]
Disease = Annotated[str, typer.Option(help="Disease with a fitted prior; `osler twin population` lists them.")]
Regimen = Annotated[str, typer.Option(help="Regimen given during the measurements, where one was fitted.")]
Days = Annotated[int, typer.Option(min=0, max=3650, help="Horizon in days after the last measurement; 180 when 0.")]
Seed = Annotated[int, typer.Option(min=1, max=2**32 - 1, help="Of the random draws.")]
Courses = Annotated[
    list[str],
    typer.Option(
        "--course",
        "-c",
        help="A course, `NAME` alone for going on, or `NAME=PHASE;PHASE`. A phase is `DATE:EFFECT` (0 stops, 1 resumes, 2 "
        "doubles the present treatment) or `DATE:EFFECT+REGIMEN` (0+folfox6 switches, 1+folfox6 combines).",
    ),
]


def add_to(parent: typer.Typer) -> None:
    """Adds the commands."""
    parent.add_typer(app)


def _subject(measurements: Path | None, patient: str, quantity: str, disease: str, regimen: str) -> twin_pb2.Subject:
    from osler.twin.v1 import twin_pb2

    if (measurements is None) == (not patient):
        raise typer.BadParameter("give either --measurements FILE or --patient KEY")
    subject = twin_pb2.Subject(quantity=quantity, disease=disease, regimen=regimen)
    if measurements is None:
        subject.patient_key = patient
    else:
        subject.series.CopyFrom(_series(measurements))
    return subject


def _series(path: Path) -> twin_pb2.TumourSeries:
    from osler.twin.v1 import twin_pb2

    series = twin_pb2.TumourSeries()
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                item = series.measurements.add(value=float(row["value"]), unit=(row.get("unit") or "").strip())
                item.at.FromDatetime(_time(row["date"]))
            except (KeyError, TypeError, ValueError) as error:
                raise RefusedError(
                    "growth.unreadable_measurement",
                    f"line {number} of the measurements cannot be read",
                    missing=["date and value"],
                    remedy="write the columns date (2024-03-01), value and unit",
                ) from error
    if not series.measurements:
        raise RefusedError("growth.no_measurement", "the file holds no measurement", remedy="add a line for each visit")
    return series


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text.strip())
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _course(text: str) -> twin_pb2.Course:
    from osler.twin.v1 import twin_pb2

    name, _, phases = text.partition("=")
    course = twin_pb2.Course(name=name.strip())
    for phase in filter(None, (part.strip() for part in phases.split(";"))):
        day, _, what = phase.rpartition(":")
        effect, _, regimen = what.partition("+")
        try:
            item = course.phases.add(own_effect=float(effect), added_regimen=regimen.strip())
            item.start.FromDatetime(_time(day))
        except ValueError:
            raise typer.BadParameter(
                f"cannot read the phase {phase!r}; write DATE:EFFECT or DATE:EFFECT+REGIMEN"
            ) from None
    return course


def _answer(ctx: typer.Context, name: str, request: Message, patient: str) -> list[Any]:
    """The answers that the room's servicer would give, its contract checked, without any server."""
    import protovalidate

    from services.twin import calibrate, compare, simulate

    try:
        protovalidate.validate(request)
    except protovalidate.ValidationError as error:
        raise OslerError(f"the request breaks a rule of the contract: {error}") from None
    calls: dict[str, Any] = {
        "predict": lambda *given: [simulate.predict(*given)],
        "courses": lambda *given: list(simulate.simulate_courses(*given)),
        "compare": lambda *given: [compare.compare(*given)],
        "calibrate": lambda *given: [calibrate.calibrate(*given)],
    }
    now = datetime.now(UTC)
    if not patient:
        return list(calls[name](request, _nobody, now))
    with foundations_of(ctx, ["twin"]) as foundations:
        return list(calls[name](request, _known(foundations), now))


def _nobody(key: str) -> Any:
    raise OslerError("no installation was asked for this patient key")


def _known(foundations: Foundations) -> Any:
    from services.twin import store

    def find(key: str) -> Any:
        with foundations.database.session() as session:
            known = store.get(session, key)
        if known is None:
            raise OslerError("no predictions for this patient key; `osler case` lists the keys")
        return known

    return find


def _as_json(message: Message) -> Any:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


@app.command()
def predict(
    ctx: typer.Context,
    measurements: Measurements = None,
    patient: Patient = "",
    quantity: Quantity = "",
    disease: Disease = "",
    regimen: Regimen = "",
    days: Days = 0,
    planned_scan: Annotated[str, typer.Option(help="Date of the next scan; earlier ones are valued against it.")] = "",
    explain: Annotated[bool, typer.Option(help="Also tell what drove the forecast, and what would change it.")] = True,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Predicts the course of a tumour: sizes with 50 and 90 % bands, response, progression, the value of scanning early.

    Example: osler twin predict -m sizes.csv --disease colorectal_cancer_metastatic --regimen folfox6
    """
    from osler.twin.v1 import twin_pb2

    subject = _subject(measurements, patient, quantity, disease, regimen)
    request = twin_pb2.PredictRequest(subject=subject, horizon_days=days, seed=seed, explain=explain)
    if planned_scan:
        request.planned_imaging.FromDatetime(_time(planned_scan))
    (answer,) = _answer(ctx, "predict", request, patient)
    if as_json:
        print_json(_as_json(answer))
    else:
        _show_forecast(answer.forecast)


@app.command()
def simulate(
    ctx: typer.Context,
    course: Courses,
    measurements: Measurements = None,
    patient: Patient = "",
    quantity: Quantity = "",
    disease: Disease = "",
    regimen: Regimen = "",
    days: Days = 0,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Projects courses of treatment, one after the other.

    Example: osler twin simulate -m sizes.csv -c "stop=2024-07-15:0" -c "pause=2024-07-15:0;2024-09-15:1"
    """
    from osler.twin.v1 import twin_pb2

    subject = _subject(measurements, patient, quantity, disease, regimen)
    request = twin_pb2.SimulateCoursesRequest(
        subject=subject, courses=[_course(text) for text in course], horizon_days=days, seed=seed
    )
    answers = _answer(ctx, "courses", request, patient)
    if as_json:
        print_json([_as_json(answer) for answer in answers])
        return
    for answer in answers:
        Console().print(f"[bold]{answer.course}[/bold]")
        _show_forecast(answer.forecast)


@app.command()
def compare(
    ctx: typer.Context,
    course: Courses,
    measurements: Measurements = None,
    patient: Patient = "",
    quantity: Quantity = "",
    disease: Disease = "",
    regimen: Regimen = "",
    days: Days = 0,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Puts courses of treatment side by side, with the probability of each being better.

    Example: osler twin compare -m sizes.csv --disease colorectal_cancer_metastatic --regimen lv5fu2
    -c "go on" -c "switch=2024-07-15:0+folfox6"
    """
    from osler.twin.v1 import twin_pb2

    subject = _subject(measurements, patient, quantity, disease, regimen)
    request = twin_pb2.CompareRequest(
        subject=subject, courses=[_course(text) for text in course], horizon_days=days, seed=seed
    )
    (answer,) = _answer(ctx, "compare", request, patient)
    if as_json:
        print_json(_as_json(answer))
        return
    outcomes = [
        {
            "course": item.course,
            "size_at_horizon": _interval(item.relative_size, 100, " %"),
            "response": f"{100 * item.probability_of_response:.0f} %",
            "progression": f"{100 * item.probability_of_progression:.0f} %",
            "smallest": f"{100 * item.probability_best:.0f} %",
        }
        for item in answer.outcomes
    ]
    print_rows(f"By {answer.horizon.ToDatetime():%Y-%m-%d}, of the size at the last measurement", outcomes, "")
    pairs = [
        {
            "course": item.course,
            "against": item.other,
            "smaller": f"{100 * item.probability_smaller:.0f} %",
            "later_progression": f"{100 * item.probability_later_progression:.0f} %",
            "size_ratio": _interval(item.size_ratio, 1, ""),
        }
        for item in answer.pairs
    ]
    print_rows("Probability of being better", pairs, "")
    _say(answer.cautions)


@app.command()
def calibrate(
    ctx: typer.Context,
    measurements: Measurements = None,
    patient: Patient = "",
    quantity: Quantity = "",
    disease: Disease = "",
    regimen: Regimen = "",
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Fits the twin to the measurements, and says how well it would have foreseen each of them."""
    from osler.twin.v1 import twin_pb2

    subject = _subject(measurements, patient, quantity, disease, regimen)
    (answer,) = _answer(ctx, "calibrate", twin_pb2.CalibrateRequest(subject=subject, seed=seed), patient)
    if as_json:
        print_json(_as_json(answer))
        return
    rows = [
        {
            "parameter": item.name,
            "fitted": f"{_interval(item.value, 1, '')} {item.value.unit}",
            "population": f"{item.population_median:.3g}",
        }
        for item in answer.parameters
    ]
    print_rows(f"Parameters (Stein model {100 * answer.stein_probability:.0f} %)", rows, "")
    rows = [
        {
            "at": f"{item.at.ToDatetime():%Y-%m-%d}",
            "measured": f"{item.value:.1f}",
            "expected": f"{item.expected.median:.1f} ({item.expected.lower_90:.1f}-{item.expected.upper_90:.1f})",
            "inside_90": "yes" if item.inside_90 else "no",
        }
        for item in answer.foreseen
    ]
    print_rows("Foreseen from the measurements before", rows, "one measurement: nothing to foresee")
    _say(answer.cautions)


@app.command()
def population(
    ctx: typer.Context,
    patients: Annotated[int, typer.Option(min=0, max=1_000_000, help="Virtual patients; 0 lists the priors.")] = 0,
    quantity: Quantity = "",
    disease: Disease = "",
    regimen: Regimen = "",
    days: Annotated[int, typer.Option(min=0, max=3650, help="Horizon in days; 365 when 0.")] = 0,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Lists the population priors, or simulates virtual patients of one (`--patients 20000`).

    They are spread over Ray where the settings say `compute.backend: ray`.
    """
    if not patients:
        _list_priors(as_json)
        return
    from osler.twin.v1 import twin_pb2
    from rich.progress import Progress

    from services.twin import simulate_population

    compute = context_of(ctx).settings().compute
    request = twin_pb2.SimulatePopulationRequest(
        quantity=quantity, disease=disease, regimen=regimen, patients=patients, horizon_days=days, seed=seed
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("virtual patients", total=patients)
        for last in simulate_population.answer(request, compute):
            progress.update(task, completed=last.patients)
    if as_json:
        print_json(_as_json(last))
        return
    rows = [
        {
            "day": f"{point.day:.0f}",
            "size": f"{100 * point.median:.0f} % ({100 * point.lower_90:.0f}-{100 * point.upper_90:.0f})",
            "progressed": f"{100 * point.progressed:.0f} %",
            "responded": f"{100 * point.responded:.0f} %",
        }
        for point in last.points
    ]
    print_rows(f"{last.patients} virtual patients, of the first size", rows, "")


def _list_priors(as_json: bool) -> None:
    from services.twin import growth_population
    from services.twin.tables import table

    rows = [
        {
            "disease": name,
            "title": entry["title"],
            "regimens": ", ".join(growth_population.regimens(name)) or "none",
            "prior": entry["prior"],
        }
        for name, entry in table("growth.yaml")["diseases"].items()
    ]
    if as_json:
        fitted = table("growth_priors.yaml")["diseases"]
        quantities = {name: entry["unit"] for name, entry in table("growth.yaml")["quantities"].items()}
        print_json({"diseases": rows, "fitted": fitted, "quantities": quantities})
    else:
        print_rows("Population priors", rows, "")


def _interval(quantity: Any, factor: float, unit: str) -> str:
    interval = quantity.uncertainty.interval
    return f"{factor * quantity.value:.3g} ({factor * interval.lower:.3g}-{factor * interval.upper:.3g}){unit}"


def _show_forecast(forecast: Any) -> None:
    rows = [
        {
            "by": f"{by.by.ToDatetime():%Y-%m-%d}",
            "size": _size_at(forecast, by.by),
            "progression": f"{100 * by.probability:.0f} %",
            "response": f"{100 * response.probability:.0f} %",
        }
        for by, response in zip(forecast.progression_by, forecast.response_by, strict=True)
    ]
    print_rows(f"{forecast.quantity} ({forecast.unit}), median and 90 % band", rows, "")
    if forecast.HasField("time_to_progression"):
        Console().print(f"time to progression: {_interval(forecast.time_to_progression, 1, ' days')}", highlight=False)
    _show_drivers(forecast)
    values = [
        {
            "scan": f"{value.at.ToDatetime():%Y-%m-%d}",
            "shows_progression": f"{100 * value.shows_progression:.0f} %",
            "false_alarm": f"{100 * value.false_alarm:.0f} %",
            "days_saved": f"{value.days_saved:.1f}",
            "net_days": f"{value.net_days:.1f}",
        }
        for value in forecast.imaging_values
    ]
    if values:
        print_rows("Value of scanning earlier than planned", values, "")
    _say(forecast.cautions)


_DRIVERS = (
    "",
    "without the measurement of {day} ({value:.1f})",
    "if treatment stopped on {day}",
    "if the measurement of {day} is at most {value:.1f} (lowest fifth)",
    "if the measurement of {day} is at least {value:.1f} (highest fifth)",
)


def _show_drivers(forecast: Any) -> None:
    rows = [
        {
            "case": _DRIVERS[one.kind].format(day=f"{one.at.ToDatetime():%Y-%m-%d}", value=one.value),
            "progression": f"{100 * one.probability_of_progression:.0f} %",
            "against_as_it_is": f"{-100 * one.drive:+.0f} points",
        }
        for one in forecast.drivers
    ]
    if rows:
        whole = f"{100 * forecast.probability_of_progression:.0f} %"
        print_rows(f"What drove the probability of progression ({whole}), and what would change it", rows, "")


def _size_at(forecast: Any, at: Any) -> str:
    point = min(forecast.curve, key=lambda item: abs(item.at.ToSeconds() - at.ToSeconds()))
    return f"{point.median:.1f} ({point.lower_90:.1f}-{point.upper_90:.1f})"


def _say(cautions: Any) -> None:
    for caution in cautions:
        wide_console().print(f"- {caution}", highlight=False, style="dim")
