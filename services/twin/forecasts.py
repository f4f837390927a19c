"""Tumour forecasts: the growth model applied to a burden over visits, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from osler.common.v1 import common_pb2
from osler.twin.v1 import twin_pb2

from services.clinical.provenance import timestamp
from services.clinical.refusals import to_refusal
from services.platform.errors import RefusedError
from services.twin import growth, growth_drivers, growth_outcomes
from services.twin.fits import fitted
from services.twin.growth_course import Phase
from services.twin.growth_outcomes import Outlook
from services.twin.growth_population import ANY_DISEASE
from services.twin.provenance import Source, provenance
from services.twin.snapshot import Burden, BurdenPoint
from services.twin.tables import table

_SECONDS_PER_DAY = 86400.0
_MAX_CURVE_POINTS = 120
_MAX_DATES = 13
_DATE_STEP_DAYS = 28.0
_NEXT_DAYS = 56.0
INTERVAL_LEVEL = 0.90


@dataclass(frozen=True)
class Observed:
    """The burden that a forecast starts from; disease and regimen choose the population prior."""

    quantity: growth.Quantity
    points: tuple[BurdenPoint, ...]
    source: Source
    disease: str = ANY_DISEASE
    regimen: str = ""
    cautions: tuple[str, ...] = ()

    @property
    def start(self) -> datetime:
        return self.points[0].at

    def day(self, at: datetime) -> float:
        """Days since the first measurement."""
        return (at - self.start).total_seconds() / _SECONDS_PER_DAY

    def at(self, day: float) -> datetime:
        return self.start + timedelta(days=float(day))

    def horizon(self, days: int) -> datetime:
        """So many days after the last measurement, or as many as `growth.yaml` says where 0."""
        return self.points[-1].at + timedelta(days=days or int(table("growth.yaml")["horizon_days"]))


def forecast(quantity: growth.Quantity, burden: Burden, source: Source) -> twin_pb2.TumourForecast:
    """The projected course, or the observed points with a refusal when no curve can be fitted.

    Scans are valued against waiting for the latest of the weeks in `growth.yaml`.
    """
    observed = Observed(quantity, burden.points, source, cautions=burden.cautions)
    try:
        _refuse_unconfirmed(burden)
        _refuse_single(burden.points)
        posterior = fit(observed)
        result = project(observed, posterior, observed.horizon(0))
        latest = timedelta(weeks=max(table("growth.yaml")["imaging_weeks"]))
        add_imaging_values(result, observed, posterior, burden.points[-1].at + latest)
        add_drivers(result, observed, posterior)
        return result
    except RefusedError as refusal:
        result = outline(observed)
        result.refusal.CopyFrom(to_refusal(refusal))
        return result


def _refuse_unconfirmed(burden: Burden) -> None:
    if burden.unconfirmed:
        raise RefusedError(
            "growth.lesions_unconfirmed",
            "the regions were found by a threshold alone; physiological uptake among them would pass for tumour",
            missing=["lesion outlines (RTSTRUCT or SEG)"],
            remedy="outline the lesions, or confirm the candidates, and send the outlines",
        )


def _refuse_single(points: Sequence[BurdenPoint]) -> None:
    """Unasked, one visit is no course: disease and treatment are unknown, so only the population would speak."""
    if len(points) < 2:
        raise RefusedError(
            "growth.too_few_measurements",
            f"a growth curve needs at least two measurements over time; there is {len(points)}",
            missing=["a second measurement of the same lesions"],
            remedy="measure the same lesions at a later visit, or ask for the population's course with Predict",
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
    observed = Observed(quantity, tuple(points), source)
    refuse_early_change(observed, change_at)
    phases = [Phase(observed.day(change_at), effect)]
    return project(observed, fit(observed), horizon, phases, {"effect": str(effect), "change_at": str(change_at)})


def refuse_early_change(observed: Observed, change_at: datetime) -> None:
    """Raises RefusedError `growth.change_before_last_measurement`."""
    if change_at < observed.points[-1].at:
        raise RefusedError(
            "growth.change_before_last_measurement",
            "the change starts before the last measurement, which already shows the course it had",
            remedy="let the change start at or after the last measurement",
        )


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


def fit(observed: Observed, seed: int = 1) -> growth.Posterior:
    """The posterior of the observed burden. Raises RefusedError as `growth.fit` and `growth.population` do."""
    days = tuple(observed.day(point.at) for point in observed.points)
    prior = growth.population(observed.quantity, observed.disease, observed.regimen)
    return fitted(days, tuple(point.value for point in observed.points), prior, seed)


def outline(observed: Observed, **changes: str) -> twin_pb2.TumourForecast:
    """What was observed, and how it is looked at, before anything is projected."""
    entry = table("growth.yaml")["quantities"][observed.quantity]
    return twin_pb2.TumourForecast(
        quantity=entry["title"],
        unit=entry["unit"],
        observed=[
            twin_pb2.ObservedPoint(at=timestamp(point.at), value=point.value, entry_ids=point.entry_ids)
            for point in observed.points
        ],
        provenance=provenance_of(observed, band="predictive, measurement error included", **changes),
        cautions=observed.cautions,
    )


def provenance_of(observed: Observed, **parameters: str) -> common_pb2.Provenance:
    """Model, prior and criteria behind a result on the observed burden."""
    data = table("growth.yaml")
    known = {
        "disease": observed.disease,
        "regimen": observed.regimen or "not given",
        "prior": prior_in_words(observed),
        "progression": _progression_in_words(observed.quantity),
    }
    return provenance(
        observed.source,
        method=data["name"],
        citations=data["citations"],
        entry_ids=[entry_id for point in observed.points for entry_id in point.entry_ids],
        parameters=known | parameters,
    )


def prior_in_words(observed: Observed) -> str:
    """What the population prior rests on."""
    data = table("growth.yaml")
    note = data["quantities"][observed.quantity]["note"]
    words = str(data["diseases"][observed.disease]["prior"])
    return words if note == "fitted" else f"{note}; diameters {words}"


def _progression_in_words(quantity: growth.Quantity) -> str:
    entry = table("growth.yaml")["quantities"][quantity]
    above = entry["progression_increase"]
    return f"{entry['progression_ratio']:g} times the nadir" + (
        f" and at least {above:g} {entry['unit']} above it" if above else ""
    )


def project(
    observed: Observed,
    posterior: growth.Posterior,
    horizon: datetime,
    phases: Sequence[Phase] = (),
    changes: dict[str, str] | None = None,
) -> twin_pb2.TumourForecast:
    """Curve, rates and probabilities until `horizon`, under the phases of a changed course."""
    result = outline(observed, **(changes or {}))
    span = observed.day(horizon)
    _add_curve(result, observed, posterior, span, phases)
    result.decay_rate.CopyFrom(quantity_message(posterior.rates.kill, "/d"))
    result.growth_rate.CopyFrom(quantity_message(posterior.rates.grow, "/d"))
    result.stein_probability = float(posterior.rates.stein.mean())
    if not phases:
        result.time_to_nadir.CopyFrom(quantity_message(growth.nadir_days(posterior.rates, span), "d"))
    ahead = growth_outcomes.outlook(posterior, span, growth_outcomes.criteria_for(observed.quantity), phases)
    result.probability_of_progression = ahead.progressed_by(span)
    result.horizon.CopyFrom(timestamp(horizon))
    _add_dates(result, observed, ahead)
    result.cautions.extend(_cautions(observed, result, bool(phases)))
    return result


def _add_curve(
    result: twin_pb2.TumourForecast,
    observed: Observed,
    posterior: growth.Posterior,
    span: float,
    phases: Sequence[Phase],
) -> None:
    step = max(float(table("growth.yaml")["curve_step_days"]), span / (_MAX_CURVE_POINTS - 1))
    for band in growth.bands(posterior, np.append(np.arange(0.0, span, step), span), phases):
        result.curve.append(curve_point(observed, band))


def curve_point(observed: Observed, band: growth.Band) -> twin_pb2.CurvePoint:
    """A band as a message."""
    limits = {name: value for name, value in vars(band).items() if name != "day"}
    return twin_pb2.CurvePoint(at=timestamp(observed.at(band.day)), **limits)


def _add_dates(result: twin_pb2.TumourForecast, observed: Observed, ahead: Outlook) -> None:
    last, until = float(ahead.days[0]), float(ahead.days[-1])
    step = max(_DATE_STEP_DAYS, (until - last) / _MAX_DATES)
    for day in [*np.arange(last + step, until, step), until]:
        by = timestamp(observed.at(day))
        result.progression_by.add(by=by, probability=ahead.progressed_by(day))
        result.response_by.add(by=by, probability=ahead.responded_by(day))
    later = time_to_progression(ahead)
    if later is not None:
        result.time_to_progression.CopyFrom(later)


def time_to_progression(ahead: Outlook) -> common_pb2.Quantity | None:
    """Days after the last measurement; the interval ends at the horizon at most. None where the median lies beyond it."""
    last, until = float(ahead.days[0]), float(ahead.days[-1])
    median = float(np.median(ahead.progression_day))
    if not np.isfinite(median):
        return None
    return quantity_message(np.minimum(ahead.progression_day, until) - last, "d")


def _cautions(observed: Observed, result: twin_pb2.TumourForecast, changed: bool) -> list[str]:
    parameters = result.provenance.parameters
    found = []
    if changed:
        found.append(
            "What-if: the course on paper. Where treatment stops, the part that it shrank is assumed to stand still at "
            "first, so real growth may be faster; another regimen is taken to act as on patients who had none before."
        )
    found.append(f"Progression means {parameters['progression']}.")
    found.append(f"Population prior: {parameters['prior']}.")
    if len(observed.points) == 1:
        found.append("One measurement only: the course is the population's, not this patient's.")
    if len(observed.points) == 2:
        found.append("Two measurements only: decay and growth cannot be told apart, the prior decides much.")
    limit = growth.population(observed.quantity, observed.disease, observed.regimen).detection_limit
    if all(point.value <= limit for point in observed.points):
        found.append(f"Every measurement is at or below the detection limit of {limit:g} {result.unit}.")
    found.append("The band shows where the next measurement is expected, measurement error included.")
    return found


def quantity_message(draws: growth.Floats, unit: str) -> common_pb2.Quantity:
    """Median of draws with their 90 % interval."""
    found = growth.estimate(draws)
    interval = common_pb2.Interval(lower=found.lower, upper=found.upper, level=INTERVAL_LEVEL)
    return common_pb2.Quantity(value=found.median, unit=unit, uncertainty=common_pb2.Uncertainty(interval=interval))


def add_imaging_values(
    result: twin_pb2.TumourForecast, observed: Observed, posterior: growth.Posterior, planned: datetime
) -> None:
    """Values scans at the weeks of `growth.yaml` after the last measurement that come before the planned one."""
    data: Any = table("growth.yaml")
    last = observed.day(observed.points[-1].at)
    values = growth_outcomes.value_of_imaging(
        posterior,
        [last + 7.0 * weeks for weeks in data["imaging_weeks"]],
        observed.day(planned),
        growth_outcomes.criteria_for(observed.quantity),
        float(data["scan_cost_days"]),
    )
    for value in values:
        numbers = {name: number for name, number in vars(value).items() if name != "day"}
        result.imaging_values.add(at=timestamp(observed.at(value.day)), **numbers)
    result.cautions.append(
        f"Value of imaging: against waiting until {planned:%Y-%m-%d}; a day of progression that nobody sees against "
        f"{data['scan_cost_days']} days as the price of a scan, which is a stated preference."
    )


_DRIVER_KINDS = {
    growth_drivers.Kind.MEASUREMENT: twin_pb2.FORECAST_DRIVER_KIND_MEASUREMENT,
    growth_drivers.Kind.TREATMENT: twin_pb2.FORECAST_DRIVER_KIND_TREATMENT,
    growth_drivers.Kind.LOW_NEXT: twin_pb2.FORECAST_DRIVER_KIND_LOW_NEXT_MEASUREMENT,
    growth_drivers.Kind.HIGH_NEXT: twin_pb2.FORECAST_DRIVER_KIND_HIGH_NEXT_MEASUREMENT,
}


def add_drivers(result: twin_pb2.TumourForecast, observed: Observed, posterior: growth.Posterior) -> None:
    """What drove the probability of progression of a projected forecast, and what would change it; for the course as it is.

    The next measurement is taken eight weeks after the last one, the usual interval of RECIST 1.1, or at an earlier horizon.
    """
    until, last = observed.day(result.horizon.ToDatetime(UTC)), float(posterior.days[-1])
    criteria = growth_outcomes.criteria_for(observed.quantity)
    ahead = growth_outcomes.outlook(posterior, until, criteria)
    for driver in growth_drivers.drivers(posterior, ahead, criteria, min(last + _NEXT_DAYS, until)):
        message = result.drivers.add(
            kind=_DRIVER_KINDS[driver.kind],
            value=driver.value,
            probability_of_progression=driver.probability,
            drive=driver.drive,
        )
        message.at.CopyFrom(timestamp(observed.at(driver.day)))
