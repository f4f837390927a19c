"""CKD-EPI 2021: glomerular filtration rate from serum creatinine, age and sex.

Source: Inker LA et al., N Engl J Med 2021;385:1737-1749, doi:10.1056/NEJMoa2102953. Coefficients in `ckd_epi.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.platform.errors import RefusedError
from services.twin.tables import table

INPUTS = ("creatinine_mg_dl", "age_years", "sex_female")


@dataclass(frozen=True)
class Egfr:
    """mL/min/1.73 m2, with the interval that holds the measured GFR with probability `level`."""

    value: float
    lower: float
    upper: float
    level: float


def parameters() -> Mapping[str, Any]:
    """The data file: name, citations, coefficients, ranges, accuracy."""
    return table("ckd_epi.yaml")


def egfr(values: Mapping[str, float]) -> Egfr:
    """Estimated GFR from `creatinine_mg_dl` (mg/dL, IDMS-traceable), `age_years`, `sex_female` (0 or 1).

    The interval is the published accuracy (P30), turned round: it speaks of the measured GFR, not of another estimate.
    Raises RefusedError `ckd_epi.missing_input` or `ckd_epi.out_of_range`.
    """
    data = parameters()
    missing = [name for name in INPUTS if name not in values]
    if missing:
        raise RefusedError(
            "ckd_epi.missing_input",
            f"CKD-EPI 2021 needs {', '.join(missing)}",
            missing=missing,
            remedy="measure or record the named inputs",
        )
    for name, limits in data["ranges"].items():
        if not limits["lower"] <= values[name] <= limits["upper"]:
            raise RefusedError(
                "ckd_epi.out_of_range",
                f"{name} lies outside {limits['lower']}-{limits['upper']} {limits['unit']}",
                missing=[name],
                remedy="check the value and its unit; CKD-EPI 2021 is for adults",
            )
    sex = data["female" if values["sex_female"] else "male"]
    ratio = values["creatinine_mg_dl"] / sex["kappa"]
    value = (
        data["factor"]
        * min(ratio, 1.0) ** sex["alpha"]
        * max(ratio, 1.0) ** data["beta"]
        * data["age_base"] ** values["age_years"]
        * sex["sex_factor"]
    )
    error = data["p30"]["relative_error"]
    return Egfr(value, value / (1 + error), value / (1 - error), data["p30"]["level"])
