"""Judging a deformation by what only a deformation can get wrong: folds, growth beyond reason, no way back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from services.registration.deform import SETTINGS, deform, misfit
from services.registration.deformation import Deformation
from services.registration.prepare import Prepared
from services.registration.quality import Judgement, Verdict, broken


@dataclass(frozen=True)
class BentMeasures:
    """What was measured of a deformation.

    gain: misfit (0..1, see dense.py) that it removed, against the matrix alone. jacobian_min, jacobian_max: range of the
    determinant over the fixed body. folding_fraction: share of body points where it is not positive. inverse_mm: 99th
    percentile over the body of the distance between a point and where there-and-back leads; 0 where the method has no
    inverse. displacement_mm: mean over the body. repeat_mm: mean distance to a repeat (coarse levels) from a random start.
    """

    gain: float
    jacobian_min: float
    jacobian_max: float
    folding_fraction: float
    inverse_mm: float
    displacement_mm: float
    repeat_mm: float


def measure_bent(
    fixed: Prepared, moving: Prepared, bent: Deformation, *, threads: int = 1, repeat: bool = True
) -> BentMeasures:
    """Measures a deformation; `repeat` registers the coarser levels once more, which costs a quarter of the whole."""
    points = fixed.body_points[:: max(1, len(fixed.body_points) // 20000)]
    indices = np.rint((points - bent.affine_lps[:3, 3]) @ np.linalg.inv(bent.affine_lps[:3, :3]).T).astype(int)
    i, j, k = np.clip(indices, 0, np.asarray(bent.displacement.shape[2::-1]) - 1).T
    determinants = bent.jacobian()[k, j, i]
    there = bent.apply(points)
    back = np.linalg.norm(bent.undo(there) - points, axis=1) if bent.backward is not None else np.zeros(1)
    plain = dataclasses.replace(bent, displacement=np.zeros_like(bent.displacement))
    again = 0.0
    if repeat:
        count = len(SETTINGS["levels"]) - 1
        symmetric = bent.backward is not None
        both = [
            deform(fixed, moving, bent.matrix, symmetric=symmetric, seed=seed, levels=count, threads=threads)
            for seed in (None, SETTINGS["repeat_seed"])
        ]
        again = float(np.linalg.norm(both[0].apply(points) - both[1].apply(points), axis=1).mean())
    return BentMeasures(
        gain=misfit(fixed, moving, plain) - misfit(fixed, moving, bent),
        jacobian_min=float(determinants.min()),
        jacobian_max=float(determinants.max()),
        folding_fraction=float((determinants <= 0).mean()),
        inverse_mm=float(np.percentile(back, 99)),
        displacement_mm=float(np.linalg.norm(there - plain.apply(points), axis=1).mean()),
        repeat_mm=again,
    )


def judge_bent(linear: Judgement, measures: BentMeasures) -> Judgement:
    """The verdict on matrix and deformation together: the worse of the two."""
    failed, review = (broken(SETTINGS[name], measures) for name in ("failed", "review"))
    if failed:
        return Judgement(Verdict.FAILED, tuple(text for _, text in failed), linear.measures, failed[0][0], measures)
    if review:
        reasons = (*linear.reasons, *(text for _, text in review))
        return Judgement(Verdict.REVIEW, reasons, linear.measures, bent=measures)
    return dataclasses.replace(linear, bent=measures)
