"""Random known displacements of the sarcoma PET, CT and MR: how many are found again, and what the verdict says of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.registration_study import images
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.align import align
from services.registration.geometry import IDENTITY, Matrix, distances, mean
from services.registration.plan import Purpose
from services.registration.prepare import prepare

DEGREES, MILLIMETRES = 25.0, 60.0


def attempt(fixed: ImageVolume, moving: ImageVolume, number: int) -> dict[str, Any]:
    """One displacement, found again: the matrix carried back to where the scanner had the moving series.

    Number 0 is no displacement. Without error every row would hold the same matrix, that of the undisplaced pair.
    """
    rng = np.random.default_rng([number, *moving.series_instance_uid.encode()])
    body = prepare(moving)
    motion = images.displacement(rng, DEGREES, MILLIMETRES, body.centre) if number else IDENTITY
    try:
        found = align(fixed, images.moved(moving, motion, "displaced"), purpose=Purpose.HYBRID)
    except RefusedError as refusal:
        return {"number": number, "verdict": "failed", "reason": refusal.reason}
    back = np.linalg.inv(motion) @ found.matrix
    return {
        "number": number,
        "verdict": found.judgement.verdict.value,
        "matrix": back.ravel().tolist(),
        "seconds": found.seconds,
    }


def figures(rows: Sequence[dict[str, Any]], fixed: ImageVolume, moving: ImageVolume) -> dict[str, Any]:
    """Recovery of one pair: error of each row against the consensus of all rows that lie together.

    No true place is known for two real scans: the reference is the mean of the central cluster, so the figure says how
    repeatably, not how truly, the pair is aligned. `voxel_mm`: longest voxel edge of the coarser image.
    """
    points = prepare(fixed).body_points
    points = points[:: max(1, len(points) // 500)]
    placed = [(row, np.reshape(row["matrix"], (4, 4))) for row in rows if "matrix" in row]
    voxel = max(*fixed.spacing_mm, *moving.spacing_mm)
    reference = _central([matrix for _, matrix in placed], points, voxel)
    errors = [float(distances(matrix, reference, points).mean()) for _, matrix in placed]
    lost = [row["verdict"] for (row, _), error in zip(placed, errors, strict=True) if error > voxel]
    near = sum(error <= voxel for error in errors)
    return {
        "displacements": len(rows),
        "voxel_mm": round(voxel, 2),
        "recovered": near,
        "recovered_share": round(near / len(rows), 4),
        "median_mm": round(float(np.median(errors)), 2),
        "worst_recovered_mm": round(max((e for e in errors if e <= voxel), default=0.0), 2),
        "lost_called_good": lost.count("good"),
        "lost_called_review": lost.count("review"),
        "lost_failed": len(rows) - near - lost.count("good") - lost.count("review"),
        "verdicts": {name: sum(row["verdict"] == name for row in rows) for name in ("good", "review", "failed")},
        "median_s": round(float(np.median([row["seconds"] for row, _ in placed])), 1),
    }


def _central(matrices: Sequence[Matrix], points: np.ndarray[Any, Any], near_mm: float) -> Matrix:
    gaps = np.asarray([[distances(a, b, points).mean() for b in matrices] for a in matrices])
    centre = int(np.argmin(np.median(gaps, axis=1)))
    return mean([matrix for matrix, gap in zip(matrices, gaps[centre], strict=True) if gap <= near_mm], points)


def pairs() -> list[tuple[str, str, str, str]]:
    """Label, patient, fixed and moving series of every pair."""
    return [(f"{p} {f}-{m}", p, f, m) for p in images.STS for f, m in images.STS_PAIRS]
