"""A study and what was found in it as FHIR R4: ImagingStudy and DiagnosticReport, beside the Observations of the findings.

Source: HL7 FHIR R4 4.0.1 ImagingStudy, DiagnosticReport; DICOM PS3.16 CID 29 (acquisition modality); LOINC 18748-4
"Diagnostic imaging study"; HL7 v2 table 0074 (RAD). The report stays preliminary: a person signs, not a model.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.clinical.codes import DCM

Resource = dict[str, Any]
_UID = "urn:dicom:uid"
_URI = "urn:ietf:rfc:3986"
_NAMESPACE = uuid.UUID("0f2a86b0-6f0e-5d0f-93f5-9d6a2b9f8a31")


def imaging_study(manifest: ingest_pb2.StudyManifest, findings: imaging_pb2.StudyFindings, subject: str) -> Resource:
    """The study as stored, and the series that Osler made of it. `subject`: a reference to the patient."""
    series = [_stored_series(entry) for entry in manifest.series]
    known = {entry["uid"] for entry in series}
    for made in findings.derived_objects:
        if made.series_instance_uid not in known:
            instance = {
                "uid": made.sop_instance_uid,
                "sopClass": {"system": _URI, "code": f"urn:oid:{made.sop_class_uid}"},
            }
            entry = {"uid": made.series_instance_uid, "modality": _modality(made.modality), "numberOfInstances": 1}
            series.append({**entry, "instance": [instance]})
    study: Resource = {
        "resourceType": "ImagingStudy",
        "id": _short(manifest.study_instance_uid),
        "identifier": [{"system": _UID, "value": f"urn:oid:{manifest.study_instance_uid}"}],
        "status": "available",
        "modality": [_modality(code) for code in sorted({entry["modality"]["code"] for entry in series})],
        "subject": {"reference": subject},
        "numberOfSeries": len(series),
        "numberOfInstances": sum(entry["numberOfInstances"] for entry in series),
        "series": series,
    }
    if manifest.HasField("study_time"):
        study["started"] = manifest.study_time.ToDatetime(UTC).isoformat()
    return study


def diagnostic_report(
    findings: imaging_pb2.StudyFindings, results: Sequence[str], study: str, subject: str
) -> Resource:
    """A preliminary report that points at the Observations `results` and the ImagingStudy `study` (references).

    The conclusion says how much was found and what was refused, with the reason; images that the quality gate rejected are
    named by their reason, too.
    """
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "id": _short(f"report {findings.study_instance_uid}"),
        "status": "preliminary",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "subject": {"reference": subject},
        "imagingStudy": [{"reference": study}],
        "conclusion": _conclusion(findings),
    }
    if results:
        report["result"] = [{"reference": url} for url in results]
    if findings.HasField("study_time"):
        report["effectiveDateTime"] = findings.study_time.ToDatetime(UTC).isoformat()
    issued = [finding.provenance.recorded_at for finding in findings.findings if finding.HasField("provenance")]
    if issued:
        latest = max(issued, key=lambda time: time.ToNanoseconds())
        report["issued"] = latest.ToDatetime(UTC).isoformat(timespec="milliseconds")
    return report


def _conclusion(findings: imaging_pb2.StudyFindings) -> str:
    count = len(findings.findings)
    said = [f"{count} finding{'' if count == 1 else 's'} by automatic analysis, not yet read by a person."]
    said += [f"Not analysed ({refusal.reason}): {refusal.message}." for refusal in findings.refusals]
    return " ".join(said)


def _stored_series(entry: ingest_pb2.SeriesEntry) -> Resource:
    series: Resource = {
        "uid": entry.series_instance_uid,
        "modality": _modality(entry.modality or "OT"),
        "numberOfInstances": len(entry.instances),
        "instance": [
            {"uid": one.sop_instance_uid, "sopClass": {"system": _URI, "code": f"urn:oid:{one.sop_class_uid}"}}
            for one in entry.instances
        ],
    }
    return series


def _modality(code: str) -> dict[str, str]:
    return {"system": DCM, "code": code}


def _short(identity: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, identity))
