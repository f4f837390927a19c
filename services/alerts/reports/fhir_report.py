"""A report as FHIR R4 DiagnosticReport: preliminary until a person has signed, with the measurements it stands on.

Source: HL7 FHIR R4 4.0.1 DiagnosticReport (status, presentedForm, result); LOINC 18748-4; HL7 v2 table 0074 for the category.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from osler.imaging.v1 import imaging_pb2

from services.alerts.report_store import VersionRow
from services.alerts.reports.desk import Status
from services.clinical.fhir_observations import PATIENT_KEY_SYSTEM, finding_to_observation

MEDIA_TYPE = "application/fhir+json"
REPORT_SYSTEM = "urn:osler:report"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/v2-0074"


def diagnostic_report(
    version: VersionRow,
    status: Status,
    findings: Iterable[imaging_pb2.Finding],
    forms: Iterable[tuple[str, bytes]] = (),
) -> dict[str, Any]:
    """The resource as a JSON-ready dictionary; the subject is known by its key only.

    `findings` become contained Observations unless the reader dropped the table. `forms`: (media type, content) of the report
    as people read it. A version that nobody signed is never final, whatever the status of the report.
    """
    report, signed = version.report, version.signed_at is not None
    shown = status if signed else "preliminary"
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": version.report_id,
        "identifier": [{"system": REPORT_SYSTEM, "value": version.report_id}],
        "status": shown,
        "category": [{"coding": [{"system": _CATEGORY, "code": "RAD", "display": "Radiology"}]}],
        "code": {
            "coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}],
            "text": report.description or "Imaging report",
        },
        "subject": {"type": "Patient", "identifier": {"system": PATIENT_KEY_SYSTEM, "value": report.patient_key}},
        "issued": (version.signed_at or version.made_at).astimezone(UTC).isoformat(timespec="milliseconds"),
        "imagingStudy": [
            {
                "type": "ImagingStudy",
                "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{report.study_instance_uid}"},
            }
        ],
        "conclusion": "\n".join(line.text for line in report.section("impression").lines),
    }
    if report.study_date:
        resource["effectiveDateTime"] = report.study_date
    if signed:
        resource["resultsInterpreter"] = [{"display": version.signed_by}]
    results = [_observation(finding, signed) for finding in findings] if report.section("findings").table else []
    if results:
        resource["contained"] = results
        resource["result"] = [{"reference": f"#{observation['id']}"} for observation in results]
    attached = [
        {"contentType": media_type, "data": base64.b64encode(content).decode(), "title": "Imaging report"}
        for media_type, content in forms
    ]
    if attached:
        resource["presentedForm"] = attached
    return resource


def _observation(finding: imaging_pb2.Finding, signed: bool) -> dict[str, Any]:
    observation = finding_to_observation(finding)
    return {**observation, "status": "final" if signed else "preliminary"}
