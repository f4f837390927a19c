"""Mutual information at random points, independent of the optimiser that it checks.

Source: Mattes D et al. IEEE Trans Med Imaging 2003;22:120; Studholme C et al. Pattern Recognit 1999;32:71 (overlap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from services.registration.geometry import Matrix, Points, apply, index_to_lps, inverse
from services.registration.prepare import Level

BINS = 32


@dataclass(frozen=True)
class Sampled:
    """Points (n, 3) of the fixed body and its margin, LPS mm, and the fixed values there, 0..1."""

    points: Points
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """`information`: mutual information in nats, at least 0. `share`: it over the smaller entropy, 0..1.

    `inside`: fraction of the points that fall within the moving field of view, 0..1.
    """

    information: float
    share: float
    inside: float


@dataclass(frozen=True)
class Target:
    """A moving image for quick look-ups: values (z, y, x) and 4x4 from LPS mm to voxel index (i, j, k)."""

    array: NDArray[np.float32]
    to_index: Matrix


def target(level: Level) -> Target:
    """The moving side of one level."""
    return Target(sitk.GetArrayFromImage(level.image), inverse(index_to_lps(level.image)))


def sample(level: Level, count: int, seed: int) -> Sampled:
    """At most `count` points, jittered off the voxel grid so that interpolation leaves no grid artefact."""
    rng = np.random.default_rng(seed)
    indices = np.argwhere(sitk.GetArrayViewFromImage(level.mask))[:, ::-1].astype(float)
    if len(indices) > count:
        indices = indices[np.sort(rng.choice(len(indices), count, replace=False))]
    indices += rng.uniform(-0.5, 0.5, indices.shape)
    array = sitk.GetArrayViewFromImage(level.image)
    values = map_coordinates(array, indices[:, ::-1].T, order=1, mode="nearest", prefilter=False)
    return Sampled(apply(index_to_lps(level.image), indices), np.asarray(values, dtype=float))


def within(fixed: Sampled, moving: Target, matrix: Matrix, margin_mm: float) -> Sampled:
    """The points that `matrix` maps at least `margin_mm` deep into the moving field of view.

    Mutual information over a fixed set of points cannot be raised by pushing dull parts of the body out of view.
    """
    margin = margin_mm * np.linalg.norm(moving.to_index[:3, :3], axis=1)
    indices = apply(moving.to_index @ matrix, fixed.points)
    last = np.asarray(moving.array.shape[::-1]) - 1.0
    deep = np.all((indices >= margin) & (indices <= last - margin), axis=1)
    return Sampled(fixed.points[deep], fixed.values[deep])


def similarity(fixed: Sampled, moving: Target, matrix: Matrix) -> Similarity:
    """How much the moving values say about the fixed ones when points are mapped by `matrix` (fixed to moving)."""
    indices = apply(moving.to_index @ matrix, fixed.points)
    limits = np.asarray(moving.array.shape[::-1]) - 0.5
    inside = np.all((indices > -0.5) & (indices < limits), axis=1)
    count = int(inside.sum())
    if count < BINS:
        return Similarity(0.0, 0.0, count / max(1, len(inside)))
    values = map_coordinates(moving.array, indices[inside][:, ::-1].T, order=1, mode="nearest", prefilter=False)
    joint = _joint(fixed.values[inside], values)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    smaller = min(_entropy(rows), _entropy(columns))
    information = max(0.0, _entropy(rows) + _entropy(columns) - _entropy(joint))
    return Similarity(information, information / smaller if smaller > 0 else 0.0, count / len(inside))


def _joint(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint distribution, each value shared between its two nearest bins so that it changes smoothly with motion."""
    table = np.zeros(BINS * BINS)
    low_a, part_a = _bin(first)
    low_b, part_b = _bin(second)
    for step_a, weight_a in ((0, 1 - part_a), (1, part_a)):
        for step_b, weight_b in ((0, 1 - part_b), (1, part_b)):
            cells = (low_a + step_a) * BINS + low_b + step_b
            table += np.bincount(cells, weight_a * weight_b, minlength=BINS * BINS)
    return (table / table.sum()).reshape(BINS, BINS)


def _bin(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    place = np.clip(values, 0.0, 1.0) * (BINS - 1)
    low = np.minimum(place.astype(np.int64), BINS - 2)
    return low, place - low


def _entropy(probabilities: NDArray[np.float64]) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
