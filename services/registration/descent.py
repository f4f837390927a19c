"""Following mutual information downhill: its value and exact gradient over rigid or affine motion, and a quasi-Newton search.

Mutual information with cubic B-spline Parzen windows (Mattes D et al. IEEE Trans Med Imaging 2003;22:120; Thevenaz P,
Unser M. IEEE Trans Image Process 2000;9:2083), at fixed random points, so that for one seed the function is smooth and
the search deterministic. Points fade out over the last voxels of the moving field of view instead of dropping out: a
jump there would stall any gradient method. Search: L-BFGS-B (Byrd RH et al. SIAM J Sci Comput 1995;16:1190) in
millimetres: turns are scaled by the body's radius of gyration, so that one unit moves the body by one millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from services.registration.geometry import Matrix, Points, apply
from services.registration.similarity import Sampled, Target

Array = NDArray[np.float64]

BINS = 32
_PAD = 2  # the cubic window reaches two bins past the last value
_FADE_VOXELS = 2.0
_LEAST_WEIGHT = 0.05  # share of the points that must remain in view for the metric to mean anything


@dataclass(frozen=True)
class Descent:
    """Where one search ended. `information` in nats (at its points), `evaluations` of the metric."""

    matrix: Matrix
    information: float
    evaluations: int


def descend(
    fixed: Sampled,
    moving: Target,
    start: Matrix,
    centre: Array,
    *,
    reach_mm: float,
    tolerance: float,
    evaluations: int,
    affine: bool = False,
) -> Descent:
    """Improves `start` (fixed to moving) until the metric gains no more than `tolerance` (relative).

    `reach_mm` bounds each parameter (six, or twelve when `affine`), so that a search on a coarse level cannot run away.
    Turns and strains are about `centre`, LPS mm, in front of `start`.
    """
    motion = AffineMotion if affine else RigidMotion
    metric = _Metric(fixed, moving, start, centre, motion)
    count = motion.parameters
    bounds = [(-reach_mm, reach_mm)] * count
    options = {"maxfun": evaluations, "ftol": tolerance, "gtol": 1e-7, "maxcor": 12}
    found = minimize(metric.cost, np.zeros(count), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return Descent(metric.matrix(found.x), -float(found.fun), int(found.nfev))


class Motion(Protocol):
    """A few millimetres of parameters, as a linear map of arms (points from the centre) and a shift."""

    parameters: ClassVar[int]

    @staticmethod
    def linear(parameters: Array, radius: float) -> tuple[Array, Array]:
        """3x3 map of the arms and shift (3), mm."""
        ...

    @staticmethod
    def slope(parameters: Array, radius: float, arm: Points, moved: Points, force: Points) -> Array:
        """Gradient by the parameters of a function whose gradient by each moved point (n, 3) is `force`."""
        ...


class RigidMotion:
    """(turn x, y, z, shift x, y, z): turns are arcs at the body's radius of gyration."""

    parameters: ClassVar[int] = 6

    @staticmethod
    def linear(parameters: Array, radius: float) -> tuple[Array, Array]:
        """As in `Motion`."""
        return Rotation.from_rotvec(parameters[:3] / radius).as_matrix(), parameters[3:]

    @staticmethod
    def slope(parameters: Array, radius: float, arm: Points, moved: Points, force: Points) -> Array:
        """As in `Motion`."""
        torque = np.cross(moved, force).sum(axis=0) @ _left_jacobian(parameters[:3] / radius) / radius
        return np.concatenate([torque, force.sum(axis=0)])


class AffineMotion:
    """Nine entries of a linear map minus the identity, times the radius of gyration, row by row; then the shift."""

    parameters: ClassVar[int] = 12

    @staticmethod
    def linear(parameters: Array, radius: float) -> tuple[Array, Array]:
        """As in `Motion`."""
        return np.eye(3) + parameters[:9].reshape(3, 3) / radius, parameters[9:]

    @staticmethod
    def slope(parameters: Array, radius: float, arm: Points, moved: Points, force: Points) -> Array:
        """As in `Motion`."""
        return np.concatenate([(force.T @ arm).ravel() / radius, force.sum(axis=0)])


class _Metric:
    """Negative mutual information of one pair of sampled points and moving image, as a function of millimetres."""

    def __init__(
        self, fixed: Sampled, moving: Target, start: Matrix, centre: Array, motion: type[Motion] = RigidMotion
    ) -> None:
        self._start, self._centre, self._moving = start, np.asarray(centre, dtype=float), moving
        self._motion = motion
        self._arm: Points = fixed.points - self._centre
        self._radius = float(np.sqrt((self._arm**2).sum(axis=1).mean() * 2 / 3)) or 1.0
        place = np.clip(fixed.values, 0.0, 1.0) * (BINS - 1) + _PAD
        self._row = np.rint(place).astype(np.int64) * _WIDTH

    def matrix(self, parameters: Array) -> Matrix:
        """4x4 fixed to moving for the motion's parameters, all mm."""
        linear, shift = self._motion.linear(parameters, self._radius)
        small = np.eye(4)
        small[:3, :3] = linear
        small[:3, 3] = self._centre - linear @ self._centre + shift
        return self._start @ small

    def cost(self, parameters: Array) -> tuple[float, Array]:
        """Negative mutual information in nats and its gradient, per mm."""
        linear, shift = self._motion.linear(parameters, self._radius)
        moved = self._arm @ linear.T
        to_index = self._moving.to_index @ self._start
        indices = apply(to_index, moved + self._centre + shift)
        weight, weight_slope = _fade(indices, self._moving.array.shape)
        total = float(weight.sum())
        if total < _LEAST_WEIGHT * len(weight):
            return 0.0, np.zeros(len(parameters))
        value, slope = _trilinear(self._moving.array, indices)
        information, by_value, by_weight = _information(self._row, value, weight, total)
        # Chain rule: index -> value and weight, then LPS shift -> index.
        force = (by_value[:, None] * slope + by_weight[:, None] * weight_slope) @ to_index[:3, :3]
        return -information, -self._motion.slope(parameters, self._radius, self._arm, moved, force)


_WIDTH = BINS + 2 * _PAD


def _information(row: NDArray[np.int64], value: Array, weight: Array, total: float) -> tuple[float, Array, Array]:
    """Mutual information, and its derivative by each moving value and by each weight."""
    place = np.clip(value, 0.0, 1.0) * (BINS - 1) + _PAD
    low = np.minimum(place.astype(np.int64), _WIDTH - 3)
    window, window_slope = _window(place - low)
    cells = [row + low + step for step in (-1, 0, 1, 2)]
    size = _WIDTH * _WIDTH
    joint = np.zeros(size)
    for cell, part in zip(cells, window, strict=True):
        joint += np.bincount(cell, weight * part, minlength=size)
    joint = joint.reshape(_WIDTH, _WIDTH) / total
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    positive = joint > 0
    gain = np.zeros_like(joint)
    gain[positive] = np.log(joint[positive] / product[positive])
    information = float((joint * gain).sum())
    flat = gain.ravel()
    looked_up = [flat[cell] for cell in cells]
    share = np.einsum("kn,kn->n", window, looked_up)
    steep = np.einsum("kn,kn->n", window_slope, looked_up)
    by_value = weight * steep * (BINS - 1) / total
    return information, by_value, (share - information) / total


def _window(part: Array) -> tuple[list[Array], list[Array]]:
    """Cubic B-spline weights of the four bins around a value, and their derivatives by its place."""
    rest = 1 - part
    weights = [
        rest**3 / 6,
        (3 * part**3 - 6 * part**2 + 4) / 6,
        (3 * rest**3 - 6 * rest**2 + 4) / 6,
        part**3 / 6,
    ]
    slopes = [-(rest**2) / 2, (3 * part**2 - 4 * part) / 2, -(3 * rest**2 - 4 * rest) / 2, part**2 / 2]
    return weights, slopes


def _fade(indices: Points, shape: tuple[int, ...]) -> tuple[Array, Points]:
    """1 inside the moving image, 0 outside, smooth over the last voxels; with its gradient by index (i, j, k)."""
    last = np.asarray(shape[::-1], dtype=float) - 1
    depth = np.minimum(_FADE_VOXELS, np.maximum(1.0, last / 4))
    from_low, from_high = indices / depth, (last - indices) / depth
    nearer_low = from_low < from_high
    place = np.clip(np.where(nearer_low, from_low, from_high), 0.0, 1.0)
    smooth = place**2 * (3 - 2 * place)
    steep = 6 * place * (1 - place) / depth * np.where(nearer_low, 1.0, -1.0)
    x, y, z = smooth.T
    return x * y * z, steep * np.stack([y * z, x * z, x * y], axis=1)


def _trilinear(array: NDArray[np.float32], indices: Points) -> tuple[Array, Points]:
    """Values at (i, j, k) and their exact gradient by index; outside, the edge's."""
    depth, height, width = array.shape
    last = np.maximum(np.asarray([width, height, depth]) - 2, 0)
    low = np.clip(np.floor(indices).astype(np.int64), 0, last)
    x, y, z = np.clip(indices - low, 0.0, 1.0).T
    flat = array.ravel()
    base = (low[:, 2] * height + low[:, 1]) * width + low[:, 0]
    dx, dy, dz = min(1, width - 1), width * min(1, height - 1), width * height * min(1, depth - 1)
    c000, c100, c010, c110 = flat[base], flat[base + dx], flat[base + dy], flat[base + dx + dy]
    base = base + dz
    c001, c101, c011, c111 = flat[base], flat[base + dx], flat[base + dy], flat[base + dx + dy]
    x00, x10 = c000 + x * (c100 - c000), c010 + x * (c110 - c010)
    x01, x11 = c001 + x * (c101 - c001), c011 + x * (c111 - c011)
    y0, y1 = x00 + y * (x10 - x00), x01 + y * (x11 - x01)
    by_x = (1 - z) * ((1 - y) * (c100 - c000) + y * (c110 - c010)) + z * ((1 - y) * (c101 - c001) + y * (c111 - c011))
    by_y = (1 - z) * (x10 - x00) + z * (x11 - x01)
    return y0 + z * (y1 - y0), np.stack([by_x, by_y, y1 - y0], axis=1)


def _left_jacobian(vector: Array) -> Array:
    """How a small change of a rotation vector turns the rotated body (left Jacobian of SO(3))."""
    angle = float(np.linalg.norm(vector))
    skew = np.array([[0, -vector[2], vector[1]], [vector[2], 0, -vector[0]], [-vector[1], vector[0], 0]])
    if angle < 1e-6:
        return np.asarray(np.eye(3) + skew / 2)
    first, second = (1 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    return np.asarray(np.eye(3) + first * skew + second * skew @ skew)
