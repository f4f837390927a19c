"""Judging a registration by what its optimiser did not decide.

An optimiser that stops 10 mm away says nothing by itself. So every result is measured by: how far differently seeded runs
and runs in the other direction end up from it; whether the similarity, measured at other points with another estimator,
really peaks there; how much it stands out from misplaced poses; how much of the body overlaps and fits; and
whether the motion is plausible for the purpose. Thresholds, and why, are in quality.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
import yaml
from numpy.typing import NDArray

from services.registration.descent import descend
from services.registration.geometry import (
    IDENTITY,
    Matrix,
    Points,
    apply,
    distances,
    index_to_lps,
    inverse,
    rigid,
    rotation_deg,
    shift_mm,
)
from services.registration.prepare import Prepared, level
from services.registration.rigid import LinearResult
from services.registration.similarity import Sampled, Target, sample, similarity, target

THRESHOLDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("quality.yaml").read_text())
CALIBRATION: dict[str, float] = yaml.safe_load(Path(__file__).with_name("calibration.yaml").read_text())


class Verdict(Enum):
    """GOOD may be used as it is, REVIEW needs a person's eyes first, FAILED is never passed on."""

    GOOD = "good"
    REVIEW = "review"
    FAILED = "failed"


@dataclass(frozen=True)
class Measures:
    """Everything that was measured about one transform (fixed to moving).

    information_before, information_after: mutual information in nats with the identity and with the result.
    seed_mean_mm, seed_max_mm: distance between runs over the fixed body. inverse_mm: mean distance between the forward and
    the inverted backward runs. overlap: fraction of the smaller body inside the other's field of view, 0..1.
    body_agreement: Dice of the two bodies where both fields of view reach, 0..1. slip_mm: how far from the result a
    parabola through the neighbouring poses puts the peak of similarity, mm over the body. refit_mm: how far a search begun at
    the result, at other points, walks away from it, mean mm over the body. mirror: information of the best fit of the
    moving image's mirror image over that of the image itself; above 1 the image is likely flipped. sharpness: relative
    loss of information when the body moves by the probe distance in its best-tolerated direction; at or below 0 the result
    is no peak. prominence: information over that of misplaced poses (1 = no better). rival: information score of
    the next valley over that of the chosen one, 0..1. turn_deg, shift_mm: motion of the body's centre. motion_mm: mean
    motion of the body against the identity. predicted_tre_mm: expected target registration error.
    """

    information_before: float
    information_after: float
    seed_mean_mm: float
    seed_max_mm: float
    inverse_mm: float
    overlap: float
    body_agreement: float
    slip_mm: float
    refit_mm: float
    mirror: float
    sharpness: float
    prominence: float
    rival: float
    turn_deg: float
    shift_mm: float
    motion_mm: float
    coarsest_voxel_mm: float
    predicted_tre_mm: float


@dataclass(frozen=True)
class Judgement:
    """The verdict, the reasons for anything but GOOD, and the figures behind it.

    `code`: what is wrong first of all, for a typed refusal ("mirrored", "no_overlap", "failed"); empty unless FAILED.
    `bent`: what was measured of a deformation (`bend.BentMeasures`), where there is one.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    measures: Measures
    code: str = ""
    bent: Any = None


@dataclass(frozen=True)
class _Scene:
    """Both directions of a pair at the probing resolution."""

    points: Sampled
    target: Target
    centre: NDArray[np.float64]
    radius_mm: float


def measure(fixed: Prepared, moving: Prepared, result: LinearResult) -> Measures:
    """Measures a result from scratch: no figure is taken from the optimiser but the transforms of its runs."""
    table = THRESHOLDS["probe"]
    fixed_level, moving_level = level(fixed, table["spacing_mm"]), level(moving, table["spacing_mm"])
    points = sample(fixed_level, table["points"], table["seed"])
    arm = fixed.body_points - fixed.centre
    scene = _Scene(points, target(moving_level), fixed.centre, float(np.sqrt((arm**2).sum(axis=1).mean() * 2 / 3)))
    matrix, probe = result.matrix, _seen(fixed, scene.target, result.matrix)
    runs = [*result.runs]
    back = [inverse(run) for run in result.inverse_runs]
    seed_mean, seed_max = _spread([*runs, matrix], probe)
    round_trip = _mean_gap(runs, back, probe)
    slip, sharpness = _peak(scene, matrix)
    refit, mirror = _again(scene, matrix, probe)
    after = similarity(scene.points, scene.target, matrix)
    return Measures(
        information_before=similarity(scene.points, scene.target, IDENTITY).information,
        information_after=after.information,
        seed_mean_mm=seed_mean,
        seed_max_mm=seed_max,
        inverse_mm=round_trip,
        overlap=_overlap(fixed, moving, matrix),
        body_agreement=_body_agreement(fixed, moving, matrix),
        slip_mm=slip,
        refit_mm=refit,
        mirror=mirror,
        sharpness=sharpness,
        prominence=_prominence(scene, matrix, after.information),
        rival=max((rival.score for rival in result.rivals), default=0.0) / max(result.best.score, 1e-9),
        turn_deg=rotation_deg(matrix),
        shift_mm=shift_mm(matrix, fixed.centre),
        motion_mm=float(distances(matrix, IDENTITY, probe).mean()),
        coarsest_voxel_mm=max(*fixed.native_mm, *moving.native_mm),
        predicted_tre_mm=_predicted(seed_mean, round_trip, refit),
    )


def judge(measures: Measures, *, purpose: str, same_frame: bool) -> Judgement:
    """The verdict on one result.

    `purpose`: "hybrid" or "follow_up". `same_frame`: the two series claim one frame of reference, so that a large motion
    contradicts the scanner.
    """
    wrong = broken(THRESHOLDS["failed"], measures)
    failed = [text for _, text in wrong]
    review = [text for _, text in broken(THRESHOLDS["review"], measures)] if not failed else []
    frame = "same_frame" if same_frame else "other_frame"
    limits = THRESHOLDS["plausible"][purpose][frame]
    for name, limit in limits.items():
        value = getattr(measures, name)
        if value > limit["limit"]:
            review.append(f"{limit['says']}: {value:.1f}, expected at most {limit['limit']:g}")
    if failed:
        return Judgement(Verdict.FAILED, (*failed, *review), measures, wrong[0][0])
    return Judgement(Verdict.REVIEW if review else Verdict.GOOD, tuple(review), measures)


def broken(rules: Sequence[dict[str, Any]], measures: Any) -> list[tuple[str, str]]:
    """Code and explanation of every rule that the measures break, in the table's order."""
    found = []
    for rule in rules:
        value = getattr(measures, rule["measure"])
        limit = CALIBRATION[rule["calibrated"]] if "calibrated" in rule else rule["limit"]
        wrong = value > limit if rule["when"] == "above" else value < limit
        if wrong or not math.isfinite(value):
            text = f"{rule['says']}: {value:.2f}, needs {_bound(rule)} {limit:g}"
            found.append((rule.get("code", "failed"), text))
    return found


def _bound(rule: dict[str, Any]) -> str:
    return "at most" if rule["when"] == "above" else "at least"


def _predicted(seed_mean: float, round_trip: float, refit: float) -> float:
    """Expected target registration error, mm: root of the sum of the squared parts."""
    weights = THRESHOLDS["predicted_tre"]
    parts = (
        weights["floor_mm"],
        weights["seed"] * seed_mean,
        weights["inverse"] * round_trip,
        CALIBRATION["refit_weight"] * refit,
    )
    return math.sqrt(sum(part**2 for part in parts))


def _seen(fixed: Prepared, moving: Target, matrix: Matrix) -> Points:
    """Body points that the result maps into the moving field of view (all of them when none is)."""
    indices = apply(moving.to_index @ matrix, fixed.body_points)
    inside = np.all((indices > -0.5) & (indices < np.asarray(moving.array.shape[::-1]) - 0.5), axis=1)
    return fixed.body_points[inside] if inside.any() else fixed.body_points


def _spread(runs: Sequence[Matrix], points: Points) -> tuple[float, float]:
    """Mean and worst distance between any two runs, mm."""
    gaps = [distances(a, b, points) for k, a in enumerate(runs) for b in runs[k + 1 :]]
    if not gaps:
        return math.inf, math.inf
    return float(np.mean([gap.mean() for gap in gaps])), float(max(gap.max() for gap in gaps))


def _mean_gap(first: Sequence[Matrix], second: Sequence[Matrix], points: Points) -> float:
    """Distance between the mean places that two groups of runs send each point to, averaged over the points, mm."""
    if not first or not second:
        return math.inf
    means = [np.mean([apply(matrix, points) for matrix in group], axis=0) for group in (first, second)]
    return float(np.linalg.norm(means[0] - means[1], axis=1).mean())


def _peak(scene: _Scene, matrix: Matrix) -> tuple[float, float]:
    """Distance to the fitted peak (mm) and the relative loss at the probe distance in the flattest of six directions."""
    table = THRESHOLDS["probe"]
    step = table["distance_mm"]
    here = similarity(scene.points, scene.target, matrix).information
    if here <= 0:
        return math.inf, -math.inf
    slips, losses = [], []
    for axis in range(6):
        vector = np.zeros(6)
        vector[axis] = step
        turn = np.degrees(vector[:3] / scene.radius_mm)
        moves = (rigid(turn, vector[3:], scene.centre), rigid(-turn, -vector[3:], scene.centre))
        ahead, behind = (similarity(scene.points, scene.target, matrix @ move).information for move in moves)
        bend = 2 * here - ahead - behind
        slips.append(step / 2 * (ahead - behind) / bend if bend > 0 else math.copysign(3 * step, ahead - behind))
        losses.append(1 - max(ahead, behind) / here)
    return float(np.linalg.norm(np.clip(slips, -3 * step, 3 * step))), float(min(losses))


def _again(scene: _Scene, matrix: Matrix, points: Points) -> tuple[float, float]:
    """Distance walked by searches of their own from the result, and how well mirror images fit (see `Measures`).

    Where the first search walks far, others at other points decide with it: the mean of the ends counts, as for the result.
    """
    table = THRESHOLDS["probe"]
    count = len(scene.points.points)
    step = max(1, count // table["search_points"])

    def search(start: Matrix, first: int = 0) -> tuple[Matrix, float]:
        found = descend(
            Sampled(scene.points.points[first::step], scene.points.values[first::step]),
            scene.target,
            start,
            scene.centre,
            reach_mm=table["search_reach_mm"],
            tolerance=table["search_tolerance"],
            evaluations=table["search_evaluations"],
        )
        return found.matrix, found.information

    end, here = search(matrix)
    ends = [end]
    if distances(end, matrix, points).mean() > table["search_again_mm"]:
        ends += [search(matrix, first)[0] for first in range(1, min(step, table["searches"]))]
    flips = [search(matrix @ _flip(axis, scene.centre))[1] for axis in range(3)]
    return _mean_gap(ends, [matrix], points), max(flips) / max(here, 1e-9)


def _flip(axis: int, centre: NDArray[np.float64]) -> Matrix:
    """The reflection through `centre` along one LPS axis."""
    matrix = np.eye(4)
    matrix[axis, axis] = -1.0
    matrix[axis, 3] = 2 * centre[axis]
    return matrix


def _some(points: Sampled, count: int) -> Sampled:
    """Every n-th point, about `count` of them."""
    step = max(1, len(points.points) // count)
    return Sampled(points.points[::step], points.values[::step])


def _prominence(scene: _Scene, matrix: Matrix, here: float) -> float:
    """Information at the result over its 90th percentile among misplaced poses; 1 means no better than chance."""
    table = THRESHOLDS["probe"]
    rng = np.random.default_rng(table["seed"])
    some = _some(scene.points, table["search_points"])
    found = []
    for _ in range(table["misplaced"]):
        direction = rng.normal(size=3)
        shift = direction / np.linalg.norm(direction) * rng.uniform(*table["misplaced_mm"])
        turn = rng.uniform(-1, 1, 3) * table["misplaced_deg"]
        there = similarity(some, scene.target, matrix @ rigid(turn, shift, scene.centre))
        if there.inside > table["misplaced_inside"]:
            found.append(there.information)
    if not found:
        return math.nan
    return here / max(float(np.percentile(found, 90)), 1e-9)


def _overlap(fixed: Prepared, moving: Prepared, matrix: Matrix) -> float:
    """Fraction of the smaller body that lies in the other's field of view."""
    sizes = [len(side.body_points) * math.prod(side.body.GetSpacing()) for side in (fixed, moving)]
    if sizes[0] <= sizes[1]:
        return _share_inside(fixed.body_points, moving.body, matrix)
    return _share_inside(moving.body_points, fixed.body, inverse(matrix))


def _share_inside(points: Points, image: sitk.Image, matrix: Matrix) -> float:
    indices = apply(inverse(index_to_lps(image)) @ matrix, points)
    return float(np.all((indices > -0.5) & (indices < np.asarray(image.GetSize()) - 0.5), axis=1).mean())


def _body_agreement(fixed: Prepared, moving: Prepared, matrix: Matrix) -> float:
    """Dice of the bodies over the part of the fixed grid that the moving field of view reaches."""
    grid = np.indices(fixed.body.GetSize()[::-1]).reshape(3, -1)[::-1].T.astype(float)
    in_fixed = sitk.GetArrayViewFromImage(fixed.body).ravel() > 0
    lps = apply(index_to_lps(fixed.body), grid)
    indices = np.rint(apply(inverse(index_to_lps(moving.body)) @ matrix, lps)).astype(int)
    inside = np.all((indices >= 0) & (indices < np.asarray(moving.body.GetSize())), axis=1)
    if not inside.any():
        return 0.0
    i, j, k = indices[inside].T
    in_moving = sitk.GetArrayViewFromImage(moving.body)[k, j, i] > 0
    total = int(in_fixed[inside].sum()) + int(in_moving.sum())
    return 2.0 * int((in_fixed[inside] & in_moving).sum()) / total if total else 0.0
