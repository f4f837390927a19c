"""Temperature and bias from images that a member never saw, and how good the probabilities are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

#: Share of pneumonia among the 5,856 images of the whole set (4,273; Kermany et al., 2018; MedMNIST v2, table of parts).
PREVALENCE = 4273 / 5856
BINS = 15
Floats = NDArray[np.float64]


def log_odds(share: float) -> float:
    """Logarithm of share over its complement."""
    return math.log(share / (1 - share))


def fit_temperature(logits: Floats, labels: Floats) -> tuple[float, float]:
    """Temperature and bias that make held-out probabilities most likely (Guo et al., ICML 2017, with Platt's bias).

    Args:
        logits: log-odds at equal prevalence, by who never saw the image.
        labels: 0 or 1. Their own share is taken into account, so that it does not leak into the bias.
    """
    prior = log_odds(float(labels.mean()))

    def loss(parameters: Floats) -> float:
        z = logits * math.exp(-parameters[0]) + parameters[1] + prior
        return float(np.mean(np.logaddexp(0, z) - labels * z))

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-8, "maxiter": 2000})
    return float(math.exp(found.x[0])), float(found.x[1])


def chances(logits: Floats, temperature: float, bias: float, prevalence: float) -> Floats:
    """Probabilities at a prevalence."""
    return np.asarray(expit(logits / temperature + bias + log_odds(prevalence)))


def expected_calibration_error(probability: Floats, labels: Floats, bins: int = BINS) -> float:
    """Mean distance between stated and observed share over equally wide bins, weighted by their size (0 to 1)."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [
        abs(float(probability[place == b].sum() - labels[place == b].sum())) for b in range(bins) if (place == b).any()
    ]
    return float(np.sum(gaps)) / len(labels)


def cross_fitted(logits: Floats, labels: Floats, folds: Sequence[int] | NDArray[np.int_]) -> Floats:
    """Probabilities of each fold by the temperature of the other folds, at the labels' own share."""
    assigned = np.asarray(folds)
    result = np.zeros(len(logits))
    for fold in np.unique(assigned):
        others = assigned != fold
        temperature, bias = fit_temperature(logits[others], labels[others])
        result[~others] = chances(logits[~others], temperature, bias, float(labels[others].mean()))
    return result
