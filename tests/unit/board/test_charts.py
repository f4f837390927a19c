"""Chart geometry: what is drawn is what was given."""

from __future__ import annotations

import itertools
import math
import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from osler.twin.v1 import twin_pb2

from services.board import charts

START = datetime(2026, 6, 2, tzinfo=UTC)


def forecast(values: list[float]) -> twin_pb2.TumourForecast:
    made = twin_pb2.TumourForecast(quantity="sum", unit="mm")
    for n, value in enumerate(values):
        point = made.curve.add(
            median=value, lower_50=0.9 * value, upper_50=1.1 * value, lower_90=0.8 * value, upper_90=1.2 * value
        )
        point.at.FromDatetime(START + timedelta(days=30 * n))
    seen = made.observed.add(value=values[0])
    seen.at.FromDatetime(START)
    return made


def numbers(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path)]


@given(st.floats(0, 1e6, allow_subnormal=False), st.floats(1e-3, 1e6))
def test_ticks_cover_the_range_and_are_even(low: float, span: float) -> None:
    ticks = charts.nice_ticks(low, low + span)
    assert ticks[0] <= low
    assert ticks[-1] >= low + span * (1 - 1e-9)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert all(math.isclose(s, steps[0], rel_tol=1e-6) for s in steps)
    assert 1 <= len(steps) <= 12


def test_a_falling_curve_goes_down_on_the_page() -> None:
    chart = charts.forecast(forecast([80, 60, 50]), START)
    assert chart is not None
    heights = [y for _, y in numbers(chart.median)]
    assert heights == sorted(heights)
    assert (chart.observed[0].x, round(chart.observed[0].y, 1)) == (chart.left, heights[0])


def test_bands_enclose_the_median() -> None:
    chart = charts.forecast(forecast([80, 60, 50]), START)
    assert chart is not None
    band, median = numbers(chart.band_90), numbers(chart.median)
    upper, lower = band[:3], band[3:][::-1]
    assert all(u[1] <= m[1] <= low[1] for u, m, low in zip(upper, median, lower, strict=True))


def test_nothing_to_draw_is_none() -> None:
    assert charts.forecast(twin_pb2.TumourForecast(), START) is None
    assert charts.timeline([], ["Imaging"]) is None


def test_timeline_keeps_order_of_time_and_lanes() -> None:
    day = timedelta(days=1)
    found = [
        charts.Happening("Imaging", START + 30 * day, None, "later"),
        charts.Happening("Imaging", START, None, "first"),
        charts.Happening("Diagnoses", START - 10 * day, START, "span"),
    ]
    chart = charts.timeline(found, ["Diagnoses", "Medication", "Imaging"])
    assert chart is not None
    assert [lane.label for lane in chart.lanes] == ["Diagnoses", "Imaging"]
    assert [m.title for m in chart.lanes[1].marks] == ["first", "later"]
    assert chart.lanes[0].marks[0].width > 10
