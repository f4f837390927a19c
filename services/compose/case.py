"""One patient case from what the rooms announced: the content of `case.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.registration.v1 import registration_pb2
from osler.twin.v1 import twin_pb2

from services.platform.blobs import BlobStore
from services.platform.bus import EventLog
from services.platform.events import CATALOGUE, unpack
from services.platform.quarantine import QuarantineItem

SCHEMA_VERSION = "1"


@dataclass
class PatientCase:
    """The latest word of each room about one patient."""

    patient_key: str
    studies: dict[str, events_pb2.StudyReceived] = field(default_factory=dict)
    findings: dict[str, imaging_pb2.StudyFindings] = field(default_factory=dict)
    registrations: dict[str, registration_pb2.Registration] = field(default_factory=dict)
    snapshot: fusion_pb2.PatientSnapshot | None = None
    predictions: twin_pb2.PatientPredictions | None = None
    advice: advisor_pb2.PatientAdvice | None = None
    records: int = 0

    def derived_objects(self) -> list[imaging_pb2.DerivedObject]:
        """SEG, SR and REG objects of this patient, each once."""
        found = [o for f in self.findings.values() for o in f.derived_objects]
        found += [r.spatial_registration for r in self.registrations.values() if r.HasField("spatial_registration")]
        return list({o.sop_instance_uid: o for o in found}.values())

    def refusals(self) -> list[common_pb2.Refusal]:
        """What was refused for this patient: series, registrations, chart items."""
        found = [r for f in self.findings.values() for r in f.refusals]
        found += [r.refusal for r in self.registrations.values() if r.HasField("refusal")]
        found += list(self.snapshot.refusals) if self.snapshot else []
        return found


class _Collector:
    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.patients: dict[str, PatientCase] = {}

    def case(self, key: str) -> PatientCase:
        return self.patients.setdefault(key, PatientCase(key))

    def take(self, message: Message) -> None:
        match message:
            case events_pb2.StudyReceived():
                self.case(message.patient_key).studies[message.study_instance_uid] = message
            case events_pb2.RecordReceived():
                self.case(message.patient_key).records += 1
            case events_pb2.FindingsReady():
                findings = message.findings
                self.case(findings.patient_key).findings[findings.study_instance_uid] = findings
            case events_pb2.RegistrationReady():
                registration = message.registration
                self.case(registration.patient_key).registrations[registration.registration_id] = registration
            case events_pb2.PatientUpdated():
                self._updated(message)
            case events_pb2.PredictionReady():
                self._predicted(message.predictions)
            case events_pb2.RecommendationReady():
                self._advised(message.advice)
            case events_pb2.PatientMerged():
                self._merged(message.surviving_patient_key, message.merged_patient_key)

    def _updated(self, message: events_pb2.PatientUpdated) -> None:
        case = self.case(message.patient_key)
        if case.snapshot is None or message.revision >= case.snapshot.revision:
            case.snapshot = fusion_pb2.PatientSnapshot.FromString(self._blobs.get(message.snapshot))

    def _predicted(self, predictions: twin_pb2.PatientPredictions) -> None:
        case = self.case(predictions.patient_key)
        if case.predictions is None or predictions.snapshot_revision >= case.predictions.snapshot_revision:
            case.predictions = predictions

    def _advised(self, advice: advisor_pb2.PatientAdvice) -> None:
        case = self.case(advice.patient_key)
        if case.advice is None or advice.snapshot_revision >= case.advice.snapshot_revision:
            case.advice = advice

    def _merged(self, survivor: str, merged: str) -> None:
        gone = self.patients.pop(merged, None)
        if gone is None:
            return
        case = self.case(survivor)
        case.studies.update(gone.studies)
        case.findings.update(gone.findings)
        case.registrations.update(gone.registrations)
        case.records += gone.records


# A merge comes first so that what follows lands on the survivor; within a topic, order per patient holds.
_ORDER = sorted(CATALOGUE, key=lambda t: t != "osler.patient.merged.v1")


def collect(log: EventLog, blobs: BlobStore) -> list[PatientCase]:
    """The cases of all patients in a log, by patient key."""
    collector = _Collector(blobs)
    merges: dict[str, str] = {}
    for topic in _ORDER:
        for record in log.read([topic]):
            message = unpack(record.event)
            if isinstance(message, events_pb2.PatientMerged):
                merges[message.merged_patient_key] = message.surviving_patient_key
            collector.take(message)
    for merged, survivor in merges.items():
        collector.take(events_pb2.PatientMerged(surviving_patient_key=survivor, merged_patient_key=merged))
    return [collector.patients[key] for key in sorted(collector.patients)]


def _plain(message: Message | None) -> dict[str, Any] | None:
    if message is None:
        return None
    plain: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return plain


def _patient(case: PatientCase, files: Mapping[str, str]) -> dict[str, Any]:
    snapshot = case.snapshot
    return {
        "patient_key": case.patient_key,
        "synthetic": bool(snapshot and snapshot.demographics.synthetic),
        "records": case.records,
        "studies": [
            {
                "study_instance_uid": uid,
                "modalities": list(study.modalities),
                "study_time": study.study_time.ToDatetime(UTC).isoformat() if study.HasField("study_time") else None,
                "quality": [_plain(q) for q in case.findings[uid].quality] if uid in case.findings else [],
                "routing": [_plain(r) for r in case.findings[uid].routing] if uid in case.findings else [],
            }
            for uid, study in sorted(case.studies.items(), key=lambda item: item[1].study_time.ToNanoseconds())
        ],
        "findings": [_plain(f) for uid in case.studies for f in getattr(case.findings.get(uid), "findings", [])],
        "registrations": [_plain(r) for r in case.registrations.values()],
        "timeline": [_plain(_without_embedded(e)) for e in snapshot.entries] if snapshot else [],
        "features": _plain(snapshot.features) if snapshot else None,
        "predictions": _plain(case.predictions),
        "recommendations": [_plain(r) for r in case.advice.recommendations] if case.advice else [],
        "responses": [_plain(r) for r in case.advice.responses] if case.advice else [],
        "priority": {"value": case.advice.priority, "reason": case.advice.priority_reason} if case.advice else None,
        "files": [
            {**(_plain(o) or {}), "path": files.get(o.sop_instance_uid, "")}
            for o in case.derived_objects()
        ],
        "errors": [_plain(r) for r in case.refusals()],
    }  # fmt: skip


def _without_embedded(entry: fusion_pb2.TimelineEntry) -> fusion_pb2.TimelineEntry:
    """Findings and registrations stand in full beside the timeline already."""
    slim = fusion_pb2.TimelineEntry()
    slim.CopyFrom(entry)
    slim.ClearField("finding")
    slim.ClearField("registration")
    return slim


def complete(case: PatientCase) -> bool:
    """True when every room has spoken about everything that came in for this patient."""
    analysed = all(uid in case.findings for uid in case.studies)
    snapshot = case.snapshot is not None
    advised = case.advice is not None and snapshot and case.advice.snapshot_revision == case.snapshot.revision  # type: ignore[union-attr]
    return analysed and snapshot and case.predictions is not None and advised


def to_json(
    cases: Iterable[PatientCase],
    quarantined: Iterable[QuarantineItem],
    inputs: Mapping[str, Any],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """The document `case.json`. `files`: SOP instance UID -> path of the written object, relative to the output folder."""
    cases = list(cases)
    errors = [{**(_plain(item.refusal) or {}), "door": item.door, "quarantine_id": item.id} for item in quarantined]
    refused = bool(errors) or any(case.refusals() for case in cases)
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": bool(cases) and all(complete(case) for case in cases),
        "refused_input": refused,
        "patients": [_patient(case, files) for case in cases],
        "errors": errors,
        "provenance": {
            "code_version": version("osler"),
            "created_at": datetime.now(UTC).isoformat(),
            "inputs": dict(inputs),
            "intended_use": "Decision support for clinicians. Not a cleared medical device.",
        },
    }
