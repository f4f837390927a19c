"""Vertebral heights in the body's own axes, height loss, and Genant's grade.

Source: Genant et al., J Bone Miner Res 1993;8:1137.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import Curve, Image, Result, mask_of, refuse, require_same_grid
from services.imaging.findings import Interval, Value

NAME = "vertebra"
Floats = NDArray[np.float64]
PARTS = ("anterior", "middle", "posterior")
#: Deviation of a height between two endplates that each lie anywhere within a voxel edge of 1 mm.
_TWO_EDGES = float(np.sqrt(2 / 12))
_STEP_MM, _CELL_MM, _TURNS = 0.5, 2.0, 12


@dataclass(frozen=True)
class Axes:
    """Unit vectors (LPS) of one vertebral body; `up` halves the angle between its endplates."""

    anterior: Floats
    left: Floats
    up: Floats


@dataclass(frozen=True)
class Heights:
    """Heights in mm, one row (anterior, middle, posterior) for each sagittal strip.

    `depth_mm`, `width_mm`: extents of the body; `edge_mm`: extent of a voxel along its height.
    """

    strips: Floats
    depth_mm: float
    width_mm: float
    edge_mm: float
    profile: tuple[Floats, Floats]

    @property
    def mean(self) -> Floats:
        return np.asarray(self.strips.mean(axis=0))


def centres(mask: NDArray[np.bool_], image: Image) -> Floats:
    """Voxel centres (n, 3) of the mask, LPS mm."""
    points: Floats = np.argwhere(mask)[:, ::-1] @ image.affine_lps[:3, :3].T + image.affine_lps[:3, 3]
    return points


def body_axes(points: Floats, superior: Floats) -> Axes:
    """Axes from the endplates: planes are fitted to both, the frame is tilted until they mirror each other."""
    up = superior / np.linalg.norm(superior)
    axes = _upright(points, up)
    for _ in range(_TURNS):
        local = (points - points.mean(axis=0)) @ np.stack([axes.anterior, axes.left, axes.up], axis=1)
        slope_a, slope_l = np.mean([_endplate(local, side) for side in (1.0, -1.0)], axis=0)
        up = axes.up - slope_a * axes.anterior - slope_l * axes.left
        axes = _upright(points, up / np.linalg.norm(up))
        if np.hypot(slope_a, slope_l) < 1e-3:
            break
    return axes


def _upright(points: Floats, up: Floats) -> Axes:
    """Left along the widest direction across `up` when the body is clearly wider than deep, else as the patient lies."""
    left = np.array([1.0, 0.0, 0.0])
    flat = points - points.mean(axis=0)
    flat = flat - np.outer(flat @ up, up)
    values, vectors = np.linalg.eigh(flat.T @ flat)
    if values[2] > 1.15 * values[1] and abs(vectors[:, 2] @ left) > 0.7:
        left = vectors[:, 2] * np.sign(vectors[:, 2] @ left)
    left = left - (left @ up) * up
    left /= np.linalg.norm(left)
    # LPS: anterior is -y; up x left points forward.
    anterior = -np.cross(up, left)
    return Axes(anterior, left, up)


def _endplate(local: Floats, side: float) -> tuple[float, float]:
    """Slopes along anterior and left of the upper (1) or lower (-1) surface, from its middle, outliers dropped."""
    half_a, half_l = (np.quantile(np.abs(local[:, axis]), 0.98) for axis in (0, 1))
    near = local[(np.abs(local[:, 0]) < 0.6 * half_a) & (np.abs(local[:, 1]) < 0.6 * half_l)]
    cells = np.floor(near[:, :2] / _CELL_MM).astype(np.int64)
    _, first, where = np.unique(cells @ (1000, 1), return_index=True, return_inverse=True)
    keys, top = cells[first], np.full(len(first), -np.inf)
    np.maximum.at(top, where, side * near[:, 2])
    terms = np.c_[np.ones(len(keys)), (keys + 0.5) * _CELL_MM]
    kept = np.ones(len(keys), bool)
    for _ in range(4):
        fitted, *_ = np.linalg.lstsq(terms[kept], top[kept], rcond=None)
        away = np.abs(top - terms @ fitted)
        kept = away <= 3 * np.median(away[kept]) + 0.2
    return float(side * fitted[1]), float(side * fitted[2])


def heights(mask: NDArray[np.bool_], image: Image, axes: Axes) -> Heights:
    """Heights at the front edge, middle and back edge of sagittal strips across the middle of the body.

    The mask is resampled on the body's own axes, and a height is the sum of its occupancy, so voxel edges cancel. The
    profile of a strip is smoothed by a polynomial of degree 3 and read at its ends, where Genant's points lie.
    """
    limits, points = card(NAME).constants, centres(mask, image)
    frame, middle = np.stack([axes.anterior, axes.left, axes.up]), points.mean(axis=0)
    local = (points - middle) @ frame.T
    low, high = np.quantile(local, [0.001, 0.999], axis=0)
    width = float(high[1] - low[1])
    band = (high[1] + low[1]) / 2 + width * limits["band_share"] * np.array([-0.5, 0.5])
    margin = 2 * max(image.spacing_mm)
    ticks = [
        np.arange(low[0] - margin, high[0] + margin, _STEP_MM),
        np.arange(float(band[0]), float(band[1]), _STEP_MM),
        np.arange(low[2] - margin, high[2] + margin, _STEP_MM),
    ]
    places = np.stack(np.meshgrid(*ticks, indexing="ij")).reshape(3, -1).T @ frame + middle
    kji = np.linalg.solve(image.affine_lps[:3, :3], (places - image.affine_lps[:3, 3]).T)[::-1]
    occupancy = ndimage.map_coordinates(mask.astype(np.float32), kji, order=1, prefilter=False)
    columns = occupancy.reshape([each.size for each in ticks]).sum(axis=2) * _STEP_MM
    strips = [strip.mean(axis=1) for strip in np.array_split(columns, limits["strips"], axis=1)]
    read = [_strip(ticks[0], strip) for strip in strips]
    return Heights(
        np.maximum(np.array([each[0] for each in read]), 0.0),
        float(np.mean([each[1] for each in read])),
        width,
        edge_along(image, axes),
        (ticks[0][-1] - ticks[0][::-1], np.mean(strips, axis=0)[::-1]),
    )


def edge_along(image: Image, axes: Axes) -> float:
    """Largest extent of a voxel edge along the height of the body, mm."""
    return float(np.abs(image.affine_lps[:3, :3].T @ axes.up).max())


def _strip(along: Floats, profile: Floats) -> tuple[list[float], float]:
    """Heights at front, middle and back, and depth; the edges are where the profile falls to half its median."""
    half = float(np.median(profile[profile > 0])) / 2
    held = np.flatnonzero(profile > half)
    back = _crossing(along, profile, held[0] - 1, half)
    front = _crossing(along, profile, held[-1], half)
    share, edge = (front - along) / (front - back), card(NAME).constants["edge_share"]
    inner = (share > edge) & (share < 1 - edge)
    curve = np.polynomial.Polynomial.fit(share[inner], profile[inner], 3)
    return [float(curve(0.0)), float(curve(0.5)), float(curve(1.0))], float(front - back)


def _crossing(along: Floats, profile: Floats, before: int, level: float) -> float:
    """Where the profile crosses `level` between sample `before` and the next."""
    one, two = profile[before], profile[before + 1]
    return float(along[before] + (level - one) / (two - one) * (along[before + 1] - along[before]))


@dataclass(frozen=True)
class Deformity:
    """Losses in % with one row for each strip, by part; NaN where there is nothing to compare with."""

    losses: dict[str, Floats]
    grade: int
    kind: str

    @property
    def largest(self) -> float:
        return max(float(each.mean()) for each in self.losses.values())


def deformity(body: Heights, neighbours: Sequence[Heights]) -> Deformity:
    """Height loss, type and Genant grade.

    Anterior and middle height are compared with the posterior height of the same body; with neighbours, all three also
    with the mean of the neighbours' at the same part, and the larger loss counts.
    """
    posterior = body.mean[2]
    losses = {part: 100 * (1 - body.strips[:, n] / posterior) for n, part in enumerate(PARTS[:2])}
    if neighbours:
        expected = np.mean([one.mean for one in neighbours], axis=0)
        for n, part in enumerate(PARTS):
            other = 100 * (1 - body.strips[:, n] / expected[n])
            losses[part] = other if part not in losses or other.mean() > losses[part].mean() else losses[part]
    mean = {part: float(each.mean()) for part, each in losses.items()}
    worst = max(mean, key=lambda part: mean[part])
    grade = next((grade for grade, above in card(NAME).constants["grades"] if mean[worst] > above), 0)
    kind = {"anterior": "wedge", "middle": "biconcave", "posterior": "crush"}[worst]
    # A body that lost its back too is crushed, whatever part lost most.
    crushed = mean.get("posterior", 0.0) >= card(NAME).constants["grades"][-1][1]
    return Deformity(losses, grade, "none" if not grade else "crush" if crushed else kind)


def _measured(image: Image, role: str, superior: Floats) -> Heights:
    """Raises RefusedError `vertebra.empty_mask|wrong_size|cut_off|too_coarse`."""
    limits, mask = card(NAME).constants, mask_of(NAME, image, role)
    volume = float(mask.sum()) * image.voxel_mm3
    if not limits["smallest_mm3"] <= volume <= limits["largest_mm3"]:
        raise refuse(
            NAME,
            "wrong_size",
            f"{role} has {volume / 1000:.1f} mL, which no vertebral body has",
            remedy="Check the mask and the voxel size.",
        )
    if mask.sum() > mask[1:-1, 1:-1, 1:-1].sum():
        raise refuse(NAME, "cut_off", f"{role} reaches the edge of the image", f"the whole of {role}")
    axes = body_axes(centres(mask, image), superior)
    along = edge_along(image, axes)
    if along > limits["coarsest_mm"]:
        raise refuse(
            NAME,
            "too_coarse",
            f"voxels are {along:.1f} mm high; at most {limits['coarsest_mm']} mm tell the grades apart",
        )
    return heights(mask, image, axes)


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """The whole analysis of one body. Refusals: see `_measured`; `vertebra.bad_option`."""
    known, image = card(NAME), inputs["body"]
    superior = np.array(settings["superior"], float)
    if superior.size != 3 or not np.linalg.norm(superior) > 0:
        raise refuse(NAME, "bad_option", "superior is no direction in space")
    others = {role: inputs[role] for role in ("above", "below") if role in inputs}
    require_same_grid(NAME, image, **others)
    body = _measured(image, "body", superior)
    neighbours = [_measured(one, role, superior) for role, one in others.items()]
    found = deformity(body, neighbours)
    blur = body.edge_mm * _TWO_EDGES
    values = {f"{part}_height": _told(f"{part}_height", body.strips[:, n], blur) for n, part in enumerate(PARTS)}
    share = 100 * np.sqrt(2) * blur / float(body.mean[2])
    values |= {f"{part}_loss": _told(f"{part}_loss", each, share) for part, each in found.losses.items()}
    values["genant_grade"] = known.value("genant_grade", found.grade)
    profile = Curve(tuple(map(float, body.profile[0])), "mm", tuple(map(float, body.profile[1])), "mm")
    return Result(
        analyser=NAME,
        values=values,
        curves={"height_from_front": profile},
        cautions=_cautions(body, bool(neighbours), values, image),
        parameters={**settings, "deformity": found.kind},
        citations=known.sources,
    )


def _told(name: str, strips: Floats, blur: float) -> Value:
    """Mean over the strips; interval from their spread (Student) and from `blur`, the deviation of whole voxels."""
    known = card(NAME)
    spread = known.constants["student_5"] * float(strips.std(ddof=1)) / np.sqrt(strips.size)
    half = float(np.hypot(spread, known.constants["normal_deviate"] * blur))
    middle = float(strips.mean())
    return known.value(name, middle, Interval(middle - half, middle + half, known.constants["level"]))


def _cautions(body: Heights, compared: bool, values: Mapping[str, Value], image: Image) -> tuple[str, ...]:
    limits, told = card(NAME).constants, []
    if not compared:
        told.append("no neighbour is given: a body that lost height evenly (crush) cannot be told from a low one")
    if body.depth_mm > limits["deepest_share"] * body.width_mm:
        told.append("the body is deeper than wide: the arch may be part of the mask")
    if max(image.spacing_mm) > limits["coarse_mm"]:
        told.append(f"voxels of {max(image.spacing_mm):.1f} mm blur the endplates")
    losses = [value for name, value in values.items() if name.endswith("_loss")]
    worst = max(losses, key=lambda value: value.value).uncertainty
    if isinstance(worst, Interval):
        borders = [border for _, border in limits["grades"] if worst.lower < border < worst.upper]
        told += [
            f"the grade is uncertain: the largest loss may lie on either side of {border:.0f} %" for border in borders
        ]
    return tuple(told)
