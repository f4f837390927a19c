"""Drift is found when it is there, and the rate of false alarms is the stated one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analytics.drift import TOGETHER, holm, mmd, psi, watch
from services.analytics.settings import monitor


def test_false_alarms_of_a_look_stay_at_the_stated_rate() -> None:
    """400 looks at 6 signals of several shapes without any change: at 1 % a look, more than 12 would be astonishing."""
    draw = np.random.default_rng(4)
    shapes = [
        lambda n: draw.normal(size=n), lambda n: draw.lognormal(size=n), lambda n: draw.beta(0.3, 2, size=n),
        lambda n: draw.poisson(2, size=n).astype(float), lambda n: draw.uniform(size=n).round(1),
        lambda n: draw.standard_t(2, size=n),
    ]  # fmt: skip
    alarms = 0
    for _ in range(400):
        samples = {str(i): (shape(150), shape(60)) for i, shape in enumerate(shapes)}
        rows = watch(samples)
        alarms += any(row.verdict in ("alarm", "noted") for row in rows)
    # P(more than 12 of 400 at 1 %) = 0.0003
    assert alarms <= 12


@pytest.mark.parametrize("change", [lambda x: x + 1, lambda x: x * 3, lambda x: np.where(x > 0.5, x, 0.0)])
def test_a_shift_a_spread_and_a_broken_feed_are_alarms(change) -> None:
    draw = np.random.default_rng(1)
    (row,) = watch({"suv": (draw.normal(size=300), change(draw.normal(size=120)))})
    assert row.verdict == "alarm"
    assert row.psi is not None
    assert row.psi > monitor().psi_alarm


def test_a_certain_but_small_change_is_noted_and_few_patients_are_not_judged() -> None:
    draw = np.random.default_rng(2)
    rows = watch(
        {
            "small": (draw.normal(size=20_000), draw.normal(0.1, size=20_000)),
            "few": (draw.normal(size=500), draw.normal(9, size=29)),
            "broken": (draw.normal(size=50), np.full(50, np.nan)),
        }
    )
    assert {row.signal: row.verdict for row in rows} == {"small": "noted", "few": "too few", "broken": "too few"}
    assert [row.current for row in rows if row.signal == "broken"] == [0]


def test_psi_of_two_known_tables() -> None:
    """Half of each side below the median of both against 20 and 80 %: (0.3)(ln 0.5/0.2) + (0.3)(ln 0.8/0.5)."""
    before, after = np.r_[np.zeros(5000), np.ones(5000)], np.r_[np.zeros(2000), np.ones(8000)]
    value, p = psi(before, after, bins=2)
    assert value == pytest.approx(0.3 * np.log(0.5 / 0.2) + 0.3 * np.log(0.8 / 0.5), abs=1e-3)
    assert p < 1e-6
    assert psi(np.ones(50), np.ones(50)) == (0.0, 1.0)


def test_mmd_sees_what_no_single_feature_shows_and_is_calm_otherwise() -> None:
    draw = np.random.default_rng(5)
    plain = draw.normal(size=(150, 2))
    turned = draw.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=150)
    assert mmd(plain, turned, permutations=200)[1] < 0.01
    rates = [
        mmd(draw.normal(size=(30, 2)), draw.normal(size=(30, 2)), permutations=99, seed=n)[1] < 0.05 for n in range(200)
    ]
    # P(more than 20 of 200 at 5 %) = 0.001
    assert sum(rates) <= 20
    assert mmd(np.ones((20, 1)), np.ones((20, 1)), permutations=20)[1] == 1.0


def test_holm_of_a_published_example() -> None:
    """Holm's step-down: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20))
def test_a_corrected_p_is_never_smaller_and_keeps_the_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(c >= p for c, p in zip(corrected, values, strict=True))
    assert [c for _, c in sorted(zip(values, corrected, strict=True))] == sorted(corrected)


def test_a_change_of_several_at_once_is_an_alarm_of_its_own() -> None:
    draw = np.random.default_rng(6)
    plain = draw.normal(size=(150, 2))
    turned = draw.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=150)
    samples = {"a": (plain[:, 0], turned[:, 0]), "b": (plain[:, 1], turned[:, 1])}
    assert {row.signal: row.verdict for row in watch(samples, together=(plain, turned))} == {
        TOGETHER: "alarm",
        "a": "steady",
        "b": "steady",
    }
