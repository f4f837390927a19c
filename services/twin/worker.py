"""Event handlers: a new snapshot gives new predictions."""

from __future__ import annotations

from datetime import UTC, datetime

from osler.events.v1 import events_pb2

from services.clinical.snapshots import read_snapshot
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError
from services.platform.events import Event, event_id, pack
from services.platform.room import Effect, Handler, Transaction
from services.twin import store
from services.twin.predictions import predict

ROOM = "twin"


def patient_updated(blobs: BlobStore) -> Handler:
    """Handles `osler.patient.updated.v1`: predicts from the snapshot, keeps and announces the result."""

    def handle(event: Event, message: events_pb2.PatientUpdated) -> Effect:
        snapshot = read_snapshot(blobs, message.snapshot)
        if snapshot.patient_key != message.patient_key:
            raise RefusedError(
                "snapshot.wrong_patient",
                "the snapshot that the event refers to belongs to another patient key",
                remedy="announce the update again from fusion",
                subject=event.id,
            )
        now = datetime.now(UTC)
        predictions = predict(snapshot, message.snapshot.sha256, now)

        def effect(tx: Transaction) -> None:
            if message.merged_patient_keys:
                store.forget(tx.session, list(message.merged_patient_keys))
            store.put(tx.session, predictions, message.snapshot.sha256, now)
            ready = events_pb2.PredictionReady(predictions=predictions, snapshot=message.snapshot)
            tx.emit(
                pack(
                    ready,
                    source=ROOM,
                    key=message.patient_key,
                    id=event_id(ROOM, event.id),
                    traceparent=event.traceparent,
                )
            )

        return effect

    return handle
