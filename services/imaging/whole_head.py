"""Both hippocampi in a whole-head T1-weighted MR volume.

Brain mask (deepbet, Fisch et al., Comput Biol Med 2024) -> affine map to the MNI template (Fonov et al., 2011) -> a crop
around each hippocampus -> `hippocampus.segment` twice, the second time on a crop centred on what the first one found.

The side comes from the recorded geometry. Volumes are of the patient's own brain, never of the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from services.imaging.hippocampus import HippocampusModel, HippocampusSegmentation, segment
from services.imaging.hippocampus_grid import RAS_AXES_IN_LPS, FloatArray, anatomical_axes, spacing_of
from services.imaging.whole_head_template import affine_to_template, brain_mask
from services.platform.errors import RefusedError

Array = NDArray[np.float64]
SIDES = ("left", "right")


@dataclass(frozen=True)
class SideResult:
    """One hippocampus. `labels_zyx`: uint8 on the whole volume's grid, 0 background, 1 anterior, 2 posterior.

    `percent_of_brain`: volume over the brain mask's volume, times 100. `moved_mm`: distance from the atlas' place.
    """

    segmentation: HippocampusSegmentation
    labels_zyx: NDArray[np.uint8]
    percent_of_brain: float
    moved_mm: float


@dataclass(frozen=True)
class WholeHeadResult:
    """Both sides.

    Attributes:
        brain_zyx: bool, the input's shape; brain with ventricles and the fluid between its folds.
        brain_mm3: its volume, which stands in for the intracranial volume and is somewhat smaller.
        asymmetry_percent: (right - left) / mean of both, times 100; positive where the right one is larger.
        overlap: Dice of the brain after the affine map with the template's, 0 to 1.
        percentile: why no percentile for age is given.
    """

    left: SideResult
    right: SideResult
    brain_zyx: NDArray[np.bool_]
    brain_mm3: float
    asymmetry_percent: float
    overlap: float
    percentile: str
    cautions: tuple[str, ...]


@cache
def rules() -> dict[str, Any]:
    """Contents of whole_head.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("whole_head.yaml").read_text(encoding="utf-8"))
    return content


def measure_hippocampi(model: HippocampusModel, array_zyx: FloatArray, affine_lps: Array) -> WholeHeadResult:
    """Find, outline and measure both hippocampi.

    Args:
        model: from `hippocampus.load_bundle`.
        array_zyx: T1-weighted MR intensities (z, y, x) of a whole head, any unit.
        affine_lps: 4x4, maps voxel index (i = x column, j = y row, k = z slice) to LPS millimetres.

    Raises:
        RefusedError: `whole_head.*` where no head, brain or hippocampus is found; `hippocampus.*` for voxels too large.
    """
    array, affine = np.asarray(array_zyx, dtype=np.float32), np.asarray(affine_lps, dtype=np.float64)
    _check_input(model, array, affine)
    brain = brain_mask(array, affine)
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    brain_mm3 = float(brain.sum()) * voxel
    low, high = rules()["limits"]["brain_mm3"]
    if not low <= brain_mm3 <= high:
        raise RefusedError(
            "whole_head.no_brain",
            f"the brain found measures {brain_mm3 / 1000:.0f} mL, outside {low / 1000:.0f} to {high / 1000:.0f} mL",
            missing=["a whole head in T1-weighted contrast"],
        )
    to_patient, overlap = affine_to_template(array, brain, affine)
    if overlap < rules()["limits"]["least_overlap"]:
        raise RefusedError(
            "whole_head.not_aligned",
            f"the brain does not match the template (overlap {overlap:.2f}); its recorded orientation may be wrong",
            missing=["a whole head, its orientation as recorded"],
            remedy="check how the series was converted; have the hippocampi outlined by hand",
        )
    sides = {side: _side(model, side, array, affine, to_patient, brain_mm3) for side in SIDES}
    left, right = (sides[side].segmentation.total.volume_mm3 for side in SIDES)
    return WholeHeadResult(
        left=sides["left"],
        right=sides["right"],
        brain_zyx=brain,
        brain_mm3=brain_mm3,
        asymmetry_percent=100 * (right - left) / ((right + left) / 2),
        overlap=overlap,
        percentile=str(rules()["percentile_reason"]),
        cautions=_cautions(sides),
    )


def _check_input(model: HippocampusModel, array: FloatArray, affine: Array) -> None:
    if array.ndim != 3 or min(array.shape) < 16:
        raise RefusedError("whole_head.not_a_volume", f"expected a 3D volume, got an array of shape {array.shape}")
    if not np.isfinite(array).all() or not array.max() > array.min():
        raise RefusedError("whole_head.no_contrast", "the volume is uniform, or holds values that are no numbers")
    spacing = spacing_of(affine)
    most = model.validated.accepted_spacing_mm[1]
    if spacing.max() > most:
        raise RefusedError(
            "hippocampus.spacing",
            f"voxels of {' x '.join(f'{s:.2f}' for s in spacing)} mm; the hippocampus model takes at most {most:g} mm",
            missing=["a thin-slice 3D T1-weighted series, about 1 mm"],
            remedy="choose the 3D T1-weighted series of the study",
        )
    extent = np.sort(spacing * np.array(array.shape[::-1]))
    least = np.array(rules()["limits"]["extent_mm"])
    if (extent < least).any():
        raise RefusedError(
            "whole_head.field_of_view",
            f"the volume covers {' x '.join(f'{e:.0f}' for e in extent)} mm, too little to hold a head",
            missing=["the whole head in the field of view"],
        )


def _side(
    model: HippocampusModel, side: str, array: FloatArray, affine: Array, to_patient: Array, brain_mm3: float
) -> SideResult:
    expected = _atlas_place(side, to_patient)
    first, _ = _segment_at(model, array, affine, expected)
    found = np.array(first.total.centroid_lps_mm)
    result, corner = _segment_at(model, array, affine, found)
    moved = float(np.linalg.norm(np.array(result.total.centroid_lps_mm) - expected))
    most = rules()["limits"]["moved_mm"]["refused"]
    if moved > most:
        raise RefusedError(
            "whole_head.not_found",
            f"the {side} hippocampus was found {moved:.0f} mm from its expected place (at most {most:g} mm)",
            missing=[f"the {side} hippocampus in T1-weighted contrast"],
            remedy="have it outlined by hand",
        )
    labels = np.zeros(array.shape, dtype=np.uint8)
    inside = tuple(slice(c, c + n) for c, n in zip(corner, result.labels_zyx.shape, strict=True))
    labels[inside] = result.labels_zyx
    return SideResult(result, labels, 100 * result.total.volume_mm3 / brain_mm3, moved)


def _atlas_place(side: str, to_patient: Array) -> Array:
    centre = np.array([*rules()["template"]["centre_ras_mm"][side], 1.0]) * [-1, -1, 1, 1]
    return np.asarray((to_patient @ centre)[:3])


def _segment_at(
    model: HippocampusModel, array: FloatArray, affine: Array, hippocampus_lps: Array
) -> tuple[HippocampusSegmentation, tuple[int, ...]]:
    """The model on a crop in which the hippocampus lies where it lay in training; and the crop's corner (z, y, x)."""
    axes, _ = anatomical_axes(affine)
    rule = rules()["crop"]
    middle = hippocampus_lps - axes @ np.array(rule["offset_ras_mm"])
    start, stop = crop_bounds(array.shape, affine, axes, middle, np.array(rule["size_ras_mm"], dtype=float))
    crop = array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array(start[::-1], dtype=float) + affine[:3, 3]
    return segment(model, crop, moved), start


def crop_bounds(
    shape_zyx: tuple[int, ...], affine: Array, axes: Array, middle_lps: Array, size_ras_mm: Array
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First and one past the last voxel (z, y, x) of a box of `size_ras_mm` around a point, within the volume.

    Raises:
        RefusedError: `whole_head.field_of_view` where less than nine tenths of the box lie in the volume.
    """
    directions = affine[:3, :3] / spacing_of(affine)
    # Each index axis is as long as the anatomical axis that it follows.
    edges = np.abs(directions.T @ axes)
    along = size_ras_mm[edges.argmax(axis=1)] / spacing_of(affine)
    centre = np.linalg.solve(affine[:3, :3], middle_lps - affine[:3, 3])
    first = np.rint(centre - along / 2 + 0.5).astype(int)
    last = first + np.rint(along).astype(int)
    sizes = np.array(shape_zyx[::-1])
    low, high = np.clip(first, 0, sizes), np.clip(last, 0, sizes)
    if np.prod(np.maximum(high - low, 0)) < 0.9 * np.prod(last - first):
        raise RefusedError(
            "whole_head.field_of_view",
            "a hippocampus lies at the edge of the volume or outside it",
            missing=["the whole head in the field of view"],
        )
    return tuple(int(v) for v in low[::-1]), tuple(int(v) for v in high[::-1])


def _cautions(sides: Mapping[str, SideResult]) -> tuple[str, ...]:
    cautions = [f"{side}: {c.message}" for side, one in sides.items() for c in one.segmentation.cautions]
    most = rules()["limits"]["moved_mm"]["caution"]
    cautions += [
        f"{side}: found {one.moved_mm:.0f} mm from the atlas' place"
        for side, one in sides.items()
        if one.moved_mm > most
    ]
    left, right = (np.array(sides[side].segmentation.total.centroid_lps_mm) for side in SIDES)
    if (left - right) @ RAS_AXES_IN_LPS[:, 0] > 0:
        cautions.append("the outlines of left and right lie on the wrong sides of each other")
    return tuple(cautions)
