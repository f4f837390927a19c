"""Series to registration input: grey values in 0..1, a body mask, and resolution levels.

Everything is in LPS millimetres. The tables, and why they say what they say, are in preparation.yaml.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
import yaml
from numpy.typing import NDArray

from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.geometry import Points, apply, check_grid, index_to_lps, to_sitk

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("preparation.yaml").read_text())
_BODY = TABLES["body"]
_LEVELS = 32


@dataclass(frozen=True)
class Level:
    """One resolution: `image` with values 0..1 and `mask` (body and its margin) on the same isotropic grid."""

    image: sitk.Image
    mask: sitk.Image


@dataclass(frozen=True)
class Prepared:
    """A series ready to be registered.

    `image`: float32 0..1 at no finer than the finest level. `body`: uint8 mask on a coarse grid, without margin; `near`:
    with its margin. `body_points`: (n, 3) LPS mm of body voxels. `native_mm`: voxel size (x, y, z) as acquired.
    `levels`: resolutions made so far, by spacing; filled by `level`.
    """

    image: sitk.Image
    body: sitk.Image
    near: sitk.Image
    body_points: Points
    modality: str
    series_instance_uid: str
    native_mm: tuple[float, float, float]
    levels: dict[float, Level] = field(default_factory=dict, repr=False, compare=False)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre of mass of the body, LPS mm."""
        return np.asarray(self.body_points.mean(axis=0))


def prepare(volume: ImageVolume, finest_mm: float = 2.0) -> Prepared:
    """Checks, scales and masks one series.

    Raises RefusedError: registration.not_finite, .bad_grid, .sheared_grid, .too_few_slices, .anisotropic,
    .uniform_image, .no_body.
    """
    _check(volume)
    image = shrink(_scaled(volume), finest_mm)
    coarse = isotropic(image, max(_BODY["grid_mm"], max(volume.spacing_mm) / 2))
    body = _body(coarse, volume)
    array = sitk.GetArrayViewFromImage(body)
    indices = np.argwhere(array)[:, ::-1].astype(float)
    voxel_ml = math.prod(body.GetSpacing()) / 1000
    if len(indices) * voxel_ml < _BODY["min_volume_ml"]:
        raise _refusal(volume, "no_body", "no body was found in the series", "check that it shows the patient")
    distance = sitk.SignedMaurerDistanceMap(body, squaredDistance=False, useImageSpacing=True)
    return Prepared(
        image=image,
        body=body,
        near=sitk.Cast(distance <= _BODY["margin_mm"], sitk.sitkUInt8),
        body_points=apply(index_to_lps(body), indices),
        modality=volume.modality,
        series_instance_uid=volume.series_instance_uid,
        native_mm=volume.spacing_mm,
    )


def level(prepared: Prepared, spacing_mm: float) -> Level:
    """The series at one resolution, with the body mask and its margin on the same grid."""
    known = prepared.levels.get(spacing_mm)
    if known is None:
        image = isotropic(prepared.image, spacing_mm)
        known = Level(image, sitk.Resample(prepared.near, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
        prepared.levels[spacing_mm] = known
    return known


def _check(volume: ImageVolume) -> None:
    """Refuses what no method could register: values that are not numbers, and grids that carry no volume."""
    if not all(np.isfinite(plane).all() for plane in volume.array):
        raise _refusal(
            volume, "not_finite", "the series holds values that are not numbers", "export it without NaN or infinity"
        )
    check_grid(volume)
    extent = np.asarray(volume.array.shape[::-1]) * np.asarray(volume.spacing_mm)
    if volume.array.shape[0] < _BODY["min_slices"] or extent.min() < _BODY["min_extent_mm"]:
        raise _refusal(
            volume,
            "too_few_slices",
            f"the series covers {extent.min():.0f} mm in {volume.array.shape[0]} slices: too thin to tell a rigid motion",
            f"send at least {_BODY['min_slices']} slices over {_BODY['min_extent_mm']:.0f} mm",
        )
    coarsest, finest = max(volume.spacing_mm), min(volume.spacing_mm)
    if coarsest > _BODY["max_step_mm"] and coarsest >= _BODY["max_step_ratio"] * finest:
        size = " x ".join(f"{edge:.3g}" for edge in volume.spacing_mm)
        raise _refusal(
            volume,
            "anisotropic",
            f"voxels of {size} mm are too coarse in one direction to tell a motion to a fraction of a voxel",
            f"send a series with steps of at most {_BODY['max_step_mm']:g} mm between slices",
        )


def shrink(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Averages whole blocks of voxels until none is finer than about `spacing_mm`; anti-aliased and light on memory."""
    factors = [max(1, int(spacing_mm / spacing + 0.25)) for spacing in image.GetSpacing()]
    factors = [min(factor, size) for factor, size in zip(factors, image.GetSize(), strict=True)]
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def isotropic(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Resamples to cubes of `spacing_mm` over the same extent, averaging first where voxels are finer."""
    source = shrink(image, spacing_mm)
    size = [max(1, round(n * s / spacing_mm)) for n, s in zip(source.GetSize(), source.GetSpacing(), strict=True)]
    matrix = index_to_lps(source)
    corner = apply(matrix, np.full((1, 3), -0.5))[0]
    direction = np.asarray(source.GetDirection()).reshape(3, 3)
    origin = corner + direction @ np.full(3, spacing_mm / 2)
    # The half voxel between block centre and block edge would fall outside and read as background: extend the edge.
    return sitk.Resample(
        source,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        origin.tolist(),
        [spacing_mm] * 3,
        source.GetDirection(),
        0.0,
        sitk.sitkFloat32,
        useNearestNeighborExtrapolator=True,
    )


def _refusal(volume: ImageVolume, reason: str, message: str, remedy: str) -> RefusedError:
    return RefusedError(f"registration.{reason}", message, remedy=remedy, subject=volume.series_instance_uid)


def _table(modality: str) -> dict[str, Any]:
    return dict(TABLES.get(modality, TABLES["MR"]))


def _scaled(volume: ImageVolume) -> sitk.Image:
    """Grey values in 0..1 by the modality's table; refuses an image without contrast.

    Slice by slice: a whole-body series would not fit into memory a fourth time.
    """
    array = volume.array
    scale = _scale(volume)
    scaled = np.empty(array.shape, dtype=np.float32)
    levels = np.zeros(_LEVELS, dtype=np.int64)
    for k, plane in enumerate(array):
        scaled[k] = scale(plane)
        levels += np.histogram(scaled[k], bins=_LEVELS, range=(0.0, 1.0))[0]
    used = np.count_nonzero(levels)
    if used < _BODY["min_levels"]:
        raise _refusal(
            volume,
            "uniform_image",
            f"the series has almost no contrast: {used} of {_LEVELS} grey levels are used",
            "check the pixel data, rescale slope and intercept",
        )
    return to_sitk(dataclasses.replace(volume, array=scaled))


def _scale(volume: ImageVolume) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Stored values to 0..1, as the modality's table says."""
    table, array = _table(volume.modality), volume.array
    if table["scale"] == "hounsfield":
        stops = np.asarray(table["levels_hu"], dtype=np.float32)
        return lambda plane: np.interp(plane, stops[:, 0], stops[:, 1])
    if table["scale"] == "root":
        top = _top(array, table["top_percentile"])
        return (lambda plane: np.sqrt(np.clip(plane / top, 0.0, 1.0))) if top > 0 else np.zeros_like
    low, high = np.percentile(array, table["percentiles"])
    high = high if high > low else float(array.max())
    return (lambda plane: np.clip((plane - low) / (high - low), 0.0, 1.0)) if high > low else np.zeros_like


def _top(array: NDArray[np.float32], percentile: float) -> float:
    """A high percentile of the positive values, so that a large empty surround does not lower it."""
    positive = array[array > 0]
    return float(np.percentile(positive, percentile)) if positive.size else 0.0


def _body(coarse: sitk.Image, volume: ImageVolume) -> sitk.Image:
    """The patient without table and air, on the coarse grid."""
    table = _table(volume.modality)
    if table["scale"] == "hounsfield":
        stops = np.asarray(table["levels_hu"], dtype=float)
        threshold = float(np.interp(table["body_above_hu"], stops[:, 0], stops[:, 1]))
    elif table["scale"] == "root":
        threshold = math.sqrt(table["body_above_fraction"])
    else:
        otsu = sitk.OtsuThresholdImageFilter()
        if _bright_surround(coarse):
            coarse = 1.0 - coarse
        otsu.Execute(coarse)
        threshold = table["body_above_otsu"] * otsu.GetThreshold()
    mask = sitk.Cast(coarse > threshold, sitk.sitkUInt8)
    radius = max(1, round(_BODY["opening_radius_mm"] / coarse.GetSpacing()[0]))
    opened = sitk.BinaryMorphologicalOpening(_padded(mask, radius), [radius] * 3, sitk.sitkBall)
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(_cropped(opened, radius)))
    sizes = _sizes(pieces)
    if not sizes:
        return pieces != pieces
    kept = sum(1 for size in sizes if size >= _BODY["keep_pieces_above"] * sizes[0])
    body = sitk.Cast((pieces >= 1) & (pieces <= kept), sitk.sitkUInt8)
    return sitk.BinaryMorphologicalClosing(body, [2, 2, 2], sitk.sitkBall)


def _bright_surround(coarse: sitk.Image) -> bool:
    """Whether the eight corners are evenly bright: an inverted image, whose background is at the top of the scale."""
    array = sitk.GetArrayViewFromImage(coarse)
    ends = (slice(0, 3), slice(-3, None))
    corners = [float(array[z, y, x].mean()) for z in ends for y in ends for x in ends]
    return min(corners) > _BODY["bright_corner"]


def _padded(mask: sitk.Image, radius: int) -> sitk.Image:
    """Repeats the border outward, so that opening does not eat a body that the field of view cuts."""
    return sitk.ZeroFluxNeumannPad(mask, [radius + 1] * 3, [radius + 1] * 3)


def _cropped(mask: sitk.Image, radius: int) -> sitk.Image:
    return sitk.Crop(mask, [radius + 1] * 3, [radius + 1] * 3)


def _sizes(pieces: sitk.Image) -> list[int]:
    labels = sitk.GetArrayViewFromImage(pieces)
    counts = np.bincount(labels.ravel())[1:]
    return [int(count) for count in counts if count > 0]
