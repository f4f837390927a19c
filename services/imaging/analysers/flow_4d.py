"""Flow through a plane of a 4D-flow MR: volumes of one beat, regurgitant fraction, peak velocity.

Source: 4D flow consensus statements, Dyverfeldt et al., J Cardiovasc Magn Reson 2015;17:72, and Bissell et al. 2023;25:40.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import unwrap_phase

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import (
    BoolArray,
    Curve,
    Image,
    Matrix,
    Result,
    mask_of,
    refuse,
    require_same_grid,
    require_unit,
)
from services.imaging.findings import Interval, Value
from services.platform.errors import RefusedError

NAME = "flow_4d"
COMPONENTS = ("velocity_l", "velocity_p", "velocity_s")
_METRES = {"m/s": 1.0, "cm/s": 0.01}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """A disc in LPS mm; `normal` (unit length) points with forward flow."""

    point_mm: Floats
    normal: Floats
    radius_mm: float

    def grid(self, step_mm: float) -> Floats:
        """Points (n, 3) of a square lattice on the disc, each standing for `step_mm` squared."""
        helper = np.eye(3)[np.argmin(np.abs(self.normal))]
        first = np.cross(self.normal, helper)
        first /= np.linalg.norm(first)
        second = np.cross(self.normal, first)
        ticks = np.arange(-self.radius_mm, self.radius_mm + step_mm, step_mm)
        u, v = (part.ravel() for part in np.meshgrid(ticks, ticks))
        inside = np.hypot(u, v) <= self.radius_mm
        points: Floats = self.point_mm + np.outer(u[inside], first) + np.outer(v[inside], second)
        return points

    def moved(self, by_mm: float) -> Plane:
        return Plane(self.point_mm + by_mm * self.normal, self.normal, self.radius_mm)


@dataclass(frozen=True)
class Flow:
    """Volumes of one beat in mL (`reverse` positive), peak velocity in m/s, rate in mL/s for each frame."""

    forward: float
    reverse: float
    peak: float
    rate: Floats

    @property
    def net(self) -> float:
        return self.forward - self.reverse

    @property
    def regurgitant_percent(self) -> float:
        """Share of the forward volume that comes back; NaN without forward flow."""
        return 100 * self.reverse / self.forward if self.forward > 0 else float("nan")


def durations(times_s: Floats) -> Floats:
    """Time that each frame stands for; together one beat (the last frame is followed by the first)."""
    step = np.diff(times_s)
    period_end = float(np.median(step))
    around = np.concatenate([[period_end], step, [period_end]])
    result: Floats = (around[:-1] + around[1:]) / 2
    return result


def through_plane(
    velocity: Floats, affine_lps: Matrix, times_s: Floats, plane: Plane, lumen: BoolArray | None = None
) -> Flow:
    """Flow of `velocity` (t, z, y, x, 3), m/s, through a disc, by trilinear interpolation.

    Raises RefusedError `flow_4d.plane_outside|empty_mask`.
    """
    step = float(np.linalg.norm(affine_lps[:3, :3], axis=0).min()) / 3
    points = plane.grid(step)
    ijk = np.linalg.solve(affine_lps, np.c_[points, np.ones(len(points))].T)[:3]
    kji = ijk[::-1]
    shape = np.array(velocity.shape[1:4])[:, None]
    held = np.all((kji >= 0) & (kji <= shape - 1), axis=0)
    if lumen is not None:
        held &= ndimage.map_coordinates(lumen.astype(np.float64), kji, order=1) >= 0.5
    elif not held.all():
        raise refuse(NAME, "plane_outside", "the disc reaches outside the image", remedy="Move it, or make it smaller.")
    if held.sum() * step**2 < card(NAME).constants["fewest_pixels"] * (3 * step) ** 2 / 4:
        raise refuse(NAME, "empty_mask", "the disc holds hardly a voxel of the lumen", remedy="Move the plane.")
    normal = np.tensordot(velocity, plane.normal, axes=(4, 0))
    sampled = np.stack([ndimage.map_coordinates(one, kji[:, held], order=1) for one in normal])
    # 1 m/s through 1 mm2 is 1 mL/s.
    rate = sampled.sum(axis=1) * step**2
    weights = durations(times_s)
    forward, reverse = np.clip(rate, 0, None) @ weights, np.clip(-rate, 0, None) @ weights
    return Flow(float(forward), float(reverse), float(sampled.max()), rate)


@dataclass(frozen=True)
class Unwrapped:
    """Velocities with aliasing undone; `aliased`: share of lumen voxels changed, `unclosed`: share that cannot be right."""

    velocity: Floats
    aliased: float
    unclosed: float


def unwrap(velocity: Floats, venc: float, lumen: BoolArray) -> Unwrapped:
    """Undoes aliasing within the lumen, each component by itself.

    The frame of least motion is unwrapped in space (Herraez 2002), the others from it in time. After one beat a voxel
    must come back to where it began, and neighbours in the lumen differ by less than `venc`; a voxel that breaks either
    rule moved too fast between frames, and is counted.
    """
    result = velocity.copy()
    box = ndimage.find_objects(lumen.astype(np.uint8))[0]
    inside = lumen[box]
    changed, unclosed = np.zeros(inside.shape, bool), np.zeros(inside.shape, bool)
    for component in range(3):
        part = velocity[(slice(None), *box, component)] * np.pi / venc
        quiet = int(np.abs(part[:, inside]).mean(axis=1).argmin())
        start = np.ma.filled(unwrap_phase(np.ma.array(part[quiet], mask=~inside)), 0.0)
        start -= 2 * np.pi * np.round(np.median(start[inside]) / (2 * np.pi))
        turns = 2 * np.pi * np.round((start - part[quiet]) / (2 * np.pi))
        order = np.roll(np.arange(len(part)), -quiet)
        smooth = np.unwrap(np.concatenate([part[order], part[order[:1]]]), axis=0) + turns
        unclosed |= (np.abs(smooth[-1] - smooth[0]) > np.pi) | _torn(smooth, inside)
        smooth = smooth[:-1][np.argsort(order)]
        changed |= (np.abs(smooth - part) > np.pi).any(axis=0)
        result[(slice(None), *box, component)] = np.where(inside, smooth, part) * venc / np.pi
    count = inside.sum()
    return Unwrapped(result, float((changed & inside).sum() / count), float((unclosed & inside).sum() / count))


def _torn(phase: Floats, inside: BoolArray) -> BoolArray:
    """Voxels that in any frame differ by more than half a turn from a neighbour in the lumen."""
    torn = np.zeros(inside.shape, bool)
    for axis in range(3):
        both = inside & np.roll(inside, -1, axis)
        both[tuple(slice(-1, None) if a == axis else slice(None) for a in range(3))] = False
        torn |= both & (np.abs(np.roll(phase, -1, axis + 1) - phase) > np.pi).any(axis=0)
    return torn


def without_offset(velocity: Floats, static: BoolArray) -> Floats:
    """Takes off, from each component, the plane in space fitted to the mean velocity of static tissue (Walker 1993)."""
    places = np.indices(static.shape).reshape(3, -1).T
    terms = np.c_[np.ones(len(places)), places]
    chosen = static.ravel()
    mean = velocity.mean(axis=0).reshape(-1, 3)
    fitted, *_ = np.linalg.lstsq(terms[chosen], mean[chosen], rcond=None)
    result: Floats = velocity - (terms @ fitted).reshape(*static.shape, 3)
    return result


def check(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Plane:
    """Raises RefusedError `flow_4d.wrong_unit|not_dynamic|too_few_frames|bad_times|irregular_sampling|bad_plane`."""
    limits, image = card(NAME).constants, inputs[COMPONENTS[0]]
    for role in COMPONENTS:
        require_unit(NAME, role, inputs[role], "m/s", "cm/s")
        if inputs[role].array.ndim != 4 or len(inputs[role].array) != len(image.array):
            raise refuse(
                NAME, "not_dynamic", f"{role} has no time dimension, or another length", "velocities (t, z, y, x)"
            )
    if len(image.array) < limits["fewest_frames"]:
        raise refuse(NAME, "too_few_frames", f"{len(image.array)} frames; a beat needs {limits['fewest_frames']}")
    steps = np.diff(image.times_s)
    if len(image.times_s) != len(image.array) or not np.all(steps > 0):
        raise refuse(NAME, "bad_times", f"{len(image.times_s)} times for {len(image.array)} frames, or not rising")
    if steps.max() > limits["uneven"] * np.median(steps):
        raise refuse(
            NAME, "irregular_sampling", f"a gap of {steps.max():.3f} s between frames", "the frames in the gap"
        )
    point, normal = np.array(settings["point_mm"], float), np.array(settings["normal"], float)
    if point.size != 3 or normal.size != 3 or not np.linalg.norm(normal) > 0 or settings["radius_mm"] <= 0:
        raise refuse(
            NAME, "bad_plane", "the plane needs three coordinates, a normal that is not zero, and a radius above zero"
        )
    return Plane(point, normal / np.linalg.norm(normal), settings["radius_mm"])


def _near(image: Image, plane: Plane) -> BoolArray:
    """Voxels that a disc without a lumen mask may be interpolated from."""
    k, j, i = np.indices(image.grid)
    places = np.tensordot(np.stack([i, j, k], axis=-1), image.affine_lps[:3, :3].T, axes=1) + image.affine_lps[:3, 3]
    away = places - plane.point_mm
    along = away @ plane.normal
    across = np.linalg.norm(away - along[..., None] * plane.normal, axis=-1)
    widest = max(image.spacing_mm)
    near: BoolArray = (np.abs(along) <= 4 * widest) & (across <= plane.radius_mm + 2 * widest)
    return near


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """The whole analysis of one plane. Refusals: see `check`, `through_plane`; `flow_4d.aliased` when it stays."""
    known, image = card(NAME), inputs[COMPONENTS[0]]
    plane = check(inputs, settings)
    masks = {role: inputs[role] for role in ("lumen", "static") if role in inputs}
    require_same_grid(NAME, image, **masks, **{role: inputs[role] for role in COMPONENTS[1:]})
    voxels = {role: mask_of(NAME, given, role) for role, given in masks.items()}
    velocity = np.stack(
        [np.asarray(inputs[role].array, np.float64) * _METRES[inputs[role].unit] for role in COMPONENTS], axis=-1
    )
    cautions: list[str] = []
    if "static" in voxels:
        velocity = without_offset(velocity, voxels["static"])
    else:
        cautions.append("no static tissue is given: background offset is not taken off")
    lumen = voxels.get("lumen")
    velocity = _dealiased(velocity, settings["venc_m_s"], _near(image, plane) if lumen is None else lumen, cautions)
    times = np.asarray(image.times_s, float)
    middle = through_plane(velocity, image.affine_lps, times, plane, lumen)
    return Result(
        analyser=NAME,
        values=_values(middle, _parallel(velocity, image, times, plane, lumen)),
        curves={"rate": Curve(tuple(map(float, times)), "s", tuple(map(float, middle.rate)), "mL/s")},
        cautions=tuple(cautions),
        parameters=dict(settings),
        citations=known.sources,
    )


def _dealiased(velocity: Floats, venc: float, lumen: BoolArray, cautions: list[str]) -> Floats:
    if venc <= 0:
        cautions.append("the velocity encoding is not given: aliasing was not looked for")
        return velocity
    fastest = float(np.abs(velocity[:, lumen]).max())
    if fastest > 1.1 * venc:
        raise refuse(
            NAME,
            "wrong_unit",
            f"velocities up to {fastest:.2f} m/s cannot come from an encoding of {venc:.2f} m/s",
            "velocities in m/s or cm/s, and their encoding",
        )
    found = unwrap(velocity, venc, lumen)
    most = card(NAME).constants["unclosed_share"]
    if found.unclosed > most:
        raise refuse(
            NAME,
            "aliased",
            f"aliasing cannot be undone: {found.unclosed:.0%} of the lumen does not come back to where the beat began",
            remedy="Acquire again with a higher velocity encoding or more frames; or outline the lumen.",
        )
    if found.aliased:
        cautions.append(f"aliasing in {found.aliased:.0%} of the lumen was undone")
    return found.velocity


def _parallel(velocity: Floats, image: Image, times: Floats, plane: Plane, lumen: BoolArray | None) -> list[Flow]:
    """Flow through planes one voxel apart on both sides; mass is conserved, so their spread is error."""
    step, half, found = min(image.spacing_mm), card(NAME).constants["planes"] // 2, []
    for number in range(-half, half + 1):
        try:
            found.append(through_plane(velocity, image.affine_lps, times, plane.moved(number * step), lumen))
        except RefusedError:
            continue
    return found


def _values(middle: Flow, planes: list[Flow]) -> dict[str, Value]:
    known = card(NAME)
    parts = {
        "net_volume": (middle.net, [one.net for one in planes]),
        "forward_volume": (middle.forward, [one.forward for one in planes]),
        "reverse_volume": (middle.reverse, [one.reverse for one in planes]),
        "regurgitant_fraction": (middle.regurgitant_percent, [one.regurgitant_percent for one in planes]),
    }
    values = {}
    for name, (number, others) in parts.items():
        if not np.isfinite(number):
            continue
        uncertainty: Interval | str = ""
        if len(others) >= 3 and np.isfinite(others).all():
            half = known.constants["student_4"] * float(np.std(others, ddof=1))
            uncertainty = Interval(number - half, number + half, known.constants["level"])
        values[name] = known.value(name, number, uncertainty, method="spread over parallel planes one voxel apart")
    values["peak_velocity"] = known.value("peak_velocity", middle.peak)
    return values
