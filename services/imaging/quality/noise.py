"""How noisy an image is, measured in the patient's own tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]
#: Kernel of Immerkaer, Computer Vision and Image Understanding 1996;64:300: blind to planes and straight edges.
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
_GAIN = 6.0
#: Median absolute deviation of a normal distribution in standard deviations.
_MAD = 0.6745


def sample(array: FloatArray, most: int) -> FloatArray:
    """At most `most` slices, spread evenly over the middle 90 % of the stack."""
    low, high = int(0.05 * len(array)), max(int(np.ceil(0.95 * len(array))), 1)
    chosen = np.unique(np.linspace(low, high - 1, min(most, high - low)).round().astype(int))
    return array[chosen]


def ct_noise_hu(
    array: FloatArray,
    spacing_xy_mm: tuple[float, float],
    *,
    tissue_hu: tuple[float, float],
    window_mm: float,
    slices: int,
) -> float | None:
    """Global noise level in HU: the commonest local standard deviation in soft tissue; None without enough of it.

    Source: Christianson et al., AJR 2015;205:W93 (soft tissue 0 to 170 HU, mode of the histogram of local deviations).
    """
    width = [max(3, round(window_mm / edge)) for edge in spacing_xy_mm[::-1]]
    found = []
    for plane in sample(array, slices).astype(np.float64):
        tissue = (plane >= tissue_hu[0]) & (plane <= tissue_hu[1])
        mean = ndimage.uniform_filter(plane, width)
        variance = ndimage.uniform_filter(plane**2, width) - mean**2
        # Noise drives single voxels out of the range, so the window's mean decides and most of its voxels must lie inside.
        share = ndimage.uniform_filter(tissue.astype(np.float64), width)
        inside = (share > 0.5) & (mean >= tissue_hu[0]) & (mean <= tissue_hu[1])
        found.append(np.sqrt(np.clip(variance[inside], 0, None)))
    deviations = np.concatenate(found) if found else np.empty(0)
    if deviations.size < 500:
        return None
    counts, edges = np.histogram(deviations, bins=np.linspace(0, 3 * float(np.median(deviations)) + 1e-6, 150))
    peak = int(ndimage.gaussian_filter1d(counts.astype(float), 2).argmax())
    return float((edges[peak] + edges[peak + 1]) / 2)


def foreground(plane: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Largest bright region of a slice with its holes filled: Otsu's threshold, opened; empty where there is none."""
    from skimage.filters import threshold_otsu

    if float(np.ptp(plane)) == 0:
        return np.zeros(plane.shape, dtype=bool)
    bright = ndimage.binary_opening(plane > threshold_otsu(plane), iterations=1)
    labels, count = ndimage.label(bright)
    if count == 0:
        return np.zeros(plane.shape, dtype=bool)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(largest), dtype=bool)


def signal_to_noise(array: FloatArray, *, slices: int) -> float | None:
    """Median signal of the bright tissue over the noise in it (dimensionless); None where no slice shows any.

    Noise by Immerkaer's operator, which sees neither planes nor straight edges; its median over the tissue leaves texture
    out. Interpolated images read quieter than they were acquired.
    """
    found = []
    for plane in sample(array, slices).astype(np.float64):
        tissue = ndimage.binary_erosion(foreground(plane), iterations=2)
        if tissue.sum() < 200:
            continue
        residual = np.abs(ndimage.convolve(plane, _LAPLACIANS)[tissue])
        noise = float(np.median(residual)) / _MAD / _GAIN
        if noise > 0:
            found.append(float(np.median(plane[tissue])) / noise)
    return float(np.median(found)) if found else None
