"""A geometric torso with lesions whose size, uptake and place are known exactly.

Everything lives in one body frame: LPS millimetres, origin at the centre of the torso. A scanner sees the body through
a `Pose`, so the true transform between any two acquisitions follows from their poses. The anatomy is invented; only the
tissue values are realistic (HU, FDG SUV at one hour, T1-weighted signal).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Tissue:
    """Mean CT number (HU), FDG uptake (SUV body weight, g/mL) and T1-weighted signal (arbitrary units)."""

    hu: float
    suv: float
    t1: float


AIR = Tissue(-1000.0, 0.0, 0.0)


@dataclass(frozen=True)
class Ellipsoid:
    """Solid ellipsoid: centre and semi-axes in mm, body frame."""

    name: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    tissue: Tissue

    def contains(self, points: FloatArray) -> NDArray[np.bool_]:
        """True where `points` (..., 3) lie inside."""
        scaled = (points - np.asarray(self.centre_mm)) / np.asarray(self.radii_mm)
        return np.einsum("...i,...i->...", scaled, scaled) <= 1.0


@dataclass(frozen=True)
class Lesion:
    """A spherical lesion at one visit."""

    name: str
    site: str
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    suv: float
    hu: float
    t1: float

    def solid(self) -> Ellipsoid:
        radius = self.diameter_mm / 2
        return Ellipsoid(self.name, self.centre_mm, (radius, radius, radius), Tissue(self.hu, self.suv, self.t1))


@dataclass(frozen=True)
class Pose:
    """Where a scanner finds the body: `to_body` is 4x4 and maps scanner LPS mm to body LPS mm."""

    to_body: FloatArray = field(default_factory=lambda: np.eye(4))

    @classmethod
    def of(cls, rotation_deg: tuple[float, float, float], translation_mm: tuple[float, float, float]) -> Pose:
        """Extrinsic x, y, z rotations about the origin, then a translation."""
        matrix = np.eye(4)
        for axis, angle in enumerate(np.deg2rad(rotation_deg)):
            i, j = [(1, 2), (2, 0), (0, 1)][axis]
            turn = np.eye(4)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
        matrix[:3, 3] = translation_mm
        return cls(matrix)

    def fixed_to_moving(self, moving: Pose) -> FloatArray:
        """4x4 that maps points of this scanner to points of `moving`'s scanner."""
        return np.asarray(np.linalg.inv(moving.to_body) @ self.to_body)


SOFT = Tissue(30.0, 0.6, 330.0)
FAT = Tissue(-100.0, 0.3, 900.0)
LUNG = Tissue(-780.0, 0.45, 60.0)
BONE = Tissue(450.0, 0.9, 180.0)
MARROW = Tissue(180.0, 1.3, 520.0)
DISC = Tissue(80.0, 0.6, 280.0)


def organs() -> list[Ellipsoid]:
    """Organs in painting order: later ones lie on top of earlier ones."""
    solids = [
        Ellipsoid("skin and fat", (0, 0, 0), (172, 118, 330), FAT),
        Ellipsoid("trunk muscle", (0, 0, 0), (158, 104, 320), SOFT),
        Ellipsoid("right lung", (-78, -8, 112), (58, 74, 98), LUNG),
        Ellipsoid("left lung", (78, -8, 118), (54, 72, 92), LUNG),
        Ellipsoid("heart", (22, -40, 66), (46, 40, 44), Tissue(42.0, 2.0, 300.0)),
        Ellipsoid("liver", (-66, -14, -4), (82, 66, 62), Tissue(58.0, 2.2, 430.0)),
        Ellipsoid("left liver lobe", (2, -38, 8), (56, 34, 34), Tissue(58.0, 2.2, 430.0)),
        Ellipsoid("stomach", (62, -32, 2), (38, 36, 40), Tissue(20.0, 1.4, 260.0)),
        Ellipsoid("stomach gas", (66, -48, 14), (20, 14, 18), Tissue(-950.0, 0.1, 10.0)),
        Ellipsoid("spleen", (100, 34, 4), (30, 40, 46), Tissue(50.0, 1.8, 290.0)),
        Ellipsoid("right kidney", (-62, 52, -70), (27, 28, 54), Tissue(34.0, 3.6, 360.0)),
        Ellipsoid("left kidney", (62, 52, -58), (26, 28, 55), Tissue(34.0, 3.6, 360.0)),
        Ellipsoid("bowel", (-8, -42, -110), (92, 44, 64), Tissue(25.0, 1.1, 380.0)),
        Ellipsoid("bowel gas 1", (-64, -62, -96), (16, 12, 30), Tissue(-900.0, 0.1, 10.0)),
        Ellipsoid("bowel gas 2", (40, -66, -124), (26, 12, 14), Tissue(-900.0, 0.1, 10.0)),
        Ellipsoid("bowel gas 3", (-6, -60, -146), (18, 12, 12), Tissue(-900.0, 0.1, 10.0)),
        Ellipsoid("aorta", (10, 46, 0), (11, 11, 330), Tissue(42.0, 1.7, 120.0)),
        Ellipsoid("vena cava", (-18, 40, -40), (12, 10, 150), Tissue(42.0, 1.7, 120.0)),
    ]
    for level, z in enumerate(range(-190, 200, 34)):
        solids.append(Ellipsoid(f"disc {level}", (0, 74, z + 17), (20, 17, 7), DISC))
        solids.append(Ellipsoid(f"vertebra {level}", (0, 74, z), (23, 19, 14), BONE))
        solids.append(Ellipsoid(f"marrow {level}", (0, 72, z), (18, 14, 10), MARROW))
        solids.append(Ellipsoid(f"spinous process {level}", (0, 98, z - 4), (5, 14, 8), BONE))
    for level, z in enumerate(range(20, 200, 30)):
        for side in (-1, 1):
            solids += [
                Ellipsoid(f"rib {level} {side} {k}", _on_chest_wall(angle, side, z), (9, 9, 6), BONE)
                for k, angle in enumerate(np.linspace(0.15, 0.9, 11))
            ]
    return solids


def _on_chest_wall(turn: float, side: int, z_mm: float) -> tuple[float, float, float]:
    """A point of a rib: `turn` runs 0..1 from spine to breastbone; ribs slope down towards the front."""
    angle = turn * np.pi
    return (float(side * 146 * np.sin(angle)), float(92 * np.cos(angle)), float(z_mm - 26 * turn))


@dataclass(frozen=True)
class Grid:
    """Axial grid centred on the scanner's origin: voxel counts and spacing (x, y, z), and the centre's z in mm."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_z_mm: float = 0.0

    def origin_mm(self) -> FloatArray:
        """LPS position of the first voxel's centre."""
        half = (np.asarray(self.size) - 1) / 2 * np.asarray(self.spacing_mm)
        return np.asarray([-half[0], -half[1], self.centre_z_mm - half[2]])

    def points(self, pose: Pose) -> FloatArray:
        """Body-frame mm of every voxel centre, shape (z, y, x, 3)."""
        axes = [o + s * np.arange(n) for o, s, n in zip(self.origin_mm(), self.spacing_mm, self.size, strict=True)]
        z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        return np.asarray(np.stack([x, y, z], axis=-1) @ pose.to_body[:3, :3].T + pose.to_body[:3, 3])

    def window(self, solid: Ellipsoid, pose: Pose) -> tuple[slice, slice, slice]:
        """Index window (z, y, x) that holds the solid as this scanner sees it."""
        to_scanner = np.linalg.inv(pose.to_body)
        centre = to_scanner[:3, :3] @ np.asarray(solid.centre_mm) + to_scanner[:3, 3]
        # Half-extent of a rotated ellipsoid along each axis: the norm of the scaled rotation rows.
        reach = np.linalg.norm(to_scanner[:3, :3] * np.asarray(solid.radii_mm), axis=1)
        low = np.floor((centre - reach - self.origin_mm()) / self.spacing_mm).astype(int)
        high = np.ceil((centre + reach - self.origin_mm()) / self.spacing_mm).astype(int) + 1
        x, y, z = (slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))
        return z, y, x


def render(grid: Grid, pose: Pose, lesions: list[Lesion], channel: str) -> FloatArray:
    """Value of `channel` ("hu", "suv" or "t1") at each voxel centre, (z, y, x), mildly textured in the body."""
    points = grid.points(pose)
    image = np.full(points.shape[:-1], getattr(AIR, channel))
    for solid in [*organs(), *(lesion.solid() for lesion in lesions)]:
        window = grid.window(solid, pose)
        image[window][solid.contains(points[window])] = getattr(solid.tissue, channel)
    amplitude = {"hu": 6.0, "suv": 0.03, "t1": 12.0}[channel]
    waves = [(0.071, 0.043, 0.029), (-0.033, 0.091, 0.057), (0.113, -0.052, 0.083)]
    texture = sum(np.sin(points @ np.asarray(wave) + phase) for phase, wave in enumerate(waves))
    return np.asarray(image + amplitude * texture * organs()[0].contains(points))
