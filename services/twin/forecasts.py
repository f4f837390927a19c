"""Tumour forecasts: the growth model applied to the burden in a snapshot, as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from osler.common.v1 import common_pb2
from osler.twin.v1 import twin_pb2

from services.clinical.provenance import timestamp
from services.clinical.refusals import to_refusal
from services.platform.errors import RefusedError
from services.twin import growth
from services.twin.provenance import Source, provenance
from services.twin.snapshot import Burden, BurdenPoint
from services.twin.tables import table

_SECONDS_PER_DAY = 86400.0
_MAX_CURVE_POINTS = 120
_INTERVAL_LEVEL = 0.90


def forecast(quantity: growth.Quantity, burden: Burden, source: Source) -> twin_pb2.TumourForecast:
    """The projected course, or the observed points with a refusal when no curve can be fitted."""
    data = table("growth.yaml")
    result = _outline(quantity, burden.points, source)
    result.cautions.extend(burden.cautions)
    try:
        _refuse_unconfirmed(burden)
        posterior = _fit(quantity, burden.points)
    except RefusedError as refusal:
        result.refusal.CopyFrom(to_refusal(refusal))
        return result
    horizon = burden.points[-1].at + timedelta(days=float(data["horizon_days"]))
    _project(result, posterior, burden.points, horizon, None)
    return result


def _refuse_unconfirmed(burden: Burden) -> None:
    if burden.unconfirmed:
        raise RefusedError(
            "growth.lesions_unconfirmed",
            "the regions were found by a threshold alone; physiological uptake among them would pass for tumour",
            missing=["lesion outlines (RTSTRUCT or SEG)"],
            remedy="outline the lesions, or confirm the candidates, and send the outlines",
        )


def simulate(
    quantity: growth.Quantity,
    points: Sequence[BurdenPoint],
    source: Source,
    *,
    effect: float,
    change_at: datetime,
    horizon: datetime,
) -> twin_pb2.TumourForecast:
    """The course when the treatment's effect is multiplied by `effect` (0..10) from `change_at` until `horizon`.

    Raises RefusedError as `growth.fit` does, and `growth.change_before_last_measurement`: the measurements until then
    already show what the treatment did.
    """
    if change_at < points[-1].at:
        raise RefusedError(
            "growth.change_before_last_measurement",
            "the change starts before the last measurement, which already shows the course it had",
            remedy="let the change start at or after the last measurement",
        )
    posterior = _fit(quantity, points)
    change = growth.Change(_days(points[0].at, change_at), effect)
    result = _outline(quantity, points, source, effect=effect, change_at=change_at)
    _project(result, posterior, points, horizon, change)
    result.cautions.append(
        "What-if: only the decay of the sensitive part changes. Where treatment stops, that part is assumed to stand "
        "still, so real growth may be faster."
    )
    return result


def quantity_of(forecast: twin_pb2.TumourForecast) -> growth.Quantity:
    """Which quantity a forecast follows. Raises ValueError for a title that the priors do not list."""
    for quantity in growth.QUANTITIES:
        if table("growth.yaml")["quantities"][quantity]["title"] == forecast.quantity:
            return quantity
    raise ValueError(f"no prior for the quantity {forecast.quantity!r} in growth.yaml")


def observed_points(forecast: twin_pb2.TumourForecast) -> tuple[BurdenPoint, ...]:
    """The measurements behind a forecast, oldest first."""
    return tuple(
        BurdenPoint(point.at.ToDatetime(UTC), point.value, tuple(point.entry_ids)) for point in forecast.observed
    )


def _days(start: datetime, at: datetime) -> float:
    return (at - start).total_seconds() / _SECONDS_PER_DAY


def _fit(quantity: growth.Quantity, points: Sequence[BurdenPoint]) -> growth.Posterior:
    days = [_days(points[0].at, point.at) for point in points]
    return growth.fit(days, [point.value for point in points], growth.prior_for(quantity))


def _outline(
    quantity: growth.Quantity, points: Sequence[BurdenPoint], source: Source, **changes: object
) -> twin_pb2.TumourForecast:
    data = table("growth.yaml")
    entry = data["quantities"][quantity]
    unit = entry["unit"]
    parameters = {
        "prior": entry["prior"],
        "band": "predictive, measurement error included",
        "progression": _progression(entry),
        **{name: str(value) for name, value in changes.items()},
    }
    return twin_pb2.TumourForecast(
        quantity=entry["title"],
        unit=unit,
        observed=[
            twin_pb2.ObservedPoint(at=timestamp(point.at), value=point.value, entry_ids=point.entry_ids)
            for point in points
        ],
        provenance=provenance(
            source,
            method=data["name"],
            citations=data["citations"],
            entry_ids=[entry_id for point in points for entry_id in point.entry_ids],
            parameters=parameters,
        ),
    )


def _progression(entry: Mapping[str, Any]) -> str:
    """What counts as progression, in words."""
    above = entry["progression_increase"]
    return f"{entry['progression_ratio']:g} times the nadir" + (
        f" and at least {above:g} {entry['unit']} above it" if above else ""
    )


def _project(
    result: twin_pb2.TumourForecast,
    posterior: growth.Posterior,
    points: Sequence[BurdenPoint],
    horizon: datetime,
    change: growth.Change | None,
) -> None:
    start = points[0].at
    span = _days(start, horizon)
    step = max(float(table("growth.yaml")["curve_step_days"]), span / (_MAX_CURVE_POINTS - 1))
    days = np.append(np.arange(0.0, span, step), span)
    for band in growth.bands(posterior, days, change):
        result.curve.add(
            at=timestamp(start + timedelta(days=band.day)),
            median=band.median,
            lower_50=band.lower_50,
            upper_50=band.upper_50,
            lower_90=band.lower_90,
            upper_90=band.upper_90,
        )
    result.decay_rate.CopyFrom(_quantity(posterior.d, "/d"))
    result.growth_rate.CopyFrom(_quantity(posterior.g, "/d"))
    if change is None:
        result.time_to_nadir.CopyFrom(_quantity(growth.nadir_day(posterior.d, posterior.g), "d"))
    result.probability_of_progression = growth.probability_of_progression(posterior, span, change)
    result.horizon.CopyFrom(timestamp(horizon))
    result.cautions.append(f"Progression means {result.provenance.parameters['progression']}.")
    result.cautions.append(f"Population prior: {result.provenance.parameters['prior']}.")
    if len(points) == 2:
        result.cautions.append("Two measurements only: decay and growth cannot be told apart, the prior decides much.")
    result.cautions.append("The band shows where the next measurement is expected, measurement error included.")


def _quantity(draws: growth.Floats, unit: str) -> common_pb2.Quantity:
    found = growth.estimate(draws)
    interval = common_pb2.Interval(lower=found.lower, upper=found.upper, level=_INTERVAL_LEVEL)
    return common_pb2.Quantity(value=found.median, unit=unit, uncertainty=common_pb2.Uncertainty(interval=interval))
