"""Published risk scores for one snapshot: CKD-EPI 2021 and PREVENT, with refusals where inputs are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from osler.common.v1 import common_pb2
from osler.twin.v1 import twin_pb2

from services.clinical.provenance import timestamp
from services.clinical.refusals import to_refusal
from services.platform.errors import RefusedError
from services.twin import ckd_epi, prevent
from services.twin.provenance import Source, provenance
from services.twin.snapshot import Known

EGFR = "ckd_epi_2021_egfr"
_EGFR_UNIT = "mL/min/{1.73_m2}"
_STALE_DAYS = 365


def estimates(known: Mapping[str, Known], as_of: datetime, source: Source) -> list[twin_pb2.RiskEstimate]:
    """eGFR first, then the three PREVENT outcomes; each has a value or a refusal that names what is missing."""
    egfr = _egfr(known, as_of, source)
    with_egfr = dict(known)
    if egfr.HasField("value"):
        creatinine = known["creatinine_mg_dl"]
        with_egfr["egfr_ml_min"] = Known(
            "egfr_ml_min", egfr.value.value, _EGFR_UNIT, creatinine.observed_at, creatinine.entry_ids
        )
    elif "egfr_reported" in known:
        with_egfr["egfr_ml_min"] = replace(known["egfr_reported"], name="egfr_ml_min")
    return [egfr, *(_prevent(outcome, with_egfr, as_of, source) for outcome in prevent.OUTCOMES)]


def _used(known: Mapping[str, Known], names: Iterable[str]) -> list[Known]:
    return [known[name] for name in names if name in known]


def _inputs(used: Iterable[Known]) -> list[twin_pb2.InputUsed]:
    return [
        twin_pb2.InputUsed(
            name=item.name,
            value=item.value,
            unit=item.unit,
            observed_at=timestamp(item.observed_at) if item.observed_at else None,
            entry_ids=item.entry_ids,
        )
        for item in used
    ]


def _stale(used: Iterable[Known], as_of: datetime) -> list[str]:
    """A caution for each measured input that is older than a year."""
    return [
        f"{item.name} was observed {(as_of - item.observed_at).days} days before this estimate."
        for item in used
        if item.unit != "1"
        and item.name != "age_years"
        and item.observed_at
        and (as_of - item.observed_at).days > _STALE_DAYS
    ]


def _assumed_absent(used: Iterable[Known]) -> list[str]:
    """A caution for flags that are false only because the chart does not mention them."""
    names = [item.name for item in used if item.is_flag and not item.value and not item.entry_ids]
    return [f"Taken as absent because the chart does not mention it: {', '.join(names)}."] if names else []


def _egfr(known: Mapping[str, Known], as_of: datetime, source: Source) -> twin_pb2.RiskEstimate:
    data = ckd_epi.parameters()
    used = _used(known, ckd_epi.INPUTS)
    result = twin_pb2.RiskEstimate(
        name=EGFR,
        title="Estimated glomerular filtration rate (CKD-EPI 2021, creatinine)",
        inputs=_inputs(used),
        provenance=provenance(source, method=data["name"], citations=data["citations"], entry_ids=_entry_ids(used)),
    )
    try:
        if known.get("on_dialysis") and known["on_dialysis"].value:
            raise RefusedError(
                "ckd_epi.on_dialysis",
                "creatinine does not reflect filtration in a patient on dialysis",
                remedy="treat as kidney failure; use residual clearance where it matters",
            )
        egfr = ckd_epi.egfr({item.name: item.value for item in used})
    except RefusedError as refusal:
        result.refusal.CopyFrom(to_refusal(refusal))
        return result
    interval = common_pb2.Interval(lower=egfr.lower, upper=egfr.upper, level=egfr.level)
    result.value.CopyFrom(
        common_pb2.Quantity(value=egfr.value, unit=_EGFR_UNIT, uncertainty=common_pb2.Uncertainty(interval=interval))
    )
    result.cautions.append(
        "The interval speaks of measured GFR: in validation about 87 % of estimates lay within 30 %."
    )
    if known.get("pregnant") and known["pregnant"].value:
        result.cautions.append("Creatinine-based equations underestimate filtration in pregnancy.")
    result.cautions.extend(_stale(used, as_of))
    return result


def _entry_ids(used: Iterable[Known]) -> list[str]:
    return [entry_id for item in used for entry_id in item.entry_ids]


def _prevent(
    outcome: prevent.Outcome, known: Mapping[str, Known], as_of: datetime, source: Source
) -> twin_pb2.RiskEstimate:
    data = prevent.parameters()
    used = _used(known, prevent.INPUTS[outcome])
    result = twin_pb2.RiskEstimate(
        name=f"prevent_{outcome}_10y",
        title=data["titles"][outcome],
        inputs=_inputs(used),
        provenance=provenance(source, method=data["name"], citations=data["citations"], entry_ids=_entry_ids(used)),
    )
    values = {item.name: item.value for item in used}
    if "age_years" in values:
        # The equations, and their range of 30-79, are in completed years.
        values["age_years"] = float(math.floor(values["age_years"]))
    try:
        risk = prevent.risk(outcome, values)
    except RefusedError as refusal:
        result.refusal.CopyFrom(to_refusal(refusal))
        return result
    not_estimated = "PREVENT publishes no interval for one person; calibration was shown for groups."
    result.value.CopyFrom(
        common_pb2.Quantity(value=risk, unit="1", uncertainty=common_pb2.Uncertainty(not_estimated=not_estimated))
    )
    lower, higher = prevent.pressure_sensitivity(outcome, values)
    result.cautions.append(
        f"A systolic pressure 10 mmHg lower or higher would give {100 * lower:.1f} % or {100 * higher:.1f} %."
    )
    result.cautions.append("Meant for people without known cardiovascular disease.")
    result.cautions.extend(_assumed_absent(item for item in used if item.name != "sex_female"))
    result.cautions.extend(_stale(used, as_of))
    return result
