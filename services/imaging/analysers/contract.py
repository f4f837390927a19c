"""What every analyser takes and gives: images by role in, values, maps, masks and curves out.

Arrays are (z, y, x), or (t, z, y, x) for a series over time. Affines map voxel index
(i = column, j = row, k = slice) to LPS millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.clinical.codes import Concept
from services.imaging.findings import Value
from services.platform.errors import RefusedError

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Matrix = NDArray[np.float64]

#: Affines of images on one grid differ by no more than this, mm at the far corner of the grid.
SAME_GRID_MM = 1e-2


@dataclass(frozen=True)
class Image:
    """One image in the patient. `unit`: UCUM, "1" for labels and arbitrary signal; `times_s`: one for each frame."""

    array: NDArray[Any]
    affine_lps: Matrix
    unit: str = "1"
    times_s: tuple[float, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edge lengths (x, y, z)."""
        x, y, z = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine_lps[:3, :3])))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Slices, rows and columns, without time."""
        z, y, x = self.array.shape[-3:]
        return int(z), int(y), int(x)


@dataclass(frozen=True)
class ScalarMap:
    """A quantity at every voxel, (z, y, x) on the grid of `affine_lps`; NaN where it was not computed."""

    concept: Concept
    array: FloatArray
    affine_lps: Matrix
    unit: str


@dataclass(frozen=True)
class Region:
    """Voxels of one kind, (z, y, x) on the grid of `affine_lps`."""

    concept: Concept
    mask: BoolArray
    affine_lps: Matrix


@dataclass(frozen=True)
class Curve:
    """A quantity over time or place. `x` and `y` have one length; units in UCUM."""

    x: tuple[float, ...]
    x_unit: str
    y: tuple[float, ...]
    y_unit: str


@dataclass(frozen=True)
class Result:
    """What one run gave. `values` by name; `parameters`: every option and threshold as used."""

    analyser: str
    values: Mapping[str, Value]
    maps: Mapping[str, ScalarMap] = field(default_factory=dict)
    regions: Mapping[str, Region] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    citations: tuple[str, ...] = ()


def refuse(analyser: str, what: str, message: str, *missing: str, remedy: str = "") -> RefusedError:
    """A refusal `<analyser>.<what>`."""
    return RefusedError(f"{analyser}.{what}", message, missing=missing, remedy=remedy)


def require_same_grid(analyser: str, reference: Image, /, **others: Image) -> None:
    """Raises RefusedError `<analyser>.grids_differ` when an image lies on another grid than `reference`."""
    corner = np.array([*reference.grid[::-1], 1.0])
    for role, other in others.items():
        apart = float(np.linalg.norm((reference.affine_lps - other.affine_lps) @ corner))
        if other.grid != reference.grid or apart > SAME_GRID_MM:
            raise refuse(
                analyser,
                "grids_differ",
                f"{role} is not on the grid of the first image: {other.grid} and {reference.grid} voxels, "
                f"{apart:.2f} mm apart at the far corner",
                remedy="Resample the images to one grid in the patient (registration room).",
            )


def mask_of(analyser: str, image: Image, role: str) -> BoolArray:
    """A mask's voxels. Raises RefusedError `<analyser>.empty_mask`."""
    mask: BoolArray = np.asarray(image.array) > 0
    if not mask.any():
        raise refuse(analyser, "empty_mask", f"{role} holds no voxel", role, remedy="Outline the region.")
    return mask


def require_finite(analyser: str, role: str, image: Image) -> None:
    """Raises RefusedError `<analyser>.not_finite`."""
    if not np.isfinite(image.array).all():
        raise refuse(
            analyser,
            "not_finite",
            f"{role} holds voxels that are no number",
            remedy="Convert the series again from the original DICOM.",
        )


def require_unit(analyser: str, role: str, image: Image, *units: str) -> None:
    """Raises RefusedError `<analyser>.wrong_unit` unless the image is in one of `units`."""
    if image.unit not in units:
        raise refuse(
            analyser,
            "wrong_unit",
            f"{role} is in {image.unit!r}, not in {' or '.join(units)}",
            f"{role} in {units[0]}",
            remedy="Apply the rescale slope and intercept, or name the unit that the values are in.",
        )
