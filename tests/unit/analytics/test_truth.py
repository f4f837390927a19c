"""Forecasts against what came later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from services.analytics.truth import Band, Curve, calibration, check_curves, coverage, progression_outcomes

DAY0 = datetime(2026, 1, 1, tzinfo=UTC)


def day(n: float) -> datetime:
    return DAY0 + timedelta(days=n)


def curve(made: float = 0, seen: float = 0, patient: str = "p", middle: float = 10.0) -> Curve:
    bands = tuple(Band(day(n), middle, middle - 1, middle + 1, middle - 3, middle + 3) for n in (seen, seen + 100))
    return Curve(patient, "sum", day(made), day(seen), bands)


def test_the_first_measurement_after_those_seen_is_the_truth() -> None:
    measured = {("p", "sum"): {day(0): 9.0, day(40): 12.5, day(80): 40.0}}
    (check,) = check_curves([curve()], measured)
    assert (check.at, check.days_ahead, check.error) == (day(40), 40.0, pytest.approx(-2.5))
    assert (check.inside_50, check.inside_90) == (False, True)


def test_a_forecast_made_again_counts_once_and_one_beyond_its_curve_not_at_all() -> None:
    measured = {("p", "sum"): {day(50): 10.0}, ("q", "sum"): {day(500): 10.0}}
    checks = check_curves([curve(made=0, middle=99), curve(made=1), curve(patient="q")], measured)
    assert [(c.patient_key, c.error) for c in checks] == [("p", pytest.approx(0.0))]


def test_coverage_by_month() -> None:
    draw = np.random.default_rng(0)
    curves = [curve(patient=str(n)) for n in range(400)]
    measured = {(str(n), "sum"): {day(40): 10 + 3 / 1.645 * draw.normal()} for n in range(400)}
    (row,) = coverage(check_curves(curves, measured))
    assert (row.quantity, row.month, row.forecasts) == ("sum", "2026-02", 400)
    assert row.inside_90_lower < 0.9 < row.inside_90_upper
    assert coverage([]) == []


def test_truth_of_a_probability_is_known_only_when_it_is() -> None:
    forecasts = [("p", day(0), [(day(30), 0.1), (day(60), 0.2), (day(90), 0.3), (day(200), 0.4)])]
    assert progression_outcomes(forecasts, {"p": [(day(45), False), (day(80), True)]}) == [
        (0.1, False),
        (0.3, True),
        (0.4, True),
    ]
    # By day 60: without progression at 45, with it at 80. Nobody knows.
    assert progression_outcomes(forecasts, {"p": [(day(-5), True)]}) == []
    assert progression_outcomes(forecasts, {}) == []


def test_calibration_of_a_true_and_of_a_boastful_model() -> None:
    draw = np.random.default_rng(3)
    chance = draw.uniform(size=3000)
    happened = draw.uniform(size=3000) < chance
    honest = calibration(list(zip(chance, happened, strict=True)))
    assert honest is not None
    assert honest.expected_calibration_error < 0.04
    assert honest.p > 0.01
    assert sum(b.happened_lower <= b.predicted <= b.happened_upper for b in honest.bins) >= 9
    boastful = calibration(list(zip(np.clip(chance * 2 - 0.5, 0, 1), happened, strict=True)))
    assert boastful is not None
    assert boastful.p < 1e-6
    assert boastful.brier > honest.brier


def test_edges_of_calibration() -> None:
    assert calibration([]) is None
    sure = calibration([(1.0, True), (0.0, False)])
    assert sure is not None
    assert (sure.brier, sure.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        calibration([(1.2, True)])
