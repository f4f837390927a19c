"""A case as a FHIR R4 collection Bundle: what Osler adds to the record, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from osler.ingest.v1 import ingest_pb2

from services.clinical.fhir_results import Result, finding_result, provenance_resource, result_id, risk_result
from services.compose.case import PatientCase
from services.imaging.results.fhir import diagnostic_report, imaging_study
from services.platform.blobs import BlobStore

_KEY_SYSTEM = "urn:osler:patient-key"


def results(case: PatientCase, subject: str) -> list[Result]:
    """What Osler found and computed for one patient, about `subject` (a reference). Refused results are not among it."""
    findings = [finding for study in case.findings.values() for finding in study.findings]
    risks = [risk for risk in case.predictions.risks if not risk.HasField("refusal")] if case.predictions else []
    return [
        *(finding_result(finding, subject) for finding in findings),
        *(risk_result(case.patient_key, risk, subject) for risk in risks),
    ]


def _entry(resource: dict[str, Any]) -> dict[str, Any]:
    return {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}


def _patient(case: PatientCase) -> dict[str, Any]:
    """The patient by key only: the receiving system knows who that is, and the file names nobody."""
    return {
        "resourceType": "Patient",
        "id": result_id("patient", case.patient_key),
        "identifier": [{"system": _KEY_SYSTEM, "value": case.patient_key}],
    }


def bundle(found: Iterable[PatientCase], blobs: BlobStore) -> dict[str, Any]:
    """One collection Bundle of all patients' results, each with its Provenance, and of the studies that they are from."""
    resources: list[dict[str, Any]] = []
    for case in found:
        patient = _patient(case)
        subject = f"urn:uuid:{patient['id']}"
        made = results(case, subject)
        resources += [patient, *(result.resource for result in made)]
        resources += [provenance_resource(result, f"urn:uuid:{result.resource['id']}") for result in made]
        resources += _studies(case, subject, blobs)
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": datetime.now(UTC).isoformat(),
        "entry": [_entry(resource) for resource in resources],
    }


def _studies(case: PatientCase, subject: str, blobs: BlobStore) -> list[dict[str, Any]]:
    """Each analysed study with the objects made of it, and a preliminary report that points at its findings."""
    made: list[dict[str, Any]] = []
    for uid, findings in sorted(case.findings.items()):
        if uid not in case.studies:
            continue
        manifest = ingest_pb2.StudyManifest.FromString(blobs.get(case.studies[uid].manifest))
        study = imaging_study(manifest, findings, subject)
        observations = [f"urn:uuid:{result_id('finding', item.finding_id)}" for item in findings.findings]
        made += [study, diagnostic_report(findings, observations, f"urn:uuid:{study['id']}", subject)]
    return made
