"""Fitting a familiarity reference to features, and measuring it on inputs kept out of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from services.imaging.trust.familiarity import Reference, distances

Floats = NDArray[np.float64]
LEVEL = 0.975
FIT_SHARE = 0.6


def fit(known: Floats, layers: Sequence[str], weights_sha256: str, seed: int = 0) -> Reference:
    """A reference from features (n, d) of known inputs: 60 % make the distribution, the others the limit."""
    order = np.random.default_rng(seed).permutation(len(known))
    cut = int(FIT_SHARE * len(known))
    made, kept_out = known[order[:cut]], known[order[cut:]]
    mean, scale = made.mean(axis=0), made.std(axis=0) + 1e-9
    covariance = LedoitWolf().fit((made - mean) / scale).covariance_
    bare = Reference(
        tuple(layers), mean, scale, np.linalg.inv(covariance), 0.0, LEVEL, cut, len(known) - cut, weights_sha256
    )
    limit = float(np.quantile(distances(bare, kept_out), LEVEL))
    return Reference(**{**vars(bare), "limit": limit})


def false_alarms(known: Floats, layers: Sequence[str], repeats: int = 20) -> float:
    """Share of known inputs above the limit, on fifths that neither fit nor limit saw, over random splits."""
    shares = []
    for seed in range(repeats):
        order = np.random.default_rng(1000 + seed).permutation(len(known))
        cut = len(known) // 5
        reference = fit(known[order[cut:]], layers, "", seed)
        shares.append(float((distances(reference, known[order[:cut]]) > reference.limit).mean()))
    return float(np.mean(shares))


def caught(reference: Reference, strange: Mapping[str, Floats]) -> dict[str, dict[str, float | int]]:
    """For each kind of strange input: how many, the share above the limit, and the least distance."""
    rows: dict[str, dict[str, float | int]] = {}
    for kind, found in strange.items():
        far = distances(reference, found)
        rows[kind] = {
            "inputs": len(far),
            "caught": round(float((far > reference.limit).mean()), 3),
            "least_distance": round(float(far.min()), 2),
        }
    return rows
