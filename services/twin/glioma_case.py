"""One patient's glioma from label maps to courses: what the command line and gRPC both ask.

Label maps are those of `glioma_anatomy`; days count from the visit that the tumour map shows, earlier visits are negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.twin.glioma import Course, Radiotherapy, Resection, weekday_fractions
from services.twin.glioma_anatomy import Anatomy, Outlines, anatomy, outlined_volumes, outlines, with_margin
from services.twin.glioma_fit import GliomaPosterior, Visit, fit
from services.twin.glioma_forecast import GliomaForecast, Progress, forecast, probability_smaller
from services.twin.nifti import Volume, refuse_other_grid
from services.twin.tables import table

HORIZON_DAYS = 180
DRAWS = 16
_EVERY_DAYS = 30
_MARGIN_MM = 20.0


@dataclass(frozen=True)
class Fractions:
    """`count` fractions of `gy` on weekdays from `start_day`, to the FLAIR outline and a margin of 20 mm."""

    count: int
    gy: float
    start_day: float


@dataclass(frozen=True)
class Plan:
    """What is asked: how far to look, and the treatment beside the untreated course (neither: untreated alone)."""

    horizon_days: int = HORIZON_DAYS
    radiotherapy: Fractions | None = None
    resection_day: float | None = None
    draws: int = DRAWS
    device: str = "cpu"


@dataclass(frozen=True)
class GliomaCase:
    """The fitted rates, a forecast for "untreated" and, with a plan, "planned", and the probability of less FLAIR abnormality
    at the horizon under the plan."""

    posterior: GliomaPosterior
    courses: Mapping[str, GliomaForecast]
    probability_smaller_if_treated: float | None

    @property
    def cautions(self) -> list[str]:
        """Those of every course, once each."""
        return sorted({text for one in self.courses.values() for text in one.cautions})


def earlier_visit(days_before: float, tumour: Volume) -> Visit:
    """A visit from its own label map, on any grid."""
    return Visit(-days_before, *outlined_volumes(tumour.voxels.astype("int16"), tumour.affine))


def simulate(
    tissue: Volume, tumour: Volume, earlier: Sequence[Visit], plan: Plan, progress: Progress | None = None
) -> GliomaCase:
    """Fits the rates to the visits and runs the courses; deterministic.

    Raises RefusedError: `twin.grids_differ`, and as `anatomy`, `outlines` and `glioma_fit.fit` do.
    """
    refuse_other_grid(tissue, tumour, "the tissue and the tumour map")
    found = anatomy(tissue.voxels.astype("int16"), tissue.affine)
    space, seen = outlines(tumour.voxels.astype("int16"), found)
    today = Visit(0.0, *(float(mask.sum()) * space.voxel_volume_mm3 for mask in (seen.t1gd, seen.flair)))
    posterior = fit(sorted([*earlier, today], key=lambda visit: visit.day))
    horizon = plan.horizon_days
    days = sorted({0.0, *(float(day) for day in range(_EVERY_DAYS, horizon, _EVERY_DAYS)), float(horizon)})
    courses = forecast(
        space,
        seen,
        posterior,
        days,
        _courses(space, seen, plan),
        draws=plan.draws,
        device=plan.device,
        progress=progress,
    )
    better = None
    if "planned" in courses:
        better = probability_smaller(courses["planned"], courses["untreated"], "flair")
    return GliomaCase(posterior, courses, better)


def _courses(space: Anatomy, seen: Outlines, plan: Plan) -> dict[str, Course]:
    if plan.radiotherapy is None and plan.resection_day is None:
        return {"untreated": Course()}
    therapy = surgery = None
    if plan.radiotherapy is not None:
        asked, data = plan.radiotherapy, table("glioma.yaml")["radiotherapy"]
        dose = np.where(with_margin(space, seen.flair, _MARGIN_MM), asked.gy, 0.0).astype(np.float32)
        days = weekday_fractions(asked.start_day, asked.count)
        therapy = Radiotherapy(days, dose, data["alpha_per_gy"], data["alpha_beta_gy"])
    if plan.resection_day is not None:
        surgery = Resection(float(plan.resection_day), seen.t1gd)
    return {"untreated": Course(), "planned": Course(surgery, therapy)}


def density_volume(found: GliomaForecast) -> Volume:
    """Mean density at the horizon."""
    return Volume(found.mean_density, found.affine_lps)
