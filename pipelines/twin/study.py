"""A simulation study: virtual patients whose truth is known, given to the twin as measurements.

Each virtual patient is drawn from the shipped population and measured at five visits with the model's own departure, error
and detection limit. Asked are: do the 90 % intervals hold the true rates, the true size at the last visit and the next
measurement nine times in ten; and is the better of two treatments named, where the truth is clear?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.twin import evaluate
from pipelines.twin.ffcd import Patient
from pipelines.twin.fit import Fitted
from services.twin import compare, growth, growth_course
from services.twin.growth_course import Phase, Rates
from services.twin.growth_population import Floats, Population, from_scale
from services.twin.simulate_population import draw_departures, draw_rates

VISITS = np.array([0.0, 56.0, 112.0, 168.0, 224.0])
NEXT_DAY = 280.0
HORIZON_DAY = 404.0
#: A regimen's true sizes differ by a fifth or more at the horizon: then the truth is clear.
CLEAR = 1.2
DISEASE = "colorectal_cancer_metastatic"


@dataclass(frozen=True)
class Virtual:
    """One virtual patient: the truth, and what was measured."""

    rates: Rates
    h0: float
    size: float
    next_measured: float
    measured: Floats


def run(patients: int, seed: int, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Coverage of 90 % intervals by quantity, and how often the clearly better treatment is named."""
    prior = growth.population("sum_longest_diameters", DISEASE)
    other = growth.population("sum_longest_diameters", DISEASE, "folfox6")
    rng = np.random.default_rng(seed)
    inside: dict[str, list[bool]] = {}
    named: list[bool] = []
    for number, virtual in enumerate(_virtual(prior, patients, rng)):
        posterior = growth.fit(VISITS, virtual.measured, prior, seed=seed)
        for name, hit in _held(posterior, virtual, rng).items():
            inside.setdefault(name, []).append(hit)
        decided = _named(posterior, virtual, other, rng)
        named += [] if decided is None else [decided]
        if (number + 1) % 100 == 0:
            progress(f"{number + 1} of {patients} virtual patients")
    return {
        "patients": patients,
        "seed": seed,
        "coverage_90": {name: round(float(np.mean(hits)), 4) for name, hits in inside.items()},
        "treatment": {
            "question": "go on, or switch to FOLFOX6 at the last visit: which leads to the smaller tumour in 180 days",
            "clear": len(named),
            "named_right": round(float(np.mean(named)), 4) if named else None,
        },
    }


def progression(patients: int, seed: int) -> dict[str, Any]:
    """How well progression can be foretold where the model is the truth: the figures of `evaluate.discrimination`.

    Virtual patients measured every eight weeks, nine times; a ceiling for what the same figures can be on real patients, and
    a check of the code that makes them.
    """
    prior = growth.population("sum_longest_diameters", DISEASE)
    days: Floats = np.arange(9, dtype=np.float64) * evaluate.SCAN_EVERY_DAYS
    rng = np.random.default_rng([seed, 5])
    _, measured = _measured(prior, patients, days, rng)
    fitted = Fitted(prior, {}, patients, patients * len(days), 0.0)
    cohort = [Patient(key, "", days, sizes, None, float(days[-1])) for key, sizes in enumerate(measured)]
    return evaluate.discrimination([risk for patient in cohort for risk in evaluate.landmark_risks(patient, fitted)])


def _virtual(prior: Population, count: int, rng: np.random.Generator) -> list[Virtual]:
    (rates, h0, sizes), measured = _measured(prior, count, np.append(VISITS, NEXT_DAY), rng)
    return [
        Virtual(_only(rates, i), float(h0[i]), float(sizes[i, -2]), float(measured[i, -1]), measured[i, :-1])
        for i in range(count)
    ]


def _measured(
    prior: Population, count: int, days: Floats, rng: np.random.Generator
) -> tuple[tuple[Rates, Floats, Floats], Floats]:
    """The truth (rates, first size on the Box-Cox scale, sizes), and what is measured at `days`: (patients, days)."""
    rates, width = draw_rates(prior, count, rng)
    h0 = prior.baseline_mean + prior.baseline_sd * rng.standard_normal(count)
    factor = growth_course.shape(rates, days)
    a = factor**prior.power
    scaled = a * h0[:, None] + (a - 1) / prior.power + draw_departures(prior, width, days, rng)
    error = prior.sigma * width[:, None] * rng.standard_normal(scaled.shape)
    sizes, measured = from_scale(prior, scaled), from_scale(prior, scaled + error)
    return (rates, h0, sizes), np.where(measured <= prior.detection_limit, 0.0, measured)


def _only(rates: Rates, index: int) -> Rates:
    return Rates(*(value[index : index + 1] for value in vars(rates).values()))


def _held(posterior: growth.Posterior, virtual: Virtual, rng: np.random.Generator) -> dict[str, bool]:
    last = growth.trajectories(posterior, VISITS[-1:])[:, 0]
    ahead = growth.measurements(posterior, [NEXT_DAY])[:, 0]
    return {
        "kill rate": _within(posterior.rates.kill, virtual.rates.kill[0]),
        "growth rate": _within(posterior.rates.grow, virtual.rates.grow[0]),
        "first size": _within(posterior.h0, virtual.h0),
        "size at the last visit": _within(last, virtual.size),
        "next measurement": _foreseen(ahead, virtual.next_measured, posterior.population.detection_limit, rng),
    }


def _foreseen(sample: Floats, measured: float, limit: float, rng: np.random.Generator) -> bool:
    """Whether the rank lies in the middle nine tenths; below the limit all are one value, so the rank is drawn.

    Czado C, Gneiting T, Held L. Biometrics 2009;65:1254-1261.
    """
    seen, value = np.maximum(sample, limit), max(measured, limit)
    rank = np.mean(seen < value) + rng.random() * np.mean(seen == value)
    return bool(0.05 <= rank <= 0.95)


def _within(draws: Floats, truth: float) -> bool:
    lower, upper = np.quantile(draws, [0.05, 0.95])
    return bool(lower <= truth <= upper)


def _named(posterior: growth.Posterior, virtual: Virtual, other: Population, rng: np.random.Generator) -> bool | None:
    """Whether the twin names the better treatment for this patient; None where the truth is not clear.

    The truth: the patient's own curve with the switch at the other regimen's typical rates, against going on.
    """
    stein = bool(virtual.rates.stein[0])
    typical = np.array([np.exp(other.ln_d_mean if stein else other.ln_kd_mean)])
    fade = np.array([np.exp(other.ln_lambda_mean)])
    at = VISITS[-1] + 1.0
    on, switched = (
        float(growth_course.shape(virtual.rates, [HORIZON_DAY], phases)[0, 0])
        for phases in ([], [Phase(at, 0.0, typical, fade)])
    )
    if 1 / CLEAR < switched / on < CLEAR:
        return None
    z = rng.standard_normal((2, growth.DRAWS))
    mean, sd = (
        np.where(posterior.rates.stein, first, second)
        for first, second in ((other.ln_d_mean, other.ln_kd_mean), (other.ln_d_sd, other.ln_kd_sd))
    )
    fades = np.exp(other.ln_lambda_mean + other.ln_lambda_sd * z[1])
    change = [Phase(at, 0.0, np.exp(mean + sd * z[0]), fades)]
    smaller = compare.probability_smaller(posterior, HORIZON_DAY, change, [])
    return (smaller > 0.5) == (switched < on)
