"""Five-fold evaluation of the tumour twin on FFCD 2000-05: every later size predicted from the earlier ones.

Each fold's population is fitted to the other folds' patients; predictions are the ones that the room gives
(services/twin/growth.py). Sizes at or below the detection limit count as the limit, in measurements and in all
predictions alike. Folds are drawn by patient with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.twin import baselines, scores
from pipelines.twin.ffcd import Patient
from pipelines.twin.fit import Fitted, fit
from services.twin import growth, growth_outcomes
from services.twin.growth_outcomes import criteria_for

FOLDS = 5
HORIZON_DAYS = 180.0
#: The event is what scans measure, so what is predicted is that scans at the usual interval would measure it.
SCAN_EVERY_DAYS = 56.0
_SPREAD = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Case:
    """One size predicted from those before it. `crps` by method, in mm; `limits` 5, 25, 50, 75, 95 % of the twin's."""

    patient: int
    regimen: str
    visit: int
    ahead_days: float
    size_mm: float
    crps: dict[str, float]
    limits: tuple[float, ...]
    rank: float
    next_visit: NextVisit


@dataclass(frozen=True)
class NextVisit:
    """Predicted probability that the next size is a progression over the nadir (a response), and whether it was.

    `before`: whether the size had progressed already.
    """

    before: bool
    progression: float
    progressed: bool
    response: float
    responded: bool


@dataclass(frozen=True)
class Risk:
    """A patient at a visit: predicted probability that scans measure progression within half a year, and what came."""

    patient: int
    visit: int
    probability: float
    days: float
    progressed: bool


def folds(patients: Sequence[Patient], seed: int) -> list[list[Patient]]:
    """Patients in five parts, by a shuffled order."""
    order = np.random.default_rng(seed).permutation(len(patients))
    return [[patients[i] for i in sorted(order[part::FOLDS])] for part in range(FOLDS)]


def run(
    patients: Sequence[Patient], seed: int = 1, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """The report: coverage, CRPS against each baseline, by visit, horizon and regimen, C-index; with intervals."""
    cases: list[Case] = []
    risks: list[Risk] = []
    parts = folds(patients, seed)
    for number, held_out in enumerate(parts):
        training = [patient for part in parts if part is not held_out for patient in part]
        progress(f"fold {number + 1} of {FOLDS}: fitting the population to {len(training)} patients")
        fitted = fit(training)
        rivals = baselines.carried_forward(training) | baselines.mixed_models(training)
        progress(f"fold {number + 1} of {FOLDS}: predicting {len(held_out)} patients")
        for patient in held_out:
            cases += _cases(patient, fitted, rivals)
            risks += landmark_risks(patient, fitted)
    return {
        **summary(cases),
        "progression": discrimination(risks, cases),
        "response": at_next_visit(cases, "response", "responded"),
        "seed": seed,
        "patients": len(patients),
    }


def _cases(patient: Patient, fitted: Fitted, rivals: dict[str, baselines.Predictor]) -> list[Case]:
    population = fitted.of(patient.regimen)
    limit = population.detection_limit
    found = []
    for visit in range(1, len(patient.days)):
        days, sizes = patient.days[:visit], patient.sizes_mm[:visit]
        day, size = float(patient.days[visit]), max(float(patient.sizes_mm[visit]), limit)
        ours = growth.measurements(growth.fit(days, sizes, population), [day])[:, 0]
        samples = {"twin": ours} | {n: rival(patient.regimen, days, sizes, day) for n, rival in rivals.items()}
        samples = {name: np.maximum(sample, limit) for name, sample in samples.items()}
        own = samples["twin"]
        found.append(
            Case(
                patient.key,
                patient.regimen,
                visit,
                day - float(days[-1]),
                size,
                {name: scores.crps(sample, size) for name, sample in samples.items()},
                tuple(float(value) for value in np.quantile(own, _SPREAD)),
                float(np.mean(own < size) + 0.5 * np.mean(own == size)),
                _next_visit(np.maximum(sizes, limit), own, size),
            )
        )
    return found


def _next_visit(sizes: scores.Floats, sample: scores.Floats, size: float) -> NextVisit:
    criteria = criteria_for("sum_longest_diameters")

    def progression(value: scores.Floats) -> scores.Floats:
        nadir = np.full_like(value, sizes.min())
        return growth_outcomes.meets(value, nadir, criteria).astype(np.float64)

    before = bool(growth_outcomes.meets(sizes, np.minimum.accumulate(sizes), criteria).any())
    response = criteria.response_ratio * float(sizes[0])
    return NextVisit(
        before,
        float(progression(sample).mean()),
        bool(progression(np.array([size]))[0]),
        float(np.mean(sample <= response)),
        size <= response,
    )


def landmark_risks(patient: Patient, fitted: Fitted) -> list[Risk]:
    """At each visit from the second on, as long as the size has not progressed and is followed further."""
    criteria = criteria_for("sum_longest_diameters")
    event = _progression_day(patient.days, patient.sizes_mm, criteria)
    found = []
    for visit in range(1, len(patient.days) - 1):
        landmark = float(patient.days[visit])
        if event is not None and event <= landmark:
            break
        posterior = growth.fit(patient.days[: visit + 1], patient.sizes_mm[: visit + 1], fitted.of(patient.regimen))
        end = float(patient.days[-1]) if event is None else event
        found.append(Risk(patient.key, visit, measured_progression(posterior), end - landmark, event is not None))
    return found


def measured_progression(posterior: growth.Posterior) -> float:
    """Probability that a scan every eight weeks, or the one at the end of the half year, measures progression."""
    criteria, last = criteria_for("sum_longest_diameters"), float(posterior.days[-1])
    scans = np.append(np.arange(last + SCAN_EVERY_DAYS, last + HORIZON_DAYS, SCAN_EVERY_DAYS), last + HORIZON_DAYS)
    measured = growth.measurements(posterior, scans)
    nadir = np.minimum(np.minimum.accumulate(measured, axis=1), posterior.values.min())
    return float(growth_outcomes.meets(measured, nadir, criteria).any(axis=1).mean())


def _progression_day(days: scores.Floats, sizes: scores.Floats, criteria: growth_outcomes.Criteria) -> float | None:
    """The first visit whose measured size meets the criteria."""
    hits = growth_outcomes.meets(sizes, np.minimum.accumulate(sizes), criteria)
    return float(days[hits][0]) if hits.any() else None


def _covered(cases: Sequence[Case], low: int, high: int) -> float:
    return float(np.mean([case.limits[low] <= case.size_mm <= case.limits[high] for case in cases]))


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """Coverage, calibration and CRPS of the cases."""
    groups = [case.patient for case in cases]
    ours = np.array([case.crps["twin"] for case in cases])
    methods = {}
    for name in cases[0].crps:
        theirs = np.array([case.crps[name] for case in cases])
        entry: dict[str, Any] = {"crps_mm": round(float(theirs.mean()), 3)}
        if name != "twin":
            better = scores.mean_ratio_interval(ours, theirs, groups)
            entry["twin_lower_by"], entry["interval_95"] = round(better[0], 4), [round(x, 4) for x in better[1:]]
        methods[name] = entry
    return {
        "predictions": len(cases),
        "coverage_90": round(_covered(cases, 0, 4), 4),
        "coverage_50": round(_covered(cases, 1, 3), 4),
        "methods": methods,
        "rank_histogram": np.histogram([case.rank for case in cases], bins=10, range=(0, 1))[0].tolist(),
        "subgroups": {name: _group(part) for name, part in _subgroups(cases).items() if part},
    }


def _subgroups(cases: Sequence[Case]) -> dict[str, list[Case]]:
    return {
        "from one measurement": [case for case in cases if case.visit == 1],
        "from two or three": [case for case in cases if case.visit in (2, 3)],
        "from four or more": [case for case in cases if case.visit > 3],
        "within 60 days": [case for case in cases if case.ahead_days <= 60],
        "60 to 90 days ahead": [case for case in cases if 60 < case.ahead_days <= 90],
        "more than 90 days ahead": [case for case in cases if case.ahead_days > 90],
        "LV5FU2 first": [case for case in cases if case.regimen == "lv5fu2"],
        "FOLFOX6 first": [case for case in cases if case.regimen == "folfox6"],
    }


def _group(cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "predictions": len(cases),
        "coverage_90": round(_covered(cases, 0, 4), 4),
        "crps_mm": round(float(np.mean([case.crps["twin"] for case in cases])), 3),
        "median_error_mm": round(float(np.median([abs(case.limits[2] - case.size_mm) for case in cases])), 3),
    }


def discrimination(risks: Sequence[Risk], cases: Sequence[Case] = ()) -> dict[str, Any]:
    """Harrell's C of the probability of progression within half a year against the time to it, from two landmarks; and of the
    probability that the next size is a progression, against whether it was (the area under the ROC curve).

    Event: the measured sum of diameters is 20 % and 5 mm over its nadir; the last size ends the follow-up. New lesions and
    death, which sizes do not tell, are not counted.
    """
    found: dict[str, Any] = {
        "definition": "sum of diameters 20 % and 5 mm over the nadir, from the landmark on; 95 % intervals by patient",
        "every visit": _discrimination(risks),
        "second visit only": _discrimination([item for item in risks if item.visit == 1]),
    }
    if cases:
        chosen = {
            "all": cases,
            "not progressed before": [case for case in cases if not case.next_visit.before],
            "not progressed before, two sizes or more": [
                case for case in cases if not case.next_visit.before and case.visit > 1
            ],
        }
        found["at the next visit"] = {
            name: at_next_visit(part, "progression", "progressed") for name, part in chosen.items()
        }
    return found


def at_next_visit(part: Sequence[Case], predicted: str, came: str) -> dict[str, Any]:
    """Area under the ROC curve of a probability at the next visit, with its 95 % interval by patient, and both means."""
    risk = np.array([getattr(case.next_visit, predicted) for case in part])
    event = np.array([getattr(case.next_visit, came) for case in part], dtype=bool)
    value, lower, upper = scores.concordance_interval(
        risk, np.where(event, 1.0, 2.0), event, [case.patient for case in part]
    )
    return {
        "predictions": len(part),
        "events": int(event.sum()),
        "c_index": round(value, 4),
        "interval_95": [round(lower, 4), round(upper, 4)],
        "mean_predicted": round(float(risk.mean()), 4),
        "observed": round(float(event.mean()), 4),
    }


def _discrimination(risks: Sequence[Risk]) -> dict[str, Any]:
    risk = np.array([item.probability for item in risks])
    days, event = np.array([item.days for item in risks]), np.array([item.progressed for item in risks])
    value, lower, upper = scores.concordance_interval(risk, days, event, [item.patient for item in risks])
    known = (days >= HORIZON_DAYS) | event
    return {
        "landmarks": len(risks),
        "patients": len({item.patient for item in risks}),
        "events": int(event.sum()),
        "c_index": round(value, 4),
        "interval_95": [round(lower, 4), round(upper, 4)],
        "mean_predicted_180_days": round(float(risk[known].mean()), 4),
        "observed_180_days": round(float((event & (days <= HORIZON_DAYS))[known].mean()), 4),
    }
