"""Does it work alike for all? A rate by group with its interval, and its difference from everyone else.

Intervals: Wilson 1927 for a rate, Newcombe 1998 (method 10) for a difference of two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from scipy import stats

from services.analytics.settings import Monitor, monitor


@dataclass(frozen=True)
class GroupRate:
    """One group. Everything but `group` is None where the group, or the rest, is too small to be shown."""

    group: str
    count: int | None
    events: int | None
    rate: float | None
    lower: float | None
    upper: float | None
    difference: float | None
    difference_lower: float | None
    difference_upper: float | None

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference leaves out zero. One in twenty does by chance at 95 %."""
        lower, upper = self.difference_lower, self.difference_upper
        return lower is not None and upper is not None and (lower > 0 or upper < 0)


def wilson(events: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a rate. Raises ValueError unless 0 <= events <= count and count > 0."""
    if not 0 <= events <= count or count == 0:
        raise ValueError(f"{events} of {count} is no rate")
    z = float(stats.norm.ppf((1 + confidence) / 2))
    rate, scale = events / count, 1 + z * z / count
    middle = (rate + z * z / (2 * count)) / scale
    half = z * sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(a: tuple[int, int], b: tuple[int, int], confidence: float = 0.95) -> tuple[float, float, float]:
    """(Rate of a minus rate of b, lower, upper) of (events, count) pairs."""
    (la, ua), (lb, ub) = wilson(*a, confidence), wilson(*b, confidence)
    pa, pb = a[0] / a[1], b[0] / b[1]
    return (
        pa - pb,
        pa - pb - sqrt((pa - la) ** 2 + (ub - pb) ** 2),
        pa - pb + sqrt((ua - pa) ** 2 + (pb - lb) ** 2),
    )


def by_group(outcomes: Iterable[tuple[str, bool]], limits: Monitor | None = None) -> list[GroupRate]:
    """Rates of (group, did it happen), largest group first. A count of 1 to 10, of events or of none, is not shown."""
    limits = limits or monitor()
    counts: dict[str, list[int]] = {}
    for group, happened in outcomes:
        count = counts.setdefault(group, [0, 0])
        count[0] += happened
        count[1] += 1
    events, total = (sum(count[i] for count in counts.values()) for i in (0, 1))
    rows = [
        _group(group, (count[0], count[1]), (events - count[0], total - count[1]), limits)
        for group, count in counts.items()
    ]
    return sorted(rows, key=lambda row: (-(row.count or 0), row.group))


def _group(group: str, own: tuple[int, int], rest: tuple[int, int], limits: Monitor) -> GroupRate:
    if _small(own, limits):
        return GroupRate(group, *[None] * 8)
    lower, upper = wilson(*own, limits.confidence)
    # What the others are must not follow from what is shown either.
    apart = (None, None, None) if _small(rest, limits) else difference(own, rest, limits.confidence)
    return GroupRate(group, own[1], own[0], own[0] / own[1], lower, upper, *apart)


def _small(cell: tuple[int, int], limits: Monitor) -> bool:
    events, count = cell
    return count < limits.least_cell or any(0 < part < limits.least_cell for part in (events, count - events))
