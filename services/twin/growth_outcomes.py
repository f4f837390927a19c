"""What a course means: response, progression and when, and what an image at some day would be worth.

Progression is the criterion of the quantity (for diameters RECIST 1.1: 20 % and 5 mm over the smallest size so far), put to
the underlying size on a weekly grid, so without error of measurement and without waiting for the next scan. New lesions
and deterioration count as progression in trials too; sizes alone do not tell them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.twin import growth
from services.twin.growth import Floats, Posterior, Quantity
from services.twin.growth_course import Phase
from services.twin.tables import table

Flags = NDArray[np.bool_]
STEP_DAYS = 7.0


@dataclass(frozen=True)
class Criteria:
    """When a size is a progression (`ratio` times the nadir and `increase` above it) or a response (`response_ratio`
    times the first size, or less)."""

    progression_ratio: float
    progression_increase: float
    response_ratio: float


def criteria_for(quantity: Quantity) -> Criteria:
    """The criteria of a quantity, from `growth.yaml`."""
    entry = table("growth.yaml")["quantities"][quantity]
    return Criteria(*(float(entry[name]) for name in Criteria.__dataclass_fields__))


@dataclass(frozen=True)
class Outlook:
    """Draws of what happens on the grid `days` after the last measurement; day numbers as in the posterior.

    `progression_day` (draws,): infinity where none until the last day; `response_day` likewise. `sizes` (draws, days).
    """

    days: Floats
    sizes: Floats
    progression_day: Floats
    response_day: Floats

    def progressed_by(self, day: float) -> float:
        """Probability in 0..1."""
        return float(np.mean(self.progression_day <= day))

    def responded_by(self, day: float) -> float:
        """Probability in 0..1 of a size that was, or will be, a response by `day`."""
        return float(np.mean(self.response_day <= day))


@dataclass(frozen=True)
class ImagingValue:
    """What a scan at `day` brings over waiting for the planned one at a later day.

    `shows_progression`: probability that it measures progression. `false_alarm`: that it does though there is none.
    `days_saved`: expected days of progression that would go unseen until the planned scan. `net_days`: those less the
    price of a scan in days. `spread_reduction`: share (0..1) by which the size at the planned day is expected to be known better.
    """

    day: float
    shows_progression: float
    false_alarm: float
    days_saved: float
    net_days: float
    spread_reduction: float


def outlook(posterior: Posterior, until_day: float, criteria: Criteria, phases: Sequence[Phase] = ()) -> Outlook:
    """What happens until `until_day`, at least a day after the last measurement."""
    return _outlook_on(posterior, _weekly(posterior, until_day), criteria, phases)


def _weekly(posterior: Posterior, until_day: float) -> Floats:
    last = posterior.days[-1]
    until = max(until_day, last + 1.0)
    return np.append(np.arange(last, until, STEP_DAYS), until)


def _outlook_on(posterior: Posterior, days: Floats, criteria: Criteria, phases: Sequence[Phase]) -> Outlook:
    visits = posterior.days[:-1]
    sizes = growth.trajectories(posterior, np.append(visits, days), phases)
    ahead = sizes[:, len(visits) :]
    nadir = np.minimum(np.minimum.accumulate(ahead, axis=1), posterior.values.min())
    progressed = meets(ahead, nadir, criteria)
    responded = sizes <= criteria.response_ratio * growth.first_size(posterior)[:, None]
    return Outlook(days, ahead, first_day(progressed, days), first_day(responded, np.append(visits, days)))


def measured_along(posterior: Posterior, ahead: Outlook, phases: Sequence[Phase] = ()) -> Floats:
    """What would be measured on the days of an outlook, draw by draw the courses of that outlook: (draws, days)."""
    visits = posterior.days[:-1]
    return growth.measurements(posterior, np.append(visits, ahead.days), phases)[:, len(visits) :]


def meets(sizes: Floats, nadir: Floats, criteria: Criteria) -> Flags:
    """Where a size is a progression over the smallest one so far; same shapes."""
    found: Flags = (sizes >= criteria.progression_ratio * nadir) & (sizes - nadir >= criteria.progression_increase)
    return found


def first_day(flags: Flags, days: Floats) -> Floats:
    """The day of the first true flag in each row (rows, days); infinity where there is none."""
    return np.where(flags.any(axis=1), days[flags.argmax(axis=1)], np.inf)


def value_of_imaging(
    posterior: Posterior,
    candidates: Sequence[float],
    planned_day: float,
    criteria: Criteria,
    scan_cost_days: float,
    phases: Sequence[Phase] = (),
) -> list[ImagingValue]:
    """The value of one scan at each candidate day before the planned one (expected value of sample information).

    The decision that a scan can change is to stop a treatment under which the tumour progresses: each day of progression
    that nobody sees is lost, and a scan costs `scan_cost_days`. Candidates after the last measurement and before the
    planned day are answered, in their order.
    """
    last = posterior.days[-1]
    days = [day for day in candidates if last < day < planned_day]
    grid = np.union1d(_weekly(posterior, planned_day), days)
    whole = _outlook_on(posterior, grid, criteria, phases)
    measured = measured_along(posterior, whole, phases)
    target = measured[:, -1]
    result = []
    for day in days:
        seen = measured[:, int(np.searchsorted(grid, day))]
        positive = meets(seen, np.full_like(seen, posterior.values.min()), criteria)
        truly = whole.progression_day <= day
        saved = float(np.mean((positive & truly) * (planned_day - day)))
        alarm = float(np.mean(positive & ~truly))
        shrink = _explained(seen, target)
        result.append(ImagingValue(day, float(np.mean(positive)), alarm, saved, saved - scan_cost_days, shrink))
    return result


def _explained(seen: Floats, target: Floats) -> float:
    """Expected fall of the SD of `target` once `seen` is known, as a share of its SD (binned regression on ranks)."""
    spread = float(target.std())
    if spread == 0:
        return 0.0
    bins = np.argsort(np.argsort(seen)) * 20 // len(seen)
    within = np.sqrt(np.mean([target[bins == index].var() for index in range(20)]))
    return float(max(1 - within / spread, 0.0))
