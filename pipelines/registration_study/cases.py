"""Cases of the calibration: registrations whose error is known, and everything that the quality module measured of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.registration_study import images
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.geometry import IDENTITY, Matrix, distances, inverse
from services.registration.prepare import Prepared, prepare
from services.registration.quality import measure
from services.registration.rigid import LinearResult, register

#: What every run of a result is pushed off by, mm: a search that stopped early, and agrees with itself.
PUSHES_MM = (0.4, 3.6, 4.5, 6.0, 9.0, 14.0)
_DEGREES, _MILLIMETRES = 25.0, 60.0


def simulated(name: str, load: Callable[[], ImageVolume], number: int) -> Iterator[dict[str, Any]]:
    """One partner of an image: what registration makes of it, then the same pushed off by known amounts."""
    rng = np.random.default_rng([number, *name.encode()])
    volume = load()
    fixed = prepare(volume)
    truth = images.displacement(rng, _DEGREES, _MILLIMETRES, fixed.centre)
    try:
        moving = prepare(images.partner(volume, truth, rng))
        result = register(fixed, moving)
    except RefusedError as refusal:
        yield {"case": f"{name}-{number}", "kind": "refused", "error_mm": None, "reason": refusal.reason}
        return
    for size in (0.0, *PUSHES_MM):
        motion = images.push(rng, size, fixed.centre) if size else IDENTITY
        pushed = _pushed(result, motion)
        error = float(distances(pushed.matrix, truth, fixed.body_points).mean())
        yield _row(f"{name}-{number}", "pushed" if size else "found", error, fixed, moving, pushed)


def real(fixed_volume: ImageVolume, moving_volume: ImageVolume, case: str, number: int) -> Iterator[dict[str, Any]]:
    """A real pair and its pushes; errors are distances to its own result, which is itself uncertain by 1 to 2 mm."""
    rng = np.random.default_rng([number, *case.encode()])
    fixed, moving = prepare(fixed_volume), prepare(moving_volume)
    result = register(fixed, moving)
    for size in PUSHES_MM:
        pushed = _pushed(result, images.push(rng, size, fixed.centre))
        error = float(distances(pushed.matrix, result.matrix, fixed.body_points).mean())
        yield _row(f"{case}-{number}", "real", error, fixed, moving, pushed)


def wrong(data: Path, number: int) -> Iterator[dict[str, Any]]:
    """Pairs that have no right answer: another patient, a mirrored scan, parts of the body that do not meet."""
    rng = np.random.default_rng([number, 99])
    series = ("CT", "PET", "MR_T1")
    first, second = (images.sarcoma(data, patient, series[rng.integers(3)]) for patient in images.STS)
    yield _attempt(f"stranger-{number}", "stranger", first, _shaken(second, rng))
    name = ("study1_FLAIR", "study1_T1W", "study2_T2W", "study2_FLAIR")[number % 4]
    brain = images.sclerosis(data, name)
    mirrored = dataclasses.replace(brain, array=np.ascontiguousarray(brain.array[:, :, ::-1]))
    made = images.partner(mirrored, IDENTITY, rng)
    yield _attempt(f"mirrored-{number}", "mirrored", brain, _shaken(made, rng))
    half = len(first.array) // 2
    above, below = dataclasses.replace(first, array=first.array[half + 2 :]), first.array[: half - 2]
    shift = first.affine_lps.copy()
    shift[:3, 3] = (first.affine_lps @ [0, 0, half + 2, 1])[:3]
    above = dataclasses.replace(above, affine_lps=shift)
    yield _attempt(f"apart-{number}", "apart", above, _shaken(dataclasses.replace(first, array=below), rng))


def _shaken(volume: ImageVolume, rng: np.random.Generator) -> ImageVolume:
    centre = (volume.affine_lps @ [*(np.asarray(volume.array.shape[::-1]) / 2), 1])[:3]
    return images.moved(volume, images.displacement(rng, 10.0, 20.0, centre), "other")


def _attempt(case: str, kind: str, first: ImageVolume, second: ImageVolume) -> dict[str, Any]:
    try:
        fixed, moving = prepare(first), prepare(second)
        return _row(case, kind, math.inf, fixed, moving, register(fixed, moving))
    except RefusedError as refusal:
        return {"case": case, "kind": kind, "error_mm": None, "reason": refusal.reason}


def _pushed(result: LinearResult, motion: Matrix) -> LinearResult:
    return dataclasses.replace(
        result,
        matrix=result.matrix @ motion,
        runs=tuple(run @ motion for run in result.runs),
        inverse_runs=tuple(inverse(motion) @ run for run in result.inverse_runs),
    )


def _row(case: str, kind: str, error: float, fixed: Prepared, moving: Prepared, result: LinearResult) -> dict[str, Any]:
    measures = dataclasses.asdict(measure(fixed, moving, result))
    return {"case": case, "kind": kind, "error_mm": error if math.isfinite(error) else 1e6, "measures": measures}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a case file; empty when there is none yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
