"""Multi-start rigid registration by mutual information, coarse to fine, and its affine refinement.

A run never vouches for itself: the result carries what several differently seeded and displaced runs and a run in the
other direction found, and `quality` judges them. Transforms are 4x4 and map fixed points to moving points, LPS mm.
The same input, seed and settings give the same result, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from services.platform.errors import RefusedError
from services.registration.descent import descend
from services.registration.geometry import IDENTITY, Matrix, Points, distances, inverse, mean, rigid
from services.registration.prepare import Level, Prepared, level
from services.registration.search import Placement, best_starts, score
from services.registration.similarity import Sampled, Target, sample, target, within

SETTINGS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("rigid.yaml").read_text())

Progress = Callable[[str, float], None]


def silent(_stage: str, _fraction: float) -> None:
    """A progress listener that does nothing."""


@dataclass(frozen=True)
class LinearResult:
    """What the runs found; nothing here says whether it is right.

    `matrix`: mean of the runs that agree. `runs`: each run's transform, the first from the best start, the others from
    displaced starts with other points. `inverse_runs`: moving to fixed. `best`: the valley they refined. `rivals`: the
    best other valleys, whose scores tell how alone the best one stands.
    """

    matrix: Matrix
    runs: tuple[Matrix, ...]
    inverse_runs: tuple[Matrix, ...]
    best: Placement
    rivals: tuple[Placement, ...]


@dataclass(frozen=True)
class _Stage:
    """Both sides at one resolution."""

    fixed: Level
    target: Target
    points: Sampled
    table: dict[str, Any]


def register(
    fixed: Prepared, moving: Prepared, *, seed: int | None = None, threads: int = 1, progress: Progress = silent
) -> LinearResult:
    """Aligns two prepared series of one patient; 2 to 6 CPU seconds for a body region.

    Raises RefusedError `registration.no_overlap` when no placement lets the bodies meet.
    """
    seed = SETTINGS["seed"] if seed is None else seed
    with ThreadPoolExecutor(max(1, threads)) as pool:
        progress("search", 0.0)
        coarse = _stage(fixed, moving, "coarse", seed)
        starts = _starts(fixed, moving, coarse, seed)
        progress("coarse", 0.2)
        valleys = _valleys(coarse, starts, fixed, pool)
        progress("middle", 0.35)
        middle = _stage(fixed, moving, "middle", seed)
        ranked = _valleys(middle, valleys[: SETTINGS["middle"]["keep"]], fixed, pool)
        if not ranked:
            raise _no_overlap(fixed)
        progress("fine", 0.5)
        runs, back = _settled(fixed, moving, ranked[0].matrix, seed, pool, progress)
    progress("done", 1.0)
    agreed = _agreed([*runs, *(inverse(run) for run in back)], fixed)
    return LinearResult(agreed, tuple(runs), tuple(back), ranked[0], tuple(ranked[1:]))


def refine_affine(
    fixed: Prepared,
    moving: Prepared,
    found: LinearResult,
    *,
    seed: int | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> LinearResult:
    """Lets each run of a rigid result stretch and shear too (twelve parameters), at the finest level.

    The result is the plain mean of the runs, which for affine maps is their least-squares mean over any points.
    """
    seed = SETTINGS["seed"] if seed is None else seed
    progress("affine", 0.0)
    forward, backward = _stage(fixed, moving, "fine", seed), _stage(moving, fixed, "fine", seed)
    count = SETTINGS["affine_runs"]

    def run(task: tuple[_Stage, Prepared, Matrix, int]) -> Matrix:
        stage, side, start, repeat = task
        return _follow(stage, start, side, _inner(stage, start, seed + repeat), affine=True)

    ahead = [(forward, fixed, found.matrix, repeat) for repeat in range(count)]
    behind = [(backward, moving, inverse(found.matrix), repeat) for repeat in range(count, 2 * count)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        ends = list(pool.map(run, [*ahead, *behind]))
    runs, back = tuple(ends[:count]), tuple(ends[count:])
    progress("done", 1.0)
    return replace(found, matrix=np.mean([*runs, *map(inverse, back)], axis=0), runs=runs, inverse_runs=back)


def _settled(
    fixed: Prepared, moving: Prepared, start: Matrix, seed: int, pool: ThreadPoolExecutor, progress: Progress
) -> tuple[list[Matrix], list[Matrix]]:
    """Runs both ways: a few, and the rest only when these do not agree closely."""
    forward, backward, probe = SETTINGS["forward_runs"], SETTINGS["inverse_runs"], _probe(fixed)
    few_ahead, few_behind = min(2, forward), min(1, backward)
    runs = _runs(fixed, moving, start, range(few_ahead), seed, pool)
    progress("inverse", 0.7)
    back = _runs(moving, fixed, inverse(runs[0]), range(forward, forward + few_behind), seed, pool)
    ends = [*runs, *map(inverse, back)]
    if all(distances(a, b, probe).mean() <= SETTINGS["settled_mm"] for a in ends for b in ends):
        return runs, back
    progress("repeats", 0.8)
    runs += _runs(fixed, moving, start, range(few_ahead, forward), seed, pool)
    repeats = range(forward + few_behind, forward + backward)
    return runs, back + _runs(moving, fixed, inverse(runs[0]), repeats, seed, pool)


def _starts(fixed: Prepared, moving: Prepared, coarse: _Stage, seed: int) -> list[Placement]:
    table = SETTINGS["coarse"]
    starts = best_starts(
        fixed, moving, coarse.points, coarse.target, count=table["starts"], apart_mm=table["apart_mm"], seed=seed
    )
    if all(start.score <= 0 for start in starts):
        raise _no_overlap(fixed)
    return [start for start in starts if start.score > 0]


def _no_overlap(fixed: Prepared) -> RefusedError:
    return RefusedError(
        "registration.no_overlap",
        "no placement of the two series lets them share enough of the body",
        remedy="register series that show the same part of the body",
        subject=fixed.series_instance_uid,
    )


def _stage(fixed: Prepared, moving: Prepared, name: str, seed: int) -> _Stage:
    table = SETTINGS[name]
    fixed_level = level(fixed, table["spacing_mm"])
    points = sample(fixed_level, table["samples"], seed)
    if not len(points.points):
        raise _no_overlap(fixed)
    return _Stage(fixed_level, target(level(moving, table["spacing_mm"])), points, table)


def _follow(stage: _Stage, start: Matrix, fixed: Prepared, points: Sampled, *, affine: bool = False) -> Matrix:
    table = stage.table
    found = descend(
        points,
        stage.target,
        start,
        fixed.centre,
        reach_mm=table["reach_mm"],
        tolerance=SETTINGS["tolerance"],
        evaluations=table["evaluations"],
        affine=affine,
    )
    return found.matrix


def _valleys(stage: _Stage, starts: list[Placement], fixed: Prepared, pool: ThreadPoolExecutor) -> list[Placement]:
    """Where each start leads at this level: one placement for each valley, best first; lost overlaps are dropped."""
    ends = pool.map(lambda start: _follow(stage, start.matrix, fixed, stage.points), starts)
    placed = [Placement(end, score(stage.points, stage.target, end)) for end in ends]
    probe = _probe(fixed)
    kept: list[Placement] = []
    for placement in sorted((p for p in placed if p.score > 0), key=lambda p: -p.score):
        if all(distances(placement.matrix, o.matrix, probe).mean() > SETTINGS["same_valley_mm"] for o in kept):
            kept.append(placement)
    return kept


def _runs(
    fixed: Prepared, moving: Prepared, start: Matrix, repeats: range, seed: int, pool: ThreadPoolExecutor
) -> list[Matrix]:
    """Full-resolution runs from one valley: all but repeat 0 begin displaced, and each sees points of its own."""
    middle, fine = (_stage(fixed, moving, name, seed) for name in ("middle", "fine"))

    def run(repeat: int) -> Matrix:
        moved = start @ (_displacement(fixed, seed + repeat) if repeat else IDENTITY)
        for stage in (middle, fine) if repeat else (fine,):
            moved = _follow(stage, moved, fixed, _inner(stage, start, seed + repeat))
        return moved

    return list(pool.map(run, repeats))


def _inner(stage: _Stage, start: Matrix, seed: int) -> Sampled:
    """Points that stay in view whatever a fine search does; all points when few are that deep."""
    count = stage.table["samples"]
    deep = within(sample(stage.fixed, 2 * count, seed), stage.target, start, SETTINGS["edge_mm"])
    if len(deep.points) < SETTINGS["least_share"] * count:
        return sample(stage.fixed, count, seed)
    return deep if len(deep.points) <= count else _thinned(deep, count, seed)


def _thinned(points: Sampled, count: int, seed: int) -> Sampled:
    chosen = np.sort(np.random.default_rng(seed).choice(len(points.points), count, replace=False))
    return Sampled(points.points[chosen], points.values[chosen])


def _displacement(prepared: Prepared, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    turn, shift = SETTINGS["perturb_deg"], SETTINGS["perturb_mm"]
    return rigid(rng.uniform(-turn, turn, 3), rng.uniform(-shift, shift, 3), prepared.centre)


def _agreed(runs: list[Matrix], fixed: Prepared) -> Matrix:
    """Mean of the runs that stand with the most central one: the noise of the chosen points averages out."""
    probe = _probe(fixed)
    spread = np.asarray([[distances(a, b, probe).mean() for b in runs] for a in runs])
    central = int(np.argmin(np.median(spread, axis=1)))
    near = [run for run, far in zip(runs, spread[central], strict=True) if far <= SETTINGS["same_valley_mm"] / 2]
    return mean(near, probe)


def _probe(prepared: Prepared) -> Points:
    """A few hundred points of the body, to measure how far apart two transforms are."""
    return prepared.body_points[:: max(1, len(prepared.body_points) // 500)]
