"""Rigid transforms and where bodies lie: LPS millimetres, 4x4 matrices that map fixed points to moving points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError

Matrix = NDArray[np.float64]
Points = NDArray[np.float64]

IDENTITY: Matrix = np.eye(4)
_ORTHOGONAL_TOLERANCE = 1e-3


def rigid(rotation_vector_deg: ArrayLike, translation_mm: ArrayLike, centre: ArrayLike) -> Matrix:
    """Rotation about `centre` by the rotation vector (degrees, right-handed), then a translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(np.asarray(rotation_vector_deg, dtype=float))).as_matrix()
    pivot = np.asarray(centre, dtype=float)
    matrix[:3, 3] = pivot - matrix[:3, :3] @ pivot + np.asarray(translation_mm, dtype=float)
    return matrix


def inverse(matrix: Matrix) -> Matrix:
    """The transform that undoes `matrix`."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def apply(matrix: Matrix, points: Points) -> Points:
    """Maps points (n, 3) by a 4x4 matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def distances(first: Matrix, second: Matrix, points: Points) -> NDArray[np.float64]:
    """How far apart two transforms send each point, mm: the target registration error when one of them is true."""
    return np.asarray(np.linalg.norm(apply(first, points) - apply(second, points), axis=1))


def rotation_deg(matrix: Matrix) -> float:
    """Total rotation angle, 0..180 degrees."""
    return float(np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude()))


def shift_mm(matrix: Matrix, centre: ArrayLike) -> float:
    """How far `centre` (usually of the fixed body) moves, mm: unlike the matrix's last column, free of the origin."""
    pivot = np.asarray(centre, dtype=float)
    return float(np.linalg.norm(apply(matrix, pivot[None])[0] - pivot))


def is_rigid(matrix: Matrix, tolerance: float = 1e-6) -> bool:
    """True for a proper rotation with a translation, within `tolerance` of orthonormality."""
    rotation = matrix[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() <= tolerance
    return bool(orthonormal and np.linalg.det(rotation) > 0 and np.array_equal(matrix[3], [0, 0, 0, 1]))


def mean(matrices: Sequence[Matrix], points: Points) -> Matrix:
    """The rigid transform nearest, in the least-squares sense over `points`, to the average of several.

    Source: Kabsch W. Acta Cryst. A 1976;32:922 (rotation from the cross-covariance of point sets).
    """
    target = np.mean([apply(matrix, points) for matrix in matrices], axis=0)
    source_centre, target_centre = points.mean(axis=0), target.mean(axis=0)
    rotation, _ = Rotation.align_vectors(target - target_centre, points - source_centre)
    result = np.eye(4)
    result[:3, :3] = rotation.as_matrix()
    result[:3, 3] = target_centre - result[:3, :3] @ source_centre
    return result


def check_grid(volume: ImageVolume) -> NDArray[np.float64]:
    """The direction cosines (3x3, columns) of a grid of right angles.

    Raises RefusedError `registration.bad_grid`, and `.sheared_grid` for sheared grids, such as an uncorrected gantry tilt.
    """
    spacing = np.asarray(volume.spacing_mm)
    if volume.array.ndim != 3 or min(volume.array.shape) < 1 or not np.all(spacing > 0):
        raise RefusedError(
            "registration.bad_grid",
            f"the series is not a volume: shape {volume.array.shape}, spacing {spacing.tolist()} mm",
            remedy="send a series of parallel, evenly spaced slices",
            subject=volume.series_instance_uid,
        )
    direction = np.asarray(volume.affine_lps[:3, :3] / spacing)
    if np.abs(direction.T @ direction - np.eye(3)).max() > _ORTHOGONAL_TOLERANCE:
        raise RefusedError(
            "registration.sheared_grid",
            "the slices are not stacked at right angles (gantry tilt), so the grid is sheared",
            remedy="resample the series to a rectangular grid, or acquire without tilt",
            subject=volume.series_instance_uid,
        )
    return direction


def to_sitk(volume: ImageVolume) -> sitk.Image:
    """The volume as a SimpleITK image (LPS, float32). Raises as `check_grid`."""
    direction = check_grid(volume)
    image = sitk.GetImageFromArray(np.asarray(volume.array, dtype=np.float32))
    image.SetSpacing(list(volume.spacing_mm))
    image.SetOrigin(volume.affine_lps[:3, 3].tolist())
    image.SetDirection(direction.flatten().tolist())
    return image


def to_affine(matrix: Matrix) -> sitk.AffineTransform:
    """The matrix as a SimpleITK transform, for resampling."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].flatten().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def index_to_lps(image: sitk.Image) -> Matrix:
    """4x4 from voxel index (i, j, k) to LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix
