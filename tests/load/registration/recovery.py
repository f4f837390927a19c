"""How far off registrations end, and what their verdicts say: known displacements of real PET, CT and MR series.

`python -m tests.load.registration.recovery [--cases 6] [--patients STS_044 STS_031]`

Each pair is registered as it came (the baseline) and again after the moving series was displaced by a known rigid motion
(10 degrees and 20 mm in random directions; `--degrees`, `--millimetres`); the error is the distance between
what it found and the displaced baseline, over the fixed body. Then the runs of each result are pushed off by known
amounts, as an optimiser that stopped early would leave them, and judged again.
It prints how many errors above 3 mm were called good and how many below 1 mm passed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom

from services.clinical.dicom.series import load_series
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.geometry import Matrix, distances, inverse, rigid
from services.registration.prepare import Prepared, prepare
from services.registration.quality import Judgement, Verdict, judge, measure
from services.registration.rigid import LinearResult, register

PAIRS = (("PET", "CT"), ("MR_T1", "CT"), ("PET", "MR_T1"))
PUSHES_MM = (0.5, 3.5, 5.0, 8.0, 12.0, 20.0)
ROOT = Path(__file__).resolve().parents[3]


def main() -> None:
    """Runs every pair and prints the table."""
    arguments = _arguments()
    data = Path(os.environ.get("OSLER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "sts-petctmr" / "dicom"
    outcomes: list[tuple[float, Verdict]] = []
    errors: dict[str, list[float]] = {}
    for patient in arguments.patients:
        volumes = {name: _load(data / patient / name / "image") for name in ("CT", "PET", "MR_T1")}
        for fixed_name, moving_name in PAIRS:
            label = f"{patient} {fixed_name}-{moving_name}"
            fixed, moving = prepare(volumes[fixed_name]), prepare(volumes[moving_name])
            begun = time.process_time()
            baseline = register(fixed, moving)
            verdict = _judged(fixed, moving, baseline)
            print(_line(label, verdict, time.process_time() - begun), flush=True)
            outcomes += _pushed(fixed, moving, baseline, arguments.seed)
            for error, found in _displaced(fixed, volumes[moving_name], baseline, arguments):
                errors.setdefault(label, []).append(error)
                outcomes.append((error, found))
            print(f"  recovery error, mm: {[round(error, 2) for error in errors.get(label, [])]}", flush=True)
    _summary(outcomes, errors)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", nargs="+", default=["STS_044", "STS_031"])
    parser.add_argument("--cases", type=int, default=3, help="displacements of each pair")
    parser.add_argument("--degrees", type=float, default=10.0)
    parser.add_argument("--millimetres", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _load(folder: Path) -> ImageVolume:
    return load_series([pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))])


def _line(label: str, found: Judgement, seconds: float) -> str:
    figures = found.measures
    return (
        f"{label}: {found.verdict.value}, {seconds:.1f} CPU s, runs {figures.seed_mean_mm:.2f} mm, back "
        f"{figures.inverse_mm:.2f} mm, slip {figures.slip_mm:.2f} mm, predicted {figures.predicted_tre_mm:.2f} mm, "
        f"motion {figures.motion_mm:.1f} mm {'; '.join(found.reasons)}"
    )


def _judged(fixed: Prepared, moving: Prepared, result: LinearResult) -> Judgement:
    return judge(measure(fixed, moving, result), purpose="hybrid", same_frame=False)


def _displaced(
    fixed: Prepared, moving: ImageVolume, baseline: LinearResult, arguments: argparse.Namespace
) -> Iterator[tuple[float, Verdict]]:
    rng = np.random.default_rng(arguments.seed)
    for _ in range(arguments.cases):
        move = rigid(_random(rng, arguments.degrees), _random(rng, arguments.millimetres), fixed.centre)
        side = prepare(dataclasses.replace(moving, affine_lps=move @ moving.affine_lps))
        try:
            result = register(fixed, side)
        except RefusedError:
            yield float("inf"), Verdict.FAILED
            continue
        error = float(distances(result.matrix, move @ baseline.matrix, fixed.body_points).mean())
        yield error, _judged(fixed, side, result).verdict


def _random(rng: np.random.Generator, size: float) -> Matrix:
    direction = rng.normal(size=3)
    return np.asarray(direction / np.linalg.norm(direction) * size)


def _pushed(fixed: Prepared, moving: Prepared, baseline: LinearResult, seed: int) -> Iterator[tuple[float, Verdict]]:
    """Every run pushed alike: agreement between runs cannot tell, only the images can."""
    rng = np.random.default_rng(seed)
    for distance in PUSHES_MM:
        for _ in range(4):
            push = rigid(_random(rng, distance / 3), _random(rng, distance), fixed.centre)
            pushed = dataclasses.replace(
                baseline,
                matrix=baseline.matrix @ push,
                runs=tuple(run @ push for run in baseline.runs),
                inverse_runs=tuple(inverse(push) @ run for run in baseline.inverse_runs),
            )
            error = float(distances(pushed.matrix, baseline.matrix, fixed.body_points).mean())
            yield error, _judged(fixed, moving, pushed).verdict


def _summary(outcomes: list[tuple[float, Verdict]], errors: dict[str, list[float]]) -> None:
    far = [verdict for error, verdict in outcomes if error > 3]
    near = [verdict for error, verdict in outcomes if error < 1]
    print(f"errors above 3 mm called good: {far.count(Verdict.GOOD)} of {len(far)}")
    print(f"errors above 3 mm called failed: {far.count(Verdict.FAILED)} of {len(far)}")
    print(f"errors below 1 mm called good: {near.count(Verdict.GOOD)} of {len(near)}")
    print(f"errors below 1 mm not failed: {sum(v is not Verdict.FAILED for v in near)} of {len(near)}")
    found = [error for values in errors.values() for error in values]
    if found:
        print(f"recovery error: median {np.median(found):.2f} mm, worst {max(found):.2f} mm, {len(found)} cases")


if __name__ == "__main__":
    main()
