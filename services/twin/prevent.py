"""PREVENT 2023, base model: 10-year risk of cardiovascular disease, its atherosclerotic part, and heart failure.

Source: Khan SS et al., Circulation 2024;149:430-449, doi:10.1161/CIRCULATIONAHA.123.067626 (sex-specific, race-free;
ages 30-79 without known cardiovascular disease). Coefficients and ranges live in `prevent.yaml`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from services.platform.errors import RefusedError
from services.twin.tables import table

Outcome = Literal["cvd", "ascvd", "hf"]
OUTCOMES: tuple[Outcome, ...] = ("cvd", "ascvd", "hf")

_COMMON = (
    "age_years",
    "sex_female",
    "systolic_bp_mmhg",
    "diabetes",
    "current_smoker",
    "egfr_ml_min",
    "antihypertensive_treatment",
)
_LIPIDS = ("total_cholesterol_mg_dl", "hdl_mg_dl", "statin_treatment")
INPUTS: Mapping[Outcome, tuple[str, ...]] = {
    "cvd": (*_COMMON, *_LIPIDS),
    "ascvd": (*_COMMON, *_LIPIDS),
    "hf": (*_COMMON, "bmi"),
}
# Without these there is nothing to say about one person; for the others the plausible range still bounds the risk.
_INDISPENSABLE = frozenset({"age_years", "sex_female"})
_MAX_MISSING_FOR_BOUNDS = 4


def parameters() -> Mapping[str, Any]:
    """The data file: name, citations, titles, ranges, knots, coefficients."""
    return table("prevent.yaml")


def _terms(values: Mapping[str, float]) -> dict[str, float]:
    """Centred and scaled terms of the equations (supplemental methods of the paper); lipids in mg/dL."""
    sbp, egfr = values["systolic_bp_mmhg"], values["egfr_ml_min"]
    terms = {
        "constant": 1.0,
        "age": (values["age_years"] - 55) / 10,
        "sbp_below_110": (min(sbp, 110) - 110) / 20,
        "sbp_above_110": (max(sbp, 110) - 130) / 20,
        "diabetes": values["diabetes"],
        "smoker": values["current_smoker"],
        "egfr_below_60": (min(egfr, 60) - 60) / -15,
        "egfr_above_60": (max(egfr, 60) - 90) / -15,
        "treated": values["antihypertensive_treatment"],
    }
    if "total_cholesterol_mg_dl" in values:
        total, hdl = values["total_cholesterol_mg_dl"], values["hdl_mg_dl"]
        terms |= {
            "non_hdl": 0.02586 * (total - hdl) - 3.5,
            "hdl": (0.02586 * hdl - 1.3) / 0.3,
            "statin": values["statin_treatment"],
        }
    if "bmi" in values:
        terms |= {
            "bmi_below_30": (min(values["bmi"], 30) - 25) / 5,
            "bmi_above_30": (max(values["bmi"], 30) - 30) / 5,
        }
    return terms


def _evaluate(outcome: Outcome, values: Mapping[str, float]) -> float:
    coefficients = parameters()["coefficients"][outcome]["female" if values["sex_female"] else "male"]
    terms = _terms({name: values[name] for name in INPUTS[outcome]})
    x = sum(weight * math.prod(terms[part] for part in name.split(" * ")) for name, weight in coefficients.items())
    return 1.0 / (1.0 + math.exp(-x))


def risk(outcome: Outcome, values: Mapping[str, float]) -> float:
    """10-year risk, 0..1.

    `values`: the names in `INPUTS[outcome]`; mg/dL, mmHg, mL/min/1.73 m2, kg/m2, years; flags as 0 or 1.
    Raises RefusedError `prevent.missing_input` naming what is absent (and, where few inputs are, the range the risk
    could have), or `prevent.out_of_range` naming the input that lies outside the published derivation range.
    """
    missing = [name for name in INPUTS[outcome] if name not in values]
    _refuse_out_of_range(outcome, values)
    if missing:
        raise _missing(outcome, values, missing)
    return _evaluate(outcome, values)


def _refuse_out_of_range(outcome: Outcome, values: Mapping[str, float]) -> None:
    for name, limits in parameters()["ranges"].items():
        if name not in INPUTS[outcome] or name not in values:
            continue
        if not limits["lower"] <= values[name] <= limits["upper"]:
            raise RefusedError(
                "prevent.out_of_range",
                f"{name} lies outside the {limits['lower']}-{limits['upper']} {limits['unit']} "
                "that the PREVENT equations were derived in",
                missing=[name],
                remedy="check the value and its unit; where it is right, PREVENT does not apply to this patient",
            )


def _missing(outcome: Outcome, values: Mapping[str, float], missing: Sequence[str]) -> RefusedError:
    bounds = plausible_bounds(outcome, values)
    message = f"PREVENT {outcome.upper()} needs {', '.join(missing)}"
    if bounds is not None:
        message += (
            f"; over the plausible values of what is missing the 10-year risk lies between "
            f"{100 * bounds[0]:.1f} % and {100 * bounds[1]:.1f} %"
        )
    return RefusedError("prevent.missing_input", message, missing=missing, remedy="measure or record the named inputs")


def plausible_bounds(outcome: Outcome, values: Mapping[str, float]) -> tuple[float, float] | None:
    """Lowest and highest risk over the derivation range of the missing inputs, flags both ways.

    None when age or sex is missing, or more inputs than would leave a useful answer.
    """
    missing = [name for name in INPUTS[outcome] if name not in values]
    if _INDISPENSABLE & set(missing) or len(missing) > _MAX_MISSING_FOR_BOUNDS:
        return None
    ranges, knots = parameters()["ranges"], parameters()["knots"]
    choices = [
        [ranges[name]["lower"], *knots.get(name, []), ranges[name]["upper"]] if name in ranges else [0.0, 1.0]
        for name in missing
    ]
    risks = [
        _evaluate(outcome, {**values, **dict(zip(missing, choice, strict=True))})
        for choice in itertools.product(*choices)
    ]
    return min(risks), max(risks)


def pressure_sensitivity(outcome: Outcome, values: Mapping[str, float], step_mmhg: float = 10.0) -> tuple[float, float]:
    """Risk with a systolic pressure `step_mmhg` lower and higher, kept inside the derivation range.

    Shows how far one everyday change of the reading moves the estimate; it is no confidence interval.
    """
    limits = parameters()["ranges"]["systolic_bp_mmhg"]
    pressure = values["systolic_bp_mmhg"]
    lower, higher = max(limits["lower"], pressure - step_mmhg), min(limits["upper"], pressure + step_mmhg)
    return (
        _evaluate(outcome, {**values, "systolic_bp_mmhg": lower}),
        _evaluate(outcome, {**values, "systolic_bp_mmhg": higher}),
    )
