"""How well readers agree: Cohen's kappa for response categories, limits of agreement for sums of diameters.

Sources: Cohen 1960 (kappa); Cohen 1968 (weighted kappa); Fleiss, Cohen, Everitt 1969 (large-sample variance, as in
`statsmodels.stats.inter_rater`); Bland and Altman 1986 (limits of agreement).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Kappa:
    """`value` in -1..1 with its 95 % interval; None where it cannot be told (everybody always said the same)."""

    pairs: int
    observed: float
    value: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Limits:
    """Differences first minus second reader, in the unit of the values: mean, and where 95 % of differences lie."""

    pairs: int
    bias: float
    lower: float
    upper: float


def kappa(
    first: Sequence[str], second: Sequence[str], categories: Sequence[str], weights: Literal["none", "linear"] = "none"
) -> Kappa:
    """Agreement beyond chance of two readers on the same cases. `categories` in order, for linear weights.

    Raises ValueError for lists of different length or a category that is not listed.

    >>> kappa(["PR", "PD", "PR", "SD"], ["PR", "PD", "SD", "SD"], ["CR", "PR", "SD", "PD"]).observed
    0.75
    """
    if len(first) != len(second):
        raise ValueError("each case needs both readings")
    place = {name: n for n, name in enumerate(categories)}
    if unknown := {*first, *second} - set(place):
        raise ValueError(f"unknown categories: {sorted(unknown)}")
    total = len(first)
    if total == 0:
        return Kappa(0, 0.0, None)
    table = np.zeros((len(categories), len(categories)))
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1 / total
    agree = _weights(len(categories), weights)
    observed, rows, columns = float((agree * table).sum()), table.sum(1), table.sum(0)
    chance = float((agree * np.outer(rows, columns)).sum())
    if chance >= 1.0 - 1e-12:
        return Kappa(total, float(np.trace(table)), None)
    value = (observed - chance) / (1 - chance)
    error = math.sqrt(max(0.0, _variance(table, agree, value, chance, total)))
    return Kappa(total, float(np.trace(table)), value, max(-1.0, value - Z_95 * error), min(1.0, value + Z_95 * error))


def _weights(count: int, kind: str) -> NDArray[np.float64]:
    if kind == "none":
        return np.eye(count)
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return np.asarray(1 - apart / max(count - 1, 1))


def _variance(table: NDArray[np.float64], agree: NDArray[np.float64], value: float, chance: float, total: int) -> float:
    """Fleiss, Cohen, Everitt 1969, equation 13: the variance that intervals use (not that of a test of zero)."""
    rows, columns = table.sum(1), table.sum(0)
    of_row, of_column = agree @ columns, rows @ agree
    pulled = agree - np.add.outer(of_row, of_column) * (1 - value)
    spread = float((table * pulled**2).sum()) - (value - chance * (1 - value)) ** 2
    return spread / (total * (1 - chance) ** 2)


def limits_of_agreement(first: Sequence[float], second: Sequence[float]) -> Limits | None:
    """Bias and 95 % limits; None for fewer than three pairs."""
    if len(first) != len(second):
        raise ValueError("each case needs both readings")
    if len(first) < 3:
        return None
    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    bias, spread = float(apart.mean()), float(apart.std(ddof=1))
    return Limits(len(first), bias, bias - Z_95 * spread, bias + Z_95 * spread)
