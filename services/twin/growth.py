"""Two-phase tumour growth, fitted to one patient's few measurements.

f(t) = f0 (exp(-d t) + exp(g t) - 1): a sensitive part that shrinks at rate d, and what grows at rate g (per day).
Source: Stein WD et al., Clin Cancer Res 2011;17:907-917, doi:10.1158/1078-0432.CCR-10-1762. Priors in `growth.yaml`.

Inference is Bayesian and deterministic: the posterior over (ln d, ln g, ln f0) is evaluated on a grid that closes in on
where the mass lies, and drawn from systematically. Times are days since the first measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, stdtr, stdtrit

from services.platform.errors import RefusedError
from services.twin.tables import table

Floats = NDArray[np.float64]
Quantity = Literal["sum_longest_diameters", "metabolic_tumour_volume"]
QUANTITIES: tuple[Quantity, ...] = ("sum_longest_diameters", "metabolic_tumour_volume")

_DRAWS = 2000
_SHAPE = (40, 40, 17)
_MAX_PASSES = 8
_NEGLIGIBLE = 1e-5
_MAX_EXPONENT = 40.0


@dataclass(frozen=True)
class Prior:
    """What is known of tumours in general, for one quantity; see `growth.yaml` for each field's meaning."""

    ln_d_mean: float
    ln_d_sd: float
    ln_g_mean: float
    ln_g_sd: float
    correlation: float
    sigma: float
    detection_limit: float
    progression_increase: float
    progression_ratio: float = 1.2
    degrees_of_freedom: float = 4.0


@dataclass(frozen=True)
class Posterior:
    """Equally likely draws of the parameters, each array of shape (draws,); `f0` in the unit of the measurements."""

    d: Floats
    g: Floats
    f0: Floats
    prior: Prior


@dataclass(frozen=True)
class Change:
    """From `at_day` on, the decay rate is `effect` times the fitted one: 0 stops the treatment, 1 changes nothing."""

    at_day: float
    effect: float


@dataclass(frozen=True)
class Estimate:
    """Posterior median with the 90 % credible interval."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Band:
    """Where a measurement at `day` is expected: median, 50 % and 90 % predictive limits."""

    day: float
    median: float
    lower_50: float
    upper_50: float
    lower_90: float
    upper_90: float


def prior_for(quantity: Quantity) -> Prior:
    """The population prior of a quantity in its canonical unit (mm or mL)."""
    data = table("growth.yaml")
    entry = data["quantities"][quantity]
    names = [name for name in Prior.__dataclass_fields__ if name != "degrees_of_freedom"]
    return Prior(
        **{name: float(entry[name]) for name in names},
        degrees_of_freedom=float(data["degrees_of_freedom"]),
    )


def curve(d: float, g: float, f0: float, day: float) -> float:
    """The model itself, for one set of parameters."""
    return float(f0 * (np.exp(-d * day) + np.expm1(g * day)))


def nadir_day(d: Floats | float, g: Floats | float) -> Floats:
    """Day of the minimum, ln(d/g)/(d+g); 0 where the tumour never shrinks."""
    d, g = np.asarray(d, dtype=np.float64), np.asarray(g, dtype=np.float64)
    return np.maximum(np.log(d / g) / (d + g), 0.0)


def fit(days: Sequence[float], values: Sequence[float], prior: Prior) -> Posterior:
    """Posterior from two or more measurements, `days` strictly increasing from 0, `values` >= 0 in the prior's unit.

    Values at or below the detection limit enter as "below it". Raises RefusedError: `growth.too_few_measurements`,
    `growth.times_out_of_order`, `growth.negative_value`, `growth.baseline_below_detection`.
    """
    times, sizes = np.asarray(days, dtype=np.float64), np.asarray(values, dtype=np.float64)
    _refuse_unusable(times, sizes, prior)
    box = _first_box(prior)
    for _ in range(_MAX_PASSES):
        axes = [np.linspace(low, high, count) for (low, high), count in zip(box, _SHAPE, strict=True)]
        weights = _posterior_weights(axes, times - times[0], sizes, prior)
        closer = _close_in(axes, weights)
        shrunk = min((new[1] - new[0]) / (old[1] - old[0]) for new, old in zip(closer, box, strict=True))
        if shrunk > 0.75:
            break
        box = closer
    ln_d, ln_g, offset = _draw(axes, weights)
    return Posterior(np.exp(ln_d), np.exp(ln_g), sizes[0] * np.exp(offset), prior)


def _refuse_unusable(times: Floats, sizes: Floats, prior: Prior) -> None:
    if len(times) < 2:
        raise RefusedError(
            "growth.too_few_measurements",
            f"a growth curve needs at least two measurements over time; there is {len(times)}",
            missing=["a second measurement of the same lesions"],
            remedy="measure the same lesions at a later visit",
        )
    if not (np.all(np.isfinite(sizes)) and np.all(sizes >= 0)):
        raise RefusedError("growth.negative_value", "a tumour measurement is negative or not a number")
    if not np.all(np.diff(times) > 0):
        raise RefusedError(
            "growth.times_out_of_order",
            "measurement times must be distinct and increasing",
            remedy="keep one measurement for each visit, oldest first",
        )
    if sizes[0] <= prior.detection_limit:
        raise RefusedError(
            "growth.baseline_below_detection",
            f"the first measurement is at or below the detection limit of {prior.detection_limit:g}",
            remedy="start from the first visit with a measurable tumour",
        )


def _first_box(prior: Prior) -> list[tuple[float, float]]:
    reach = 10.0 * prior.sigma
    return [
        (prior.ln_d_mean - 4.5 * prior.ln_d_sd, prior.ln_d_mean + 4.5 * prior.ln_d_sd),
        (prior.ln_g_mean - 4.5 * prior.ln_g_sd, prior.ln_g_mean + 4.5 * prior.ln_g_sd),
        (-reach, reach),
    ]


def _posterior_weights(axes: Sequence[Floats], times: Floats, sizes: Floats, prior: Prior) -> Floats:
    """Normalised posterior on the grid, shape `_SHAPE`; the third axis is ln f0 - ln(first value), its prior flat."""
    ln_d, ln_g, offset = axes
    z_d, z_g = (ln_d - prior.ln_d_mean) / prior.ln_d_sd, (ln_g - prior.ln_g_mean) / prior.ln_g_sd
    rho = prior.correlation
    square = z_d[:, None] ** 2 - 2 * rho * z_d[:, None] * z_g[None, :] + z_g[None, :] ** 2
    total = np.broadcast_to((-square / (2 * (1 - rho**2)))[..., None], _SHAPE).copy()
    for time, size in zip(times, sizes, strict=True):
        growth = np.expm1(np.minimum(np.exp(ln_g) * time, _MAX_EXPONENT))
        log_shape = np.log(np.exp(-np.exp(ln_d) * time)[:, None] + growth[None, :])
        log_curve = np.log(sizes[0]) + log_shape[..., None] + offset
        total += _log_likelihood(size, log_curve, prior)
    return np.asarray(np.exp(total - logsumexp(total)), dtype=np.float64)


def _log_likelihood(size: float, log_curve: Floats, prior: Prior) -> Floats:
    nu = prior.degrees_of_freedom
    if size <= prior.detection_limit:
        below = stdtr(nu, (np.log(prior.detection_limit) - log_curve) / prior.sigma)
        return np.asarray(np.log(np.maximum(below, 1e-300)), dtype=np.float64)
    score = (np.log(size) - log_curve) / prior.sigma
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - np.log(prior.sigma)
    return np.asarray(constant - (nu + 1) / 2 * np.log1p(score**2 / nu), dtype=np.float64)


def _close_in(axes: Sequence[Floats], weights: Floats) -> list[tuple[float, float]]:
    """The part of each axis that holds the mass, one cell wider at both ends, never outside the axis."""
    box = []
    for index, axis in enumerate(axes):
        marginal = weights.sum(axis=tuple(other for other in range(3) if other != index))
        held = np.flatnonzero(marginal > _NEGLIGIBLE * marginal.max())
        box.append((float(axis[max(held[0] - 1, 0)]), float(axis[min(held[-1] + 1, len(axis) - 1)])))
    return box


def _draw(axes: Sequence[Floats], weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Systematic draws of grid cells, spread inside each cell by an additive recurrence (the R3 sequence)."""
    cumulative = np.cumsum(weights.ravel())
    positions = (np.arange(_DRAWS) + 0.5) / _DRAWS * cumulative[-1]
    cells = np.unravel_index(np.searchsorted(cumulative, positions), weights.shape)
    plastic = 1.2207440846057596
    drawn = []
    for index, (axis, cell) in enumerate(zip(axes, cells, strict=True)):
        spread = (0.5 + np.arange(_DRAWS) * plastic ** -(index + 1)) % 1.0 - 0.5
        drawn.append(axis[cell] + spread * (axis[1] - axis[0]))
    return drawn[0], drawn[1], drawn[2]


def trajectories(posterior: Posterior, days: Sequence[float] | Floats, change: Change | None = None) -> Floats:
    """The underlying burden of every draw at `days`, shape (draws, days).

    With a change, the sensitive part decays at `effect * d` from `at_day` on and the growing part goes on as before.
    """
    times = np.asarray(days, dtype=np.float64)
    exposure = times
    if change is not None:
        exposure = np.minimum(times, change.at_day) + change.effect * np.maximum(times - change.at_day, 0.0)
    sensitive = np.exp(-posterior.d[:, None] * exposure)
    growing = np.expm1(np.minimum(posterior.g[:, None] * times, _MAX_EXPONENT))
    return np.asarray(posterior.f0[:, None] * (sensitive + growing), dtype=np.float64)


def bands(posterior: Posterior, days: Sequence[float] | Floats, change: Change | None = None) -> list[Band]:
    """Predictive bands: where a measurement made at each day will fall, error of measurement included."""
    curves = trajectories(posterior, days, change)
    ranks = (0.5 + np.arange(_DRAWS) * 0.6180339887498949) % 1.0
    noise = posterior.prior.sigma * stdtrit(posterior.prior.degrees_of_freedom, ranks)
    measured = curves * np.exp(noise)[:, None]
    limits = np.quantile(measured, [0.5, 0.25, 0.75, 0.05, 0.95], axis=0)
    return [Band(float(day), *(float(limit) for limit in column)) for day, column in zip(days, limits.T, strict=True)]


def probability_of_progression(posterior: Posterior, until_day: float, change: Change | None = None) -> float:
    """Probability that the underlying burden at `until_day` exceeds its lowest value so far by the progression rule."""
    steps = np.linspace(0.0, until_day, 121)
    curves = trajectories(posterior, steps, change)
    lowest = curves.min(axis=1)
    last = curves[:, -1]
    prior = posterior.prior
    return float(np.mean((last >= prior.progression_ratio * lowest) & (last - lowest >= prior.progression_increase)))


def estimate(draws: Floats) -> Estimate:
    """Median and 90 % interval of draws."""
    median, lower, upper = np.quantile(draws, [0.5, 0.05, 0.95])
    return Estimate(float(median), float(lower), float(upper))
