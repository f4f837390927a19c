"""open-ms: rigid registration of each contrast to FLAIR, and of the visits, beside the reference affines of the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.registration_study import images
from services.registration.geometry import IDENTITY, Matrix, distances, inverse
from services.registration.prepare import Prepared, level, prepare
from services.registration.rigid import register
from services.registration.similarity import sample, similarity, target


def figures(data: Path) -> dict[str, dict[str, Any]]:
    """For each pair: mean distances over the brain, mm, and mutual information (nats) of result, reference and headers."""
    table = {}
    for visit in ("study1", "study2"):
        fixed = prepare(images.sclerosis(data, f"{visit}_FLAIR"))
        for contrast in ("T1W", "T2W"):
            moving = prepare(images.sclerosis(data, f"{visit}_{contrast}"))
            known = reference(data, f"{visit}_{contrast}_intrastudy_to_FLAIR")
            table[f"{visit} {contrast}"] = _compared(fixed, moving, known)
    first, second = (prepare(images.sclerosis(data, f"{visit}_FLAIR")) for visit in ("study1", "study2"))
    ways = [reference(data, f"{visit}_FLAIR_to_common_space") for visit in ("study1", "study2")]
    table["study1 to study2 FLAIR"] = _compared(first, second, ways[1] @ inverse(ways[0]))
    return table


def reference(data: Path, name: str) -> Matrix:
    """A reference affine of the data set (ITK transform text): fixed to moving, LPS mm."""
    lines = (data / "open-ms" / "patient01" / f"{name}.txt").read_text().splitlines()
    values = {line.split(":")[0]: line.split(":")[1].split() for line in lines if ":" in line}
    parameters, centre = (np.asarray(values[key], dtype=float) for key in ("Parameters", "FixedParameters"))
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = parameters[9:] + centre - matrix[:3, :3] @ centre
    return matrix


def _compared(fixed: Prepared, moving: Prepared, known: Matrix) -> dict[str, Any]:
    found, points = register(fixed, moving).matrix, fixed.body_points
    sampled, there = sample(level(fixed, 2.0), 60000, 3), target(level(moving, 2.0))
    fits = {
        name: similarity(sampled, there, m).information
        for name, m in (("result", found), ("reference", known), ("headers", IDENTITY))
    }
    return {
        "to_reference_mm": round(float(distances(found, known, points).mean()), 2),
        "headers_to_reference_mm": round(float(distances(IDENTITY, known, points).mean()), 2),
        "reference_stretch": [round(float(s), 4) for s in np.linalg.svd(known[:3, :3])[1]],
        "information": {name: round(value, 4) for name, value in fits.items()},
    }
