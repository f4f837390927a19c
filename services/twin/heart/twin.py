"""A patient's circulation: fitted to what was measured, with its uncertainty, and asked "what if".

The free parameters have log-normal priors around the reference adult; the estimate is the maximum of the posterior, its
uncertainty the Laplace approximation there, and intervals of figures follow from it by the delta method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import norm

from services.platform.errors import RefusedError
from services.twin.heart.circulation import Beat, Floats, solve
from services.twin.heart.haemodynamics import Haemodynamics, summarise
from services.twin.heart.parameters import (
    Circulation,
    Intervention,
    changed,
    reference,
    scaled_resistance,
)
from services.twin.tables import table

LEVEL = 0.90
_STEP = 0.01
# A figure this many standard deviations of its measurement away is not what was measured.
_MISFIT = 2.0
_NEEDED = ("systolic_bp_mmhg", "diastolic_bp_mmhg")
_VOLUMES = ("ejection_fraction", "lv_end_diastolic_ml", "lv_end_systolic_ml", "cardiac_output_l_min")


@dataclass(frozen=True)
class Figure:
    """A figure of the twin with its interval of probability `LEVEL`."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Parameter:
    """A fitted parameter as a multiple of the reference adult's; `informed`: share of the prior's variance that went."""

    name: str
    factor: float
    lower: float
    upper: float
    informed: float


@dataclass(frozen=True)
class HeartTwin:
    """`ln_factors` and `covariance` of the free parameters (order of `free_parameters`), and the beat at them."""

    heart_rate_per_min: float
    measured: Mapping[str, float]
    ln_factors: Floats
    covariance: Floats
    circulation: Circulation
    beat: Beat
    cautions: tuple[str, ...]

    def parameters(self) -> tuple[Parameter, ...]:
        """The fitted parameters with their intervals."""
        wide = norm.ppf(0.5 + LEVEL / 2) * np.sqrt(np.diag(self.covariance))
        spreads = [entry["sd"] for entry in _free().values()]
        return tuple(
            Parameter(
                name,
                math.exp(mean),
                math.exp(mean - half),
                math.exp(mean + half),
                float(1.0 - variance / spread**2),
            )
            for name, mean, half, variance, spread in zip(
                _free(), self.ln_factors, wide, np.diag(self.covariance), spreads, strict=True
            )
        )


@dataclass(frozen=True)
class Comparison:
    """Figures before and under an intervention, and their difference, each with its interval; `beat` is the one under it."""

    before: Mapping[str, Figure]
    after: Mapping[str, Figure]
    difference: Mapping[str, Figure]
    beat: Beat


@cache
def _free() -> Mapping[str, Mapping[str, float]]:
    free: Mapping[str, Mapping[str, float]] = table("heart/parameters.yaml")["fit"]["free"]
    return free


def free_parameters() -> tuple[str, ...]:
    """Names of the parameters that a fit may change."""
    return tuple(_free())


def fit(heart_rate_per_min: float, measured: Mapping[str, float], known: Intervention | None = None) -> HeartTwin:
    """The twin of one patient.

    `measured`: figures of `Haemodynamics` that parameters.yaml lists as targets: both blood pressures and at least one of
    ejection fraction (0..1), end-diastolic, end-systolic volume (mL) and cardiac output (L/min) are needed; pulmonary,
    wedge and central venous pressure help. `known`: what is known of the patient's own valves; its other fields stay 1.
    Raises RefusedError `heart.missing_input`, `heart.unknown_input`, `heart.not_finite`, `heart.out_of_range`,
    `heart.contradictory`, `heart.no_periodic_beat`.
    """
    targets = _checked(heart_rate_per_min, measured)
    start = changed(replace(reference(), heart_rate_per_min=heart_rate_per_min), known or Intervention())
    spreads = np.array([entry["sd"] for entry in _free().values()])
    errors = np.array([table("heart/parameters.yaml")["fit"]["targets"][name]["sd"] for name in targets])
    wanted = np.array(list(targets.values()))
    state = solve(start).states[0]

    def residuals(ln_factors: Floats) -> Floats:
        nonlocal state
        circulation = vary(start, ln_factors)
        beat = solve(circulation, state)
        state = beat.states[0]
        found = summarise(circulation, beat).as_dict()
        misfit = (np.array([found[name] for name in targets]) - wanted) / errors
        return np.concatenate([misfit, ln_factors / spreads])

    zero = np.zeros(len(spreads))
    result = least_squares(residuals, zero, bounds=(-2.5, 2.5), diff_step=_STEP, x_scale=spreads, xtol=1e-5, ftol=1e-6)
    circulation = vary(start, result.x)
    misfits = dict(zip(targets, residuals(result.x)[: len(targets)], strict=True))
    return HeartTwin(
        heart_rate_per_min=heart_rate_per_min,
        measured=targets,
        ln_factors=result.x,
        covariance=np.linalg.inv(result.jac.T @ result.jac),
        circulation=circulation,
        beat=solve(circulation, state),
        cautions=_cautions(misfits, targets),
    )


def vary(start: Circulation, ln_factors: Floats) -> Circulation:
    """`start` with the free parameters multiplied by exp(`ln_factors`), in the order of `free_parameters`."""
    factor = dict(zip(_free(), np.exp(ln_factors).tolist(), strict=True))
    ventricle = start.chambers["left_ventricle"]
    ventricle = replace(
        ventricle, active=ventricle.active * factor["contractility"], passive=ventricle.passive * factor["stiffness"]
    )
    systemic = scaled_resistance(start.systemic, factor["systemic_resistance"])
    systemic = replace(systemic, arterial_compliance=systemic.arterial_compliance * factor["arterial_compliance"])
    return replace(
        start,
        blood_volume_ml=start.blood_volume_ml * factor["blood_volume"],
        chambers={**start.chambers, "left_ventricle": ventricle},
        systemic=systemic,
        pulmonary=scaled_resistance(start.pulmonary, factor["pulmonary_resistance"]),
    )


def _checked(heart_rate_per_min: float, measured: Mapping[str, float]) -> dict[str, float]:
    data = table("heart/parameters.yaml")["fit"]
    known = data["targets"]
    unknown = sorted(set(measured) - set(known))
    if unknown:
        raise RefusedError(
            "heart.unknown_input", f"not a target of the fit: {', '.join(unknown)}", remedy=f"one of {', '.join(known)}"
        )
    missing = [name for name in _NEEDED if name not in measured]
    if not any(name in measured for name in _VOLUMES):
        missing.append(" or ".join(_VOLUMES))
    if missing:
        raise RefusedError(
            "heart.missing_input",
            f"the heart twin needs {', '.join(missing)}",
            missing=missing,
            remedy="measure the blood pressure and an echo or MR volume",
        )
    for name, value, limits in [
        ("heart_rate_per_min", heart_rate_per_min, data["heart_rate"]),
        *((name, value, known[name]) for name, value in measured.items()),
    ]:
        if not math.isfinite(value):
            raise RefusedError("heart.not_finite", f"{name} is not a finite number", missing=[name])
        if not limits["lower"] <= value <= limits["upper"]:
            raise RefusedError(
                "heart.out_of_range",
                f"{name} lies outside {limits['lower']}-{limits['upper']}",
                missing=[name],
                remedy="check the value and its unit; the ejection fraction is a fraction, not per cent",
            )
    _refuse_contradictions(heart_rate_per_min, measured)
    return {name: float(measured[name]) for name in known if name in measured}


def _refuse_contradictions(heart_rate_per_min: float, measured: Mapping[str, float]) -> None:
    if measured["diastolic_bp_mmhg"] >= measured["systolic_bp_mmhg"]:
        raise _contradiction("the diastolic pressure is not below the systolic one", _NEEDED)
    volumes = ("lv_end_systolic_ml", "lv_end_diastolic_ml")
    if all(name in measured for name in volumes):
        end_systole, end_diastole = (measured[name] for name in volumes)
        if end_systole >= end_diastole:
            raise _contradiction("the end-systolic volume is not below the end-diastolic one", volumes)
        stroke = end_diastole - end_systole
        if abs(stroke / end_diastole - measured.get("ejection_fraction", stroke / end_diastole)) > 0.10:
            raise _contradiction(
                "ejection fraction and volumes differ by more than ten points", (*volumes, _VOLUMES[0])
            )
        output = measured.get("cardiac_output_l_min", 0.0)
        if output * 1000.0 / heart_rate_per_min > 1.25 * stroke:
            raise _contradiction("the cardiac output exceeds stroke volume times heart rate", (*volumes, _VOLUMES[3]))


def _contradiction(message: str, names: tuple[str, ...]) -> RefusedError:
    return RefusedError(
        "heart.contradictory", message, missing=names, remedy="check the measurements and that they are of one time"
    )


def _cautions(misfits: Mapping[str, float], targets: Mapping[str, float]) -> tuple[str, ...]:
    found = [
        f"{name} is not reproduced within {_MISFIT:g} standard deviations of its measurement."
        for name, misfit in misfits.items()
        if abs(misfit) > _MISFIT
    ]
    if "wedge_pressure_mmhg" not in targets:
        found.append("No filling pressure was measured: stiffness and blood volume rest largely on the population.")
    found.append("A lumped model: it shows directions and sizes of acute changes, no reflexes and no remodelling.")
    return tuple(found)


def compare(twin: HeartTwin, intervention: Intervention) -> Comparison:
    """The acute effect of an intervention on the fitted circulation.

    Raises RefusedError `heart.impossible_intervention`, `heart.no_periodic_beat`.
    """
    after, beat = _figures(changed(twin.circulation, intervention), twin.beat.states[0])
    before = np.array(list(summarise(twin.circulation, twin.beat).as_dict().values()))
    slopes_before, slopes_after = [], []
    for index in range(len(twin.ln_factors)):
        nudge = np.zeros(len(twin.ln_factors))
        nudge[index] = _STEP
        nudged = vary(twin.circulation, nudge)
        moved, nudged_beat = _figures(nudged, twin.beat.states[0])
        slopes_before.append((moved - before) / _STEP)
        slopes_after.append((_figures(changed(nudged, intervention), nudged_beat.states[0])[0] - after) / _STEP)
    names = list(Haemodynamics.__dataclass_fields__)
    left, right = np.array(slopes_before).T, np.array(slopes_after).T
    return Comparison(
        before=_intervals(names, before, left, twin.covariance),
        after=_intervals(names, after, right, twin.covariance),
        difference=_intervals(names, after - before, right - left, twin.covariance),
        beat=beat,
    )


def _figures(circulation: Circulation, start: Floats) -> tuple[Floats, Beat]:
    beat = solve(circulation, start)
    return np.array(list(summarise(circulation, beat).as_dict().values())), beat


def _intervals(names: list[str], values: Floats, slopes: Floats, covariance: Floats) -> dict[str, Figure]:
    half = norm.ppf(0.5 + LEVEL / 2) * np.sqrt(np.einsum("fi,ij,fj->f", slopes, covariance, slopes))
    return {
        name: Figure(float(value), float(value - wide), float(value + wide))
        for name, value, wide in zip(names, values, half, strict=True)
    }
