"""Has what goes in or comes out changed? Two samples of each signal, the earlier one as the reference.

PSI: Siddiqi, Credit Risk Scorecards, 2006; its distribution without drift: Yurdakul, Statistical properties of population
stability index, Western Michigan University 2018 (PSI / (1/n + 1/m) is asymptotically chi-square with bins - 1 degrees of
freedom). KS: Hodges 1958 (scipy). MMD: Gretton et al., A kernel two-sample test, JMLR 2012, with a permutation test.
Several signals: Holm 1979, so that the chance of any false alarm in one look stays at the stated rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from services.analytics.settings import Monitor, monitor

Array = NDArray[np.float64]
# The row that judges several signals at once
TOGETHER = "all together"
Verdict = Literal["alarm", "noted", "steady", "too few"]


@dataclass(frozen=True)
class Drift:
    """One signal. `p` is the smaller of the two tests' after both corrections; `change` in words of size, not of chance."""

    signal: str
    reference: int
    current: int
    psi: float | None
    ks: float | None
    p: float | None
    reference_median: float | None
    current_median: float | None
    verdict: Verdict


def psi(reference: Array, current: Array, bins: int = 10) -> tuple[float, float]:
    """(Population stability index, chance of one as large without drift). Bins are quantiles of both samples together.

    Half a patient is added to each bin, so that an empty one does not make it infinite.
    """
    pooled = np.concatenate([reference, current])
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, bins + 1)[1:-1]))
    count = len(edges) + 1
    expected = (np.bincount(np.searchsorted(edges, reference, "right"), minlength=count) + 0.5) / (
        len(reference) + 0.5 * count
    )
    actual = (np.bincount(np.searchsorted(edges, current, "right"), minlength=count) + 0.5) / (
        len(current) + 0.5 * count
    )
    value = float(np.sum((actual - expected) * np.log(actual / expected)))
    if count < 2:
        return 0.0, 1.0
    return value, float(stats.chi2.sf(value / (1 / len(reference) + 1 / len(current)), count - 1))


def mmd(
    reference: Array, current: Array, *, permutations: int = 500, most: int = 500, seed: int = 0
) -> tuple[float, float]:
    """(Squared maximum mean discrepancy, p) of samples (n, features) and (m, features), on standardised features.

    Gaussian kernel with the median distance as its width; at most `most` rows of each side, drawn with `seed`.
    """
    draw = np.random.default_rng(seed)
    sides = [side[draw.choice(len(side), min(most, len(side)), replace=False)] for side in (reference, current)]
    pooled = np.concatenate(sides)
    spread = pooled.std(axis=0)
    distances = cdist(*[pooled / np.where(spread > 0, spread, 1)] * 2, "sqeuclidean")
    kernel = (
        np.exp(-distances / np.median(distances[distances > 0])) if np.any(distances > 0) else np.ones_like(distances)
    )
    first = len(sides[0])
    observed = _discrepancy(kernel, np.arange(len(pooled)), first)
    shuffled = [_discrepancy(kernel, draw.permutation(len(pooled)), first) for _ in range(permutations)]
    return observed, (1 + sum(value >= observed - 1e-12 for value in shuffled)) / (1 + permutations)


def _discrepancy(kernel: Array, order: NDArray[np.intp], first: int) -> float:
    side = np.where(np.arange(len(order)) < first, 1 / first, -1 / (len(order) - first))
    weights = np.empty(len(order))
    weights[order] = side
    return float(weights @ kernel @ weights)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate([(len(order) - rank) * p_values[i] for rank, i in enumerate(order)])
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in corrected]


def watch(
    samples: Mapping[str, tuple[Array, Array]],
    limits: Monitor | None = None,
    together: tuple[Array, Array] | None = None,
) -> list[Drift]:
    """Judges each signal's (reference, current), alarms first. Values that are not finite are left out.

    `together`: rows of patients, columns of several signals, for a change that no single one shows (by MMD).
    """
    limits = limits or monitor()
    kept = {name: (_finite(before), _finite(now)) for name, (before, now) in samples.items()}
    found = {name: _judge(*pair, limits) for name, pair in kept.items() if min(map(len, pair)) >= limits.least_patients}
    if together is not None and min(map(len, together)) >= limits.least_patients:
        # Fine enough for the corrected p to fall below the rate
        count = int(20 * (len(found) + 1) / limits.false_alarm_rate)
        kept[TOGETHER] = together
        found[TOGETHER] = None, None, mmd(*together, permutations=count, most=200)[1]
    corrected = dict(zip(found, holm([row[2] for row in found.values()]), strict=True))
    rows = [_row(name, pair, found.get(name), corrected.get(name), limits) for name, pair in kept.items()]
    order: dict[Verdict, int] = {"alarm": 0, "noted": 1, "steady": 2, "too few": 3}
    return sorted(rows, key=lambda row: (order[row.verdict], -(row.psi or 0.0), row.signal))


_Found = tuple[float | None, float | None, float]


def _judge(before: Array, now: Array, limits: Monitor) -> _Found:
    index, by_psi = psi(before, now, limits.drift_bins)
    test = stats.ks_2samp(before, now)
    # Bonferroni for the two tests of one signal
    return index, float(test.statistic), min(1.0, 2 * min(by_psi, float(test.pvalue)))


def _finite(values: Array) -> Array:
    array = np.asarray(values, dtype=float)
    return array[np.isfinite(array)]


def _median(values: Array) -> float | None:
    return float(np.median(values)) if len(values) else None


def _row(name: str, pair: tuple[Array, Array], found: _Found | None, p: float | None, limits: Monitor) -> Drift:
    before, now = pair
    medians = (None, None) if name == TOGETHER else (_median(before), _median(now))
    if found is None or p is None:
        return Drift(name, len(before), len(now), None, None, None, *medians, "too few")
    certain = p < limits.false_alarm_rate
    verdict: Verdict = (
        "steady" if not certain else "noted" if found[0] is not None and found[0] < limits.psi_alarm else "alarm"
    )
    return Drift(name, len(before), len(now), found[0], found[1], p, *medians, verdict)
