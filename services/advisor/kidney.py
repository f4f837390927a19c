"""Kidney function for contrast safety: CKD-EPI 2021, and acute kidney injury by creatinine.

Sources: Inker LA et al., N Engl J Med 2021;385:1737-1749; KDIGO 2012, section 2.1.1. Numbers in `kidney.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.advisor.tables import table


def egfr(creatinine_mg_dl: float, age_years: float, female: bool) -> float | None:
    """mL/min/1.73 m2; None outside what the equation is for (children, a creatinine of zero or less)."""
    data = table("kidney.yaml")["ckd_epi_2021"]
    if age_years < data["youngest"] or creatinine_mg_dl <= 0:
        return None
    sex = data["female" if female else "male"]
    ratio = creatinine_mg_dl / sex["kappa"]
    value = data["factor"] * min(ratio, 1.0) ** sex["alpha"] * max(ratio, 1.0) ** data["beta"]
    return float(value * data["age_base"] ** age_years * sex["factor"])


def acute_kidney_injury(creatinine: Sequence[tuple[datetime, float]], as_of: datetime) -> bool | None:
    """Whether the latest creatinine meets the KDIGO criteria against an earlier one.

    `creatinine`: (time, mg/dL) in any order. None when no two values within seven days, the later one recent, can tell.
    """
    limits = table("kidney.yaml")["acute_kidney_injury"]
    values = sorted(point for point in creatinine if point[0] <= as_of)
    if not values or as_of - values[-1][0] > timedelta(days=limits["recent_days"]):
        return None
    latest_at, latest = values[-1]
    window = timedelta(days=limits["ratio_within_days"])
    earlier = [(at, value) for at, value in values[:-1] if latest_at - at <= window]
    if not earlier:
        return None
    close = timedelta(hours=limits["rise_within_hours"])
    # Twelve digits: a rise of 0.3 from 1.1 to 1.4 must count although the floats differ by less.
    return any(
        latest >= limits["ratio"] * value
        or (latest_at - at <= close and round(latest - value, 12) >= limits["rise_mg_dl"])
        for at, value in earlier
    )
