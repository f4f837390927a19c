"""The figures as a page, for those who run imaging and for those who watch the models. No patient is on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from services.analytics import export, figures, lake
from services.analytics.plots import bars, reliability
from services.analytics.settings import monitor
from services.platform.http import create_app, require
from services.platform.http_login import add_login
from services.platform.room import RoomContext
from services.platform.security import Principal

_HERE = Path(__file__).parent
_DAYS = 28
_FRESH_S = 60.0

_PEOPLE = ("analyst", "admin", "board", "clinician")
Reader = Annotated[Principal, Depends(require(*_PEOPLE))]
Caller = Annotated[Principal, Depends(require(*_PEOPLE, "service"))]


@dataclass
class _Memory:
    """Figures of the last minute: a page that many look at asks the lake once."""

    kept: dict[tuple[str, ...], tuple[float, Any]] = field(default_factory=dict)

    def get(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        at, value = self.kept.get(key, (0.0, None))
        if not at or time.monotonic() - at > _FRESH_S:
            value = make()
            self.kept[key] = (time.monotonic(), value)
        return value


def build_app(context: RoomContext, folder: Path) -> FastAPI:
    """`/` for people, `/figures` for programs; both for everyone who may sign in."""
    app = create_app("osler analytics", settings=context.settings, security=context.security, login_path="/login")
    templates = Jinja2Templates(directory=_HERE / "templates")
    templates.env.filters["figure"] = _figure
    memory = _Memory()

    @app.get("/", response_class=HTMLResponse)
    async def page(
        request: Request,
        _: Reader,
        outcome: Annotated[str, Query(pattern="|".join(figures.OUTCOMES))] = "rejected",
        by: Annotated[figures.Attribute, Query()] = "sex",
    ) -> Response:
        values = await asyncio.to_thread(lambda: _all(folder, memory, outcome, by))
        pictures = {"volume_picture": bars(values["days"]), "reliability_picture": reliability(values["calibration"])}
        choices = {"outcomes": list(figures.OUTCOMES), "attributes": figures.ATTRIBUTES, "outcome": outcome, "by": by}
        return templates.TemplateResponse(request, "figures.html", {**values, **pictures, **choices}, HTTPStatus.OK)

    @app.get("/figures")
    async def as_json(
        _: Caller,
        outcome: Annotated[str, Query(pattern="|".join(figures.OUTCOMES))] = "rejected",
        by: Annotated[figures.Attribute, Query()] = "sex",
    ) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: _all(folder, memory, outcome, by))

    add_login(app)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    return app


def _all(folder: Path, memory: _Memory, outcome: str, by: figures.Attribute) -> dict[str, Any]:
    now = datetime.now(UTC)
    views = {view: memory.get((view,), partial(export.rows_of, folder, view)) for view in export.COUNTS}
    return {
        "made_at": now,
        "days_back": _DAYS,
        "least_cell": monitor().least_cell,
        "views": views,
        "days": memory.get(("days",), lambda: _studies_by_day(folder, now)),
        "drift": memory.get(("drift",), lambda: figures.drift_of(folder, now - timedelta(days=_DAYS))),
        "coverage": memory.get(("coverage",), lambda: figures.coverage_of(folder)),
        "calibration": memory.get(("calibration",), lambda: figures.calibration_of(folder)),
        "fairness": memory.get(("fairness", outcome, by), lambda: figures.fairness_of(folder, outcome, by)),
    }


def _studies_by_day(folder: Path, now: datetime) -> list[dict[str, Any]]:
    """Studies of each of the last days, also of those without any; days with few are not told apart from none."""
    sql = "SELECT CAST(received_time AS DATE) AS day, count(*) AS studies FROM studies WHERE received_time >= $since GROUP BY day"
    first = (now - timedelta(days=_DAYS - 1)).date()
    since = datetime(first.year, first.month, first.day, tzinfo=UTC)
    found = {row["day"]: row["studies"] for row in lake.query(folder, sql, {"since": since})}
    rows = []
    for n in range(_DAYS):
        day = first + timedelta(days=n)
        count = found.get(day, 0)
        rows.append({"day": day, "studies": count if count == 0 or count >= monitor().least_cell else None})
    return rows


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return str(value)
