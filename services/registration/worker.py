"""Event handlers: a received study makes new pairs possible; each is registered once and announced, refused ones too."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2

from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import RefusedError
from services.platform.events import Event, event_id, pack
from services.platform.room import Effect, Handler, Transaction
from services.registration import store
from services.registration.align import Method
from services.registration.compute import Compute
from services.registration.deformation import Deformation
from services.registration.geometry import Matrix
from services.registration.plan import Pair, plan
from services.registration.registrar import ROOM, read_manifest, register_pair, registration_id
from services.registration.resampling import mapping, resampled
from services.registration.rigid import Progress, silent


class Registrar:
    """Studies to registrations, once for each pair of series contents."""

    def __init__(self, database: Database, blobs: BlobStore, compute: Compute) -> None:
        self._database = database
        self._blobs = blobs
        self._compute = compute

    def manifest(self, reference: common_pb2.BlobRef) -> ingest_pb2.StudyManifest:
        """The manifest that a reference names. Raises RefusedError `manifest.unreadable`."""
        return read_manifest(reference, self._blobs)

    def register(
        self,
        pair: Pair,
        manifests: Mapping[str, ingest_pb2.StudyManifest],
        made_at: datetime,
        progress: Progress = silent,
        method: Method = Method.RIGID,
    ) -> registration_pb2.Registration:
        """The registration of one pair: as kept, or run now."""
        with self._database.session() as session:
            held = store.get(session, registration_id(pair, manifests, method))
        return held or register_pair(pair, manifests, self._blobs, self._compute, made_at, progress, method)

    def resample(
        self, registration: registration_pb2.Registration, manifests: Mapping[str, ingest_pb2.StudyManifest]
    ) -> list[imaging_pb2.DerivedObject]:
        """The moving series on the fixed grid, stored; the same registration gives the same objects."""
        return resampled(registration, manifests, self._blobs)

    def mapping(self, registration: registration_pb2.Registration) -> Matrix | Deformation:
        """What a registration maps points by. Raises RefusedError `registration.no_transform`."""
        return mapping(registration, self._blobs)

    def new_pairs(
        self, manifest: ingest_pb2.StudyManifest, patient_key: str
    ) -> tuple[list[Pair], dict[str, ingest_pb2.StudyManifest]]:
        """The pairs that this study takes part in and that are not registered yet, and the manifests they need."""
        with self._database.session() as session:
            others = store.studies(session, patient_key)
        others.pop(manifest.study_instance_uid, None)
        manifests = {uid: self.manifest(reference) for uid, (_, reference) in others.items()}
        manifests[manifest.study_instance_uid] = manifest
        pairs = [
            pair
            for pair in plan(list(manifests.values()))
            if manifest.study_instance_uid in (pair.fixed.study_instance_uid, pair.moving.study_instance_uid)
        ]
        ids = {pair: registration_id(pair, manifests) for pair in pairs}
        with self._database.session() as session:
            known = store.known(session, ids.values())
        return [pair for pair in pairs if ids[pair] not in known], manifests

    def is_stale(self, message: events_pb2.StudyReceived) -> bool:
        """Whether a newer revision of the study was handled already."""
        with self._database.session() as session:
            held = store.studies(session, message.patient_key).get(message.study_instance_uid)
        return held is not None and held[0] > message.revision


def announce(tx: Transaction, registration: registration_pb2.Registration, traceparent: str = "") -> None:
    """Keeps a registration and announces it; the same registration twice is one event."""
    store.put(tx.session, registration, datetime.now(UTC))
    tx.emit(
        pack(
            events_pb2.RegistrationReady(registration=registration),
            source=ROOM,
            key=registration.patient_key,
            id=event_id(ROOM, registration.registration_id),
            subject=registration.registration_id,
            traceparent=traceparent,
        )
    )


def handlers(registrar: Registrar) -> Mapping[str, Handler]:
    """Handlers by event type."""

    def study_received(event: Event, message: events_pb2.StudyReceived) -> Effect:
        if registrar.is_stale(message):
            return lambda tx: None
        manifest = registrar.manifest(message.manifest)
        if manifest.study_instance_uid != message.study_instance_uid:
            raise RefusedError(
                "manifest.wrong_study",
                "the manifest that the event refers to belongs to another study",
                remedy="announce the study again from ingest",
                subject=event.id,
            )
        pairs, manifests = registrar.new_pairs(manifest, message.patient_key)
        made = [registrar.register(pair, manifests, event.time) for pair in pairs]

        def effect(tx: Transaction) -> None:
            uid, revision = message.study_instance_uid, message.revision
            store.put_study(tx.session, uid, message.patient_key, revision, message.manifest, datetime.now(UTC))
            for registration in made:
                registration.patient_key = message.patient_key
                announce(tx, registration, event.traceparent)

        return effect

    def patient_merged(event: Event, message: events_pb2.PatientMerged) -> Effect:
        return lambda tx: store.merge(tx.session, message.surviving_patient_key, message.merged_patient_key)

    def patient_unmerged(event: Event, message: events_pb2.PatientUnmerged) -> Effect:
        return lambda tx: store.unmerge(tx.session, message.surviving_patient_key)

    return {
        "osler.study.received.v1": study_received,
        "osler.patient.merged.v1": patient_merged,
        "osler.patient.unmerged.v1": patient_unmerged,
    }
