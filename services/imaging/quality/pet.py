"""Checks of PET: units and corrections, time after injection, and uptake that cannot be."""

from __future__ import annotations

from services.clinical.dicom.series import acquired_at, dicom_datetime
from services.clinical.suv import body_of, suv_scale
from services.imaging.quality import uptake
from services.imaging.quality.verdict import Evidence, Issue, Verdict, graded, issue, rules
from services.platform.errors import RefusedError


def units(evidence: Evidence) -> list[Issue]:
    """Units from which no SUV can be made."""
    if evidence.modality != "PT":
        return []
    found, allowed = str(evidence.first.get("Units", "") or ""), rules()["thresholds"]["pet_units"]
    if found in allowed:
        return []
    return [issue("wrong_units", f"(0054,1001) Units is {found or 'absent'}; uptake needs {', '.join(allowed)}")]


def corrections(evidence: Evidence) -> list[Issue]:
    """Attenuation or decay not corrected for."""
    made = {str(item) for item in evidence.first.get("CorrectedImage") or []}
    if evidence.modality != "PT" or not made or {"ATTN", "DECY"} <= made:
        return []
    return [issue("not_corrected", "(0028,0051) CorrectedImage lacks ATTN or DECY")]


def uptake_time(evidence: Evidence) -> list[Issue]:
    """Scanned too early or too late after the injection of FDG: uptake rises with time, so visits do not compare."""
    if evidence.modality != "PT":
        return []
    minutes = _minutes_after_injection(evidence)
    low, high = rules()["thresholds"]["uptake_minutes"]["range"]
    if minutes is None or low <= minutes <= high:
        return []
    return [issue("uptake_time", f"scanned {minutes:.0f} minutes after injection; {low} to {high} are usual for FDG")]


def _minutes_after_injection(evidence: Evidence) -> float | None:
    items = evidence.first.get("RadiopharmaceuticalInformationSequence") or []
    scanned = acquired_at(evidence.datasets)
    if len(items) != 1 or scanned is None or not _is_fdg(items[0]):
        return None
    injected = dicom_datetime(items[0], "RadiopharmaceuticalStartDateTime")
    if injected is None:
        clock = str(items[0].get("RadiopharmaceuticalStartTime", "") or "").strip()
        day = next((str(evidence.first.get(k)) for k in ("AcquisitionDate", "SeriesDate") if evidence.first.get(k)), "")
        if not clock or not day:
            return None
        stamp = type(items[0])()
        stamp.SeriesDate, stamp.SeriesTime = day, clock
        if evidence.first.get("TimezoneOffsetFromUTC"):
            stamp.TimezoneOffsetFromUTC = evidence.first.TimezoneOffsetFromUTC
        injected = dicom_datetime(stamp, "SeriesDate", "SeriesTime")
    if injected is None:
        return None
    minutes = (scanned - injected).total_seconds() / 60
    # Beyond this the times are of different days or clocks, which `suv_scale` judges.
    return minutes if 0 < minutes < rules()["thresholds"]["uptake_minutes"]["credible"] else None


def _is_fdg(item: object) -> bool:
    words = rules()["thresholds"]["uptake_minutes"]["tracers"]
    name = str(getattr(item, "Radiopharmaceutical", "") or "").upper()
    codes = getattr(item, "RadiopharmaceuticalCodeSequence", None) or []
    return any(word in name for word in words["names"]) or any(
        str(code.get("CodeValue", "")) in words["codes"] for code in codes
    )


def plausible_uptake(evidence: Evidence) -> list[Issue]:
    """More activity in the image than was injected, or a body that took up next to nothing or far too much."""
    if evidence.modality != "PT" or evidence.array is None or evidence.stack.affine_lps is None:
        return []
    try:
        scale = suv_scale(evidence.datasets)
    except RefusedError:
        # What SUV lacks is told by its own refusal.
        return []
    suv = evidence.array * scale.body_weight
    limits = rules()["thresholds"]["uptake"]
    issues = []
    weight = body_of(evidence.first)[0].weight_kg
    voxel = (
        float(evidence.spacing_mm[0] * evidence.spacing_mm[1] * evidence.spacing_mm[2]) if evidence.spacing_mm else 0.0
    )
    if weight:
        share = uptake.injected_share(suv, voxel, weight)
        verdict = graded(share, limits["injected_share"])
        if verdict is not Verdict.ACCEPT:
            message = (
                f"the image holds {share:.0%} of the activity that was injected, and it cannot hold more than all of it"
            )
            issues.append(issue("implausible_suv", message, verdict))
    mean = uptake.body_mean(suv)
    low, high = limits["body_mean"]
    if not issues and mean is not None and not low <= mean <= high:
        message = f"the mean SUV of the body in the image is {mean:.2g}; over a whole body it is about 1 by definition"
        issues.append(issue("implausible_suv", message))
    return issues
