"""Standardised uptake values from vendor tags.

Source: QIBA vendor-neutral pseudo-code for SUV (FDG-PET/CT Profile); DICOM PS3.3 C.8.9.1, C.8.9.2, C.8.9.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from services.clinical.body_mass import (
    body_surface_area_cm2,
    lean_body_mass_james_kg,
    lean_body_mass_janmahasatian_kg,
)
from services.clinical.suv_decay import decayed_dose_bq, refuse, rules

_PHILIPS = (0x7053, "Philips PET Private Group")


@dataclass(frozen=True)
class Body:
    """What the record says of the patient's body; None where it says nothing usable. `sex`: "M", "F" or ""."""

    weight_kg: float | None
    height_m: float | None
    sex: str


@dataclass(frozen=True)
class SuvScale:
    """Factors that turn rescaled pixel values into standardised uptake values.

    `body_weight`: pixel value to SUVbw (g/mL). `lean_*`, `surface`: SUVbw to SUVlbm (g/mL) and SUVbsa (cm2/mL), None
    where height or sex is not known. `how`: what the factor was made from; `cautions`: what a reader should know.
    """

    body_weight: float
    lean_janmahasatian: float | None
    lean_james: float | None
    surface: float | None
    how: dict[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


def suv_scale(datasets: Sequence[Dataset]) -> SuvScale:
    """The factors for one PET series.

    Raises:
        RefusedError: `suv.missing_*`, `suv.wrong_units`, `suv.not_corrected`, `suv.implausible_*`,
            `suv.contradictory_*`, naming the tag that is missing or wrong.
    """
    first = datasets[0]
    _check_corrections(first)
    body, cautions = body_of(first)
    how: dict[str, str] = {}
    units = str(first.get("Units", "") or "").upper()
    if not units:
        raise refuse("missing", "units", "the series does not say what its values mean", "(0054,1001) Units")
    if units == "BQML":
        factor, notes = _from_activity(datasets, body, how)
    elif units == "CNTS":
        factor, notes = _from_counts(datasets, body, how)
    elif units == "GML":
        factor, notes = _from_suv(first, body, how), ()
    else:
        raise refuse("wrong_units", "", f"SUV cannot be computed from Units {units}", "(0054,1001) Units BQML")
    how["units"] = units
    lean, james, surface = _ratios(body)
    return SuvScale(factor, lean, james, surface, how, (*cautions, *notes))


def _check_corrections(dataset: Dataset) -> None:
    value = dataset.get("CorrectedImage")
    if not value:
        tag = "(0028,0051) CorrectedImage"
        raise refuse("missing", "corrected_image", "the series does not say which corrections were made", tag)
    made = {str(item).strip().upper() for item in ([value] if isinstance(value, str) else value)}
    absent = [name for name in rules()["corrections"] if name not in made]
    decay = str(dataset.get("DecayCorrection", "") or "").upper()
    if decay == "NONE" and "DECY" not in absent:
        absent.append("DECY")
    if absent:
        raise refuse(
            "not_corrected",
            "",
            f"the series lacks {' and '.join(absent)} correction",
            *(f"(0028,0051) CorrectedImage {name}" for name in absent),
        )


def body_of(dataset: Dataset) -> tuple[Body, tuple[str, ...]]:
    """Weight, height and sex as recorded, and cautions about what is absent or implausible."""
    weight, height = _positive(dataset.get("PatientWeight")), _positive(dataset.get("PatientSize"))
    cautions = []
    low, high = rules()["plausible"]["height_m"]
    if height is not None and not low <= height <= high:
        cautions.append(f"(0010,1020) PatientSize {height:g} is no height in metres; lean-body SUV not estimated")
        height = None
    elif height is None:
        cautions.append("(0010,1020) PatientSize absent: lean-body SUV not estimated")
    sex = str(dataset.get("PatientSex", "") or "").upper()
    if sex not in ("M", "F"):
        cautions.append("(0010,0040) PatientSex absent: lean-body SUV not estimated")
        sex = ""
    return Body(weight, height, sex), tuple(cautions)


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def weight_of(body: Body) -> float:
    """Weight in kg. Raises RefusedError `suv.missing_weight`, `suv.implausible_weight`."""
    tag = "(0010,1030) PatientWeight"
    if body.weight_kg is None:
        raise refuse("missing", "weight", "the patient's weight is absent or zero", tag)
    low, high = rules()["plausible"]["weight_kg"]
    if not low <= body.weight_kg <= high:
        raise refuse("implausible", "weight", f"a weight outside {low} to {high} kg", tag)
    return body.weight_kg


def _ratios(body: Body) -> tuple[float | None, float | None, float | None]:
    if body.weight_kg is None or body.height_m is None:
        return None, None, None
    surface = body_surface_area_cm2(body.weight_kg, body.height_m) / (body.weight_kg * 1000)
    if not body.sex:
        return None, None, surface
    lean = lean_body_mass_janmahasatian_kg(body.weight_kg, body.height_m, body.sex) / body.weight_kg
    james = lean_body_mass_james_kg(body.weight_kg, body.height_m, body.sex) / body.weight_kg
    return lean, james if 0 < james <= 1 else None, surface


def _from_activity(datasets: Sequence[Dataset], body: Body, how: dict[str, str]) -> tuple[float, tuple[str, ...]]:
    dose = decayed_dose_bq(datasets)
    how.update(dose.how)
    return weight_of(body) * 1000 / dose.becquerel, dose.cautions


def _from_counts(datasets: Sequence[Dataset], body: Body, how: dict[str, str]) -> tuple[float, tuple[str, ...]]:
    """Philips: (7053,1000) scales to SUVbw; (7053,1009) scales to Bq/mL."""
    to_suv = _philips(datasets, 0x00)
    if to_suv is not None:
        how["factor"] = "(7053,1000) Philips SUV scale factor"
        return to_suv, ()
    to_activity = _philips(datasets, 0x09)
    if to_activity is None:
        raise refuse(
            "missing",
            "philips_scale",
            "the values are counts and the private factor that scales them is absent",
            "(7053,1000) Philips SUV scale factor or (7053,1009) Philips activity concentration scale factor",
        )
    factor, cautions = _from_activity(datasets, body, how)
    how["factor"] = "(7053,1009) Philips activity concentration scale factor"
    return to_activity * factor, cautions


def _philips(datasets: Sequence[Dataset], element: int) -> float | None:
    values = set()
    for dataset in datasets:
        try:
            raw = dataset.private_block(*_PHILIPS)[element].value
        except KeyError:
            continue
        number = _positive(raw.decode("ascii", "ignore") if isinstance(raw, bytes) else raw)
        if number is not None:
            values.add(number)
    if len(values) > 1:
        raise refuse(
            "contradictory",
            "philips_scale",
            "the private scale factor differs between slices",
            f"(7053,10{element:02x})",
        )
    return values.pop() if values else None


def _from_suv(dataset: Dataset, body: Body, how: dict[str, str]) -> float:
    kind = str(dataset.get("SUVType", "") or "BW").upper()
    how["suv_type"] = kind
    meaning = rules()["suv_types"].get(kind)
    tag = "(0054,1006) SUVType"
    if meaning is None:
        raise refuse("wrong_units", "", f"SUV by body weight cannot be computed from SUVType {kind}", tag)
    if meaning == "body_weight":
        return 1.0
    weight, height, sex = weight_of(body), body.height_m, body.sex
    if height is None or not sex:
        missing = ([] if height else ["(0010,1020) PatientSize"]) + ([] if sex else ["(0010,0040) PatientSex"])
        raise refuse("missing", "body_measures", f"SUVType {kind} needs height and sex", *missing)
    if meaning == "lean_janmahasatian":
        return weight / lean_body_mass_janmahasatian_kg(weight, height, sex)
    return weight / lean_body_mass_james_kg(weight, height, sex, multiplier=128.0 if "128" in kind else 120.0)
