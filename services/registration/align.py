"""One pair from volumes to a judged transform: what a worker process, a thread or a Ray task runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.deformation import Deformation
from services.registration.geometry import Matrix, inverse
from services.registration.plan import Purpose
from services.registration.prepare import Prepared, prepare
from services.registration.quality import Judgement, Verdict, judge, measure
from services.registration.rigid import LinearResult, Progress, refine_affine, register, silent

#: Name and version of the default method, for provenance. Raise it when results change.
METHOD = "rigid-mutual-information@2"


class Method(Enum):
    """How much the moving series may change: turn and shift; stretch and shear too; bend (see `deform`)."""

    RIGID = "rigid"
    AFFINE = "affine"
    BSPLINE = "bspline"
    DIFFEO = "diffeo"

    @property
    def label(self) -> str:
        """Name and version for provenance."""
        return _LABELS[self]

    @property
    def deforms(self) -> bool:
        """Whether the result is more than a matrix."""
        return self in (Method.BSPLINE, Method.DIFFEO)


_LABELS = {
    Method.RIGID: METHOD,
    Method.AFFINE: "affine-mutual-information@1",
    Method.BSPLINE: "bspline-local-correlation@1",
    Method.DIFFEO: "stationary-velocity-local-correlation@1",
}


@dataclass(frozen=True)
class Alignment:
    """`matrix`: 4x4, fixed to moving, LPS mm; not to be used when the verdict is FAILED. `seconds`: wall-clock.

    `deformation`: what bends the moving series beyond the matrix; it includes the matrix (see `Deformation`).
    """

    matrix: Matrix
    judgement: Judgement
    seconds: float
    method: Method = Method.RIGID
    deformation: Deformation | None = None


def align(
    fixed: ImageVolume,
    moving: ImageVolume,
    *,
    purpose: Purpose,
    method: Method = Method.RIGID,
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
    same_frame = _one_frame(fixed, moving)
    sides = (prepare(fixed), prepare(moving))
    volumes = [len(side.body_points) * float(np.prod(side.body.GetSpacing())) for side in sides]
    swapped = volumes[1] < volumes[0]
    small, large = (sides[1], sides[0]) if swapped else sides
    share = 0.4 if method.deforms else 0.85
    found = _linear(small, large, method, seed, threads, lambda s, f: progress(s, 0.05 + share * f))
    progress("quality", share + 0.05)
    judgement = judge(measure(small, large, found), purpose=purpose.value, same_frame=same_frame)
    matrix = inverse(found.matrix) if swapped else found.matrix
    aligned = Alignment(matrix, judgement, 0.0, method)
    if method.deforms and judgement.verdict is not Verdict.FAILED:
        aligned = _bent(aligned, sides, threads, lambda s, f: progress(s, share + 0.1 + (0.89 - share) * f))
    progress("done", 1.0)
    return replace(aligned, seconds=time.monotonic() - begun)


def accepted(alignment: Alignment) -> Alignment:
    """The alignment, unless it failed: a failed registration is refused, never passed on.

    Raises RefusedError with the code of the first thing that is wrong, as `quality.yaml` names it: registration.no_overlap,
    .mirrored, .folded, .failed.
    """
    judgement = alignment.judgement
    if judgement.verdict is Verdict.FAILED:
        raise RefusedError(
            f"registration.{judgement.code}",
            "the two series could not be aligned: " + "; ".join(judgement.reasons),
            remedy="check that both series show the same part of the same patient, and align them by hand",
        )
    return alignment


def _linear(
    fixed: Prepared, moving: Prepared, method: Method, seed: int | None, threads: int, progress: Progress
) -> LinearResult:
    if method is not Method.AFFINE:
        return register(fixed, moving, seed=seed, threads=threads, progress=progress)
    rigid = register(fixed, moving, seed=seed, threads=threads, progress=lambda s, f: progress(s, 0.7 * f))
    return refine_affine(
        fixed, moving, rigid, seed=seed, threads=threads, progress=lambda s, f: progress(s, 0.7 + 0.3 * f)
    )


def _bent(aligned: Alignment, sides: tuple[Prepared, Prepared], threads: int, progress: Progress) -> Alignment:
    """The alignment with a deformation on top, judged again by what only a deformation can get wrong.

    Raises RefusedError `registration.no_torch`.
    """
    try:
        from services.registration import bend, deform  # PyTorch takes seconds to import, and only this needs it
    except ImportError as error:
        raise RefusedError(
            "registration.no_torch",
            "deformable registration needs PyTorch, which is not installed here",
            missing=("torch",),
            remedy="install torch, or register rigidly",
        ) from error
    symmetric = aligned.method is Method.DIFFEO
    bent = deform.deform(*sides, aligned.matrix, symmetric=symmetric, threads=threads, progress=progress)
    progress("quality", 0.95)
    judgement = bend.judge_bent(aligned.judgement, bend.measure_bent(*sides, bent, threads=threads))
    return replace(aligned, deformation=bent, judgement=judgement)


def _one_frame(fixed: ImageVolume, moving: ImageVolume) -> bool:
    """Whether both claim one frame of reference. Raises RefusedError `registration.missing_frame_of_reference`."""
    for volume in (fixed, moving):
        if not volume.frame_of_reference_uid:
            raise RefusedError(
                "registration.missing_frame_of_reference",
                "the series does not say in which frame of reference its slices lie, so a transform would lead nowhere",
                missing=("(0020,0052) FrameOfReferenceUID",),
                remedy="send the series with its frame of reference",
                subject=volume.series_instance_uid,
            )
    return fixed.frame_of_reference_uid == moving.frame_of_reference_uid
