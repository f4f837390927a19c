"""Facts that an EHR brings along in the prefetch, in the advisor's words. Osler's own record adds to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from osler.advisor.v1 import advisor_pb2

from services.clinical import fhir, terminology, units
from services.clinical.timestamps import parse_fhir
from services.platform.errors import RefusedError

# Analyte of the clinical vocabulary -> fact of the advisor.
_MEASURED = {"creatinine": "creatinine", "egfr": "egfr", "tsh": "tsh"}
# Code set -> fact, by the kind of resource that may state it.
_STATED = {
    "MedicationRequest": {"metformin": "metformin"},
    "MedicationStatement": {"metformin": "metformin"},
    "AllergyIntolerance": {
        "iodinated_contrast_allergy": "iodinated_contrast_allergy",
        "gadolinium_allergy": "gadolinium_allergy",
    },
    "Condition": {
        "thyroid_disease": "thyroid_disease",
        "pregnancy": "pregnant",
        "dialysis": "on_dialysis",
        "diabetes": "diabetes",
        "cardiac_device": "cardiac_device",
    },
}
_ENDED = {"stopped", "cancelled", "completed", "entered-in-error", "refuted", "resolved", "inactive", "not-taken"}
_DAYS_PER_YEAR = 365.2425


@dataclass(frozen=True)
class Reading:
    """What was read: facts for the advisor, and statements about what was there and could not be used."""

    facts: tuple[advisor_pb2.ClinicalFact, ...]
    unusable: tuple[str, ...] = field(default=())


def resources(prefetch: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every resource of a prefetch: single ones, and those of searchset Bundles."""
    for value in prefetch.values():
        if not isinstance(value, Mapping):
            continue
        if value.get("resourceType") == "Bundle":
            yield from (
                e["resource"] for e in fhir.as_list(value.get("entry")) if isinstance(e.get("resource"), Mapping)
            )
        elif value.get("resourceType"):
            yield value


def patient_of(found: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The Patient among the resources, if any."""
    return next((r for r in found if r.get("resourceType") == "Patient"), None)


def identifiers(patient: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(system, value) of a patient's identifiers, medical record numbers first."""
    rows = [
        (any(c.code == "MR" for c in fhir.codings(row.get("type"))), str(row.get("system") or ""), str(row["value"]))
        for row in fhir.as_list(patient.get("identifier"))
        if isinstance(row, Mapping) and row.get("value")
    ]
    return [(system, value) for _, system, value in sorted(rows, key=lambda row: not row[0])]


def facts(prefetch: Mapping[str, Any], now: datetime) -> list[advisor_pb2.ClinicalFact]:
    """What the prefetch says about kidney function, contrast reactions, metformin, thyroid, pregnancy, age and sex."""
    return list(read(prefetch, now).facts)


def read(prefetch: Mapping[str, Any], now: datetime, patient_id: str = "") -> Reading:
    """As `facts`, with what could not be used: other patients' resources, units that cannot be read, implausible values.

    `patient_id`: FHIR id of the patient that the call is about; "" takes every resource.
    """
    found: list[advisor_pb2.ClinicalFact] = []
    unusable: dict[str, None] = {}
    for resource in resources(prefetch):
        kind = resource.get("resourceType")
        if patient_id and not _is_about(resource, patient_id):
            unusable[f"a {kind} that belongs to another patient was left out"] = None
        elif kind == "Patient":
            found += _demographic(resource, now)
        elif kind == "Observation":
            fact, problem = _observed(resource)
            found += [fact] if fact else []
            unusable |= {problem: None} if problem else {}
        elif kind in _STATED:
            found += _stated(resource, _STATED[str(kind)])
    return Reading(tuple(found), tuple(unusable))


def _is_about(resource: Mapping[str, Any], patient_id: str) -> bool:
    """True for the patient, and for what refers to the patient or to nobody by a literal reference."""
    if resource.get("resourceType") == "Patient":
        return resource.get("id") in (None, patient_id)
    subject = fhir.as_dict(resource.get("subject") or resource.get("patient")).get("reference")
    parts = str(subject or "").split("/_history/")[0].split("/")
    return len(parts) < 2 or parts[-2] != "Patient" or parts[-1] == patient_id


def _fact(
    name: str, value: float, unit: str, at: datetime | None, resource: Mapping[str, Any]
) -> advisor_pb2.ClinicalFact:
    reference = f"{resource.get('resourceType')}/{resource.get('id', '')}"
    made = advisor_pb2.ClinicalFact(name=name, value=value, unit=unit, source_reference=reference)
    if at is not None:
        stamp = Timestamp()
        stamp.FromDatetime(at.astimezone(UTC))
        made.observed_at.CopyFrom(stamp)
    return made


def _time(text: Any) -> datetime | None:
    try:
        return parse_fhir(str(text)).at if text else None
    except RefusedError:
        return None


def _demographic(patient: Mapping[str, Any], now: datetime) -> list[advisor_pb2.ClinicalFact]:
    found = []
    born = _time(patient.get("birthDate"))
    if born is not None:
        found.append(_fact("age", int((now - born).days / _DAYS_PER_YEAR), "a", None, patient))
    if patient.get("gender") in ("female", "male"):
        found.append(_fact("sex_female", float(patient["gender"] == "female"), "", None, patient))
    return found


def _observed(resource: Mapping[str, Any]) -> tuple[advisor_pb2.ClinicalFact | None, str]:
    """A fact, or what is wrong with the observation; neither when it says nothing that the advisor asks about."""
    if resource.get("status") in ("entered-in-error", "cancelled", "registered"):
        return None, ""
    codes = [(c.system, c.code) for c in fhir.codings(resource.get("code"))]
    at = _time(resource.get("effectiveDateTime") or resource.get("issued"))
    if any(terminology.code_sets()["pregnancy_status"].holds_code(*code) for code in codes):
        return _pregnancy(resource, at), ""
    analyte = terminology.analyte_of(codes)
    quantity = fhir.as_dict(resource.get("valueQuantity"))
    value = quantity.get("value")
    if analyte is None or analyte.name not in _MEASURED or isinstance(value, bool):
        return None, ""
    if not isinstance(value, int | float):
        return None, ""
    unit = str(quantity.get("code") or quantity.get("unit") or "")
    if not unit:
        return None, f"{analyte.title} without a unit was left out"
    try:
        canonical = units.convert(float(value), unit, analyte.unit, analyte=analyte.name)
    except RefusedError:
        return None, f"{analyte.title} in a unit that cannot be read as {analyte.unit} was left out"
    low, high = analyte.plausible
    if not low <= canonical <= high:
        return (
            None,
            f"{analyte.title} outside {low:g} to {high:g} {analyte.unit} was left out as a likely error of unit",
        )
    return _fact(_MEASURED[analyte.name], float(value), unit, at, resource), ""


def _pregnancy(resource: Mapping[str, Any], at: datetime | None) -> advisor_pb2.ClinicalFact | None:
    sets = terminology.code_sets()
    answers = [(c.system, c.code) for c in fhir.codings(resource.get("valueCodeableConcept"))]
    if any(sets["pregnant_answer"].holds_code(*answer) for answer in answers):
        return _fact("pregnant", 1.0, "", at, resource)
    if any(sets["pregnancy_ended"].holds_code(*answer) for answer in answers):
        return _fact("pregnant", 0.0, "", at, resource)
    return None


def _stated(resource: Mapping[str, Any], wanted: Mapping[str, str]) -> list[advisor_pb2.ClinicalFact]:
    states = {
        str(resource.get("status", "")),
        *(c.code for key in ("clinicalStatus", "verificationStatus") for c in fhir.codings(resource.get(key))),
    }
    if states & _ENDED:
        return []
    concept = resource.get("code") or resource.get("medicationCodeableConcept")
    sets = terminology.code_sets()
    return [
        _fact(name, 1.0, "", None, resource)
        for set_name, name in wanted.items()
        if any(sets[set_name].holds_code(c.system, c.code) for c in fhir.codings(concept))
        or sets[set_name].holds_text(fhir.text_of(concept))
    ]
