"""An image volume with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageVolume:
    """Voxels and geometry of one series.

    `array`: (z, y, x) float32 in stored physical units (`unit`, UCUM or "1"). `affine_lps`: 4x4, maps voxel index
    (i = column, j = row, k = slice) to LPS millimetres (DICOM PS3.3 C.7.6.2.1.1). `sop_instance_uids`: one for each
    slice k, in order. Slices are sorted along the slice normal.
    """

    array: NDArray[np.float32]
    affine_lps: NDArray[np.float64]
    modality: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    sop_instance_uids: tuple[str, ...] = ()
    acquired_at: datetime | None = None
    unit: str = "1"

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edge lengths (x, y, z) in mm."""
        columns = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return (float(columns[0]), float(columns[1]), float(columns[2]))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3."""
        return float(abs(np.linalg.det(self.affine_lps[:3, :3])))
