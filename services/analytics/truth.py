"""Forecasts beside what came later: how wide of the mark, how often inside their bands, and whether 30 % means 30 %."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

import numpy as np
from scipy import stats

from services.analytics.groups import wilson


class Band(NamedTuple):
    """A forecast at one time."""

    at: datetime
    median: float
    lower_50: float
    upper_50: float
    lower_90: float
    upper_90: float


@dataclass(frozen=True)
class Curve:
    """One forecast. `bands` by time; `seen_until`: its last input."""

    patient_key: str
    quantity: str
    made_at: datetime
    seen_until: datetime
    bands: Sequence[Band]


@dataclass(frozen=True)
class Check:
    """A forecast at the moment of a later measurement. `error` = median - measured, in the quantity's unit."""

    patient_key: str
    quantity: str
    made_at: datetime
    at: datetime
    days_ahead: float
    error: float
    measured: float
    inside_50: bool
    inside_90: bool


def check_curves(curves: Iterable[Curve], measured: Mapping[tuple[str, str], Mapping[datetime, float]]) -> list[Check]:
    """Each forecast against the first measurement after those it had seen; one beyond its curve is not judged.

    `measured`: (patient key, quantity) -> time -> value. Of several forecasts from the same measurements the last counts,
    so that a forecast made again is not judged twice.
    """
    latest: dict[tuple[str, str, datetime], Curve] = {}
    for curve in sorted(curves, key=lambda c: c.made_at):
        latest[(curve.patient_key, curve.quantity, curve.seen_until)] = curve
    checks = []
    for curve in latest.values():
        later = sorted(at for at in measured.get((curve.patient_key, curve.quantity), {}) if at > curve.seen_until)
        if later and curve.bands and curve.bands[0].at <= later[0] <= curve.bands[-1].at:
            checks.append(_check(curve, later[0], measured[(curve.patient_key, curve.quantity)][later[0]]))
    return checks


def _check(curve: Curve, at: datetime, value: float) -> Check:
    times = [band.at.timestamp() for band in curve.bands]
    columns = np.array([band[1:] for band in curve.bands], dtype=float).T
    median, low50, high50, low90, high90 = (float(np.interp(at.timestamp(), times, column)) for column in columns)
    days = (at - curve.seen_until).total_seconds() / 86400
    inside = low50 <= value <= high50, low90 <= value <= high90
    return Check(curve.patient_key, curve.quantity, curve.made_at, at, days, median - value, value, *inside)


@dataclass(frozen=True)
class Coverage:
    """Forecasts of one quantity and month: shares inside the bands with the interval of the 90 % one."""

    quantity: str
    month: str
    forecasts: int
    inside_50: float
    inside_90: float
    inside_90_lower: float
    inside_90_upper: float
    median_absolute_error: float
    median_relative_error: float


def coverage(checks: Iterable[Check]) -> list[Coverage]:
    """By quantity and by the month of the measurement, in order."""
    rows = []
    ordered = sorted(checks, key=lambda c: (c.quantity, f"{c.at:%Y-%m}"))
    for (quantity, month), group in groupby(ordered, key=lambda c: (c.quantity, f"{c.at:%Y-%m}")):
        part = list(group)
        inside = sum(c.inside_90 for c in part)
        errors = np.array([abs(c.error) for c in part])
        values = np.array([abs(c.measured) for c in part])
        rows.append(
            Coverage(
                quantity, month, len(part), sum(c.inside_50 for c in part) / len(part), inside / len(part),
                *wilson(inside, len(part)), float(np.median(errors)),
                float(np.median(errors[values > 0] / values[values > 0])) if np.any(values > 0) else float("nan"),
            )
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class Reliability:
    """One bin of predicted probability: what was said, and what happened with its interval."""

    lower: float
    upper: float
    count: int
    predicted: float
    happened: float
    happened_lower: float
    happened_upper: float


@dataclass(frozen=True)
class Calibration:
    """`brier` and `expected_calibration_error` in 0..1; `p`: Spiegelhalter's 1986 test, small when 30 % is not 30 %."""

    count: int
    brier: float
    expected_calibration_error: float
    p: float
    bins: tuple[Reliability, ...]


def calibration(said: Sequence[tuple[float, bool]], bins: int = 10) -> Calibration | None:
    """Calibration of (probability, did it happen); None without any. Raises ValueError for a probability outside 0..1."""
    if not said:
        return None
    probability = np.array([p for p, _ in said], dtype=float)
    happened = np.array([h for _, h in said], dtype=float)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError("a probability lies outside 0..1")
    which = np.minimum((probability * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for i in np.unique(which):
        part = which == i
        count, events = int(part.sum()), int(happened[part].sum())
        mean = float(probability[part].mean())
        rows.append(Reliability(i / bins, (i + 1) / bins, count, mean, events / count, *wilson(events, count)))
        error += count / len(said) * abs(mean - events / count)
    variance = float(np.sum((1 - 2 * probability) ** 2 * probability * (1 - probability)))
    z = float(np.sum((happened - probability) * (1 - 2 * probability))) / np.sqrt(variance) if variance > 0 else 0.0
    brier = float(np.mean((probability - happened) ** 2))
    return Calibration(len(said), brier, error, float(2 * stats.norm.sf(abs(z))), tuple(rows))


def progression_outcomes(
    forecasts: Iterable[tuple[str, datetime, Sequence[tuple[datetime, float]]]],
    visits: Mapping[str, Sequence[tuple[datetime, bool]]],
) -> list[tuple[float, bool]]:
    """(probability, did it progress by then) of each dated probability whose truth is known.

    `forecasts`: (patient, made at, dated probabilities). `visits`: patient -> (time, progressive). Known: a progressive
    visit between the forecast and the date, or a visit without progression at the date or after it. Where progression is
    first seen after the date it is not known when it began; these and patients who left before are left out.
    """
    known = []
    for patient, made_at, dated in forecasts:
        later = [(at, progressive) for at, progressive in visits.get(patient, ()) if at > made_at]
        for by, probability in dated:
            if any(progressive for at, progressive in later if at <= by):
                known.append((probability, True))
            elif any(at >= by and not progressive for at, progressive in later):
                known.append((probability, False))
    return known
