"""Keeps the reading worklist current: one task for each study that arrives, its place judged anew with every news."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from sqlalchemy.orm import Session

from services.alerts import report_store, store, worklist_store
from services.alerts.worklist import priority, scheduled, signals
from services.alerts.worklist_store import PatientRow, Workitem
from services.clinical.dicom.derived import derived_uid
from services.clinical.snapshots import read_snapshot
from services.platform.blobs import BlobStore
from services.platform.events import Event
from services.platform.room import Effect, Handler, Transaction

_OF_A_PATIENT = (
    worklist_store.STUDY,
    worklist_store.WORKITEM,
    report_store.REPORT,
    report_store.COMMUNICATION,
)


def handlers(blobs: BlobStore) -> dict[str, Handler]:
    """What the worklist and the reports listen to, beside the advice."""
    return {
        "osler.study.received.v1": study_received,
        "osler.findings.ready.v1": findings_ready,
        "osler.patient.updated.v1": patient_updated(blobs),
        "osler.record.received.v1": scheduled.record_received(blobs),
    }


def study_received(event: Event, message: events_pb2.StudyReceived) -> Effect:
    at = message.study_time.ToDatetime(UTC) if message.HasField("study_time") else None

    def effect(tx: Transaction) -> None:
        new = worklist_store.save_study(
            tx.session,
            message.study_instance_uid,
            message.patient_key,
            message.revision,
            message.manifest,
            message.modalities,
            at,
            event.known_time,
        )
        if new:
            _open_reading(tx.session, message, event)
            reprioritise(tx.session, message.study_instance_uid)

    return effect


def _open_reading(session: Session, message: events_pb2.StudyReceived, event: Event) -> None:
    """A reading task, unless one is open; images that came after a reading ask for another."""
    uid = message.study_instance_uid
    known = worklist_store.workitems(session, kinds=["reading"], study_uid=uid)
    if any(item.open for item in known):
        return
    routine = priority.judge([])
    study = worklist_store.find_study(session, uid)
    item = Workitem(
        derived_uid("reading", uid, str(message.revision)),
        "reading",
        uid,
        study.patient_key if study else message.patient_key,
        "SCHEDULED",
        event.known_time,
        routine.due(event.known_time),
        routine.urgency,
        routine.reasons,
    )
    worklist_store.save_workitem(session, item)


def findings_ready(event: Event, message: events_pb2.FindingsReady) -> Effect:
    def effect(tx: Transaction) -> None:
        if worklist_store.save_findings(tx.session, message.findings, event.known_time):
            reprioritise(tx.session, message.findings.study_instance_uid)

    return effect


def patient_updated(blobs: BlobStore) -> Handler:
    """Keeps the newest snapshot and what it says about urgency; what came with a merged key follows the patient."""

    def handler(event: Event, message: events_pb2.PatientUpdated) -> Effect:
        snapshot: fusion_pb2.PatientSnapshot = read_snapshot(blobs, message.snapshot)
        history = tuple(signals.of_history(snapshot, event.known_time))
        row = PatientRow(message.patient_key, message.revision, message.snapshot, history)

        def effect(tx: Transaction) -> None:
            if worklist_store.save_patient(tx.session, row):
                worklist_store.adopt(tx.session, _OF_A_PATIENT, message.patient_key, message.merged_patient_keys)
                patient_changed(tx.session, message.patient_key)

        return effect

    return handler


def patient_changed(session: Session, patient_key: str) -> None:
    """Judges anew what waits for this patient: advice or record changed."""
    for item in worklist_store.workitems(session, patient_key=patient_key, states=["SCHEDULED", "IN PROGRESS"]):
        if item.kind == "reading":
            reprioritise(session, item.study_instance_uid)


def reprioritise(session: Session, study_uid: str) -> None:
    """Judges the open reading tasks of one study by all that is known now. The arrival, and so the wait, stays."""
    study = worklist_store.find_study(session, study_uid)
    for item in worklist_store.workitems(session, kinds=["reading"], study_uid=study_uid):
        if not item.open:
            continue
        patient = worklist_store.find_patient(session, item.patient_key)
        advice = store.load_advice(session, item.patient_key)
        found = signals.of_study(study.findings if study else None, advice, study_uid)
        found += patient.history if patient else ()
        found += scheduled.reasons_of(scheduled.priority_of(item.dataset))
        judged = priority.judge(found)
        worklist_store.save_workitem(
            session,
            replace(item, urgency=judged.urgency, reasons=judged.reasons, due_at=judged.due(item.arrived_at)),
        )
