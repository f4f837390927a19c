"""Agreement statistics against statsmodels and against published arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from services.board.agreement import Z_95, kappa, limits_of_agreement

CATEGORIES = ("CR", "PR", "SD", "PD")
reading = st.sampled_from(CATEGORIES)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(reading, reading), min_size=6, max_size=60), st.sampled_from(["none", "linear"]))
def test_kappa_and_its_interval_are_those_of_statsmodels(pairs: list[tuple[str, str]], weights: str) -> None:
    found = kappa([a for a, _ in pairs], [b for _, b in pairs], CATEGORIES, weights)  # type: ignore[arg-type]
    table = np.zeros((4, 4))
    for a, b in pairs:
        table[CATEGORIES.index(a), CATEGORIES.index(b)] += 1
    if found.value is None:
        assert len({a for a, _ in pairs}) == 1
        return
    peer = cohens_kappa(table, wt=None if weights == "none" else "linear")
    assert found.value == pytest.approx(peer.kappa, abs=1e-9)
    error = math.sqrt(max(0.0, float(peer.var_kappa)))
    assert found.lower == pytest.approx(max(-1, peer.kappa - Z_95 * error), abs=1e-6)
    assert found.upper == pytest.approx(min(1, peer.kappa + Z_95 * error), abs=1e-6)


def test_kappa_of_the_textbook_example() -> None:
    """Altman 1991: 20 both yes, 5 and 10 apart, 15 both no: kappa 0.4."""
    first = ["PR"] * 25 + ["PD"] * 25
    second = ["PR"] * 20 + ["PD"] * 5 + ["PR"] * 10 + ["PD"] * 15
    assert kappa(first, second, CATEGORIES).value == pytest.approx(0.4)


def test_one_category_for_all_has_no_kappa() -> None:
    found = kappa(["PR"] * 5, ["PR"] * 5, CATEGORIES)
    assert (found.observed, found.value) == (1.0, None)


def test_limits_of_agreement_by_hand() -> None:
    found = limits_of_agreement([10, 12, 14], [9, 12, 16])
    assert found is not None
    # Differences 1, 0, -2: mean -1/3, standard deviation sqrt(7/3).
    assert found.bias == pytest.approx(-1 / 3)
    assert found.upper == pytest.approx(-1 / 3 + Z_95 * math.sqrt(7 / 3))
    assert limits_of_agreement([1, 2], [1, 2]) is None
