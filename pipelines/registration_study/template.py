"""The MNI template against its own inverted, noisy copy, 128 x 128 x 128: 10 degrees and 12 mm, or a stretch and shear on top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from numpy.typing import NDArray

from pipelines.registration_study.images import from_image, mni
from services.clinical.volume import ImageVolume
from services.registration.geometry import Matrix, apply, index_to_lps, inverse, rigid, to_affine, to_sitk

_SIZE = 128
_NOISE = 0.03
_STRAIN = np.array([[1.05, 0.02, 0.0], [0.0, 0.96, 0.03], [0.01, 0.0, 1.03]])


@dataclass(frozen=True)
class TemplatePair:
    """`truth`: 4x4, fixed to moving, LPS mm. `points`: (n, 3) of the brain, LPS mm."""

    fixed: ImageVolume
    moving: ImageVolume
    truth: Matrix
    points: NDArray[np.float64]


def template_pair(*, affine: bool = False, seed: int = 0) -> TemplatePair:
    """One pair; noise is 3 % of the brightest voxel."""
    image = to_sitk(mni())
    grid = _grid(image)
    centre = np.asarray(grid.TransformContinuousIndexToPhysicalPoint([(_SIZE - 1) / 2] * 3))
    direction = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    truth = rigid(direction * 10, np.array([1.0, -1.0, 1.0]) / np.sqrt(3) * 12, centre)
    if affine:
        strain = np.eye(4)
        strain[:3, :3] = _STRAIN
        strain[:3, 3] = centre - _STRAIN @ centre
        truth = truth @ strain
    fixed, moving = (
        sitk.Resample(image, grid, to_affine(matrix), sitk.sitkBSpline, 0.0) for matrix in (np.eye(4), inverse(truth))
    )
    brightest = float(sitk.GetArrayViewFromImage(fixed).max())
    noise = np.random.default_rng(seed).normal(0, _NOISE * brightest, (_SIZE,) * 3)
    inverted = sitk.GetImageFromArray((brightest - sitk.GetArrayFromImage(moving) + noise).astype(np.float32))
    inverted.CopyInformation(fixed)
    brain = np.argwhere(sitk.GetArrayViewFromImage(fixed) > 0.2 * brightest)[::50, ::-1].astype(float)
    volumes = (from_image(fixed, "MR", "fixed"), from_image(inverted, "MR", "moving"))
    return TemplatePair(*volumes, truth, apply(index_to_lps(fixed), brain))


def _grid(image: sitk.Image) -> sitk.Image:
    """The image's field of view in 128 steps along each axis."""
    spacing = np.asarray(image.GetSize()) * np.asarray(image.GetSpacing()) / _SIZE
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    origin = np.asarray(image.GetOrigin()) + direction @ ((spacing - np.asarray(image.GetSpacing())) / 2)
    grid = sitk.Image([_SIZE] * 3, sitk.sitkFloat32)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin(origin.tolist())
    grid.SetDirection(image.GetDirection())
    return grid
