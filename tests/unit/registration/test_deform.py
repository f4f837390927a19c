"""Known bends of an analytic body are undone, without folds, and the way back leads back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from phantoms import phantom
from scipy.ndimage import map_coordinates

from services.registration.bend import BentMeasures, judge_bent, measure_bent
from services.registration.deform import deform
from services.registration.deformation import Deformation, jacobian
from services.registration.geometry import IDENTITY, apply, inverse, rigid
from services.registration.prepare import prepare
from services.registration.quality import Judgement, Verdict
from services.registration.resample import difference, growth_map, resample

TOP_MM = 8.0


def bend(points):
    """A smooth swelling: fixed points to moving points, at most TOP_MM."""
    x, y, z = points.T
    weight = TOP_MM * np.exp(-((x - 15) ** 2 + (y + 10) ** 2 + z**2) / (2 * 30.0**2))
    return points + np.stack([0.7 * weight, -0.6 * weight, 0.38 * weight], axis=1)


@pytest.fixture(scope="module")
def pair():
    moving = phantom("CT", seed=2)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in moving.array.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    points = apply(moving.affine_lps, grid[:, ::-1].astype(float))
    there = apply(inverse(moving.affine_lps), bend(points))[:, ::-1].T
    array = map_coordinates(moving.array, there, order=3, mode="nearest").reshape(moving.array.shape)
    fixed = dataclasses.replace(moving, array=array.astype(np.float32))
    return fixed, moving, prepare(fixed), prepare(moving)


@pytest.fixture(scope="module")
def found(pair):
    return deform(pair[2], pair[3], IDENTITY, levels=2)


def inner(prepared):
    """Body points away from the ends of the scan, where nothing tells how far tissue came from outside."""
    points = prepared.body_points[::7]
    return points[np.abs(points[:, 2]) < 40]


def test_a_known_bend_is_found_to_a_fraction_of_a_voxel(pair, found) -> None:
    points = inner(pair[2])
    before = np.linalg.norm(bend(points) - points, axis=1)
    error = np.linalg.norm(found.apply(points) - bend(points), axis=1)
    assert np.median(before) > 2.5
    assert np.median(error) < 1.0  # a quarter of a voxel
    assert measure_bent(pair[2], pair[3], found, repeat=False).folding_fraction == 0


def test_there_and_back_returns(pair, found) -> None:
    points = inner(pair[2])
    assert np.linalg.norm(found.undo(found.apply(points)) - points, axis=1).max() < 0.5


def test_a_spline_finds_the_bend_too_but_has_no_way_back(pair) -> None:
    spline = deform(pair[2], pair[3], IDENTITY, symmetric=False, levels=2)
    points = inner(pair[2])
    assert np.median(np.linalg.norm(spline.apply(points) - bend(points), axis=1)) < 1.5
    with pytest.raises(ValueError, match="no inverse"):
        spline.undo(points)


def test_resampling_through_the_bend_removes_the_difference(pair, found) -> None:
    fixed, moving = pair[:2]
    body = fixed.array > -200
    before, after = (np.abs(difference(moving, fixed, t).array)[body] for t in (IDENTITY, found))
    assert np.nanmean(after) < 0.5 * np.nanmean(before)
    assert resample(moving, fixed, found).array.shape == fixed.array.shape


def test_the_growth_map_tells_a_known_growth() -> None:
    fixed = phantom("CT")
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-88, -72, -64)
    k, j, i = np.meshgrid(*(np.arange(n) for n in (18, 20, 24)), indexing="ij")
    points = np.stack([i, j, k], axis=-1) * 8.0 + affine[:3, 3]
    swollen = Deformation(IDENTITY, (0.1 * points).astype(np.float32), affine)
    assert growth_map(swollen, fixed).array == pytest.approx(1.1**3, rel=1e-3)


def test_a_fold_is_seen_and_refused() -> None:
    field = np.zeros((4, 4, 6, 3), dtype=np.float32)
    field[:, :, 3, 0] = -3.0  # the fourth column jumps over its neighbours, 1 mm apart
    assert (jacobian(field, np.eye(4)) < 0).any()
    measures = BentMeasures(0.1, -0.5, 2.0, 0.01, 0.0, 1.0, 0.0)
    judged = judge_bent(Judgement(Verdict.GOOD, (), None), measures)  # type: ignore[arg-type]
    assert (judged.verdict, judged.code) == (Verdict.FAILED, "folded")


def test_the_map_is_the_matrix_after_the_displacement() -> None:
    matrix = rigid((0, 0, 90), (5, 0, 0), (0, 0, 0))
    shift = np.zeros((3, 3, 3, 3), dtype=np.float32)
    shift[..., 0] = 2.0
    bent = Deformation(matrix, shift, np.eye(4))
    assert bent.apply(np.array([[1.0, 0, 0]])) == pytest.approx(np.array([[5.0, 3.0, 0]]))
    assert bent.transform().TransformPoint((1.0, 0.0, 0.0)) == pytest.approx((5.0, 3.0, 0.0))
