"""Brain outline by morphology, differential bias, and change of brain volume by the boundary shift integral."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import BoolArray, refuse

NAME = "lesion_change"
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]
_SEED = 20240607


def ball_mm(mask: BoolArray, radius_mm: float, spacing_mm: Spacing, *, grow: bool) -> BoolArray:
    """Mask grown or shrunk by a distance; `spacing_mm` (x, y, z)."""
    sampling = spacing_mm[::-1]
    if grow:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling) <= radius_mm)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling) > radius_mm)


def find_brain(flair: Floats, spacing_mm: Spacing) -> BoolArray:
    """Brain by threshold, opening and the largest piece. Raises RefusedError `lesion_change.no_brain`."""
    limits = card(NAME).constants
    inside = flair[flair > 0]
    if inside.size < 1000:
        raise refuse(NAME, "no_brain", "the FLAIR image is empty", "T2-FLAIR of the head")
    rough = flair > 0.8 * threshold_otsu(inside)
    cores, count = ndimage.label(ball_mm(rough, 6.0, spacing_mm, grow=False))
    if not count:
        raise refuse(NAME, "no_brain", "no brain was found by its brightness", remedy="Give a brain mask.")
    largest = cores == 1 + np.bincount(cores.ravel())[1:].argmax()
    brain = ball_mm(largest, 6.5, spacing_mm, grow=True) & rough
    brain = np.stack([ndimage.binary_fill_holes(plane) for plane in brain])
    volume_ml = brain.sum() * float(np.prod(spacing_mm)) / 1000
    if not limits["smallest_brain_ml"] <= volume_ml <= limits["largest_brain_ml"]:
        raise refuse(NAME, "no_brain", f"{volume_ml:.0f} mL is no brain", remedy="Give a brain mask.")
    return np.asarray(brain)


def without_differential_bias(first: Floats, second: Floats, brain: BoolArray, spacing_mm: Spacing) -> Floats:
    """`second` with the smooth part of its ratio to `first` divided out (Lewis and Fox 2004)."""
    usable = brain & (first > 0) & (second > 0)
    ratio = np.log(np.where(usable, second, 1.0) / np.where(usable, first, 1.0))
    ratio = np.where(usable, np.clip(ratio, *np.quantile(ratio[usable], [0.05, 0.95])), 0.0)
    sigma = [card(NAME).constants["bias_sigma_mm"] / edge for edge in spacing_mm[::-1]]
    weight = ndimage.gaussian_filter(usable.astype(float), sigma)
    field = ndimage.gaussian_filter(ratio, sigma) / np.maximum(weight, 1e-3)
    result: Floats = second / np.exp(field)
    return result


@dataclass(frozen=True)
class Shift:
    """Change of brain volume in mL (negative: loss), its standard deviation, and the volume at the first visit, mL.

    `agreement`: correlation of the two images within the brain and its boundary; low where their contrast differs.
    """

    change_ml: float
    deviation_ml: float
    brain_ml: float
    agreement: float


def boundary_shift(first: Floats, second: Floats, brain: BoolArray, spacing_mm: Spacing) -> Shift:
    """Boundary shift integral of T1 images on one grid (Freeborough and Fox 1997).

    The deviation joins a bootstrap over blocks of the boundary, shifts by the registration's own error, and the spread
    over other windows of intensity, which is wide where contrast differs between the visits.
    """
    limits = card(NAME).constants
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    inner = ball_mm(brain, limits["bsi_band_mm"], spacing_mm, grow=False)
    band = ball_mm(brain, limits["bsi_band_mm"], spacing_mm, grow=True) & ~inner
    one, two = (image / image[inner].mean() for image in (first, second))

    def integral(later: Floats, window: tuple[float, float] = limits["bsi_window"]) -> Floats:
        low, high = window
        return np.asarray((np.clip(later, low, high) - np.clip(one, low, high)) / (high - low) * voxel_ml)

    change = integral(two)
    whole = float(change[band].sum())
    moved = []
    for axis, edge in enumerate(spacing_mm[::-1]):
        step = [0.0, 0.0, 0.0]
        step[axis] = limits["registration_sd_mm"] / edge
        moved.append(float(integral(ndimage.shift(two, step, order=1, mode="nearest"))[band].sum()) - whole)
        step[axis] *= -1
        moved.append(float(integral(ndimage.shift(two, step, order=1, mode="nearest"))[band].sum()) - whole)
    # Linear interpolation blurs both shifts alike; only what differs between them is due to the place.
    of_place = [(moved[2 * axis] - moved[2 * axis + 1]) / 2 for axis in range(3)]
    others = [float(integral(two, window)[band].sum()) for window in limits["other_windows"]]
    parts = [_bootstrap(change, band, spacing_mm), *of_place, float(np.std([whole, *others], ddof=1))]
    around = band | inner
    agreement = float(np.corrcoef(one[around], two[around])[0, 1])
    return Shift(whole, float(np.linalg.norm(parts)), float(brain.sum()) * voxel_ml, agreement)


def _bootstrap(change: Floats, band: BoolArray, spacing_mm: Spacing) -> float:
    """Standard deviation of the sum over resampled blocks of the boundary."""
    limits = card(NAME).constants
    places = np.argwhere(band) * np.array(spacing_mm[::-1]) // limits["block_mm"]
    _, block = np.unique(places.astype(np.int64) @ (1_000_000, 1_000, 1), return_inverse=True)
    sums: Any = np.bincount(block, weights=change[band])
    random = np.random.default_rng(_SEED)
    drawn = random.integers(0, sums.size, (limits["resamples"], sums.size))
    return float(sums[drawn].sum(axis=1).std(ddof=1))
