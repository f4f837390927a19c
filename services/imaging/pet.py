"""Measuring uptake in a PET image: SUVmax, SUVpeak, SUVmean, metabolic volume, total lesion glycolysis.

Sources are listed in pet.yaml (EANM 2.0, PERCIST 1.0, QIBA FDG-PET/CT Profile).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

BoolArray = NDArray[np.bool_]
#: A peak sphere must lie in the image by at least this share of its volume.
LEAST_SPHERE_INSIDE = 0.75


@dataclass(frozen=True)
class Uptake:
    """Uptake in one region.

    `suv_*`: body-weight SUV (g/mL). `volume_mm3`: volume of the region. `glycolysis_g`: SUVmean times volume in mL.
    `relative_volumes_mm3`: volume inside the region at or above each share of SUVmax that pet.yaml names (falling with
    the share). `suv_peak` is None where no 1 cm3 sphere fits in the image.
    """

    suv_max: float
    suv_mean: float
    suv_sd: float
    suv_peak: float | None
    volume_mm3: float
    glycolysis_g: float
    relative_volumes_mm3: tuple[float, float]
    max_index_zyx: tuple[int, int, int]


@cache
def rules() -> dict[str, Any]:
    """Contents of pet.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("pet.yaml").read_text(encoding="utf-8"))
    return content


def measure(
    suv: NDArray[np.float32], mask: BoolArray, spacing_mm: tuple[float, float, float], volume_mm3: float | None = None
) -> Uptake:
    """Measures uptake inside `mask` (z, y, x), which holds at least one voxel.

    `spacing_mm`: voxel edges (x, y, z). `volume_mm3`: the region's volume where it is known better than by counting
    voxels (contours).
    """
    values = suv[mask].astype(np.float64)
    voxel = float(np.prod(spacing_mm))
    volume = voxel * values.size if volume_mm3 is None else volume_mm3
    highest, mean = float(values.max()), float(values.mean())
    low, high = (float((values >= share * highest).sum()) * voxel for share in rules()["threshold"]["relative_range"])
    flat = int(np.flatnonzero(mask)[int(values.argmax())])
    index = np.unravel_index(flat, mask.shape)
    return Uptake(
        suv_max=highest,
        suv_mean=mean,
        suv_sd=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        suv_peak=peak(suv, mask, spacing_mm),
        volume_mm3=volume,
        glycolysis_g=mean * volume / 1000,
        relative_volumes_mm3=(low, high),
        max_index_zyx=(int(index[0]), int(index[1]), int(index[2])),
    )


def peak(suv: NDArray[np.float32], mask: BoolArray, spacing_mm: tuple[float, float, float]) -> float | None:
    """Highest mean in a 1 cm3 sphere whose centre lies in the region.

    Centres are tried about every 2 mm, between voxel centres too, and voxels that the sphere cuts count by their share
    in it. None where no such sphere lies in the image.
    """
    radius = (3 * rules()["peak_sphere_mm3"] / (4 * np.pi)) ** (1 / 3)
    spacing = np.array(spacing_mm[::-1])
    reach = np.ceil(radius / spacing + 1).astype(int)
    box = _box(mask, reach)
    image, centres = suv[box].astype(np.float64), mask[box]
    inside = np.ones(image.shape)
    best: float | None = None
    for offset in _offsets(spacing):
        weights = sphere_weights(radius, spacing, offset, reach)
        total = ndimage.correlate(image, weights, mode="constant")
        # Voxels beyond the crop are beyond the image: the crop has a margin of one sphere.
        share = ndimage.correlate(inside, weights, mode="constant")
        usable = centres & (share >= LEAST_SPHERE_INSIDE)
        if usable.any():
            highest = float((total[usable] / share[usable]).max())
            best = highest if best is None else max(best, highest)
    return best


def sphere_weights(
    radius_mm: float, spacing_zyx: NDArray[np.float64], offset_zyx: NDArray[np.float64], reach: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Share of each voxel in a sphere, normalised to a sum of one; `offset_zyx` of its centre in voxels."""
    samples = 7
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    axes = [
        ((np.arange(-n, n + 1)[:, None] + steps[None, :] - shift) * edge).ravel()
        for n, edge, shift in zip(reach, spacing_zyx, offset_zyx, strict=True)
    ]
    squared = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    sizes = [2 * int(n) + 1 for n in reach]
    shape = (sizes[0], samples, sizes[1], samples, sizes[2], samples)
    weights = (squared <= radius_mm**2).reshape(shape).mean(axis=(1, 3, 5))
    return np.asarray(weights / weights.sum())


def _offsets(spacing_zyx: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    counts = np.where(spacing_zyx <= 2, 1, np.where(spacing_zyx <= 4, 2, 4))
    steps = [np.where(np.arange(n) / n > 0.5, np.arange(n) / n - 1, np.arange(n) / n) for n in counts]
    return list(np.array(np.meshgrid(*steps, indexing="ij")).reshape(3, -1).T)


def _box(mask: BoolArray, margin: NDArray[np.int_]) -> tuple[slice, ...]:
    bounds = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, part.start - int(n)), min(size, part.stop + int(n)))
        for part, n, size in zip(bounds, margin, mask.shape, strict=True)
    )


def candidates(suv: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> tuple[list[BoolArray], int]:
    """Connected regions at or above the fixed threshold, hottest first, and how many more there are than are returned.

    They are candidates only: physiological uptake looks the same to a threshold.
    """
    rule = rules()["threshold"]
    labels, count = ndimage.label(suv >= rule["fixed_suv"], structure=np.ones((3, 3, 3)))
    if not count:
        return [], 0
    sizes = np.bincount(labels.ravel())[1:] * float(np.prod(spacing_mm))
    large = [int(n) + 1 for n in np.flatnonzero(sizes >= rule["smallest_mm3"])]
    hottest = ndimage.maximum(suv, labels, large) if large else []
    order = [label for _, label in sorted(zip(hottest, large, strict=True), reverse=True)]
    kept = order[: rule["most_candidates"]]
    return [np.asarray(labels == label) for label in kept], len(order) - len(kept)


def liver_sphere(liver: BoolArray, spacing_mm: tuple[float, float, float], right_lps_index: int) -> BoolArray | None:
    """A 3 cm sphere deep in the right half of an outlined liver (PERCIST 1.0); None where none fits.

    `right_lps_index`: +1 where the patient's right lies at higher column index, -1 where it lies at lower.
    """
    radius = rules()["liver_reference"]["sphere_diameter_mm"] / 2
    spacing = np.array(spacing_mm[::-1])
    padded = np.pad(liver, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=spacing)[1:-1, 1:-1, 1:-1]
    columns = np.flatnonzero(liver.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) / 2
    right = (np.arange(liver.shape[2]) - middle) * right_lps_index >= 0
    deep = np.where(right[None, None, :], depth, 0)
    if deep.max() < radius:
        return None
    centre = np.array(np.unravel_index(int(deep.argmax()), liver.shape))
    grid = np.indices(liver.shape).reshape(3, -1).T
    near = np.linalg.norm((grid - centre) * spacing, axis=1) <= radius
    return np.asarray(near.reshape(liver.shape) & liver)
