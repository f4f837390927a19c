"""Where to start: a coarse look at many rigid placements, so that no optimiser begins in the wrong valley.

Placements are scored by mutual information at random points; a placement that leaves little of the fixed body inside the
moving field of view is scored down in proportion, because a small overlap can share information by chance
(Studholme C et al. Pattern Recognit 1999;32:71).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.registration.geometry import IDENTITY, Matrix, distances, rigid
from services.registration.prepare import Prepared
from services.registration.similarity import Sampled, Target, similarity

# Share of the fixed points inside the moving field of view: none below `LEAST`, full trust from `ENOUGH` on.
LEAST_OVERLAP = 0.15
ENOUGH_OVERLAP = 0.6
# Turns tried at every shift: small ones along each axis, then patient positions (feet first, decubitus).
_SMALL_DEG = (-25.0, -12.0, 12.0, 25.0)
_TURNS_DEG: tuple[tuple[float, float, float], ...] = (
    *((angle, 0.0, 0.0) for angle in _SMALL_DEG),
    *((0.0, angle, 0.0) for angle in _SMALL_DEG),
    *((0.0, 0.0, angle) for angle in _SMALL_DEG),
    (0.0, 0.0, 90.0),
    (0.0, 0.0, -90.0),
    (0.0, 0.0, 180.0),
    (0.0, 180.0, 0.0),
    (180.0, 0.0, 0.0),
)


@dataclass(frozen=True)
class Placement:
    """A candidate start and its score (mutual information in nats, less where little overlaps)."""

    matrix: Matrix
    score: float


def score(fixed: Sampled, moving: Target, matrix: Matrix) -> float:
    """Mutual information in nats times trust in the overlap, 0 when almost nothing overlaps."""
    found = similarity(fixed, moving, matrix)
    if found.inside < LEAST_OVERLAP:
        return 0.0
    return found.information * min(1.0, found.inside / ENOUGH_OVERLAP)


def best_starts(
    fixed: Prepared, moving: Prepared, points: Sampled, target: Target, *, count: int, apart_mm: float, seed: int
) -> list[Placement]:
    """The `count` best-scoring placements that lie at least `apart_mm` apart; the identity is always the first.

    Turns are tried about the fixed body's centre at every shift of a coarse grid, then the best are jittered.
    """
    centre = fixed.centre
    placements = [Placement(IDENTITY, score(points, target, IDENTITY))]
    shifts = _shifts(fixed, moving)
    flat = _scored(points, target, (rigid((0, 0, 0), shift, centre) for shift in shifts))
    bases = [_shift_of(p.matrix, centre) for p in _distinct(flat, points, 12, apart_mm)]
    bases += [np.zeros(3), _centre_shift(fixed, moving)]
    turned = _scored(points, target, (rigid(turn, shift, centre) for shift in bases for turn in _TURNS_DEG))
    promising = _distinct([*flat, *turned], points, 2 * count, apart_mm)
    return [*placements, *_distinct(_jittered(promising, points, target, centre, seed), points, count, apart_mm)]


def _jittered(
    promising: Sequence[Placement], points: Sampled, target: Target, centre: NDArray[np.float64], seed: int
) -> list[Placement]:
    """Each placement with a few seeded perturbations (up to 10 degrees and 15 mm)."""
    rng = np.random.default_rng(seed)
    moves = [rigid(rng.uniform(-10, 10, 3), rng.uniform(-15, 15, 3), centre) for _ in range(12 * len(promising))]
    tried = (p.matrix @ moves[12 * k + n] for k, p in enumerate(promising) for n in range(12))
    return [*promising, *_scored(points, target, tried)]


def _scored(points: Sampled, target: Target, matrices: Iterable[Matrix]) -> list[Placement]:
    return [Placement(matrix, score(points, target, matrix)) for matrix in matrices]


def _distinct(placements: Sequence[Placement], points: Sampled, count: int, apart_mm: float) -> list[Placement]:
    """The best placements, best first, dropping those whose points lie near a better one's."""
    probe = points.points[:: max(1, len(points.points) // 200)]
    kept: list[Placement] = []
    for placement in sorted(placements, key=lambda p: -p.score):
        if placement.score <= 0 or len(kept) == count:
            break
        if all(distances(placement.matrix, other.matrix, probe).mean() >= apart_mm for other in kept):
            kept.append(placement)
    return kept


def _shifts(fixed: Prepared, moving: Prepared) -> list[NDArray[np.float64]]:
    """Shifts that bring the bodies together: centres of mass, centres of extent, and steps along the longer body."""
    middle = _middle(moving) - _middle(fixed)
    mass = _centre_shift(fixed, moving)
    reach = np.maximum(0.0, (_extent(moving) + _extent(fixed)) / 2 - 0.3 * np.minimum(_extent(moving), _extent(fixed)))
    shifts = [np.zeros(3), middle, mass]
    for base in (np.zeros(3), middle):
        for axis, step in ((2, 25.0), (1, 20.0), (0, 20.0)):
            limit = reach[axis] if axis == 2 else min(reach[axis], 60.0)
            for distance in np.arange(step, limit + 1e-9, step):
                for sign in (-1.0, 1.0):
                    shift = base.copy()
                    shift[axis] += sign * distance
                    shifts.append(shift)
    return shifts


def _centre_shift(fixed: Prepared, moving: Prepared) -> NDArray[np.float64]:
    return np.asarray(moving.centre - fixed.centre)


def _shift_of(matrix: Matrix, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(matrix[:3, :3] @ centre + matrix[:3, 3] - centre)


def _middle(prepared: Prepared) -> NDArray[np.float64]:
    return np.asarray((prepared.body_points.min(axis=0) + prepared.body_points.max(axis=0)) / 2)


def _extent(prepared: Prepared) -> NDArray[np.float64]:
    return np.asarray(np.ptp(prepared.body_points, axis=0))
