"""Facts that an EHR brings along in the prefetch, in the advisor's words. Osler's own record adds to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from osler.advisor.v1 import advisor_pb2

from services.clinical import fhir, terminology
from services.clinical.timestamps import parse_fhir
from services.platform.errors import RefusedError

# Analyte of the clinical vocabulary -> fact of the advisor.
_MEASURED = {"creatinine": "creatinine", "egfr": "egfr"}
# Code set -> fact, by the kind of resource that may state it.
_STATED = {
    "MedicationRequest": {"metformin": "metformin"},
    "MedicationStatement": {"metformin": "metformin"},
    "AllergyIntolerance": {
        "iodinated_contrast_allergy": "iodinated_contrast_allergy",
        "gadolinium_allergy": "gadolinium_allergy",
    },
    "Condition": {"thyroid_disease": "thyroid_disease", "pregnancy": "pregnant", "dialysis": "on_dialysis"},
}
_ENDED = {"stopped", "cancelled", "completed", "entered-in-error", "refuted", "resolved", "inactive", "not-taken"}
_DAYS_PER_YEAR = 365.2425


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
    found: list[advisor_pb2.ClinicalFact] = []
    for resource in resources(prefetch):
        kind = resource.get("resourceType")
        if kind == "Patient":
            found += _demographic(resource, now)
        elif kind == "Observation":
            found += _observed(resource)
        elif kind in _STATED:
            found += _stated(resource, _STATED[str(kind)])
    return found


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


def _observed(resource: Mapping[str, Any]) -> list[advisor_pb2.ClinicalFact]:
    if resource.get("status") in ("entered-in-error", "cancelled", "registered"):
        return []
    analyte = terminology.analyte_of((c.system, c.code) for c in fhir.codings(resource.get("code")))
    quantity = fhir.as_dict(resource.get("valueQuantity"))
    if analyte is None or analyte.name not in _MEASURED or not isinstance(quantity.get("value"), int | float):
        return []
    unit = str(quantity.get("code") or quantity.get("unit") or "")
    at = _time(resource.get("effectiveDateTime") or resource.get("issued"))
    return [_fact(_MEASURED[analyte.name], float(quantity["value"]), unit, at, resource)]


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
