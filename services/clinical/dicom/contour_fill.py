"""Filling planar contours on a pixel grid, with partial coverage at the edges.

Even-odd rule inside one contour (a keyhole's two coincident edges cancel, DICOM PS3.3 C.8.8.6.3); contours of one plane
are combined by nesting: one that lies inside the region is a hole, any other adds to it (for nested contours this is
the exclusive or of CLOSEDPLANAR_XOR).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
#: Sample lines a pixel row; along a line the coverage is exact.
LINES_PER_ROW = 8
#: A contour with this share of its area inside the region so far is a hole in it.
NESTED_SHARE = 0.95


def fill_plane(contours: Sequence[Points], shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Region enclosed by the contours of one plane.

    `contours`: (n, 2) vertices (column, row) in pixel units, pixel centres at whole numbers. Returns the share of each
    pixel inside the region (rows, columns), 0 to 1, and whether its centre is inside.
    """
    coverage = np.zeros(shape, dtype=np.float64)
    centres = np.zeros(shape, dtype=bool)
    for contour in sorted(_distinct(contours), key=lambda points: -abs(signed_area(points))):
        part = _coverage(contour, shape)
        total = float(part.sum())
        inside = _centre_inside(contour, shape)
        if total > 0 and float(np.minimum(part, coverage).sum()) >= NESTED_SHARE * total:
            coverage = np.clip(coverage - part, 0, 1)
            centres &= ~inside
        else:
            coverage = np.clip(coverage + part, 0, 1)
            centres |= inside
    return coverage.astype(np.float32), centres


def signed_area(points: Points) -> float:
    """Shoelace area of a closed polygon (n, 2); a keyhole's hole counts negative, so the sum is the net area."""
    x, y = points[:, 0], points[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def nested_area(contours: Sequence[Points]) -> float:
    """Area enclosed by the contours of one plane, in the squared unit of their vertices; holes do not count."""
    kept = sorted(_distinct(contours), key=lambda points: -abs(signed_area(points)))
    area = 0.0
    for position, contour in enumerate(kept):
        depth = sum(_mostly_inside(contour, outer) for outer in kept[:position])
        area += abs(signed_area(contour)) * (-1 if depth % 2 else 1)
    return area


def points_inside(points: Points, polygon: Points) -> NDArray[np.bool_]:
    """Even-odd test of points (m, 2) against a closed polygon (n, 2)."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    inside = np.zeros(len(points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(start, end, strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
        at = x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0)
        inside ^= crosses & (points[:, 0] < at)
    return inside


def _mostly_inside(contour: Points, outer: Points) -> bool:
    return bool(points_inside(contour, outer).mean() > 0.5)


def _distinct(contours: Sequence[Points]) -> list[Points]:
    """Contours without exact repeats: an outline stored twice is one outline, not a hole in itself."""
    seen: set[bytes] = set()
    kept = []
    for contour in contours:
        key = np.round(contour, 6).tobytes()
        if len(contour) >= 3 and key not in seen:
            seen.add(key)
            kept.append(contour)
    return kept


def _crossings(contour: Points, heights: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Line index and column of every crossing of the polygon with horizontal lines, sorted by line and column."""
    start, end = contour, np.roll(contour, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = np.searchsorted(heights, low), np.searchsorted(heights, high)
    counts = last - first
    edge = np.repeat(np.arange(len(contour)), counts)
    line = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    column = start[edge, 0] + (heights[line] - start[edge, 1]) * slope
    order = np.lexsort((column, line))
    return line[order], column[order]


def _coverage(contour: Points, shape: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = shape
    heights = (np.arange(rows * LINES_PER_ROW) + 0.5) / LINES_PER_ROW - 0.5
    line, column = _crossings(contour, heights)
    edges = np.clip(column + 0.5, 0, columns)
    # A span [a, b) adds, at each pixel, the length of its overlap: the running sum of two ramps.
    ramp = np.zeros((rows, columns + 2))
    sign = np.where(np.arange(edges.size) % 2 == 0, 1.0, -1.0)
    pixel = np.minimum(edges.astype(np.intp), columns)
    part = edges - pixel
    row = line // LINES_PER_ROW
    np.add.at(ramp, (row, pixel), sign * (1 - part))
    np.add.at(ramp, (row, pixel + 1), sign * part)
    return np.clip(np.cumsum(ramp, axis=1)[:, :columns] / LINES_PER_ROW, 0, 1)


def _centre_inside(contour: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    rows, columns = shape
    line, column = _crossings(contour, np.arange(rows, dtype=np.float64))
    toggles = np.zeros((rows, columns + 1), dtype=np.intp)
    first = np.clip(np.ceil(column), 0, columns).astype(np.intp)
    np.add.at(toggles, (line, first), 1)
    return np.asarray(np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1)
