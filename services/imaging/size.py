"""Axial size of a lesion on CT or MR: longest diameter and the short axis across it.

Source: RECIST 1.1, Eisenhauer et al., Eur J Cancer 2009;45:228 (longest diameter in the plane of measurement; short
axis for nodes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import find_contours

Outline = NDArray[np.float64]


@dataclass(frozen=True)
class AxialSize:
    """Lengths in mm, both in one plane; `plane`: which of the planes given."""

    long_axis_mm: float
    short_axis_mm: float
    plane: int


def axial_size(planes: Sequence[Sequence[Outline]]) -> AxialSize | None:
    """Longest diameter over all planes, each outline (n, 2) in mm taken by itself; None without an area.

    The short axis is the widest extent at right angles to the longest diameter, in the same plane and outline.
    """
    best: AxialSize | None = None
    for number, outlines in enumerate(planes):
        for outline in outlines:
            lengths = _diameters(outline)
            if lengths is not None and (best is None or lengths[0] > best.long_axis_mm):
                best = AxialSize(lengths[0], lengths[1], number)
    return best


def outlines_of_mask(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> list[list[Outline]]:
    """Outlines of a region (z, y, x) in each slice, in mm, half-way between voxels inside and outside."""
    x, y = spacing_mm[0], spacing_mm[1]
    trace: Callable[[NDArray[np.float64], float], list[Outline]] = find_contours
    return [
        [contour[:, ::-1] * (x, y) - (x, y) for contour in trace(np.pad(plane, 1).astype(float), 0.5)]
        if plane.any()
        else []
        for plane in mask
    ]


def _diameters(outline: Outline) -> tuple[float, float] | None:
    if len(outline) < 3:
        return None
    try:
        corners = outline[ConvexHull(outline).vertices]
    except QhullError:
        return None
    between = corners[:, None, :] - corners[None, :, :]
    distances = np.linalg.norm(between, axis=-1)
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    longest = float(distances[first, second])
    across = np.array([-between[first, second][1], between[first, second][0]]) / longest
    return longest, float(np.ptp(corners @ across))
