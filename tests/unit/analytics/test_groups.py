"""Rates by group, their intervals, and what is too small to be shown."""

from __future__ import annotations

import pytest

from services.analytics.groups import by_group, difference, wilson


@pytest.mark.parametrize(
    ("events", "count", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_in_newcombe_1998_two_sided_intervals_table_i(events, count, lower, upper) -> None:
    assert wilson(events, count) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "lower", "upper"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_difference_as_in_newcombe_1998_interval_estimation_method_10(a, b, lower, upper) -> None:
    value, low, high = difference(a, b)
    assert value == pytest.approx(a[0] / a[1] - b[0] / b[1])
    assert (low, high) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.parametrize(("events", "count"), [(3, 2), (-1, 5), (0, 0)])
def test_what_is_no_rate_is_refused(events, count) -> None:
    with pytest.raises(ValueError, match="no rate"):
        wilson(events, count)


def cells(**groups: tuple[int, int]) -> list[tuple[str, bool]]:
    return [(name, n < events) for name, (events, count) in groups.items() for n in range(count)]


def test_a_real_difference_is_seen_and_none_is_not() -> None:
    rows = {row.group: row for row in by_group(cells(a=(60, 100), b=(20, 100), c=(40, 100)))}
    assert rows["a"].differs
    assert rows["b"].differs
    assert not rows["c"].differs
    assert rows["c"].difference == pytest.approx(0)


def test_cells_of_one_to_ten_are_not_shown_and_cannot_be_worked_out() -> None:
    rows = {row.group: row for row in by_group(cells(many=(50, 100), few=(5, 9), rare=(3, 200), none=(0, 40)))}
    for hidden in ("few", "rare"):
        assert rows[hidden].count is rows[hidden].rate is rows[hidden].difference is None
    assert (rows["none"].events, rows["none"].rate) == (0, 0.0)
    # The rest of "many" holds 8 events: a difference from it would tell them.
    assert rows["many"].rate == 0.5
    assert rows["many"].difference is None
