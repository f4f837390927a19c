"""CKD-EPI 2021 against known values and its own structure."""

from __future__ import annotations

import pytest

from services.platform.errors import RefusedError
from services.twin import ckd_epi


def test_the_check_value():
    result = ckd_epi.egfr({"creatinine_mg_dl": 1.2, "age_years": 55, "sex_female": 0})
    assert round(result.value, 1) == 71.4


@pytest.mark.parametrize(("female", "kappa", "factor"), [(1, 0.7, 1.012), (0, 0.9, 1.0)])
def test_at_the_sex_specific_knot_only_age_is_left(female, kappa, factor):
    result = ckd_epi.egfr({"creatinine_mg_dl": kappa, "age_years": 40, "sex_female": female})
    assert result.value == pytest.approx(142 * 0.9938**40 * factor)


def test_the_interval_is_published_accuracy_turned_round():
    result = ckd_epi.egfr({"creatinine_mg_dl": 2.0, "age_years": 70, "sex_female": 1})
    assert abs(result.value - result.lower) / result.lower == pytest.approx(0.30)
    assert abs(result.value - result.upper) / result.upper == pytest.approx(0.30)
    assert result.level == 0.86


@pytest.mark.parametrize(
    ("values", "reason", "named"),
    [
        ({"age_years": 55, "sex_female": 0}, "ckd_epi.missing_input", "creatinine_mg_dl"),
        ({"creatinine_mg_dl": 106, "age_years": 55, "sex_female": 0}, "ckd_epi.out_of_range", "creatinine_mg_dl"),
        ({"creatinine_mg_dl": 0.6, "age_years": 9, "sex_female": 0}, "ckd_epi.out_of_range", "age_years"),
    ],
)
def test_refusals_name_the_input(values, reason, named):
    with pytest.raises(RefusedError) as refusal:
        ckd_epi.egfr(values)
    assert refusal.value.reason == reason
    assert named in refusal.value.missing
