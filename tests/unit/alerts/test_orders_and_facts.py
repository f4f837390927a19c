"""What a draft order asks for, and what the prefetch says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.alerts import facts, orders

NOW = datetime(2026, 8, 26, tzinfo=UTC)


def order(text: str = "", *codings: dict[str, str], note: str = "") -> dict[str, Any]:
    found = {"resourceType": "ServiceRequest", "id": "1", "code": {"text": text, "coding": list(codings)}}
    return {**found, "note": [{"text": note}]} if note else found


@pytest.mark.parametrize(
    ("resource", "modality", "contrast", "agent"),
    [
        (order("CT chest with contrast"), "CT", True, "iodinated"),
        (order("CT abdomen without contrast"), "CT", False, ""),
        (order("MRI brain w/o contrast"), "MR", False, ""),
        (order("MRI liver with gadobutrol"), "MR", True, "gadolinium-group-2"),
        (order("MR angiography with gadodiamide"), "MR", True, "gadolinium-group-1"),
        (order("FDG PET/CT whole body"), "PT", None, ""),
        (order("", {"system": "http://loinc.org", "code": "24628-0"}), "CT", True, "iodinated"),
        (order("", {"system": "http://snomed.info/sct", "code": "113091000"}), "MR", None, ""),
        (order("CT thorax", note="please give iohexol"), "CT", True, "iodinated"),
        (order("Physiotherapy"), "", None, ""),
        (order("Inspect and correct gait"), "", None, ""),
    ],
)
def test_orders_tell_modality_and_contrast(
    resource: dict[str, Any], modality: str, contrast: bool | None, agent: str
) -> None:
    draft = orders.parse(resource)
    assert (draft.modality, draft.contrast_agent) == (modality, agent)
    assert (draft.contrast if draft.HasField("contrast") else None) is contrast


def test_only_selected_orders_are_checked() -> None:
    bundle = {"entry": [{"resource": {**order("CT"), "id": "a"}}, {"resource": {**order("MRI"), "id": "b"}}]}
    assert [o["id"] for o in orders.selected_orders(bundle, ["ServiceRequest/b"])] == ["b"]
    assert [o["id"] for o in orders.selected_orders(bundle, [])] == ["a", "b"]


def prefetch(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"kidney": {"resourceType": "Bundle", "entry": [{"resource": r} for r in resources]}}


def creatinine(value: float, unit: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": "c", "status": "final", "effectiveDateTime": "2026-08-24T08:45:00Z",
        "code": {"coding": [{"system": "http://loinc.org", "code": "14682-9"}]},
        "valueQuantity": {"value": value, "unit": unit, "code": unit}, **more,
    }  # fmt: skip


def test_creatinine_keeps_its_unit_and_time() -> None:
    (fact,) = facts.facts(prefetch(creatinine(186.0, "umol/L")), NOW)
    assert (fact.name, fact.value, fact.unit, fact.source_reference) == ("creatinine", 186.0, "umol/L", "Observation/c")
    assert fact.observed_at.ToDatetime(UTC) == datetime(2026, 8, 24, 8, 45, tzinfo=UTC)


def test_an_observation_entered_in_error_says_nothing() -> None:
    assert facts.facts(prefetch(creatinine(186.0, "umol/L", status="entered-in-error")), NOW) == []


def test_age_is_in_completed_years_and_sex_is_a_flag() -> None:
    found = facts.facts({"patient": {"resourceType": "Patient", "birthDate": "1965-02-14", "gender": "female"}}, NOW)
    assert {f.name: f.value for f in found} == {"age": 61.0, "sex_female": 1.0}


def test_active_metformin_counts_and_stopped_does_not() -> None:
    active = {
        "resourceType": "MedicationRequest", "status": "active",
        "medicationCodeableConcept": {"text": "metformin hydrochloride 500 MG"},
    }  # fmt: skip
    assert [f.name for f in facts.facts(prefetch(active), NOW)] == ["metformin"]
    assert facts.facts(prefetch({**active, "status": "stopped"}), NOW) == []


def test_the_medical_record_number_comes_first() -> None:
    patient = {
        "resourceType": "Patient",
        "identifier": [
            {"system": "urn:other", "value": "X"},
            {"system": "urn:hospital", "value": "42", "type": {"coding": [{"code": "MR"}]}},
        ],
    }
    assert facts.identifiers(patient) == [("urn:hospital", "42"), ("urn:other", "X")]
