"""Keeps the board's picture of each patient current."""

from __future__ import annotations

from datetime import UTC

from osler.events.v1 import events_pb2

from services.board import findings_review, store
from services.platform.events import Event, event_id, pack
from services.platform.room import Effect, Handler, Transaction

ROOM = "board"


def study_received(event: Event, message: events_pb2.StudyReceived) -> Effect:
    at = message.study_time.ToDatetime(UTC) if message.HasField("study_time") else None
    study = store.Study(message.study_instance_uid, message.patient_key, message.manifest, at)
    return lambda tx: store.save_study(tx.session, study, message.revision)


def patient_updated(event: Event, message: events_pb2.PatientUpdated) -> Effect:
    return lambda tx: store.save_snapshot(tx.session, message.patient_key, message.revision, message.snapshot)


def prediction_ready(event: Event, message: events_pb2.PredictionReady) -> Effect:
    return lambda tx: store.save_predictions(tx.session, message.predictions)


def recommendation_ready(event: Event, message: events_pb2.RecommendationReady) -> Effect:
    return lambda tx: store.save_advice(tx.session, message.advice)


def findings_ready(event: Event, message: events_pb2.FindingsReady) -> Effect:
    """Keeps what imaging found, and says again what readers made of it: a new analysis must not undo a review."""
    if event.source == f"/osler/{ROOM}":
        return lambda tx: None

    def effect(tx: Transaction) -> None:
        store.save_analysis(tx.session, message.findings)
        announce_reviewed(tx, message.findings.study_instance_uid, event.id)

    return effect


def announce_reviewed(tx: Transaction, study_instance_uid: str, cause: str) -> None:
    """Announces a study's findings as readers left them; nothing for a study that nobody ever reviewed."""
    analysis = store.analysis(tx.session, study_instance_uid)
    reviews = [findings_review.from_row(row) for row in store.reviews_of_study(tx.session, study_instance_uid)]
    if analysis is None or not reviews:
        return
    findings = findings_review.apply(analysis, findings_review.standing(reviews))
    announced = event_id(ROOM, "reviewed", study_instance_uid, cause)
    tx.emit(pack(events_pb2.FindingsReady(findings=findings), source=ROOM, key=findings.patient_key, id=announced))


def registration_ready(event: Event, message: events_pb2.RegistrationReady) -> Effect:
    return lambda tx: store.save_registration(tx.session, message.registration)


def patient_merged(event: Event, message: events_pb2.PatientMerged) -> Effect:
    return lambda tx: store.merge(tx.session, message.surviving_patient_key, message.merged_patient_key)


def patient_unmerged(event: Event, message: events_pb2.PatientUnmerged) -> Effect:
    return lambda tx: store.unmerge(tx.session, message.surviving_patient_key, message.merged_patient_key)


HANDLERS: dict[str, Handler] = {
    "osler.study.received.v1": study_received,
    "osler.findings.ready.v1": findings_ready,
    "osler.patient.updated.v1": patient_updated,
    "osler.prediction.ready.v1": prediction_ready,
    "osler.recommendation.ready.v1": recommendation_ready,
    "osler.registration.ready.v1": registration_ready,
    "osler.patient.merged.v1": patient_merged,
    "osler.patient.unmerged.v1": patient_unmerged,
}
