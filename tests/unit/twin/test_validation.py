"""Measures of predicted risk against what is known of them by hand or from an independent library."""

from __future__ import annotations

import numpy as np
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index
from pandas import DataFrame

from services.twin import validation
from services.twin.validation_figures import calibration, curves, subgroups
from services.twin.validation_report import Report, Section, write, write_index, written


@pytest.fixture(scope="module")
def exponential():
    """Times with hazards that are known, and the true risk by day 100; a fifth is censored early."""
    random = np.random.default_rng(5)
    hazard = np.exp(random.normal(-5.0, 0.9, 800))
    died, left = random.exponential(1 / hazard), random.uniform(50, 900, 800)
    return np.minimum(died, left), died <= left, 1 - np.exp(-100 * hazard), hazard


def test_concordance_is_that_of_lifelines(exponential):
    time, event, risk, _ = exponential
    assert validation.concordance(time, event, risk) == pytest.approx(concordance_index(time, -risk, event), abs=1e-6)
    assert np.isnan(validation.concordance(time[:3], np.zeros(3, bool), risk[:3]))


def test_observed_risk_is_kaplan_meier(exponential):
    time, event, _, _ = exponential
    known = KaplanMeierFitter().fit(time, event)
    found, lower, upper = validation.observed_risk(time, event, 100.0)
    assert found == pytest.approx(1 - float(known.predict(100.0)), abs=1e-9)
    limits = known.confidence_interval_survival_function_.loc[:100.0].iloc[-1]
    assert (lower, upper) == pytest.approx((1 - limits.iloc[1], 1 - limits.iloc[0]), abs=1e-6)


def test_true_risks_are_calibrated_and_extreme_ones_are_not(exponential):
    time, event, risk, _ = exponential
    assert validation.observed_over_expected(time, event, risk, 100.0) == pytest.approx(1.0, abs=0.1)
    assert validation.calibration_slope(time, event, risk) == pytest.approx(1.0, abs=0.1)
    extreme = 1 - (1 - risk) ** np.exp(1.0 * (np.log(-np.log1p(-risk)) - np.log(-np.log1p(-risk)).mean()))
    assert validation.calibration_slope(time, event, extreme) == pytest.approx(0.5, abs=0.07)
    groups = validation.calibration_groups(time, event, risk, 100.0)
    assert sum(group.lower <= group.predicted <= group.upper for group in groups) >= 4
    assert sum(group.patients for group in groups) == 800


def test_the_slope_is_that_of_a_cox_regression(exponential):
    time, event, risk, _ = exponential
    frame = DataFrame({"time": time, "event": event, "x": np.log(-np.log1p(-risk))})
    slope = CoxPHFitter().fit(frame, "time", "event").params_["x"]
    assert validation.calibration_slope(time, event, risk) == pytest.approx(slope, abs=1e-3)


def test_without_censoring_the_brier_score_is_the_mean_square():
    time, event, horizon = validation.as_times(np.array([True, False, True, False]))
    risk = np.array([0.9, 0.2, 0.6, 0.4])
    assert validation.brier(time, event, risk, horizon) == pytest.approx((0.01 + 0.04 + 0.16 + 0.16) / 4)
    assert validation.concordance(time, event, risk) == 1.0
    assert validation.scaled_brier(time, event, np.full(4, 0.5), horizon) == pytest.approx(0.0)


def test_net_benefit_of_a_yes_or_no_outcome():
    """Vickers 2006: TP/n - FP/n * pt/(1 - pt)."""
    time, event, horizon = validation.as_times(np.array([True, True, False, False, False]))
    risk = np.array([0.8, 0.3, 0.6, 0.1, 0.2])
    found = validation.net_benefit(time, event, risk, horizon, [0.25, 0.5])
    assert found == pytest.approx([2 / 5 - 1 / 5 * 0.25 / 0.75, 1 / 5 - 1 / 5])
    assert validation.treat_all(time, event, horizon, [0.4]) == pytest.approx(0.0)


def test_true_survival_is_d_calibrated_and_half_the_hazard_is_not(exponential):
    time, event, _, hazard = exponential
    shares, p = validation.d_calibration(event, np.exp(-hazard * time))
    assert shares.sum() == pytest.approx(1.0)
    assert p > 0.05
    assert validation.d_calibration(event, np.exp(-0.5 * hazard * time))[1] < 1e-6


def test_the_bootstrap_interval_of_a_mean_has_its_known_width():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = validation.bootstrap(lambda rows: float(values[rows].mean()), 400, repeats=2000)
    assert found.value == pytest.approx(values.mean())
    assert found.upper - found.lower == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert found == validation.bootstrap(lambda rows: float(values[rows].mean()), 400, repeats=2000)


def test_coverage_has_the_wilson_interval():
    truth = np.r_[np.zeros(90), np.full(10, 9.0)]
    found = validation.coverage(np.full(100, -1.0), np.full(100, 1.0), truth)
    assert (found.value, found.lower, found.upper) == pytest.approx((0.9, 0.8256, 0.9448), abs=1e-3)


def test_a_report_holds_its_figures_and_numbers(tmp_path, exponential):
    time, event, risk, _ = exponential
    groups = {"model": validation.calibration_groups(time, event, risk, 100.0)}
    pictures = {
        "calibration": calibration(groups),
        "decision": curves([0.1, 0.2], {"model": np.array([0.1, 0.2])}, "threshold", "net benefit"),
        "subgroups": subgroups({"all": validation.Estimate(0.7, 0.6, 0.8)}, "concordance", 0.5),
    }
    report = Report(
        "m", "A model <b>", "exploratory: x", [Section("Calibration", "t", [{"a": 1}], pictures)], {"c": 0.7}
    )
    made = write(report, tmp_path, "digest")
    files = {path.name: path for path in (tmp_path / "m").iterdir()}
    assert set(files) == {
        "report.md",
        "report.html",
        "figures.json",
        "report.json",
        *(f"{name}.png" for name in pictures),
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files.values() if path.suffix == ".png")
    assert "A model &lt;b&gt;" in (tmp_path / "m" / "report.html").read_text()
    assert "| 1 |" in (tmp_path / "m" / "report.md").read_text()
    assert written("m", tmp_path, "digest") == made
    assert written("m", tmp_path, "another digest") is None
    assert written("n", tmp_path, "digest") is None
    files["report.json"].unlink()
    assert written("m", tmp_path, "digest") is None
    index = write_index([made], {"other": "no data"}, tmp_path)
    assert "not looked at: no data" in index.read_text()
