"""One pair from volumes to a judged transform: what a worker process, a thread or a Ray task runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from services.clinical.volume import ImageVolume
from services.registration.geometry import Matrix, inverse
from services.registration.plan import Purpose
from services.registration.prepare import prepare
from services.registration.quality import Judgement, judge, measure
from services.registration.rigid import Progress, register, silent

#: Name and version of the method, for provenance. Raise it when results change.
METHOD = "rigid-mutual-information@1"


@dataclass(frozen=True)
class Alignment:
    """`matrix`: 4x4, fixed to moving, LPS mm; not to be used when the verdict is FAILED. `seconds`: wall-clock."""

    matrix: Matrix
    judgement: Judgement
    seconds: float


def align(
    fixed: ImageVolume,
    moving: ImageVolume,
    *,
    purpose: Purpose,
    seed: int | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Alignment:
    """Registers and judges one pair.

    The search follows the smaller body through the larger, whichever of them is fixed: its points stay in view.
    Raises RefusedError (`registration.*`) for input that cannot be registered. An exception raised by `progress` (a
    cancelled call) ends the work.
    """
    begun = time.monotonic()
    progress("prepare", 0.0)
    sides = (prepare(fixed), prepare(moving))
    volumes = [len(side.body_points) * float(np.prod(side.body.GetSpacing())) for side in sides]
    swapped = volumes[1] < volumes[0]
    small, large = (sides[1], sides[0]) if swapped else sides
    found = register(small, large, seed=seed, threads=threads, progress=lambda s, f: progress(s, 0.05 + 0.85 * f))
    progress("quality", 0.9)
    frame = fixed.frame_of_reference_uid
    same_frame = bool(frame) and frame == moving.frame_of_reference_uid
    judgement = judge(measure(small, large, found), purpose=purpose.value, same_frame=same_frame)
    progress("done", 1.0)
    matrix = inverse(found.matrix) if swapped else found.matrix
    return Alignment(matrix, judgement, time.monotonic() - begun)
