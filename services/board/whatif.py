"""What would change under another course of treatment: asks the twin and draws both courses on one chart."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import yaml
from osler.twin.v1 import twin_pb2, twin_pb2_grpc

from services.board import charts
from services.platform import rpc
from services.platform.errors import RetryableError

if TYPE_CHECKING:
    from services.board.pages import Pages

_DEADLINE_S = 5.0
_MOST_WEEKS = 104


@dataclass(frozen=True)
class Asked:
    """A course of `whatif.yaml` that starts in `start_weeks` weeks; a pause lasts `pause_weeks`."""

    course: str
    start_weeks: int
    pause_weeks: int


@dataclass(frozen=True)
class Outcome:
    """What a course leads to: probability of progression by the horizon in percent, and its day."""

    title: str
    progression_percent: int
    horizon: datetime


@dataclass(frozen=True)
class Answer:
    """Both courses. `refusal`: why there is none. `milliseconds`: how long the twin took."""

    chart: charts.ForecastChart | None = None
    quantity: str = ""
    unit: str = ""
    now: Outcome | None = None
    other: Outcome | None = None
    start: datetime | None = None
    refusal: str = ""
    milliseconds: int = 0
    cautions: list[str] = field(default_factory=list)


@cache
def courses() -> dict[str, dict[str, Any]]:
    """Name of a course -> title and what it changes."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("whatif.yaml").read_text("utf-8"))
    return found


def course_of(asked: Asked, now: datetime) -> twin_pb2.Course:
    """The course as the twin understands it. An unknown name goes on as now; weeks are kept within two years."""
    entry = courses().get(asked.course, {})
    course = twin_pb2.Course(name="what if")
    if "effect" not in entry:
        return course
    start = now + timedelta(weeks=min(max(asked.start_weeks, 0), _MOST_WEEKS))
    course.phases.add(own_effect=float(entry["effect"])).start.FromDatetime(start)
    if entry.get("resumes"):
        resumed = start + timedelta(weeks=min(max(asked.pause_weeks, 1), _MOST_WEEKS))
        course.phases.add(own_effect=1.0).start.FromDatetime(resumed)
    return course


async def ask(pages: Pages, patient_key: str, asked: Asked, now: datetime) -> Answer:
    """Both courses from the twin. Raises RetryableError when it does not answer; its refusals are told in the answer."""
    settings, security = pages.context.settings, pages.context.security
    request = twin_pb2.SimulateCoursesRequest(
        subject=twin_pb2.Subject(patient_key=patient_key),
        courses=[twin_pb2.Course(name="as now"), course_of(asked, now)],
        horizon_days=_horizon_days(pages, patient_key, asked, now),
    )
    began = time.perf_counter()
    if pages.twin is None:
        pages.twin = rpc.channel(settings.grpc.endpoint("twin"), settings, security.token_provider("board"))
    try:
        call = twin_pb2_grpc.TwinServiceStub(pages.twin).SimulateCourses(request, timeout=_DEADLINE_S)
        found = {answer.course: answer.forecast async for answer in call}
    except grpc.aio.AioRpcError as error:
        details = rpc.details_of(error)
        if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
            return Answer(refusal=details.message or str(error.details()))
        raise RetryableError("the digital twin does not answer, so courses cannot be compared now") from None
    spent = round(1000 * (time.perf_counter() - began))
    return _answer(found["as now"], found["what if"], asked, now, spent)


def _horizon_days(pages: Pages, patient_key: str, asked: Asked, now: datetime) -> int:
    """Long enough to see what the change does: half a year beyond its end, counted from the last measurement."""
    case = pages.board.case(patient_key)
    seen = [o.at.ToSeconds() for f in case.predictions.forecasts for o in f.observed]
    since = (now.timestamp() - max(seen)) / 86400 if seen else 0.0
    return min(3650, int(since + 7 * (asked.start_weeks + asked.pause_weeks) + 180))


def _answer(
    present: twin_pb2.TumourForecast, other: twin_pb2.TumourForecast, asked: Asked, now: datetime, spent: int
) -> Answer:
    title = str(courses().get(asked.course, {}).get("title", asked.course))
    changes = asked.course in courses() and "effect" in courses()[asked.course]
    return Answer(
        charts.forecast(other if changes else present, now, against=present if changes else None),
        present.quantity,
        present.unit,
        _outcome("Go on as now", present),
        _outcome(title, other) if changes else None,
        now + timedelta(weeks=asked.start_weeks) if changes else None,
        "",
        spent,
        list(dict.fromkeys(other.cautions)),
    )


def _outcome(title: str, forecast: twin_pb2.TumourForecast) -> Outcome:
    return Outcome(title, round(100 * forecast.probability_of_progression), forecast.horizon.ToDatetime())
