"""Simulated scanners: a grid over the body, then blur and noise as the modality has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipelines.cohort.anatomy import Grid, Lesion, Pose, render

FWHM_PER_SIGMA = 2.3548200450309493


CT_GRID = Grid((160, 160, 96), (2.5, 2.5, 4.0))
PET_GRID = Grid((96, 96, 96), (4.0, 4.0, 4.0))
MR_GRID = Grid((160, 128, 60), (2.5, 2.5, 5.0), centre_z_mm=-10.0)


def _blurred(image: NDArray[np.float64], grid: Grid, fwhm_mm: float) -> NDArray[np.float64]:
    sigma = [fwhm_mm / FWHM_PER_SIGMA / s for s in reversed(grid.spacing_mm)]
    return np.asarray(gaussian_filter(image, sigma))


def ct(lesions: list[Lesion], pose: Pose, seed: int) -> NDArray[np.float64]:
    """CT numbers in HU on `CT_GRID`, (z, y, x)."""
    image = _blurred(render(CT_GRID, pose, lesions, "hu"), CT_GRID, 2.0)
    return np.asarray(np.clip(image + np.random.default_rng(seed).normal(0, 12, image.shape), -1024, 3071))


def pet(lesions: list[Lesion], pose: Pose, seed: int, fwhm_mm: float = 6.0) -> NDArray[np.float64]:
    """FDG uptake as SUV (body weight, g/mL) on `PET_GRID`, (z, y, x): scanner resolution and count noise included."""
    image = _blurred(render(PET_GRID, pose, lesions, "suv"), PET_GRID, fwhm_mm)
    noise = _blurred(np.random.default_rng(seed).normal(0, 1, image.shape), PET_GRID, 5.0)
    return np.asarray(np.clip(image + noise / noise.std() * 0.05 * np.sqrt(np.clip(image, 0, None)), 0, None))


def mr_t1(lesions: list[Lesion], pose: Pose, seed: int) -> NDArray[np.float64]:
    """T1-weighted signal on `MR_GRID`, (z, y, x), with a coil bias field and Rician noise."""
    points = MR_GRID.points(pose)
    image = _blurred(render(MR_GRID, pose, lesions, "t1"), MR_GRID, 2.0)
    bias = 1 + 0.12 * np.sin(points[..., 0] / 170) + 0.08 * np.cos(points[..., 1] / 140)
    rng = np.random.default_rng(seed)
    real, imaginary = rng.normal(0, 9, image.shape), rng.normal(0, 9, image.shape)
    return np.asarray(np.hypot(image * bias + real, imaginary))
