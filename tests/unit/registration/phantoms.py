"""An analytic body: soft tissue with fat, bones and a lesion, seen by any modality, at any pose."""

from __future__ import annotations

import numpy as np

from services.clinical.volume import ImageVolume
from services.registration.geometry import Matrix, apply

# Ellipsoids: centre (LPS mm), half axes (mm), and what each modality shows there (CT in HU, MR and PT arbitrary).
PARTS = (
    ((0, 0, 0), (70, 52, 75), {"CT": -90.0, "MR": 900.0, "PT": 0.4}),
    ((4, -3, 0), (58, 41, 72), {"CT": 55.0, "MR": 380.0, "PT": 1.0}),
    ((22, -8, 5), (12, 14, 60), {"CT": 700.0, "MR": 120.0, "PT": 0.7}),
    ((-28, 10, -22), (16, 10, 20), {"CT": 30.0, "MR": 650.0, "PT": 6.0}),
    ((-12, -20, 30), (14, 9, 18), {"CT": 120.0, "MR": 250.0, "PT": 2.5}),
    ((10, 24, 20), (20, 8, 24), {"CT": -60.0, "MR": 800.0, "PT": 0.5}),
)
AIR = {"CT": -1000.0, "MR": 0.0, "PT": 0.0}
NOISE = {"CT": 15.0, "MR": 12.0, "PT": 0.05}


def phantom(
    modality: str,
    *,
    to_body: Matrix | None = None,
    spacing: tuple[float, float, float] = (4.0, 4.0, 4.0),
    low: tuple[float, float, float] = (-85, -65, -60),
    high: tuple[float, float, float] = (85, 65, 60),
    seed: int = 1,
    parts=PARTS,
    frame: str = "1.2.3",
) -> ImageVolume:
    """The body on a grid from `low` to `high` (LPS mm). `to_body` maps the grid's points to the body's own."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    size = [int((h - lo) / s) + 1 for lo, h, s in zip(low, high, spacing, strict=True)]
    k, j, i = np.indices(size[::-1])
    points = apply(affine, np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1).astype(float))
    if to_body is not None:
        points = apply(to_body, points)
    values = np.full(len(points), AIR[modality])
    edge = 0.15
    for centre, axes, shown in parts:
        radius = np.sqrt((((points - centre) / axes) ** 2).sum(axis=1))
        inside = np.clip((1 + edge / 2 - radius) / edge, 0, 1)
        values = values * (1 - inside) + shown[modality] * inside
    values += np.random.default_rng(seed).normal(0, NOISE[modality], len(values))
    array = values.reshape(size[::-1]).astype(np.float32)
    return ImageVolume(array, affine, modality, f"1.2.{seed}", "1.9", frame, ())
