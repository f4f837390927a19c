"""Series to registration input: grey values in 0..1, a body mask, and resolution levels.

Everything is in LPS millimetres. The tables, and why they say what they say, are in preparation.yaml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
import yaml
from numpy.typing import NDArray

from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.geometry import Points, apply, index_to_lps, to_sitk

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("preparation.yaml").read_text())
_BODY = TABLES["body"]


@dataclass(frozen=True)
class Level:
    """One resolution: `image` with values 0..1 and `mask` (body and its margin) on the same isotropic grid."""

    image: sitk.Image
    mask: sitk.Image


@dataclass(frozen=True)
class Prepared:
    """A series ready to be registered.

    `image`: float32 0..1 at no finer than the finest level. `body`: uint8 mask on a coarse grid, without margin.
    `body_points`: (n, 3) LPS mm of body voxels. `native_mm`: voxel size (x, y, z) as acquired.
    """

    image: sitk.Image
    body: sitk.Image
    body_points: Points
    modality: str
    series_instance_uid: str
    native_mm: tuple[float, float, float]

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre of mass of the body, LPS mm."""
        return np.asarray(self.body_points.mean(axis=0))


def prepare(volume: ImageVolume, finest_mm: float = 2.0) -> Prepared:
    """Checks, scales and masks one series.

    Raises RefusedError: registration.not_finite, .bad_grid, .sheared_grid, .too_few_slices, .uniform_image, .no_body.
    """
    if not np.isfinite(volume.array).all():
        raise _refusal(
            volume, "not_finite", "the series holds values that are not numbers", "export it without NaN or infinity"
        )
    image = to_sitk(volume)
    extent = np.asarray(image.GetSize()) * np.asarray(image.GetSpacing())
    if volume.array.shape[0] < _BODY["min_slices"] or extent.min() < _BODY["min_extent_mm"]:
        raise _refusal(
            volume,
            "too_few_slices",
            f"the series covers {extent.min():.0f} mm in {volume.array.shape[0]} slices: too thin to tell a rigid motion",
            f"send at least {_BODY['min_slices']} slices over {_BODY['min_extent_mm']:.0f} mm",
        )
    image = shrink(_scaled(image, volume), finest_mm)
    coarse = isotropic(image, max(_BODY["grid_mm"], max(volume.spacing_mm) / 2))
    body = _body(coarse, volume)
    array = sitk.GetArrayViewFromImage(body)
    indices = np.argwhere(array)[:, ::-1].astype(float)
    voxel_ml = math.prod(body.GetSpacing()) / 1000
    if len(indices) * voxel_ml < _BODY["min_volume_ml"]:
        raise _refusal(volume, "no_body", "no body was found in the series", "check that it shows the patient")
    return Prepared(
        image=image,
        body=body,
        body_points=apply(index_to_lps(body), indices),
        modality=volume.modality,
        series_instance_uid=volume.series_instance_uid,
        native_mm=volume.spacing_mm,
    )


def level(prepared: Prepared, spacing_mm: float) -> Level:
    """The series at one resolution, with the body mask and its margin on the same grid."""
    image = isotropic(prepared.image, spacing_mm)
    distance = sitk.SignedMaurerDistanceMap(prepared.body, squaredDistance=False, useImageSpacing=True)
    near = sitk.Cast(distance <= _BODY["margin_mm"], sitk.sitkUInt8)
    return Level(image, sitk.Resample(near, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0))


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


def _scaled(image: sitk.Image, volume: ImageVolume) -> sitk.Image:
    """Grey values in 0..1 by the modality's table; refuses an image without contrast."""
    table = _table(volume.modality)
    array = volume.array
    if table["scale"] == "hounsfield":
        stops = np.asarray(table["levels_hu"], dtype=np.float32)
        scaled = np.interp(array, stops[:, 0], stops[:, 1])
    elif table["scale"] == "root":
        top = _top(array, table["top_percentile"])
        scaled = np.sqrt(np.clip(array / top, 0.0, 1.0)) if top > 0 else np.zeros_like(array)
    else:
        low, high = np.percentile(array, table["percentiles"])
        high = high if high > low else float(array.max())
        scaled = np.clip((array - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(array)
    used = np.count_nonzero(np.histogram(scaled, bins=32, range=(0.0, 1.0))[0])
    if used < _BODY["min_levels"]:
        raise _refusal(
            volume,
            "uniform_image",
            f"the series has almost no contrast: {used} of 32 grey levels are used",
            "check the pixel data, rescale slope and intercept",
        )
    result = sitk.GetImageFromArray(scaled.astype(np.float32))
    result.CopyInformation(image)
    return result


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


def _padded(mask: sitk.Image, radius: int) -> sitk.Image:
    """Repeats the border outward, so that opening does not eat a body that the field of view cuts."""
    return sitk.ZeroFluxNeumannPad(mask, [radius + 1] * 3, [radius + 1] * 3)


def _cropped(mask: sitk.Image, radius: int) -> sitk.Image:
    return sitk.Crop(mask, [radius + 1] * 3, [radius + 1] * 3)


def _sizes(pieces: sitk.Image) -> list[int]:
    labels = sitk.GetArrayViewFromImage(pieces)
    counts = np.bincount(labels.ravel())[1:]
    return [int(count) for count in counts if count > 0]
