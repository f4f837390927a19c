"""A case as a FHIR R4 collection Bundle: what Osler adds to the record, and where it comes from."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from osler.common.v1 import common_pb2
from osler.twin.v1 import twin_pb2

from services.clinical.fhir_observations import finding_to_observation
from services.compose.case import PatientCase

_NAMESPACE = uuid.UUID("5c8f6a52-1f6b-4f0e-9d39-2f1d7f0a4b77")
_KEY_SYSTEM = "urn:osler:patient-key"


def _id(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(parts)))


def _entry(resource: dict[str, Any]) -> dict[str, Any]:
    return {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}


def _patient(case: PatientCase) -> dict[str, Any]:
    """The patient by key only: the receiving system knows who that is, and the file names nobody."""
    return {
        "resourceType": "Patient",
        "id": _id("patient", case.patient_key),
        "identifier": [{"system": _KEY_SYSTEM, "value": case.patient_key}],
    }


def _observations(case: PatientCase, subject: str) -> list[dict[str, Any]]:
    found = []
    for study in case.findings.values():
        for finding in study.findings:
            resource = finding_to_observation(finding)
            resource["id"] = _id("finding", finding.finding_id)
            resource["subject"] = {"reference": subject}
            found.append(resource)
    return found


def _risk_assessments(case: PatientCase, subject: str) -> list[dict[str, Any]]:
    if case.predictions is None:
        return []
    made = [_risk_assessment(case.patient_key, r, subject) for r in case.predictions.risks if not r.HasField("refusal")]
    return [resource for resource in made if resource]


def _risk_assessment(key: str, risk: twin_pb2.RiskEstimate, subject: str) -> dict[str, Any] | None:
    """Probabilities as RiskAssessment, derived quantities (eGFR) as Observation."""
    identity = _id(risk.name, key)
    at = risk.provenance.recorded_at.ToDatetime(UTC).isoformat()
    if risk.value.unit == "1":
        return {
            "resourceType": "RiskAssessment",
            "id": identity,
            "status": "final",
            "subject": {"reference": subject},
            "occurrenceDateTime": at,
            "method": {"text": risk.provenance.method},
            "prediction": [
                {"outcome": {"text": risk.title or risk.name}, "probabilityDecimal": round(risk.value.value, 6)}
            ],
        }
    return {
        "resourceType": "Observation",
        "id": identity,
        "status": "final",
        "code": {"text": risk.title or risk.name},
        "subject": {"reference": subject},
        "effectiveDateTime": at,
        "method": {"text": risk.provenance.method},
        "valueQuantity": {
            "value": round(risk.value.value, 6),
            "unit": risk.value.unit,
            "system": "http://unitsofmeasure.org",
            "code": risk.value.unit,
        },
    }


def _provenance(target: dict[str, Any], source: common_pb2.Provenance) -> dict[str, Any]:
    inputs = [{"role": "source", "what": {"display": f"{i.kind} {i.id}"}} for i in source.inputs]
    return {
        "resourceType": "Provenance",
        "id": _id("provenance", target["id"]),
        "target": [{"reference": f"urn:uuid:{target['id']}"}],
        "recorded": source.recorded_at.ToDatetime(UTC).isoformat(),
        "agent": [{"who": {"display": f"Osler {source.agent} {source.code_version}, {source.method}"}}],
        **({"entity": inputs} if inputs else {}),
    }


def bundle(found: Iterable[PatientCase]) -> dict[str, Any]:
    """One collection Bundle of all patients' results, each finding with its Provenance."""
    resources: list[dict[str, Any]] = []
    for case in found:
        patient = _patient(case)
        subject = f"urn:uuid:{patient['id']}"
        observations = _observations(case, subject)
        sources = [f.provenance for s in case.findings.values() for f in s.findings]
        resources += [patient, *observations, *_risk_assessments(case, subject)]
        resources += [_provenance(o, p) for o, p in zip(observations, sources, strict=True)]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": datetime.now(UTC).isoformat(),
        "entry": [_entry(resource) for resource in resources],
    }
