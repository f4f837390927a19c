"""The moving series on the fixed series' grid, for fused views and voxel-wise comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from services.clinical.volume import ImageVolume
from services.registration.deformation import Deformation
from services.registration.geometry import Matrix, to_affine, to_sitk

#: Value outside the moving field of view: air for CT, nothing for the rest.
_OUTSIDE = {"CT": -1024.0}


def resample(moving: ImageVolume, fixed: ImageVolume, transform: Matrix | Deformation) -> ImageVolume:
    """`moving` interpolated (linearly) at the fixed voxels; `transform` maps fixed points to moving points, LPS mm.

    The result has the fixed grid and frame of reference, and the moving modality and unit. Outside the moving
    field of view it holds -1024 for CT and 0 for the rest.
    """
    mapping = transform.transform() if isinstance(transform, Deformation) else to_affine(transform)
    result = sitk.Resample(
        to_sitk(moving), to_sitk(fixed), mapping, sitk.sitkLinear, _OUTSIDE.get(moving.modality, 0.0)
    )
    return dataclasses.replace(
        moving,
        array=np.asarray(sitk.GetArrayFromImage(result), dtype=np.float32),
        affine_lps=fixed.affine_lps,
        frame_of_reference_uid=fixed.frame_of_reference_uid,
        sop_instance_uids=(),
    )


def growth_map(bent: Deformation, fixed: ImageVolume) -> ImageVolume:
    """Determinant of the Jacobian at the fixed voxels: 1.2 where the moving side holds a fifth more of the same tissue.

    1 outside the deformation's grid. It has no modality and the unit 1.
    """
    grid = dataclasses.replace(fixed, array=bent.jacobian(), affine_lps=bent.affine_lps)
    made = sitk.Resample(to_sitk(grid), to_sitk(fixed), sitk.Transform(), sitk.sitkLinear, 1.0)
    array = np.asarray(sitk.GetArrayFromImage(made), dtype=np.float32)
    return dataclasses.replace(fixed, array=array, modality="", unit="1", sop_instance_uids=())


def difference(moving: ImageVolume, fixed: ImageVolume, transform: Matrix | Deformation) -> ImageVolume:
    """Fixed minus resampled moving, in their unit; for two scans of one modality and scale (CT, SUV). NaN out of view."""
    nowhere = dataclasses.replace(moving, array=np.ones_like(moving.array), modality="")
    seen = resample(nowhere, fixed, transform).array > 0.5
    gap = np.where(seen, fixed.array - resample(moving, fixed, transform).array, np.nan)
    return dataclasses.replace(fixed, array=gap.astype(np.float32), sop_instance_uids=())
