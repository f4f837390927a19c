"""Fits the population prior of the two-phase tumour growth model to repeated tumour sizes, and prints it as YAML.

    python -m pipelines.tumour_growth_priors <folder>/tumour-growth/colorectalLongi.csv

Model (Stein 2011, doi:10.1158/1078-0432.CCR-10-1762): f(t) = f0 (exp(-d t) + exp(g t) - 1), t in days. (ln d, ln g) are
bivariate normal over patients, ln f0 is flat; a size is observed with an error whose logarithm is Student t (4 degrees of
freedom, scale sigma: sizes jump when another lesion is measured), and a size at or below the detection limit only says
that it was small. The marginal likelihood (integrated on a grid over ln d, ln g and ln f0) is maximised over the six
population parameters. Deterministic; about half a minute on one core.

Input: FFCD 2000-05 (Ducreux M et al., Lancet Oncol 2011;12:1032-1044), as distributed with frailtypack: column
`tumor.size` is Box-Cox transformed (lambda 0.3) sum of the longest diameters in cm, `year` years since randomisation.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp, stdtr

LAMBDA = 0.3
DEGREES_OF_FREEDOM = 4.0
DAYS_PER_YEAR = 365.25
DETECTION_LIMIT_CM = 0.5
# Later sizes follow second and third lines of treatment, which one curve does not describe.
FOLLOW_UP_DAYS = 365.25
SIGMAS = (0.08, 0.10, 0.12, 0.14, 0.16, 0.18, 0.20, 0.23)
Floats = NDArray[np.float64]
# Grid of the two rates, per day; wide enough that its edges carry no weight.
LN_D: Floats = np.linspace(np.log(1e-6), np.log(0.15), 56)
LN_G: Floats = np.linspace(np.log(1e-6), np.log(0.03), 50)
_F0_OFFSETS = np.linspace(-5.0, 5.0, 15)


@dataclass(frozen=True)
class Patient:
    """One patient's sizes (cm) at times (days since the first measurement); at least two of them."""

    days: Floats
    sizes_cm: Floats


@dataclass(frozen=True)
class Population:
    """Means and SDs of ln d and ln g (per day), their correlation, and the scale of the log error of a size."""

    ln_d_mean: float
    ln_d_sd: float
    ln_g_mean: float
    ln_g_sd: float
    correlation: float
    sigma: float


def inverse_box_cox(value: Floats) -> Floats:
    """Size in cm from its Box-Cox transform (lambda 0.3); the transform of zero is -1/lambda."""
    return np.maximum(LAMBDA * value + 1.0, 0.0) ** (1.0 / LAMBDA)


def read(path: Path) -> list[Patient]:
    """Patients with a detectable first size and at least one more."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows[row["id"]].append((float(row["year"]), float(row["tumor.size"])))
    patients = []
    for series in rows.values():
        years, transformed = (np.array(column) for column in zip(*sorted(series), strict=True))
        sizes = inverse_box_cox(transformed)
        days = (years - years[0]) * DAYS_PER_YEAR
        early = days <= FOLLOW_UP_DAYS
        if early.sum() >= 2 and sizes[0] > DETECTION_LIMIT_CM:
            patients.append(Patient(days[early], sizes[early]))
    return patients


def log_density(score: Floats) -> Floats:
    """Log density of the standard Student t with `DEGREES_OF_FREEDOM`."""
    nu = DEGREES_OF_FREEDOM
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return np.asarray(constant - (nu + 1) / 2 * np.log1p(score**2 / nu), dtype=np.float64)


def conditional_log_likelihood(patient: Patient, sigma: float) -> Floats:
    """Log-likelihood of one patient's sizes after the first, on the (ln d, ln g) grid; the first size anchors ln f0."""
    later = patient.days[1:]
    decay = np.exp(-np.exp(LN_D)[:, None] * later)
    growth = np.expm1(np.minimum(np.exp(LN_G)[:, None] * later, 50.0))
    log_shape = np.log(decay[:, None, :] + growth[None, :, :])
    seen = patient.sizes_cm[1:] > DETECTION_LIMIT_CM
    observed = np.log(np.maximum(patient.sizes_cm[1:], DETECTION_LIMIT_CM))
    log_offset_weights = log_density(_F0_OFFSETS) - logsumexp(log_density(_F0_OFFSETS))
    by_offset = []
    for offset, log_weight in zip(_F0_OFFSETS, log_offset_weights, strict=True):
        score = (observed - np.log(patient.sizes_cm[0]) - sigma * offset - log_shape) / sigma
        total = log_density(score[..., seen]).sum(axis=-1) - seen.sum() * np.log(sigma)
        by_offset.append(total + np.log(stdtr(DEGREES_OF_FREEDOM, score[..., ~seen])).sum(axis=-1) + log_weight)
    return np.asarray(logsumexp(np.stack(by_offset), axis=0), dtype=np.float64)


def _prior_log_weights(theta: Floats) -> Floats:
    """Normalised log weights of the grid under the bivariate normal with these (mean, ln sd) pairs and atanh rho."""
    z_d = (LN_D[:, None] - theta[0]) / np.exp(theta[1])
    z_g = (LN_G[None, :] - theta[2]) / np.exp(theta[3])
    rho = np.tanh(theta[4])
    log_density = -(z_d**2 - 2 * rho * z_d * z_g + z_g**2) / (2 * (1 - rho**2))
    return np.asarray(log_density - logsumexp(log_density), dtype=np.float64)


def _fit_for_sigma(patients: Sequence[Patient], sigma: float) -> tuple[float, Population]:
    likelihoods = np.stack([conditional_log_likelihood(patient, sigma) for patient in patients])

    def objective(theta: Floats) -> float:
        return -float(logsumexp(likelihoods + _prior_log_weights(theta), axis=(1, 2)).sum())

    start = np.array([np.log(3e-3), 0.0, np.log(5e-4), 0.0, 0.0])
    simplex = np.vstack([start, start + np.diag([0.7, 0.4, 0.7, 0.4, 0.3])])
    options = {"maxfev": 500, "xatol": 1e-2, "fatol": 1e-2, "initial_simplex": simplex}
    best = minimize(objective, start, method="Nelder-Mead", options=options)
    theta = best.x
    found = Population(theta[0], np.exp(theta[1]), theta[2], np.exp(theta[3]), np.tanh(theta[4]), sigma)
    return float(best.fun), found


def fit(patients: Sequence[Patient], sigmas: Sequence[float] = SIGMAS) -> Population:
    """Maximum marginal likelihood; the profile over `sigmas` chooses the error."""
    return min((_fit_for_sigma(patients, sigma) for sigma in sigmas), key=lambda fitted: fitted[0])[1]


def main() -> None:
    patients = read(Path(sys.argv[1]))
    population = fit(patients)
    summary = {name: round(float(value), 4) for name, value in vars(population).items()}
    print(yaml.safe_dump({"patients": len(patients), **summary}, sort_keys=False))


if __name__ == "__main__":
    main()
