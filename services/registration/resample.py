"""The moving series on the fixed series' grid, for fused views and voxel-wise comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from services.clinical.volume import ImageVolume
from services.registration.geometry import Matrix, to_affine, to_sitk

#: Value outside the moving field of view: air for CT, nothing for the rest.
_OUTSIDE = {"CT": -1024.0}


def resample(moving: ImageVolume, fixed: ImageVolume, matrix: Matrix) -> ImageVolume:
    """`moving` interpolated (linearly) at the fixed voxels; `matrix` maps fixed points to moving points, LPS mm.

    The result has the fixed grid and frame of reference, and the moving modality and unit. Outside the moving
    field of view it holds -1024 for CT and 0 for the rest.
    """
    result = sitk.Resample(
        to_sitk(moving), to_sitk(fixed), to_affine(matrix), sitk.sitkLinear, _OUTSIDE.get(moving.modality, 0.0)
    )
    return dataclasses.replace(
        moving,
        array=np.asarray(sitk.GetArrayFromImage(result), dtype=np.float32),
        affine_lps=fixed.affine_lps,
        frame_of_reference_uid=fixed.frame_of_reference_uid,
        sop_instance_uids=(),
    )
