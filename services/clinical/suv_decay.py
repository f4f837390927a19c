"""The administered activity at the time to which a PET series is decay corrected.

Source: QIBA vendor-neutral pseudo-code for SUV; DICOM PS3.3 C.8.9.1.1.5 (Decay Correction), C.8.9.2 (Isotope).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydicom.dataset import Dataset

from services.clinical.dicom.series import dicom_datetime
from services.platform.errors import RefusedError

_GE = (0x0009, "GEMS_PETD_01")


@dataclass(frozen=True)
class DecayedDose:
    """`becquerel`: injected activity decayed to the reference time of the pixel values."""

    becquerel: float
    how: dict[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


@cache
def rules() -> dict[str, Any]:
    """Contents of suv.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("suv.yaml").read_text(encoding="utf-8"))
    return content


def refuse(kind: str, name: str, message: str, *missing: str) -> RefusedError:
    """A refusal `suv.<kind>_<name>` with the remedy of its kind."""
    reason = f"suv.{kind}_{name}" if name else f"suv.{kind}"
    return RefusedError(reason, message, missing=missing, remedy=rules()["remedies"][f"suv.{kind}"])


def decayed_dose_bq(datasets: Sequence[Dataset]) -> DecayedDose:
    """Dose at the reference time of the series.

    Raises:
        RefusedError: `suv.missing_*` (radiopharmaceutical, dose, half_life, decay_correction, injection_time, scan_time),
            `suv.implausible_dose`, `suv.contradictory_half_life`, `suv.contradictory_times`.
    """
    first = datasets[0]
    items = first.get("RadiopharmaceuticalInformationSequence")
    if not items:
        tag = "(0054,0016) RadiopharmaceuticalInformationSequence"
        raise refuse("missing", "radiopharmaceutical", "nothing is recorded about the injection", tag)
    if len(items) > 1:
        tag = "(0054,0016) RadiopharmaceuticalInformationSequence"
        raise refuse("contradictory", "radiopharmaceutical", "more than one injection is recorded", tag)
    dose, half_life = _dose(items[0]), _half_life(items[0])
    how = {"dose_bq": f"{dose:.6g}", "half_life_s": f"{half_life:.6g}"}
    correction = str(first.get("DecayCorrection", "") or "").upper()
    how["decay_correction"] = correction
    if correction == "ADMIN":
        return DecayedDose(dose, how)
    if correction != "START":
        tag = "(0054,1102) DecayCorrection"
        raise refuse("missing", "decay_correction", "the time of decay correction is not recorded", tag)
    scan, source = scan_start(datasets, half_life)
    elapsed, injection, cautions = _elapsed_seconds(first, items[0], scan, half_life)
    how |= {"scan_time": source, "injection_time": injection, "decay_s": f"{elapsed:.3f}"}
    return DecayedDose(dose * 2 ** (-elapsed / half_life), how, cautions)


def _dose(item: Dataset) -> float:
    tag = "(0018,1074) RadionuclideTotalDose"
    dose = _number(item.get("RadionuclideTotalDose"))
    if dose is None or dose <= 0:
        raise refuse("missing", "dose", "the injected activity is absent or zero", tag)
    low, high = rules()["plausible"]["dose_bq"]
    if not low <= dose <= high:
        raise refuse("implausible", "dose", f"the injected activity of {dose:g} cannot be in becquerel", tag)
    return dose


def _half_life(item: Dataset) -> float:
    recorded = _number(item.get("RadionuclideHalfLife"))
    known = None
    for code in item.get("RadionuclideCodeSequence", []):
        for nuclide in rules()["half_life_s"].values():
            if str(code.get("CodeValue", "")) in nuclide["codes"]:
                known = float(nuclide["seconds"])
    tag = "(0018,1075) RadionuclideHalfLife"
    if recorded is None or recorded <= 0:
        if known is None:
            raise refuse("missing", "half_life", "the radionuclide's half-life is absent", tag)
        return known
    if known is not None and abs(recorded - known) > rules()["plausible"]["half_life_relative"] * known:
        nuclide_tag = "(0054,0300) RadionuclideCodeSequence"
        raise refuse("contradictory", "half_life", "the half-life is not the named radionuclide's", tag, nuclide_tag)
    return recorded


def scan_start(datasets: Sequence[Dataset], half_life_s: float) -> tuple[datetime, str]:
    """The time to which a START series is decay corrected, and what it was read from.

    Series time holds unless it lies after an acquisition time: then the series was made later, and GE's private scan
    time, the average-count time of a frame, or the earliest acquisition time serves.
    """
    acquisitions = [t for d in datasets if (t := dicom_datetime(d, "AcquisitionDate", "AcquisitionTime"))]
    series = dicom_datetime(datasets[0], "SeriesDate", "SeriesTime")
    if series is not None and acquisitions and series <= min(acquisitions):
        return series, "(0008,0031) SeriesTime"
    private = _ge_scan_time(datasets[0])
    if private is not None:
        return private, "(0009,100D) GE scan time"
    computed = [t for d in datasets if (t := _from_frame_time(d, half_life_s)) is not None]
    if computed:
        return min(computed), "(0054,1300) FrameReferenceTime and (0008,0032) AcquisitionTime"
    if acquisitions:
        return min(acquisitions), "(0008,0032) earliest AcquisitionTime"
    raise refuse(
        "missing", "scan_time", "the start of the scan is not recorded", "(0008,0022) AcquisitionDate",
        "(0008,0032) AcquisitionTime",
    )  # fmt: skip


def _ge_scan_time(dataset: Dataset) -> datetime | None:
    try:
        raw = dataset.private_block(*_GE)[0x0D].value
    except KeyError:
        return None
    holder = Dataset()
    holder.AcquisitionDateTime = raw.decode("ascii", "ignore") if isinstance(raw, bytes) else str(raw)
    holder.TimezoneOffsetFromUTC = dataset.get("TimezoneOffsetFromUTC")
    return dicom_datetime(holder, "AcquisitionDateTime")


def _from_frame_time(dataset: Dataset, half_life_s: float) -> datetime | None:
    """Acquisition time less frame reference time, plus the time of the frame's average count rate."""
    acquired = dicom_datetime(dataset, "AcquisitionDate", "AcquisitionTime")
    reference_ms, duration_ms = _number(dataset.get("FrameReferenceTime")), _number(dataset.get("ActualFrameDuration"))
    if acquired is None or not reference_ms or not duration_ms or reference_ms < 0 or duration_ms < 0:
        return None
    rate = math.log(2) / half_life_s
    decay = rate * duration_ms / 1000
    average = math.log(decay / -math.expm1(-decay)) / rate
    return acquired - timedelta(milliseconds=reference_ms) + timedelta(seconds=average)


def _elapsed_seconds(
    dataset: Dataset, item: Dataset, scan: datetime, half_life_s: float
) -> tuple[float, str, tuple[str, ...]]:
    """Seconds from injection to scan start, where they came from, and cautions."""
    longest = rules()["plausible"]["half_lives"] * half_life_s
    stated = _injection_datetime(dataset, item)
    if stated is not None and 0 <= (scan - stated).total_seconds() <= longest:
        return (scan - stated).total_seconds(), "(0018,1078) RadiopharmaceuticalStartDateTime", ()
    clock = _injection_clock(dataset, item, scan) or (stated and _on_day_of(scan, stated))
    if clock is None:
        raise refuse(
            "missing", "injection_time", "the time of injection is not recorded",
            "(0018,1078) RadiopharmaceuticalStartDateTime or (0018,1072) RadiopharmaceuticalStartTime",
        )  # fmt: skip
    injected = clock - timedelta(days=1) if clock > scan else clock
    elapsed = (scan - injected).total_seconds()
    if elapsed > longest:
        raise refuse(
            "contradictory", "times", f"injection and scan lie {elapsed / 3600:.1f} hours apart",
            "(0018,1072) RadiopharmaceuticalStartTime", "(0008,0031) SeriesTime",
        )  # fmt: skip
    cautions = []
    if stated is not None:
        cautions.append("the date of injection contradicts the date of the scan; the time of day was used")
    if clock > scan:
        cautions.append("the injection was taken to be on the day before the scan")
    return elapsed, "(0018,1072) RadiopharmaceuticalStartTime on the day of the scan", tuple(cautions)


def _injection_datetime(dataset: Dataset, item: Dataset) -> datetime | None:
    holder = Dataset()
    zone = dataset.get("TimezoneOffsetFromUTC")
    text = str(item.get("RadiopharmaceuticalStartDateTime", "") or "")
    if not zone:
        # Without a zone for the series its times are local: an offset on this one alone would shift it against them.
        text = text.split("+")[0].split("-")[0]
    holder.AcquisitionDateTime = text
    holder.TimezoneOffsetFromUTC = zone
    return dicom_datetime(holder, "AcquisitionDateTime") if len(text) >= 12 else None


def _injection_clock(dataset: Dataset, item: Dataset, scan: datetime) -> datetime | None:
    holder = Dataset()
    zone = dataset.get("TimezoneOffsetFromUTC")
    holder.TimezoneOffsetFromUTC = zone
    local = scan if not zone else scan.astimezone(datetime.strptime(zone, "%z").tzinfo or UTC)
    holder.SeriesDate, holder.SeriesTime = f"{local:%Y%m%d}", item.get("RadiopharmaceuticalStartTime")
    return dicom_datetime(holder, "SeriesDate", "SeriesTime")


def _on_day_of(scan: datetime, stated: datetime) -> datetime:
    return scan.replace(hour=stated.hour, minute=stated.minute, second=stated.second, microsecond=stated.microsecond)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
