"""Signs that the patient, or the table, moved during the scan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal.windows import tukey

from services.imaging.quality.noise import FloatArray, foreground, sample

#: Pixels of clear background that a side must have to be measured.
_MARGIN = 4
#: Slices below which a step cannot be told from the patient's shape.
_FEWEST = 8
#: Share of a slice's width that fades out, so that what leaves on one side does not come back on the other.
_TAPER = 0.2


def ghosting_ratio(array: FloatArray, phase_axis: int | None, *, slices: int) -> float | None:
    """Signal that motion spread along the phase-encoding direction, as a share of the tissue's signal; 0 is none.

    `phase_axis`: axis of a slice along which phase was encoded (0: across rows, "COL"; 1: along a row, "ROW"); None where
    not recorded, then the larger difference counts. None where no slice has background on all four sides.

    Source: ACR MRI Accreditation, Phantom Test Guidance, percent-signal ghosting: |(top + bottom) - (left + right)| /
    (2 x signal), here around the patient instead of the phantom.
    """
    found = []
    for plane in sample(array, slices).astype(np.float64):
        sides = _background(plane)
        if sides is None:
            continue
        across, along, signal = sides
        difference = across - along if phase_axis == 0 else along - across if phase_axis == 1 else abs(across - along)
        found.append(max(0.0, difference) / signal)
    return float(np.median(found)) if found else None


def _background(plane: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Mean signal above and below the patient, left and right of it, and in it."""
    body = foreground(plane)
    if body.sum() < 200:
        return None
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    gap = _MARGIN
    top, bottom = plane[: max(0, rows[0] - gap), columns[0] : columns[-1] + 1], plane[rows[-1] + 1 + gap :]
    bottom = bottom[:, columns[0] : columns[-1] + 1]
    left = plane[rows[0] : rows[-1] + 1, : max(0, columns[0] - gap)]
    right = plane[rows[0] : rows[-1] + 1, columns[-1] + 1 + gap :]
    if min(top.shape[0], bottom.shape[0], left.shape[1], right.shape[1]) < _MARGIN:
        return None
    across, along = (top.mean() + bottom.mean()) / 2, (left.mean() + right.mean()) / 2
    return float(across), float(along), float(plane[body].mean())


@dataclass(frozen=True)
class Jump:
    """A step in the patient's outline between two slices: `after` counts slices from 1, `mm` is its length."""

    after: int
    mm: float


def largest_jump(array: FloatArray, spacing_mm: tuple[float, float, float], *, size: int) -> Jump | None:
    """The largest sideways step from one slice to the next beyond what its neighbours show; None for too few slices.

    Neighbouring slices are registered by the peak of their cross-correlation (Fourier transform, parabola through the peak)
    at `size` pixels or fewer a side; the running median over seven pairs is the patient's own shape. A body that moved at
    once, or a stack put together from two holds of breath, leaves a single step. Slices that show less than half of what
    the others show, at the ends of the body, are left out.
    """
    shrink = max(1, int(np.ceil(max(array.shape[1:]) / size)))
    planes = _shrunk(array, shrink)
    floor = float(np.percentile(planes, 5))
    content = (planes - floor).sum(axis=(1, 2), dtype=np.float64)
    full = np.flatnonzero(content >= 0.5 * np.median(content[content > 0])) if (content > 0).any() else np.empty(0, int)
    if len(full) < _FEWEST:
        return None
    first = int(full[0])
    planes = planes[first : int(full[-1]) + 1]
    shape = (planes.shape[1], planes.shape[2])
    window = np.outer(tukey(shape[0], _TAPER), tukey(shape[1], _TAPER))
    spectra = [np.fft.rfft2((plane - floor) * window) for plane in planes]
    edges = np.array([spacing_mm[1], spacing_mm[0]]) * shrink
    steps = np.array([_shift(one, two, shape) for one, two in pairwise(spectra)]) * edges
    beyond = np.linalg.norm(steps - ndimage.median_filter(steps, (7, 1), mode="nearest"), axis=1)
    worst = int(beyond.argmax())
    return Jump(first + worst + 1, float(beyond[worst]))


def _shrunk(array: FloatArray, factor: int) -> NDArray[np.float64]:
    """Means over blocks of `factor` by `factor` pixels of each slice."""
    rows, columns = array.shape[1] // factor, array.shape[2] // factor
    blocks = array[:, : rows * factor, : columns * factor].reshape(len(array), rows, factor, columns, factor)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float64))


def _shift(
    first: NDArray[np.complex128], second: NDArray[np.complex128], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Displacement in pixels (row, column) that brings the second slice onto the first."""
    correlation = np.fft.irfft2(first * np.conj(second), s=shape)
    row, column = np.unravel_index(int(correlation.argmax()), shape)
    lines = ((correlation[:, column], int(row)), (correlation[row], int(column)))
    return np.array([_vertex(line, index) for line, index in lines])


def _vertex(line: NDArray[np.float64], peak: int) -> float:
    """Place of the maximum of a cyclic line, between -half and half its length."""
    before, top, after = line[peak - 1], line[peak], line[(peak + 1) % len(line)]
    bend = before - 2 * top + after
    place = peak + (0.5 * (before - after) / bend if bend < 0 else 0.0)
    return float((place + len(line) / 2) % len(line) - len(line) / 2)
