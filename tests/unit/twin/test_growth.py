"""The tumour twin: known answers, calibration on simulated patients, refusals, speed."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.platform.errors import RefusedError
from services.twin import growth

DIAMETERS = growth.prior_for("sum_longest_diameters")


def test_the_published_check_value_of_the_nadir():
    assert growth.nadir_day(0.02, 0.002) == pytest.approx(104.663, abs=5e-4)
    assert growth.curve(0.02, 0.002, 1.0, 104.663) == pytest.approx(0.35613, abs=5e-6)


def test_a_tumour_that_never_shrinks_has_its_nadir_at_the_start():
    assert growth.nadir_day(0.001, 0.01) == 0.0


def test_noise_free_measurements_recover_the_rates():
    sharp = dataclasses.replace(DIAMETERS, sigma=0.002, ln_d_sd=2.0, ln_g_sd=2.0)
    days = [0.0, 30.0, 60.0, 100.0, 160.0, 220.0]
    posterior = growth.fit(days, [growth.curve(0.02, 0.002, 80.0, day) for day in days], sharp)
    assert np.median(posterior.d) == pytest.approx(0.02, rel=0.01)
    assert np.median(posterior.g) == pytest.approx(0.002, rel=0.01)
    assert np.median(posterior.f0) == pytest.approx(80.0, rel=0.005)


def test_an_uninformative_measurement_leaves_the_population_prior():
    blind = dataclasses.replace(DIAMETERS, sigma=20.0)
    posterior = growth.fit([0.0, 1.0], [50.0, 50.0], blind)
    assert np.mean(np.log(posterior.d)) == pytest.approx(blind.ln_d_mean, abs=0.03)
    assert np.std(np.log(posterior.d)) == pytest.approx(blind.ln_d_sd, rel=0.03)
    assert np.std(np.log(posterior.g)) == pytest.approx(blind.ln_g_sd, rel=0.03)
    assert np.corrcoef(np.log(posterior.d), np.log(posterior.g))[0, 1] == pytest.approx(blind.correlation, abs=0.03)


def _simulated(rng, count):
    """Patients from the prior, measured at five visits with the model's own error."""
    days = np.array([0.0, 45.0, 100.0, 150.0, 240.0])
    for _ in range(count):
        z = rng.standard_normal(2)
        d = np.exp(DIAMETERS.ln_d_mean + DIAMETERS.ln_d_sd * z[0])
        mixed = DIAMETERS.correlation * z[0] + np.sqrt(1 - DIAMETERS.correlation**2) * z[1]
        g = np.exp(DIAMETERS.ln_g_mean + DIAMETERS.ln_g_sd * mixed)
        truth = np.array([growth.curve(d, g, 90.0, day) for day in days])
        yield d, g, days, truth * np.exp(DIAMETERS.sigma * rng.standard_t(4, len(days)))


def test_ninety_per_cent_intervals_hold_the_truth_ninety_per_cent_of_the_time():
    inside = {"d": [], "g": [], "next": []}
    for d, g, days, measured in _simulated(np.random.default_rng(7), 200):
        posterior = growth.fit(days[:4], measured[:4], DIAMETERS)
        for name, draws, truth in (("d", posterior.d, d), ("g", posterior.g, g)):
            interval = growth.estimate(draws)
            inside[name].append(interval.lower <= truth <= interval.upper)
        band = growth.bands(posterior, days[4:])[0]
        inside["next"].append(band.lower_90 <= measured[4] <= band.upper_90)
    coverage = {name: np.mean(hits) for name, hits in inside.items()}
    assert all(0.85 <= share <= 0.95 for share in coverage.values()), coverage


def test_progression_probability_tells_growth_from_response():
    growing = growth.fit([0.0, 60.0, 120.0], [50.0, 75.0, 120.0], DIAMETERS)
    shrinking = growth.fit([0.0, 60.0, 120.0], [50.0, 30.0, 20.0], DIAMETERS)
    assert growth.probability_of_progression(growing, 300.0) > 0.9
    assert growth.probability_of_progression(shrinking, 150.0) < 0.2


def test_a_change_of_effect_one_changes_nothing_and_stopping_is_never_better():
    posterior = growth.fit([0.0, 60.0, 120.0], [50.0, 30.0, 20.0], DIAMETERS)
    days = [130.0, 200.0, 300.0]
    unchanged = growth.trajectories(posterior, days)
    np.testing.assert_allclose(growth.trajectories(posterior, days, growth.Change(120.0, 1.0)), unchanged)
    stopped = growth.trajectories(posterior, days, growth.Change(120.0, 0.0))
    doubled = growth.trajectories(posterior, days, growth.Change(120.0, 2.0))
    assert np.all(stopped >= unchanged)
    assert np.all(doubled <= unchanged)
    assert np.all(
        growth.trajectories(posterior, [100.0], growth.Change(120.0, 0.0)) == growth.trajectories(posterior, [100.0])
    )


def test_a_value_below_detection_counts_as_small_and_not_as_its_number():
    seen = growth.fit([0.0, 60.0, 120.0], [50.0, 20.0, 0.0], DIAMETERS)
    same = growth.fit([0.0, 60.0, 120.0], [50.0, 20.0, DIAMETERS.detection_limit], DIAMETERS)
    larger = growth.fit([0.0, 60.0, 120.0], [50.0, 20.0, 15.0], DIAMETERS)
    np.testing.assert_array_equal(seen.d, same.d)
    assert np.median(seen.d) > np.median(larger.d)


@pytest.mark.parametrize(
    ("days", "values", "reason"),
    [
        ([0.0], [40.0], "growth.too_few_measurements"),
        ([], [], "growth.too_few_measurements"),
        ([0.0, 0.0], [40.0, 42.0], "growth.times_out_of_order"),
        ([10.0, 0.0], [40.0, 42.0], "growth.times_out_of_order"),
        ([0.0, 10.0], [40.0, -1.0], "growth.negative_value"),
        ([0.0, 10.0], [40.0, float("nan")], "growth.negative_value"),
        ([0.0, 10.0], [0.0, 0.0], "growth.baseline_below_detection"),
    ],
)
def test_unusable_measurements_are_refused(days, values, reason):
    with pytest.raises(RefusedError) as refusal:
        growth.fit(days, values, DIAMETERS)
    assert refusal.value.reason == reason


def test_the_same_measurements_give_the_same_answer():
    first, second = (growth.fit([0.0, 50.0], [60.0, 40.0], DIAMETERS) for _ in range(2))
    np.testing.assert_array_equal(first.d, second.d)
    assert growth.bands(first, [90.0]) == growth.bands(second, [90.0])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(1, 120), min_size=1, max_size=5),
    st.lists(st.floats(0, 400, allow_subnormal=False), min_size=5, max_size=5),
    st.floats(6, 400),
)
def test_bands_are_ordered_finite_and_positive_whatever_the_measurements(gaps, later, first):
    days = np.concatenate([[0.0], np.cumsum(gaps)])
    posterior = growth.fit(days, [first, *later[: len(gaps)]], DIAMETERS)
    for band in growth.bands(posterior, [0.0, days[-1], days[-1] + 180]):
        limits = [band.lower_90, band.lower_50, band.median, band.upper_50, band.upper_90]
        assert limits == sorted(limits)
        assert np.all(np.isfinite(limits))
        assert limits[0] >= 0


def test_an_update_takes_less_than_a_fifth_of_a_second():
    fastest = np.inf
    for _ in range(3):
        start = time.perf_counter()
        posterior = growth.fit([0.0, 40, 90, 130, 180, 230], [80.0, 60, 50, 45, 50, 58], DIAMETERS)
        growth.bands(posterior, np.arange(0.0, 411.0, 7.0))
        growth.probability_of_progression(posterior, 410.0)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 0.2
