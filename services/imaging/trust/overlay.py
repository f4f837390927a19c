"""Saliency and uncertainty as an overlay on the series they were made from, to be stored as a DICOM parametric map.

The map lies on the network's own grid; it is brought onto the series' slices by linear interpolation, so that any viewer
that shows parametric maps lays it over the images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.clinical.codes import OSLER_MEASUREMENT, Concept
from services.clinical.volume import ImageVolume
from services.imaging.results.parametric_map import ValueMap
from services.platform.errors import RefusedError

SALIENCY = Concept(OSLER_MEASUREMENT, "saliency", "Saliency")
UNCERTAINTY = Concept(OSLER_MEASUREMENT, "predictive-entropy", "Predictive entropy")


def saliency_overlay(array: NDArray[np.float32], affine_lps: NDArray[np.float64], volume: ImageVolume) -> ValueMap:
    """Saliency (z, y, x), 0 to 1, on the slices of `volume`; NaN where the network saw nothing.

    `affine_lps`: 4x4, voxel (i, j, k) of `array` to LPS mm. Raises RefusedError `overlay.elsewhere`.
    """
    values = onto(array, affine_lps, volume)
    return ValueMap(values, SALIENCY, "1", "saliency", "What moved the model's score; not what is ill")


def uncertainty_overlay(array: NDArray[np.float32], affine_lps: NDArray[np.float64], volume: ImageVolume) -> ValueMap:
    """Predictive entropy (z, y, x) in nats on the slices of `volume`; as `saliency_overlay`."""
    values = onto(array, affine_lps, volume)
    return ValueMap(values, UNCERTAINTY, "{nat}", "uncertainty", "Predictive entropy of the model at each voxel")


def onto(array: NDArray[np.float32], affine_lps: NDArray[np.float64], volume: ImageVolume) -> NDArray[np.float32]:
    """The map at the voxel centres of `volume`, NaN outside its own grid (half a voxel beyond its outer centres counts in).

    Raises RefusedError `overlay.elsewhere` when the two do not touch.
    """
    to_map = np.linalg.inv(affine_lps) @ volume.affine_lps
    result = np.full(volume.array.shape, np.nan, dtype=np.float32)
    rows, columns = volume.array.shape[1:]
    j, i = np.mgrid[:rows, :columns]
    size = np.array(array.shape[::-1])[:, None]
    for k in range(len(result)):
        index = to_map[:3] @ np.stack([i.ravel(), j.ravel(), np.full(i.size, k), np.ones(i.size)])
        inside = np.all((index > -0.5) & (index < size - 0.5), axis=0)
        if inside.any():
            sampled = ndimage.map_coordinates(array, index[::-1, inside], order=1, mode="nearest")
            result[k].reshape(-1)[inside] = sampled
    if not np.isfinite(result).any():
        raise RefusedError(
            "overlay.elsewhere",
            "the map and the series lie in different places",
            remedy="Lay the map over the series that it was made from.",
        )
    return result
