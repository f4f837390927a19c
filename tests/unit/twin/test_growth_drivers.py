"""What drove a forecast, and what would change it."""

from __future__ import annotations

import numpy as np
import pytest

from services.twin import growth, growth_drivers, growth_outcomes
from services.twin.growth_drivers import Kind

COLORECTAL = growth.population("sum_longest_diameters", "colorectal_cancer_metastatic")
RECIST = growth_outcomes.criteria_for("sum_longest_diameters")


def _drivers(sizes, until=300.0):
    posterior = growth.fit([60.0 * place for place in range(len(sizes))], sizes, COLORECTAL)
    ahead = growth_outcomes.outlook(posterior, until, RECIST)
    found = growth_drivers.drivers(posterior, ahead, RECIST, float(posterior.days[-1]) + 56.0)
    return ahead.progressed_by(until), found


@pytest.fixture(scope="module")
def turning():
    """Shrinks, then grows at the last visit."""
    return _drivers([100.0, 60.0, 55.0, 64.0])


def test_the_measurement_that_shows_growth_drives_the_risk_up(turning):
    known, found = turning
    measured = [one for one in found if one.kind is Kind.MEASUREMENT]
    assert len(measured) == 4
    last = next(one for one in measured if one.day == 180.0)
    assert last.value == 64.0
    assert last.drive > 0.05
    assert [abs(one.drive) for one in measured] == sorted((abs(one.drive) for one in measured), reverse=True)
    without = growth.fit([0.0, 60.0, 120.0], [100.0, 60.0, 55.0], COLORECTAL)
    expected = growth_outcomes.outlook(without, 300.0, RECIST).progressed_by(300.0)
    assert last.probability == expected
    assert last.drive == pytest.approx(known - expected)


def test_stopping_treatment_and_a_larger_next_size_make_progression_likelier(turning):
    known, found = turning
    by_kind = {one.kind: one for one in found}
    assert by_kind[Kind.TREATMENT].probability >= known
    low, high = by_kind[Kind.LOW_NEXT], by_kind[Kind.HIGH_NEXT]
    assert low.value < high.value
    assert low.probability < known < high.probability
    assert 180.0 < low.day == high.day <= 240.0


def test_a_single_measurement_is_not_left_out():
    _, found = _drivers([50.0])
    assert [one.kind for one in found] == [Kind.TREATMENT, Kind.LOW_NEXT, Kind.HIGH_NEXT]


def test_a_scan_is_judged_against_the_course_that_it_is_a_scan_of():
    """A positive scan and the truth come from one draw: with hardly any error of measurement there is no false alarm."""
    exact = growth.Population(**{**vars(COLORECTAL), "sigma": 1e-3})
    posterior = growth.fit([0.0, 60.0, 120.0], [80.0, 60.0, 62.0], exact)
    (value,) = growth_outcomes.value_of_imaging(posterior, [162.0], 204.0, RECIST, 14.0)
    assert value.shows_progression > 0.05
    assert value.false_alarm < 0.1 * value.shows_progression
    ahead = growth_outcomes.outlook(posterior, 204.0, RECIST)
    seen = growth_outcomes.measured_along(posterior, ahead)
    assert np.median(np.abs(seen / np.maximum(ahead.sizes, 1e-6) - 1)) < 0.01
