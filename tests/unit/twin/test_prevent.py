"""PREVENT against its published example, an independent implementation, and its own ranges."""

from __future__ import annotations

import itertools

import pytest

from services.platform.errors import RefusedError
from services.twin import prevent

PUBLISHED = {
    "age_years": 50.0,
    "sex_female": 1.0,
    "total_cholesterol_mg_dl": 200.0,
    "hdl_mg_dl": 45.0,
    "systolic_bp_mmhg": 160.0,
    "antihypertensive_treatment": 1.0,
    "diabetes": 1.0,
    "current_smoker": 0.0,
    "statin_treatment": 0.0,
    "egfr_ml_min": 90.0,
    "bmi": 35.0,
}


@pytest.mark.parametrize(("outcome", "expected"), [("cvd", 0.147), ("ascvd", 0.092), ("hf", 0.081)])
def test_the_published_example(outcome, expected):
    assert round(prevent.risk(outcome, PUBLISHED), 3) == expected


def _grid():
    for female, age, sbp, egfr in itertools.product((0, 1), (30, 55, 79), (95, 131, 195), (20, 60, 110)):
        for flags, lipids in itertools.product(((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)), ((135, 95), (310, 25))):
            yield {
                "age_years": age,
                "sex_female": female,
                "systolic_bp_mmhg": sbp,
                "egfr_ml_min": egfr,
                "total_cholesterol_mg_dl": lipids[0],
                "hdl_mg_dl": lipids[1],
                "diabetes": flags[0],
                "current_smoker": flags[1],
                "antihypertensive_treatment": flags[2],
                "statin_treatment": flags[3],
                "bmi": 22 if flags[0] else 37,
            }


@pytest.mark.parametrize(
    ("outcome", "function"),
    [
        ("cvd", "calculate_10_yr_cvd_rust"),
        ("ascvd", "calculate_10_yr_ascvd_rust"),
        ("hf", "calculate_10_yr_heart_failure_rust"),
    ],
)
def test_every_coefficient_agrees_with_an_independent_implementation(outcome, function):
    pytest.importorskip("pandas", reason="pyprevent imports pandas")
    reference = getattr(pytest.importorskip("pyprevent._pyprevent"), function)
    for values in _grid():
        expected = reference(
            "female" if values["sex_female"] else "male",
            values["age_years"],
            values["total_cholesterol_mg_dl"],
            values["hdl_mg_dl"],
            values["systolic_bp_mmhg"],
            bool(values["diabetes"]),
            bool(values["current_smoker"]),
            values["bmi"],
            values["egfr_ml_min"],
            bool(values["antihypertensive_treatment"]),
            bool(values["statin_treatment"]),
        )
        assert 100 * prevent.risk(outcome, values) == pytest.approx(expected, abs=0.06), values


@pytest.mark.parametrize(("name", "value"), [("age_years", 29.9), ("age_years", 79.5), ("hdl_mg_dl", 1.2), ("bmi", 41)])
def test_out_of_range_input_is_refused_by_name(name, value):
    with pytest.raises(RefusedError) as refusal:
        prevent.risk("hf" if name == "bmi" else "cvd", {**PUBLISHED, name: value})
    assert refusal.value.reason == "prevent.out_of_range"
    assert refusal.value.missing == (name,)


def test_body_mass_index_is_not_asked_for_where_the_equation_has_none():
    without = {name: value for name, value in PUBLISHED.items() if name != "bmi"}
    assert prevent.risk("cvd", without) == prevent.risk("cvd", PUBLISHED)
    with pytest.raises(RefusedError) as refusal:
        prevent.risk("hf", without)
    assert refusal.value.missing == ("bmi",)


def test_a_missing_input_is_named_and_the_risk_is_bounded_not_guessed():
    without = {name: value for name, value in PUBLISHED.items() if name not in {"hdl_mg_dl", "statin_treatment"}}
    with pytest.raises(RefusedError) as refusal:
        prevent.risk("cvd", without)
    assert refusal.value.reason == "prevent.missing_input"
    assert set(refusal.value.missing) == {"hdl_mg_dl", "statin_treatment"}
    low, high = prevent.plausible_bounds("cvd", without)
    assert low < prevent.risk("cvd", PUBLISHED) < high
    inside = [
        prevent.risk("cvd", {**without, "hdl_mg_dl": hdl, "statin_treatment": statin})
        for hdl in range(20, 101, 5)
        for statin in (0, 1)
    ]
    assert low == pytest.approx(min(inside))
    assert high == pytest.approx(max(inside))


def test_without_age_nothing_is_bounded():
    assert prevent.plausible_bounds("cvd", {k: v for k, v in PUBLISHED.items() if k != "age_years"}) is None
