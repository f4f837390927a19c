"""Between a caller's grid and the grid the hippocampus network was trained on.

Training grid: voxel axes run to the patient's Right, Anterior and Superior, 1 mm apart (the crops of the Medical
Segmentation Decathlon, Task04). A caller's grid: an array (z, y, x) and a 4x4 affine that maps voxel index
(i=x, j=y, k=z) to LPS millimetres, as in DICOM PS3.3 C.7.6.2.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

FloatArray = NDArray[np.float32]

#: Right, Anterior, Superior as columns of direction cosines in LPS space.
RAS_AXES_IN_LPS = np.diag([-1.0, -1.0, 1.0])
#: `pipelines.train.hippocampus.data.augmentation` rotates by up to 0.26 rad.
KEPT_TILT_DEGREES = 15.0
INTENSITY_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class CropGrid:
    """A 1 mm grid along the patient's axes that covers a caller's volume.

    Attributes:
        shape_ras: voxels along Right, Anterior, Superior.
        affine_lps: 4x4, maps index (r, a, s) to LPS millimetres.
    """

    shape_ras: tuple[int, int, int]
    affine_lps: NDArray[np.float64]


def spacing_of(affine_lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel spacing in mm along (x, y, z) index axes."""
    return np.asarray(np.linalg.norm(affine_lps[:3, :3], axis=0))


def anatomical_axes(affine_lps: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The grid axes to resample on, as columns Right, Anterior, Superior in LPS; and the input's tilt in degrees.

    A crop tilted by no more than the training's own random rotations keeps its axes, which spares it the empty corners
    of a rotated box; a steeper one is resampled along the patient's axes.
    """
    directions = affine_lps[:3, :3] / spacing_of(affine_lps)
    cosines = RAS_AXES_IN_LPS.T @ directions
    targets, sources = linear_sum_assignment(-np.abs(cosines))
    chosen = cosines[targets, sources]
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(chosen).min(), 0.0, 1.0))))
    if tilt > KEPT_TILT_DEGREES:
        return RAS_AXES_IN_LPS, tilt
    return directions[:, sources] * np.sign(chosen), tilt


def covering_grid(shape_zyx: tuple[int, ...], affine_lps: NDArray[np.float64], axes: NDArray[np.float64]) -> CropGrid:
    """The 1 mm grid whose axes are `axes` (3x3, columns in LPS) and whose box covers every voxel of the input.

    For an input that is already 1 mm and axis-aligned the grid points coincide with the input's voxel centres,
    so that nothing is interpolated.
    """
    extent_xyz = np.array(shape_zyx[::-1], dtype=float)
    half = 0.5
    corners = np.array(np.meshgrid(*[(-half, n - half) for n in extent_xyz], indexing="ij")).reshape(3, -1)
    along = axes.T @ (affine_lps[:3, :3] @ corners + affine_lps[:3, 3:4])
    low, high = along.min(axis=1), along.max(axis=1)
    shape = np.maximum(1, np.rint(high - low)).astype(int)
    centre = (low + high) / 2
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = axes @ (centre - (shape - 1) / 2)
    return CropGrid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def resample(source: torch.Tensor, index_map: NDArray[np.float64], out_shape: tuple[int, ...]) -> torch.Tensor:
    """Trilinear sampling of `source` at `index_map` @ target index; a point outside takes the edge value.

    Args:
        source: (channels, d0, d1, d2).
        index_map: 4x4, maps a target index (t0, t1, t2) to a source index (s0, s1, s2).
        out_shape: the target's three sizes.
    """
    target = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in out_shape], indexing="ij"), -1)
    matrix = torch.from_numpy(np.ascontiguousarray(index_map))
    index = target @ matrix[:3, :3].T + matrix[:3, 3]
    nearest = index.round()
    if torch.allclose(index, nearest, atol=1e-4):
        index = nearest
    size = torch.tensor(source.shape[1:], dtype=torch.float64)
    # grid_sample wants coordinates in [-1, 1], last axis first.
    unit = torch.where(size > 1, 2 * index / (size - 1).clamp(min=1) - 1, torch.zeros_like(index)).flip(-1)
    sampled = functional.grid_sample(
        source[None].double(), unit[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled[0].to(source.dtype)


def antialias(volume: torch.Tensor, spacing_mm: NDArray[np.float64]) -> torch.Tensor:
    """Low-pass a (1, d0, d1, d2) volume along each axis clearly finer than the 1 mm target, before it is resampled.

    Args:
        volume: on the source grid.
        spacing_mm: along d0, d1, d2.
    """
    for axis, spacing in enumerate(spacing_mm):
        factor = 1.0 / float(spacing)
        if factor <= 1.2:
            continue
        # skimage.transform.resize uses the same width: enough to hold back what 1 mm samples cannot show.
        sigma = (factor - 1) / 2
        reach = max(1, int(np.ceil(3 * sigma)))
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=volume.dtype) / sigma) ** 2)
        moved = volume.movedim(axis + 1, -1)
        rows = functional.pad(moved.reshape(-1, 1, moved.shape[-1]), (reach, reach), mode="replicate")
        filtered = functional.conv1d(rows, (taps / taps.sum())[None, None])
        volume = filtered.reshape(moved.shape).movedim(-1, axis + 1)
    return volume


def normalise(crop: FloatArray) -> FloatArray:
    """Clip to the 0.5 to 99.5 percentiles, then to zero mean and unit standard deviation over the crop.

    MR intensity has no unit: the scale is the crop's own. Training and inference share this function; the bundle's
    `ScaleIntensityRangePercentiles` followed by `NormalizeIntensity` is the same map.
    """
    low, high = np.percentile(crop, INTENSITY_PERCENTILES)
    clipped = np.clip(crop, low, high)
    spread = float(clipped.std())
    centred = clipped - clipped.mean()
    return np.asarray(centred / spread if spread > 0 else centred, dtype=np.float32)
