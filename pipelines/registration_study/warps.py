"""Known smooth warps of real images: how close deformable registration comes, and whether it folds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from services.clinical.volume import ImageVolume
from services.registration.bend import measure_bent
from services.registration.deform import deform
from services.registration.geometry import IDENTITY, to_sitk
from services.registration.prepare import prepare

#: Largest displacement and distance of the random control points, mm.
TOP_MM, CONTROL_MM = 15.0, 45.0
_OUTSIDE = {"CT": -1000.0}


def warped(volume: ImageVolume, rng: np.random.Generator, top_mm: float = TOP_MM) -> tuple[ImageVolume, sitk.Transform]:
    """Another scan, bent and a little noisy, and the truth: its points to the points of `volume`, LPS mm."""
    image = to_sitk(volume)
    truth = _smooth(image, rng, top_mm)
    outside = _OUTSIDE.get(volume.modality, float(volume.array.min()))
    array = sitk.GetArrayFromImage(sitk.Resample(image, image, truth, sitk.sitkBSpline, outside))
    low, high = np.percentile(volume.array, [5, 99])
    array += rng.normal(0, 0.01 * float(high - low), array.shape)
    return dataclasses.replace(volume, array=array.astype(np.float32)), truth


def _smooth(image: sitk.Image, rng: np.random.Generator, top_mm: float) -> sitk.Transform:
    """A cubic B-spline displacement over the image whose longest vector is `top_mm`."""
    mesh = [max(1, round(n * s / CONTROL_MM)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    spline = sitk.BSplineTransformInitializer(image, mesh, 3)
    made = rng.normal(size=len(spline.GetParameters()))
    spline.SetParameters(made.tolist())
    size = [max(4, n // 6) for n in image.GetSize()]
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    field = sitk.TransformToDisplacementField(
        spline, sitk.sitkVectorFloat64, size, image.GetOrigin(), spacing, image.GetDirection()
    )
    longest = float(np.linalg.norm(sitk.GetArrayViewFromImage(field), axis=-1).max())
    spline.SetParameters((made * top_mm / longest).tolist())
    return spline


def attempt(volume: ImageVolume, number: int, symmetric: bool, threads: int) -> dict[str, Any]:
    """One warp, found again: errors in mm over the body, folding, seconds of CPU and wall clock."""
    rng = np.random.default_rng([number, *volume.modality.encode()])
    fixed_volume, truth = warped(volume, rng)
    begun, processor = time.monotonic(), time.process_time()
    fixed, moving = prepare(fixed_volume), prepare(volume)
    bent = deform(fixed, moving, IDENTITY, symmetric=symmetric, threads=threads)
    seconds, processor = time.monotonic() - begun, time.process_time() - processor
    measures = measure_bent(fixed, moving, bent, threads=threads, repeat=False)
    points = fixed.body_points[:: max(1, len(fixed.body_points) // 4000)]
    true = np.asarray([truth.TransformPoint(point) for point in points.tolist()])
    error = np.linalg.norm(bent.apply(points) - true, axis=1)
    return {
        "number": number,
        "symmetric": symmetric,
        "voxel_mm": float(np.prod(volume.spacing_mm) ** (1 / 3)),
        "before_median_mm": float(np.median(np.linalg.norm(true - points, axis=1))),
        "median_mm": float(np.median(error)),
        "p95_mm": float(np.percentile(error, 95)),
        "cpu_s": processor,
        "wall_s": seconds,
        **dataclasses.asdict(measures),
    }


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median over the warps of the median error, in mm and voxels; the most folding; the median time."""
    median = float(np.median([row["median_mm"] for row in rows]))
    return {
        "warps": len(rows),
        "before_median_mm": round(float(np.median([row["before_median_mm"] for row in rows])), 2),
        "median_mm": round(median, 3),
        "median_voxels": round(median / rows[0]["voxel_mm"], 3),
        "worst_median_mm": round(max(row["median_mm"] for row in rows), 3),
        "folding_fraction": max(row["folding_fraction"] for row in rows),
        "cpu_s": round(float(np.median([row["cpu_s"] for row in rows])), 1),
        "wall_s": round(float(np.median([row["wall_s"] for row in rows])), 1),
    }
