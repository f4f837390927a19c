"""Imaging findings as FHIR R4 Observations.

One Observation for each finding, its measurements as components. Source: FHIR R4 4.0.1 Observation; HL7 "DICOM SR to
FHIR Resource Mapping" IG (imaging measurement: tracking identifier and UID as identifiers, study as derivedFrom).
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2

from services.clinical.codes import DCM, OSLER_MEASUREMENT, SR_FORM, UCUM, Concept

_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_UID_SYSTEM = "urn:dicom:uid"
TRACKING_SYSTEM = "urn:osler:tracking-id"
PATIENT_KEY_SYSTEM = "urn:osler:patient-key"
_GROUP_CODE = {"system": DCM, "code": "125007", "display": "Measurement Group"}
_STANDARD = {(concept.system, concept.code): name for concept, (name, _) in SR_FORM.items()}


def finding_to_observation(finding: imaging_pb2.Finding, patient_key: str = "") -> dict[str, Any]:
    """A FHIR R4 Observation as a JSON-ready dictionary; the subject is known by its key only.

    Cautions and intervals become notes: FHIR R4 has no element for the uncertainty of a value.
    """
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "id": fhir_id(finding.finding_id),
        "identifier": _identifiers(finding),
        "status": "preliminary",
        "category": [{"coding": [{"system": _CATEGORY, "code": "imaging", "display": "Imaging"}]}],
        "code": {"coding": [_GROUP_CODE], "text": _title(finding)},
        "derivedFrom": [
            {
                "type": "ImagingStudy",
                "identifier": {"system": _UID_SYSTEM, "value": f"urn:oid:{finding.study_instance_uid}"},
            }
        ],
    }
    if patient_key:
        observation["subject"] = {
            "type": "Patient",
            "identifier": {"system": PATIENT_KEY_SYSTEM, "value": patient_key},
        }
    if finding.HasField("observed_at"):
        observation["effectiveDateTime"] = finding.observed_at.ToDatetime(UTC).isoformat()
    if finding.HasField("provenance"):
        observation["issued"] = finding.provenance.recorded_at.ToDatetime(UTC).isoformat(timespec="milliseconds")
        observation["method"] = {"text": finding.provenance.method}
    if finding.HasField("finding_type"):
        observation["valueCodeableConcept"] = {"coding": [_coding(finding.finding_type)]}
    else:
        observation["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": "not-applicable"}]}
    if finding.HasField("site"):
        observation["bodySite"] = {"coding": [_coding(finding.site)]}
    components = [_component(measurement) for measurement in finding.measurements]
    if components:
        observation["component"] = components
    notes = [*finding.cautions, *(_uncertainty(measurement) for measurement in finding.measurements)]
    if notes:
        observation["note"] = [{"text": note} for note in notes]
    return observation


def fhir_id(finding_id: str) -> str:
    """A finding id as a FHIR id (64 characters of A-Z, a-z, 0-9, - and .)."""
    return "".join(character if character.isalnum() or character in "-." else "-" for character in finding_id)[:64]


def _identifiers(finding: imaging_pb2.Finding) -> list[dict[str, str]]:
    identifiers = [{"system": TRACKING_SYSTEM, "value": finding.tracking_id}] if finding.tracking_id else []
    if finding.tracking_uid:
        identifiers.append({"system": _UID_SYSTEM, "value": f"urn:oid:{finding.tracking_uid}"})
    return identifiers


def _title(finding: imaging_pb2.Finding) -> str:
    return finding.tracking_id or finding.finding_type.display or "Imaging finding"


def _coding(code: common_pb2.Code) -> dict[str, str]:
    coding = {"system": code.system, "code": code.code}
    return coding | {"display": code.display} if code.display else coding


def _component(measurement: imaging_pb2.Measurement) -> dict[str, Any]:
    codings = [_coding(measurement.concept)]
    standard: Concept | None = _STANDARD.get((measurement.concept.system, measurement.concept.code))
    if standard is not None and measurement.concept.system == OSLER_MEASUREMENT:
        codings.append({"system": standard.system, "code": standard.code, "display": standard.display})
    return {
        "code": {"coding": codings, "text": _label(measurement)},
        "valueQuantity": {
            "value": measurement.value.value,
            "unit": measurement.value.unit,
            "system": UCUM,
            "code": measurement.value.unit,
        },
    }


def _label(measurement: imaging_pb2.Measurement) -> str:
    name = measurement.concept.display or measurement.concept.code
    return f"{name}, {measurement.method}" if measurement.method else name


def _uncertainty(measurement: imaging_pb2.Measurement) -> str:
    name, value = measurement.concept.display or measurement.concept.code, measurement.value
    if value.uncertainty.WhichOneof("kind") == "interval":
        interval = value.uncertainty.interval
        return f"{name}: {interval.lower:.4g} to {interval.upper:.4g} {value.unit} ({interval.level:.0%} interval)"
    return f"{name}: uncertainty {value.uncertainty.not_estimated or 'not estimated'}"
