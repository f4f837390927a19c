"""Event handlers: a received study becomes findings; a merge of patients moves them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.clinical.dicom.series import read_manifest_series
from services.imaging import store
from services.imaging.analysis import analyze_study, derived_object
from services.imaging.compute import Compute
from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import RefusedError
from services.platform.events import Event, event_id, pack
from services.platform.quarantine import Quarantine
from services.platform.room import Effect, Handler, Transaction

ROOM = "imaging"
DICOM = "application/dicom"


class Analyst:
    """Studies to findings, once for each study and revision."""

    def __init__(self, database: Database, blobs: BlobStore, quarantine: Quarantine, compute: Compute) -> None:
        self._database = database
        self._blobs = blobs
        self._quarantine = quarantine
        self._compute = compute

    def manifest(self, reference: common_pb2.BlobRef) -> ingest_pb2.StudyManifest:
        """The manifest that a reference names. Raises RefusedError `manifest.unreadable`."""
        try:
            return ingest_pb2.StudyManifest.FromString(self._blobs.get(reference))
        except DecodeError as error:
            raise RefusedError(
                "manifest.unreadable",
                "the blob is not a study manifest",
                remedy="Announce the study again from ingest.",
                subject=reference.sha256,
            ) from error

    def findings(self, reference: common_pb2.BlobRef, made_at: datetime) -> tuple[imaging_pb2.StudyFindings, str]:
        """The findings of a study, and the SHA-256 of the manifest that they were made from.

        Those already kept for the same manifest or a newer revision are given again. Each reason to refuse an analysis
        is put into the quarantine with the manifest.
        """
        manifest = self.manifest(reference)
        with self._database.session() as session:
            held = store.of_study(session, manifest.study_instance_uid)
        if held is not None and (held[1] == reference.sha256 or held[0].study_revision > manifest.revision):
            return held
        result = self.analyze(manifest, made_at)
        for refusal in result.refusals:
            self._quarantine.add(ROOM, reference, refusal)
        return result, reference.sha256

    def analyze(self, manifest: ingest_pb2.StudyManifest, made_at: datetime) -> imaging_pb2.StudyFindings:
        """The findings of a study, made now; the objects made of them are stored."""
        analysis = analyze_study(
            manifest,
            lambda uid: read_manifest_series(manifest, uid, self._blobs),
            self._compute.hippocampus,
            made_at,
        )
        for made in analysis.objects:
            name = f"derived/{made.study_instance_uid}/{made.sop_instance_uid}.dcm"
            reference = self._blobs.put(made.content, DICOM, name)
            analysis.findings.derived_objects.append(derived_object(made, reference))
        return analysis.findings


def announce(
    tx: Transaction,
    findings: imaging_pb2.StudyFindings,
    manifest_sha256: str,
    *,
    traceparent: str = "",
    occasion: str = "",
) -> None:
    """Keeps the findings and announces them; the same study, revision and occasion twice is one event.

    `occasion` tells a later analysis of the same revision from the first one.
    """
    store.put(tx.session, findings, manifest_sha256, datetime.now(UTC))
    tx.emit(
        pack(
            events_pb2.FindingsReady(findings=findings),
            source=ROOM,
            key=findings.patient_key,
            id=event_id(ROOM, findings.study_instance_uid, str(findings.study_revision), *filter(None, [occasion])),
            subject=findings.study_instance_uid,
            traceparent=traceparent,
        )
    )


def handlers(analyst: Analyst) -> Mapping[str, Handler]:
    """Handlers by event type."""

    def study_received(event: Event, message: events_pb2.StudyReceived) -> Effect:
        findings, manifest_sha256 = analyst.findings(message.manifest, event.time)
        if findings.study_instance_uid != message.study_instance_uid:
            raise RefusedError(
                "manifest.wrong_study",
                "the manifest that the event refers to belongs to another study",
                remedy="Announce the study again from ingest.",
                subject=event.id,
            )
        if findings.study_revision > message.revision:
            return lambda tx: None
        return lambda tx: announce(tx, findings, manifest_sha256, traceparent=event.traceparent)

    def patient_merged(event: Event, message: events_pb2.PatientMerged) -> Effect:
        return lambda tx: store.merge(tx.session, message.surviving_patient_key, message.merged_patient_key)

    def patient_unmerged(event: Event, message: events_pb2.PatientUnmerged) -> Effect:
        return lambda tx: store.unmerge(tx.session, message.surviving_patient_key)

    return {
        "osler.study.received.v1": study_received,
        "osler.patient.merged.v1": patient_merged,
        "osler.patient.unmerged.v1": patient_unmerged,
    }
