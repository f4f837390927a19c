"""A tumour's fit is made once, and is the same as a fresh one."""

from __future__ import annotations

import numpy as np
import pytest

from services.twin import growth
from services.twin.fits import fitted

PRIOR = growth.population("sum_longest_diameters", "any_solid_tumour", "")
DAYS, SIZES = (0.0, 84.0), (80.0, 52.0)


def test_the_same_measurements_are_fitted_once_and_as_afresh() -> None:
    kept = fitted(DAYS, SIZES, PRIOR, 1)
    assert fitted(DAYS, SIZES, PRIOR, 1) is kept
    fresh = growth.fit(DAYS, SIZES, PRIOR, seed=1)
    np.testing.assert_array_equal(kept.h0, fresh.h0)
    np.testing.assert_array_equal(kept.rates.grow, fresh.rates.grow)


@pytest.mark.parametrize("other", [((0.0, 85.0), SIZES, 1), (DAYS, (80.0, 53.0), 1), (DAYS, SIZES, 2)])
def test_another_measurement_or_seed_is_another_fit(other: tuple[tuple[float, ...], tuple[float, ...], int]) -> None:
    days, sizes, seed = other
    assert not np.array_equal(fitted(days, sizes, PRIOR, seed).h0, fitted(DAYS, SIZES, PRIOR, 1).h0)


def test_nobody_can_change_a_kept_fit() -> None:
    with pytest.raises(ValueError, match="read-only"):
        fitted(DAYS, SIZES, PRIOR, 1).departure[0, 0] = 0.0
