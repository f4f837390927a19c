"""Keeps the latest advice of each patient at hand."""

from __future__ import annotations

from osler.events.v1 import events_pb2

from services.alerts import store
from services.alerts.worklist.handlers import patient_changed
from services.platform.events import Event
from services.platform.room import Effect, Handler, Transaction


def recommendation_ready(event: Event, message: events_pb2.RecommendationReady) -> Effect:
    def effect(tx: Transaction) -> None:
        if store.save_advice(tx.session, message.advice):
            patient_changed(tx.session, message.advice.patient_key)

    return effect


def patient_merged(event: Event, message: events_pb2.PatientMerged) -> Effect:
    def effect(tx: Transaction) -> None:
        store.drop_advice(tx.session, message.merged_patient_key)

    return effect


HANDLERS: dict[str, Handler] = {
    "osler.recommendation.ready.v1": recommendation_ready,
    "osler.patient.merged.v1": patient_merged,
}
