"""Whether anatomy is cut off: at the sides of the field of view, at its end, or in slices that hold nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.quality.noise import FloatArray, foreground

_SMALLEST_BODY = 500
_MOST_SLICES = 40


def _some(array: FloatArray) -> FloatArray:
    """Every slice of a short stack, evenly spread slices of a long one."""
    return array[:: max(1, -(-len(array) // _MOST_SLICES))]


def border_tissue_share(array: FloatArray, *, tissue_hu: float, padding_hu: float) -> float:
    """Share (0 to 1) of the edge of a CT's field of view that lies in the patient, in the worst tenth of the slices.

    The edge is that of the matrix, or of the reconstruction circle where what lies outside it is padding at or below
    `padding_hu`. Tables and straps are thinner than the opening that removes them.
    """
    shares = []
    for plane in _some(array):
        scanned = plane > padding_hu
        edge = scanned & ~ndimage.binary_erosion(scanned, iterations=2, border_value=0)
        body = ndimage.binary_opening(np.pad((plane > tissue_hu) & scanned, 6, mode="edge"), iterations=5)[6:-6, 6:-6]
        if body.sum() < _SMALLEST_BODY or not edge.any():
            continue
        shares.append(float((edge & body).sum() / edge.sum()))
    return float(np.percentile(shares, 90)) if shares else 0.0


def end_share(array: FloatArray, *, top_last: bool) -> float | None:
    """Area of the head in the uppermost slice as a share of its largest area; a scan over the vertex ends near 0."""
    areas = np.array([float(foreground(plane).sum()) for plane in _some(array)])
    if areas.max(initial=0.0) < _SMALLEST_BODY:
        return None
    end = float(foreground(array[-1 if top_last else 0]).sum())
    return end / float(areas.max())


def blank_slices(array: FloatArray) -> list[int]:
    """Slices (from 1) of one value throughout, with slices that show something on both sides."""
    empty = np.ptp(array.reshape(len(array), -1), axis=1) == 0
    shown = np.flatnonzero(~empty)
    if not shown.size:
        return []
    return [int(k) + 1 for k in np.flatnonzero(empty) if shown[0] < k < shown[-1]]


def lung_share(array: FloatArray, *, tissue_hu: float, lung_hu: tuple[float, float], padding_hu: float) -> float | None:
    """Volume of lung (aerated tissue inside the body's outline) as a share of the body; None where there is no body."""
    lung = body_size = 0
    for plane in _some(array):
        outline = _filled(ndimage.binary_opening(plane > tissue_hu, iterations=2))
        inside = outline & (plane >= lung_hu[0]) & (plane <= lung_hu[1]) & (plane > padding_hu)
        lung += int(ndimage.binary_opening(inside, iterations=1).sum())
        body_size += int(outline.sum())
    return lung / body_size if body_size >= _SMALLEST_BODY else None


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(largest), dtype=bool)
