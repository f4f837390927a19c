"""What drove a tumour's forecast, and what would change it: the forecast made again with one thing otherwise.

The figure told is the probability of progression by the forecast's last day. A measurement is left out and the twin fitted
again; treatment is stopped at the last measurement; the next measurement is taken to fall into the lowest or the highest
fifth of where it is expected, which picks those draws of the same posterior that would have shown it (no new fit).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from services.platform.errors import RefusedError
from services.twin import growth, growth_outcomes
from services.twin.growth import Posterior
from services.twin.growth_course import Phase
from services.twin.growth_outcomes import Criteria, Outlook

_MOST_MEASUREMENTS = 6
_FIFTH = 0.2


class Kind(Enum):
    """What is otherwise."""

    MEASUREMENT = "measurement left out"
    TREATMENT = "treatment stopped"
    LOW_NEXT = "next measurement low"
    HIGH_NEXT = "next measurement high"


@dataclass(frozen=True)
class Driver:
    """`probability` of progression by the last day in that case; `drive`: the forecast's probability minus it.

    `day` of the measurement, the stop or the next measurement, as the posterior's days count; `value` in the population's
    unit: what was measured, or the limit of the fifth; None for a treatment.
    """

    kind: Kind
    day: float
    value: float | None
    probability: float
    drive: float


def drivers(posterior: Posterior, ahead: Outlook, criteria: Criteria, next_day: float) -> list[Driver]:
    """Measurements (the last six, the strongest first), then the treatment, then a low and a high next measurement.

    `ahead` is the outlook of the same posterior; `next_day` lies after the last measurement, the nearest day of the outlook
    is taken. A single measurement is not
    left out, and neither is one without which the others cannot be fitted. Takes a fit for each measurement.
    """
    until = float(ahead.days[-1])
    known = ahead.progressed_by(until)
    found = [_without(posterior, place, until, criteria, known) for place in _places(posterior)]
    told = sorted((one for one in found if one is not None), key=lambda one: -abs(one.drive))
    last = float(posterior.days[-1])
    stopped = growth_outcomes.outlook(posterior, until, criteria, [Phase(last, 0.0)]).progressed_by(until)
    told.append(Driver(Kind.TREATMENT, last, None, stopped, known - stopped))
    return told + _next(posterior, ahead, next_day, known)


def _places(posterior: Posterior) -> range:
    count = len(posterior.days)
    return range(max(count - _MOST_MEASUREMENTS, 0), count) if count > 1 else range(0)


def _without(posterior: Posterior, place: int, until: float, criteria: Criteria, known: float) -> Driver | None:
    days, values = np.delete(posterior.days, place), np.delete(posterior.values, place)
    try:
        other = growth.fit(days, values, posterior.population, seed=posterior.seed)
    except RefusedError:
        return None
    end = until - float(days[0])
    probability = growth_outcomes.outlook(other, end, criteria).progressed_by(end)
    day, value = float(posterior.days[place]), float(posterior.values[place])
    return Driver(Kind.MEASUREMENT, day, value, probability, known - probability)


def _next(posterior: Posterior, ahead: Outlook, next_day: float, known: float) -> list[Driver]:
    place = int(np.argmin(np.abs(ahead.days - next_day)))
    seen = growth_outcomes.measured_along(posterior, ahead)[:, place]
    progressed = np.isfinite(ahead.progression_day)
    found = []
    for kind, level in ((Kind.LOW_NEXT, _FIFTH), (Kind.HIGH_NEXT, 1 - _FIFTH)):
        limit = float(np.quantile(seen, level))
        chosen = seen <= limit if kind is Kind.LOW_NEXT else seen >= limit
        probability = float(np.mean(progressed[chosen]))
        found.append(Driver(kind, float(ahead.days[place]), limit, probability, known - probability))
    return found
