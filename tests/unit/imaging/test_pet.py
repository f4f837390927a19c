"""Uptake of phantoms whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

from services.imaging import pet, size


def sphere(shape, spacing, centre_mm, radius):
    grids = np.indices(shape).astype(float)
    z, y, x = (g * s for g, s in zip(grids, spacing[::-1], strict=True))
    return np.sqrt((z - centre_mm[2]) ** 2 + (y - centre_mm[1]) ** 2 + (x - centre_mm[0]) ** 2) <= radius


SPACING = (4.0, 4.0, 3.0)
SHAPE = (40, 40, 40)


def test_uniform_sphere():
    region = sphere(SHAPE, SPACING, (80, 80, 60), 20)
    suv = np.where(region, 8.0, 1.0).astype(np.float32)
    found = pet.measure(suv, region, SPACING)
    assert (found.suv_max, found.suv_mean) == (8, 8)
    assert found.suv_peak == pytest.approx(8)
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.05)
    assert found.glycolysis_g == pytest.approx(8 * found.volume_mm3 / 1000)


def test_peak_of_a_linear_gradient_is_its_value_at_the_best_centre():
    """In a field that rises evenly, the mean over a sphere is the value at its centre: a known answer."""
    z = np.indices(SHAPE)[0] * SPACING[2]
    suv = (1 + 0.1 * z).astype(np.float32)
    region = np.zeros(SHAPE, bool)
    region[15:21, 15:25, 15:25] = True
    # Centres reach up to half a voxel beyond the last voxel centre.
    assert pet.peak(suv, region, SPACING) == pytest.approx(1 + 0.1 * 20.5 * 3, abs=0.01)


def test_peak_of_a_small_hot_sphere_is_diluted_by_its_surroundings():
    spacing, shape = (1.0, 1.0, 1.0), (41, 41, 41)
    region = sphere(shape, spacing, (20, 20, 20), 5)
    suv = np.where(region, 10.0, 0.0).astype(np.float32)
    share = region.sum() / 1000
    assert pet.peak(suv, region, spacing) == pytest.approx(10 * share, rel=0.01)
    assert pet.measure(suv, region, spacing).suv_max == 10


def test_peak_finds_the_best_place_between_voxels():
    """Two hot voxels side by side: the best sphere is centred between them."""
    spacing, shape = (6.0, 6.0, 6.0), (11, 11, 11)
    suv = np.zeros(shape, np.float32)
    suv[5, 5, 5] = suv[5, 5, 6] = 10
    region = suv > 0
    radius = (3000 / (4 * np.pi)) ** (1 / 3)
    points = np.random.default_rng(1).uniform(-radius, radius, (2_000_000, 3))
    points = points[np.linalg.norm(points, axis=1) <= radius]
    hot = (np.abs(points[:, 2]) <= 6) & (np.abs(points[:, :2]) <= 3).all(axis=1)
    assert pet.peak(suv, region, spacing) == pytest.approx(10 * hot.mean(), rel=0.02)


def test_sphere_kernel_has_the_right_volume_and_place():
    radius = (3000 / (4 * np.pi)) ** (1 / 3)
    edges, offset, reach = np.array([3.0, 4.0, 4.0]), np.array([0.25, -0.25, 0.0]), np.array([4, 3, 3])
    weights = pet.sphere_weights(radius, edges, offset, reach)
    centre = [(weights * axis).sum() for axis in np.indices(weights.shape)] - reach
    np.testing.assert_allclose(centre, offset, atol=0.02)
    assert 1 / weights.max() * 48 == pytest.approx(1000, rel=0.03)


def test_no_peak_where_no_sphere_fits():
    assert pet.peak(np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), bool), (1, 1, 1)) is None


def test_relative_volumes_span_the_threshold_choice():
    z, y, x = (np.indices(SHAPE) - 20) * np.array([3.0, 4.0, 4.0])[:, None, None, None]
    suv = (10 * np.exp(-(x**2 + y**2 + z**2) / (2 * 12**2))).astype(np.float32)
    found = pet.measure(suv, suv > 0.5, SPACING)
    radii = [12 * np.sqrt(2 * np.log(1 / share)) for share in (0.35, 0.50)]
    for volume, radius in zip(found.relative_volumes_mm3, radii, strict=True):
        assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)


def test_candidates_are_hottest_first_and_small_ones_are_left_out():
    suv = np.ones(SHAPE, np.float32)
    suv[sphere(SHAPE, SPACING, (40, 40, 40), 12)] = 6
    suv[sphere(SHAPE, SPACING, (110, 110, 80), 12)] = 9
    suv[2, 2, 2] = 20
    found, more = pet.candidates(suv, SPACING)
    assert [suv[region].max() for region in found] == [9, 6]
    assert more == 0
    assert pet.candidates(np.ones(SHAPE, np.float32), SPACING) == ([], 0)


def test_at_most_ten_candidates():
    suv = np.ones((12, 60, 60), np.float32)
    for n in range(12):
        suv[4:8, 5 * n : 5 * n + 4, 10:14] = 5 + n
    found, more = pet.candidates(suv, (4, 4, 4))
    assert (len(found), more) == (10, 2)


def test_liver_sphere_lies_in_the_right_half():
    liver = sphere((50, 50, 60), (4.0, 4.0, 4.0), (120, 100, 100), 60)
    region = pet.liver_sphere(liver, (4.0, 4.0, 4.0), right_lps_index=-1)
    assert region.sum() * 64 == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.15)
    assert np.argwhere(region)[:, 2].mean() <= 30
    assert (region & ~liver).sum() == 0
    assert pet.liver_sphere(sphere((20, 20, 20), SPACING, (40, 40, 30), 10), SPACING, 1) is None


def test_axial_size_of_an_ellipse():
    angle = np.linspace(0, 2 * np.pi, 400)
    ellipse = np.stack([25 * np.cos(angle), 10 * np.sin(angle)], axis=1)
    turned = ellipse @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    found = size.axial_size([[ellipse * 0.5], [turned, ellipse * 0.1]])
    assert (found.long_axis_mm, found.short_axis_mm, found.plane) == pytest.approx((50, 20, 1), rel=1e-3)
    assert size.axial_size([[], [np.zeros((2, 2))], [np.array([[0, 0], [1, 1], [2, 2.0]])]]) is None


def test_axial_size_of_a_mask():
    region = sphere((20, 60, 60), (1.0, 1.0, 3.0), (30, 30, 30), 20)
    found = size.axial_size(size.outlines_of_mask(region, (1.0, 1.0, 3.0)))
    assert found.long_axis_mm == pytest.approx(40, abs=1.5)
    assert found.short_axis_mm == pytest.approx(40, abs=1.5)
