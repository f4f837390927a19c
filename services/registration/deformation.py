"""A bent transform: a displacement for every point of the fixed space, then a matrix. LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from services.registration.geometry import Matrix, Points, apply, inverse, to_affine

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Deformation:
    """Maps a fixed point p to `matrix` (p + u(p)): the order of DICOM PS3.3 C.20.3 without a matrix before the grid.

    `displacement`: u in mm, LPS, (z, y, x, 3), on a grid of right angles over the fixed image; `affine_lps`: its voxel index
    (i, j, k) to LPS mm. Between grid points u is linear; outside the grid it is that of the nearest edge point.
    `backward`: v with p' = m + v(m) undoing u, on the same grid, for maps that have an inverse by construction.
    """

    matrix: Matrix
    displacement: Field
    affine_lps: Matrix
    backward: Field | None = None

    def apply(self, points: Points) -> Points:
        """Fixed points (n, 3) to moving points."""
        return apply(self.matrix, points + sampled(self.displacement, self.affine_lps, points))

    def undo(self, points: Points) -> Points:
        """Moving points (n, 3) to fixed points. Raises ValueError where the map has no stored inverse."""
        if self.backward is None:
            raise ValueError("this deformation has no inverse")
        bent = apply(inverse(self.matrix), points)
        return bent + sampled(self.backward, self.affine_lps, bent)

    def jacobian(self) -> NDArray[np.float32]:
        """Determinant of the gradient of p + u(p) at each grid point (z, y, x): above 1 where the moving side is larger.

        The matrix is left out, so that a follow-up's map shows growth, not a change of scale between scanners. Negative:
        folded.
        """
        return jacobian(self.displacement, self.affine_lps)

    def transform(self) -> sitk.Transform:
        """The same map as a SimpleITK transform, for resampling."""
        field = sitk.GetImageFromArray(self.displacement.astype(np.float64), isVector=True)
        spacing = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        field.SetSpacing(spacing.tolist())
        field.SetOrigin(self.affine_lps[:3, 3].tolist())
        field.SetDirection((self.affine_lps[:3, :3] / spacing).flatten().tolist())
        return sitk.CompositeTransform([to_affine(self.matrix), sitk.DisplacementFieldTransform(field)])


def sampled(field: Field, affine_lps: Matrix, points: Points) -> Points:
    """A vector field (z, y, x, 3) at points (n, 3), linear between grid points and constant beyond the edge."""
    indices = apply(inverse(affine_lps), points)[:, ::-1].T
    parts = [map_coordinates(field[..., axis], indices, order=1, mode="nearest", prefilter=False) for axis in range(3)]
    return np.stack(parts, axis=1).astype(np.float64)


def jacobian(field: Field, affine_lps: Matrix) -> NDArray[np.float32]:
    """Determinant of the gradient of p + field(p) at each grid point (z, y, x)."""
    by_index = np.stack([np.gradient(field, axis=axis) for axis in (2, 1, 0)], axis=-1)  # (z, y, x, LPS, ijk)
    gradient = by_index @ np.linalg.inv(affine_lps[:3, :3]).astype(np.float32)
    gradient += np.eye(3, dtype=np.float32)
    return np.asarray(np.linalg.det(gradient), dtype=np.float32)
