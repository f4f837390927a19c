"""Hippocampus segmentation of a cropped T1-weighted MR volume.

Label 1 is the anterior part (head), label 2 the posterior part (body and tail), as in the Medical Segmentation
Decathlon, Task04 (Simpson et al., arXiv:1902.09063). The model works on a crop around one hippocampus; it neither finds
the hippocampus in a whole head nor tells left from right.

    model = load_bundle("models/hippocampus")
    result = segment(model, volume.array, volume.affine_lps)
    result.total.volume_mm3, result.total.interval_mm3, [c.message for c in result.cautions]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.hippocampus_bundle import (
    HippocampusModel,
    ValidatedRange,
    VolumeCalibration,
    load_bundle,
)
from services.imaging.hippocampus_grid import (
    CropGrid,
    FloatArray,
    anatomical_axes,
    antialias,
    covering_grid,
    normalise,
    resample,
    spacing_of,
)
from services.imaging.hippocampus_network import pad_to_stride, probabilities
from services.imaging.hippocampus_orientation import OrientationReading, read_orientation
from services.imaging.trust import familiarity
from services.platform.errors import RefusedError

__all__ = [
    "LABELS",
    "Caution",
    "HippocampusModel",
    "HippocampusSegmentation",
    "LabelMeasure",
    "ValidatedRange",
    "VolumeCalibration",
    "load_bundle",
    "segment",
]

#: Label value of each part in a label map.
LABELS = {"anterior": 1, "posterior": 2}
AXIS_NAMES = ("left-right", "front-back", "foot-head")
#: Direction cosines of a DICOM volume are orthogonal; this leaves room for rounding in the header.
SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Caution:
    """A reason to look twice. `code` is stable; `message` is for a reader."""

    code: str
    message: str


@dataclass(frozen=True)
class LabelMeasure:
    """What was measured of one part, or of the whole.

    Attributes:
        volume_mm3: voxels of the label map times the volume of a voxel, on the input grid.
        interval_mm3: conformal interval for the volume that an expert's outline would give.
        interval_level: coverage that the interval aims at, for example 0.9.
        mirror_difference_mm3: volume from the crop as it is less volume from its mirror image, without sign.
        mean_entropy_nats: mean predictive entropy over the part's voxels, 0 (sure) to ln 3 = 1.099.
        centroid_lps_mm: centre of the part.
        discarded_mm3: volume of islands away from the largest piece, which were dropped.
    """

    volume_mm3: float
    interval_mm3: tuple[float, float]
    interval_level: float
    mirror_difference_mm3: float
    mean_entropy_nats: float
    centroid_lps_mm: tuple[float, float, float]
    discarded_mm3: float


@dataclass(frozen=True)
class HippocampusSegmentation:
    """The result on the caller's grid.

    Attributes:
        labels_zyx: uint8, the input's shape: 0 background, 1 anterior, 2 posterior.
        entropy_zyx: float32, predictive entropy in nats at each voxel.
        orientation: how the picture bears out the recorded orientation.
        tilt_degrees: largest angle between an axis of the input and the nearest axis of the patient.
        cautions: empty where the input and the result lie within what the model was validated on.
    """

    labels_zyx: NDArray[np.uint8]
    entropy_zyx: FloatArray
    anterior: LabelMeasure
    posterior: LabelMeasure
    total: LabelMeasure
    tilt_degrees: float
    orientation: OrientationReading
    cautions: tuple[Caution, ...]
    model_name: str
    model_version: str
    weights_sha256: str


def segment(
    model: HippocampusModel, array_zyx: NDArray[np.float32], affine_lps: NDArray[np.float64]
) -> HippocampusSegmentation:
    """Outline the hippocampus in a crop around it.

    Args:
        model: from `load_bundle`.
        array_zyx: T1-weighted MR intensities (z, y, x), any unit.
        affine_lps: 4x4, maps voxel index (i = x column, j = y row, k = z slice) to LPS millimetres. Any axis order,
            direction and handedness.

    Raises:
        RefusedError: `hippocampus.*`; the input is no such crop, or the result contradicts its orientation.
    """
    array = np.asarray(array_zyx, dtype=np.float32)
    affine = np.asarray(affine_lps, dtype=np.float64)
    _check_array(array, affine)
    axes, tilt = anatomical_axes(affine)
    grid = covering_grid(array.shape, affine, axes)
    cautions = _check_field_of_view(model.validated, grid, spacing_of(affine))
    to_source = np.asarray(np.linalg.inv(affine) @ grid.affine_lps, dtype=np.float64)
    crop = _training_crop(array, affine, to_source, grid)
    orientation = read_orientation(model.network, crop)
    cautions += _check_orientation(model.validated, orientation)
    cautions += _check_familiar(model, crop)
    passes = _passes_on_input_grid(model.network, crop, to_source, array.shape)
    mean = passes.mean(axis=0)
    entropy = -(mean * np.log(np.clip(mean, 1e-7, None))).sum(axis=0)
    raw = mean.argmax(axis=0).astype(np.uint8)
    labels = _largest_pieces(raw)
    measures = _measure(model.calibration, labels, raw, passes, entropy, affine)
    cautions += _check_result(model.validated, labels, measures, axes[:, 1])
    return HippocampusSegmentation(
        labels_zyx=labels,
        entropy_zyx=entropy.astype(np.float32),
        anterior=measures["anterior"],
        posterior=measures["posterior"],
        total=measures["total"],
        tilt_degrees=tilt,
        orientation=orientation,
        cautions=cautions,
        model_name=model.name,
        model_version=model.version,
        weights_sha256=model.weights_sha256,
    )


def network_input(array_zyx: NDArray[np.float32], affine_lps: NDArray[np.float64]) -> torch.Tensor:
    """A volume as the network knows it: (right, anterior, superior) at 1 mm, normalised; no check of what it shows."""
    axes, _ = anatomical_axes(affine_lps)
    grid = covering_grid(array_zyx.shape, affine_lps, axes)
    to_source = np.asarray(np.linalg.inv(affine_lps) @ grid.affine_lps, dtype=np.float64)
    return _training_crop(array_zyx, affine_lps, to_source, grid)


def familiarity_features(network: torch.nn.Module, crop: torch.Tensor, layers: Sequence[str]) -> NDArray[np.float64]:
    """Features (d,) of a crop from `network_input`, for `services.imaging.trust.familiarity`."""
    batch, _ = pad_to_stride(crop[None, None].float())
    return familiarity.features(network, batch, layers)[0]


def _check_familiar(model: HippocampusModel, crop: torch.Tensor) -> tuple[Caution, ...]:
    if model.familiar is None:
        return ()
    judged = familiarity.judge(model.familiar, familiarity_features(model.network, crop, model.familiar.layers))
    if not judged.outside:
        return ()
    return (
        Caution(
            "unfamiliar_input",
            f"the picture is unlike those that the model was made from (distance {judged.distance:.2f}; "
            f"{model.familiar.level:.1%} of held-out crops stay below {judged.limit:.2f}): check that it shows a T1 crop "
            "around one hippocampus",
        ),
    )


def _check_array(array: FloatArray, affine: NDArray[np.float64]) -> None:
    if array.ndim != 3 or min(array.shape) < 2:
        raise RefusedError(
            "hippocampus.not_a_volume",
            f"expected one 3D volume, got an array of shape {array.shape}",
            missing=["a stack of slices"],
        )
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise RefusedError(
            "hippocampus.no_geometry",
            "the volume's position and orientation cannot be computed",
            missing=[
                "(0020,0032) ImagePositionPatient",
                "(0020,0037) ImageOrientationPatient",
                "(0028,0030) PixelSpacing",
            ],
        )
    directions = affine[:3, :3] / spacing_of(affine)
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise RefusedError(
            "hippocampus.sheared_grid",
            "the slices are not stacked at right angles to their plane",
            remedy="resample the series on an orthogonal grid",
        )
    if not np.isfinite(array).all():
        raise RefusedError("hippocampus.not_finite", "the volume holds values that are no numbers")
    low, high = np.percentile(array, (0.5, 99.5))
    if not high > low:
        raise RefusedError(
            "hippocampus.no_contrast", "the volume is uniform: there is nothing to see", missing=["image contrast"]
        )


def _check_field_of_view(
    validated: ValidatedRange, grid: CropGrid, spacing: NDArray[np.float64]
) -> tuple[Caution, ...]:
    low, high = validated.accepted_spacing_mm
    if spacing.min() < low or spacing.max() > high:
        raise RefusedError(
            "hippocampus.spacing",
            f"voxels of {' x '.join(f'{s:.2f}' for s in spacing)} mm; the model takes {low:g} to {high:g} mm",
            missing=["a thin-slice 3D T1-weighted series, about 1 mm"],
            remedy="choose the 3D T1-weighted series of the study",
        )
    extent = "x".join(str(n) for n in grid.shape_ras)
    accepted, seen = validated.accepted_extent_ras_mm, validated.extent_ras_mm
    if any(n > most for n, (_, most) in zip(grid.shape_ras, accepted, strict=True)):
        raise RefusedError(
            "hippocampus.not_a_crop",
            f"the volume covers {extent} mm (left-right x front-back x foot-head); the model reads a crop of about "
            "35x50x35 mm around one hippocampus and does not find the hippocampus in a whole head",
            missing=["a crop around one hippocampus"],
            remedy="crop the series around each hippocampus",
        )
    if any(n < least for n, (least, _) in zip(grid.shape_ras, accepted, strict=True)):
        raise RefusedError(
            "hippocampus.crop_too_small",
            f"the volume covers {extent} mm (left-right x front-back x foot-head), too little to hold a hippocampus",
            missing=["the whole hippocampus, with a margin, in the field of view"],
        )
    return tuple(
        Caution(
            "field_of_view_outside_validated",
            f"crop of {size} mm {axis}: the model was validated on {least:g} to {most:g} mm",
        )
        for size, axis, (least, most) in zip(grid.shape_ras, AXIS_NAMES, seen, strict=True)
        if not least <= size <= most
    )


def _training_crop(
    array: FloatArray, affine: NDArray[np.float64], to_source: NDArray[np.float64], grid: CropGrid
) -> torch.Tensor:
    """The input as the network knows it: (right, anterior, superior), 1 mm, normalised."""
    source = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))[None]
    smooth = antialias(source, spacing_of(affine))
    return torch.from_numpy(normalise(resample(smooth, to_source, grid.shape_ras)[0].numpy()))


def _check_orientation(validated: ValidatedRange, reading: OrientationReading) -> tuple[Caution, ...]:
    if reading.entropy_ratio < 1.0:
        raise RefusedError(
            "hippocampus.orientation_contradicted",
            f"the picture contradicts the recorded orientation: it reads better turned over {reading.alternative}",
            missing=["a true (0020,0037) ImageOrientationPatient"],
            remedy="check how the series was converted; then correct its orientation",
        )
    if reading.entropy_ratio < validated.orientation_ratio:
        return (
            Caution(
                "orientation_unsure",
                f"the picture bears out the recorded orientation less clearly than in any validation case "
                f"({reading.entropy_ratio:.2f}; at least {validated.orientation_ratio:.2f} there)",
            ),
        )
    return ()


def _passes_on_input_grid(
    network: torch.nn.Module, crop: torch.Tensor, to_source: NDArray[np.float64], shape_zyx: tuple[int, ...]
) -> FloatArray:
    """Probabilities (pass, label, z, y, x): the crop as it is, and mirrored left to right."""
    both = probabilities(network, crop)
    to_crop = np.asarray(np.linalg.inv(to_source), dtype=np.float64)
    on_input = resample(both.reshape(-1, *crop.shape), to_crop, shape_zyx[::-1])
    return np.asarray(on_input.reshape(*both.shape[:2], *shape_zyx[::-1]).permute(0, 1, 4, 3, 2).numpy())


def _largest_pieces(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each part's largest connected piece (26 neighbours)."""
    kept = np.zeros_like(labels)
    for value in LABELS.values():
        pieces, count = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            kept[pieces == sizes.argmax()] = value
    return kept


def _measure(
    calibration: VolumeCalibration,
    labels: NDArray[np.uint8],
    raw: NDArray[np.uint8],
    passes: FloatArray,
    entropy: FloatArray,
    affine: NDArray[np.float64],
) -> dict[str, LabelMeasure]:
    for name, value in LABELS.items():
        if not (labels == value).any():
            raise RefusedError(
                "hippocampus.not_found",
                f"no {name} hippocampus found in the crop",
                missing=[f"the {name} hippocampus in the field of view, in T1-weighted contrast"],
            )
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    each_pass = passes.argmax(axis=1)
    measures = {}
    for name, values in {**{n: (v,) for n, v in LABELS.items()}, "total": tuple(LABELS.values())}.items():
        mask = np.isin(labels, values)
        count = float(mask.sum())
        first, second = (float(np.isin(one, values).sum()) for one in each_pass)
        centre_xyz = np.argwhere(mask).mean(axis=0)[::-1]
        centroid = affine[:3, :3] @ centre_xyz + affine[:3, 3]
        half = calibration.relative_half_width[name] * count * voxel
        measures[name] = LabelMeasure(
            volume_mm3=count * voxel,
            interval_mm3=(max(0.0, count * voxel - half), count * voxel + half),
            interval_level=calibration.level,
            mirror_difference_mm3=abs(first - second) * voxel,
            mean_entropy_nats=float(entropy[mask].mean()),
            centroid_lps_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
            discarded_mm3=float(np.isin(raw, values).sum() - count) * voxel,
        )
    return measures


def _check_result(
    validated: ValidatedRange,
    labels: NDArray[np.uint8],
    measures: dict[str, LabelMeasure],
    anterior_lps: NDArray[np.float64],
) -> tuple[Caution, ...]:
    """Cautions about a result unlike those that the model was validated on; refuses one that contradicts the header."""
    between = np.subtract(measures["anterior"].centroid_lps_mm, measures["posterior"].centroid_lps_mm)
    offset = float(between @ anterior_lps)
    if offset <= 0:
        raise RefusedError(
            "hippocampus.orientation_contradicted",
            "the head of the hippocampus appears behind its tail: the picture contradicts the recorded orientation",
            missing=["a true (0020,0037) ImageOrientationPatient"],
            remedy="check how the series was converted",
        )
    cautions = []
    least, most = validated.anterior_offset_mm
    if not least <= offset <= most:
        cautions.append(
            Caution(
                "shape_unusual",
                f"the anterior part lies {offset:.0f} mm in front of the posterior part: "
                f"{least:.0f} to {most:.0f} mm in the validation data",
            )
        )
    for name, measure in measures.items():
        least, most = validated.volume_mm3[name]
        if not least <= measure.volume_mm3 <= most:
            cautions.append(
                Caution(
                    "volume_outside_validated",
                    f"{name} volume {measure.volume_mm3:.0f} mm3: {least:.0f} to {most:.0f} mm3 in the data",
                )
            )
    total = measures["total"]
    if total.mean_entropy_nats > validated.mean_entropy_nats:
        cautions.append(Caution("uncertain", "the model is less sure of this outline than of any it was validated on"))
    if total.discarded_mm3 > 0.05 * total.volume_mm3:
        cautions.append(Caution("fragmented", f"{total.discarded_mm3:.0f} mm3 in separate islands were dropped"))
    inside = labels[1:-1, 1:-1, 1:-1]
    if np.count_nonzero(labels) > np.count_nonzero(inside):
        cautions.append(Caution("touches_border", "the hippocampus reaches the edge of the crop and may be cut off"))
    return tuple(cautions)
