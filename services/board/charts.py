"""Charts as SVG geometry: plain functions from numbers to paths, drawn by the templates.

Coordinates are pixels in a fixed view box, y downwards; the browser scales the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from osler.twin.v1 import twin_pb2


@dataclass(frozen=True)
class Tick:
    position: float
    label: str


@dataclass(frozen=True)
class Marker:
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class ForecastChart:
    """A projected curve with its 50 and 90 % bands, and the measurements it was fitted to."""

    width: int
    height: int
    median: str
    band_50: str
    band_90: str
    observed: list[Marker]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    today_x: float | None
    left: float
    bottom: float
    against: str = ""


@dataclass(frozen=True)
class TimelineMark:
    """`start` and `end`: seconds since 1970, for the browser to zoom by."""

    x: float
    width: float
    title: str
    flagged: bool
    start: float
    end: float


@dataclass(frozen=True)
class Lane:
    label: str
    y: float
    marks: list[TimelineMark]


@dataclass(frozen=True)
class TimelineChart:
    width: int
    height: int
    lanes: list[Lane]
    ticks: list[Tick]
    left: float
    start: float
    end: float


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover [low, high], roughly `about` of them.

    >>> nice_ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    span = max(high - low, 1e-9)
    raw = span / max(about, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(float(n * step), 10) for n in range(first, last + 1)]


def month_ticks(start: datetime, end: datetime, about: int = 7) -> list[datetime]:
    """First days of months (or of years on long spans) between two times."""
    months = max(1.0, (end - start).days / 30.44)
    step = next(s for s in (1, 2, 3, 6, 12, 24, 60, 120, 240, 480) if months / s <= about)
    ticks: list[datetime] = []
    year, month = start.year, start.month
    while True:
        at = datetime(year, month, 1, tzinfo=UTC)
        if at > end:
            return ticks
        if at >= start and (year * 12 + month - 1) % step == 0:
            ticks.append(at)
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points) if points else ""


def forecast(
    chart: twin_pb2.TumourForecast,
    today: datetime,
    width: int = 640,
    height: int = 260,
    against: twin_pb2.TumourForecast | None = None,
) -> ForecastChart | None:
    """Geometry of a forecast; None when there is no curve to draw. `against`: another course, drawn as a line only."""
    if not chart.curve:
        return None
    left, right, top, bottom = 56.0, width - 12.0, 12.0, height - 30.0
    times = [p.at.ToDatetime(UTC) for p in chart.curve]
    seen = [(o.at.ToDatetime(UTC), o.value) for o in chart.observed]
    start, end = min([*times, *(t for t, _ in seen)]), max([*times, *(t for t, _ in seen)])
    # One far tail must not flatten the curve that matters: the axis covers the measurements and the median generously.
    medians = [p.median for p in [*chart.curve, *(against.curve if against else ())]]
    ceiling = 1.6 * max([*medians, *(v for _, v in seen)])
    ticks = nice_ticks(0.0, min(max(p.upper_90 for p in chart.curve), ceiling))
    x = _scale(start.timestamp(), end.timestamp(), left, right)
    y = _scale(0.0, ticks[-1], bottom, top)
    points = [(x(t.timestamp()), p) for t, p in zip(times, chart.curve, strict=True)]

    def clamp(value: float) -> float:
        return max(y(value), top)

    def band(lower: Sequence[float], upper: Sequence[float]) -> str:
        there = [(px, clamp(v)) for (px, _), v in zip(points, upper, strict=True)]
        back = [(px, clamp(v)) for (px, _), v in zip(points, lower, strict=True)]
        return _path([*there, *reversed(back)]) + " Z"

    return ForecastChart(
        width,
        height,
        _path([(px, clamp(p.median)) for px, p in points]),
        band([p.lower_50 for _, p in points], [p.upper_50 for _, p in points]),
        band([p.lower_90 for _, p in points], [p.upper_90 for _, p in points]),
        [Marker(x(t.timestamp()), clamp(v), f"{t:%d %b %Y}: {v:.3g} {chart.unit}") for t, v in seen],
        [Tick(x(t.timestamp()), f"{t:%b %Y}") for t in month_ticks(start, end) if x(t.timestamp()) < width - 36],
        [Tick(y(v), f"{v:g}") for v in ticks],
        x(today.timestamp()) if start <= today <= end else None,
        left,
        bottom,
        _path(
            [
                (x(p.at.ToDatetime(UTC).timestamp()), clamp(p.median))
                for p in against.curve
                if p.at.ToNanoseconds() <= chart.curve[-1].at.ToNanoseconds()
            ]
        )
        if against
        else "",
    )


@dataclass(frozen=True)
class Happening:
    """Something on the timeline: `end` is None for a moment."""

    lane: str
    start: datetime
    end: datetime | None
    title: str
    flagged: bool = False


def timeline(happenings: Sequence[Happening], lanes: Sequence[str], width: int = 960) -> TimelineChart | None:
    """Lanes from top to bottom in the given order; empty lanes are left out. None when nothing has a date."""
    used = [lane for lane in lanes if any(h.lane == lane for h in happenings)]
    if not used:
        return None
    start = min(h.start for h in happenings) - timedelta(days=15)
    end = max(h.end or h.start for h in happenings) + timedelta(days=15)
    left, right, row = 120.0, width - 16.0, 30.0
    x = _scale(start.timestamp(), end.timestamp(), left, right)

    def mark(h: Happening) -> TimelineMark:
        here = x(h.start.timestamp())
        begun, ended = h.start.timestamp(), (h.end or h.start).timestamp()
        return TimelineMark(here, max(0.0, x(ended) - here), h.title, h.flagged, begun, ended)

    drawn = [
        Lane(lane, 20 + n * row, [mark(h) for h in sorted(happenings, key=lambda h: h.start) if h.lane == lane])
        for n, lane in enumerate(used)
    ]
    span_years = (end - start).days / 365
    style = "%Y" if span_years > 8 else "%b %Y"
    ticks = [Tick(x(t.timestamp()), t.strftime(style)) for t in month_ticks(start, end, about=9)]
    height = int(20 + len(used) * row + 18)
    return TimelineChart(width, height, drawn, ticks, left, start.timestamp(), end.timestamp())


def sparkline(values: Sequence[float], width: float = 90.0, height: float = 22.0) -> str:
    """A small trend line; empty for fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    y = _scale(low, high, height - 3, 3) if high > low else (lambda _: height / 2)
    step = (width - 6) / (len(values) - 1)
    return _path([(3 + n * step, y(v)) for n, v in enumerate(values)])
