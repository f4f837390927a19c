"""The archive: instances filed once, studies announced when complete, and again when late instances reopen them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.ingest.v1 import ingest_pb2
from sqlalchemy import Row
from sqlalchemy.orm import Session

from services.clinical.identity import accession_number_hash, patient_key
from services.ingest import store
from services.ingest.completion import completion_reason
from services.ingest.dicom_file import MEDIA_TYPE, InstanceHeader
from services.ingest.dicom_filing import Filer
from services.ingest.same_instance import same_data_set
from services.platform import telemetry
from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import RefusedError
from services.platform.events import event_id, pack

ROOM = "ingest"
MANIFEST_MEDIA_TYPE = "application/vnd.osler.study-manifest+protobuf"


class Keeper(Protocol):
    """Where the bytes of instances go: Osler's own blob storage, or the archive it stands in front of."""

    def keep(self, header: InstanceHeader, content: bytes) -> common_pb2.BlobRef:
        """Keeps an instance; the same again changes nothing. Raises RetryableError or RefusedError."""


@dataclass(frozen=True)
class EmbeddedKeeper:
    """Keeps instances as studies/<study>/<series>/<instance>.dcm in blob storage."""

    blobs: BlobStore

    def keep(self, header: InstanceHeader, content: bytes) -> common_pb2.BlobRef:
        uids = (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid)
        return self.blobs.put(content, MEDIA_TYPE, "studies/" + "/".join(uids) + ".dcm")


@dataclass(frozen=True)
class Archive:
    """`key`: secret of the patient keys; `clock`: aware UTC now."""

    database: Database
    blobs: BlobStore
    keeper: Keeper
    key: bytes
    quiet_period: timedelta
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @cached_property
    def filer(self) -> Filer:
        """Through which instances of all doors are indexed."""
        return Filer(self.database, ROOM)

    def patient_key(self, header: InstanceHeader) -> str:
        """The patient key of an instance."""
        return patient_key(self.key, header.patient.issuer, header.patient.value)

    def trace(self, study_uid: str) -> str:
        """The trace of a study, from its first instance to what is shown of it, as a W3C `traceparent`."""
        return telemetry.traceparent_for(self.key, study_uid)

    def file(self, header: InstanceHeader, content: bytes) -> bool:
        """Files an instance; False when it was there. Completes its study when the expected count is reached.

        Raises RefusedError (`dicom.conflicting_instance`, `dicom.contradictory_*`) or RetryableError.
        """
        with telemetry.span("instance file", kind="server", parent=self.trace(header.study_instance_uid)):
            return self._file(header, content)

    def _file(self, header: InstanceHeader, content: bytes) -> bool:
        with self.database.session() as session:
            known = store.find_instance(session, header.sop_instance_uid)
        if known is None:
            ref = self.keeper.keep(header, content)
            indexed = self.filer.file(self._new(header, ref), self.clock())
            if indexed.full:
                self.complete(header.study_instance_uid)
            if indexed.stored:
                return True
        self.check_same(header, content)
        return False

    def index(self, session: Session, header: InstanceHeader, ref: common_pb2.BlobRef, *, derived: bool) -> bool:
        """Indexes an instance that is kept already; False when it was there. See `store.add_instance`."""
        return store.add_instance(session, self._new(header, ref), self.clock(), derived=derived)

    def _new(self, header: InstanceHeader, ref: common_pb2.BlobRef) -> store.NewInstance:
        return store.NewInstance(header, self.patient_key(header), store.Content(ref.uri, ref.sha256, ref.size_bytes))

    def check_same(self, header: InstanceHeader, content: bytes) -> None:
        """Raises RefusedError `dicom.conflicting_instance` when the SOP instance is filed with other content."""
        with self.database.session() as session:
            known = store.find_instance(session, header.sop_instance_uid)
        if known is not None:
            self._check_same(known, header, content)

    def _check_same(self, known: Row[Any], header: InstanceHeader, content: bytes) -> None:
        if known.data_set_sha256 == header.data_set_sha256:
            return
        if not same_data_set(self.blobs.get(instance_ref(known)), content):
            raise RefusedError(
                "dicom.conflicting_instance",
                "the SOP instance is stored with other content",
                missing=["(0008,0018) SOPInstanceUID"],
                remedy="give changed instances a new SOP Instance UID (PS3.3 C.12.1.1)",
                subject=header.sop_instance_uid,
            )

    def commit(self, wanted: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
        """Storage commitment for (SOP class, SOP instance) pairs: (held, not held). Completes studies held in full."""
        with self.database.transaction(ROOM) as tx:
            held, missing = store.commit_instances(tx.session, wanted)
            studies = store.studies_of(tx.session, held)
        for study_uid in sorted(studies):
            self.complete(study_uid)
        return held, missing

    def complete_due(self, *, force: bool = False) -> bool:
        """Announces every open study that is due (`force`: every open one); True when there was one.

        After a clock that went ahead was set right, a study would wait for its quiet period until the time that it came
        in by the wrong clock: its period begins anew.
        """
        now = self.clock()
        with self.database.session() as session:
            waiting = store.open_studies(session)
        if any(state.last_received_at > now for state in waiting):
            with self.database.transaction(ROOM) as tx:
                store.restart_quiet_periods(tx.session, now)
        announced = [self.complete(state.study_uid, declared=force) for state in waiting]
        return any(announced)

    def complete(self, study_uid: str, *, declared: bool = False) -> bool:
        """Announces a study if it is complete now; True when it was announced."""
        with self.database.session() as session:
            state = store.study_state(session, study_uid)
            if state is None:
                return False
            reason = completion_reason(state, self.clock(), self.quiet_period, declared=declared)
            rows = store.study_rows(session, study_uid) if reason else None
        if rows is None:
            return False
        study, revision = rows[0], rows[0].revision + 1
        manifest = build_manifest(*rows, revision=revision, accession=self._accession(study))
        data = manifest.SerializeToString(deterministic=True)
        ref = self.blobs.put(data, MANIFEST_MEDIA_TYPE, f"studies/{study_uid}/manifest-{revision}.pb")
        event = pack(
            _announcement(manifest, ref, reason),
            source=ROOM,
            key=study.patient_key,
            id=event_id(ROOM, "study", study_uid, str(revision)),
            time=self.clock(),
            subject=study_uid,
            traceparent=self.trace(study_uid),
        )
        with self.database.transaction(ROOM) as tx:
            marked = store.mark_complete(tx.session, study_uid, version=study.version, revision=revision, reason=reason)
            if marked:
                tx.emit(event)
        return marked

    def manifest(self, study_uid: str) -> tuple[ingest_pb2.StudyManifest, bool] | None:
        """The manifest of a study as it is now, and whether it is complete; None when unknown.

        A study that was never announced has revision 1: the one it will be announced with.
        """
        with self.database.session() as session:
            rows = store.study_rows(session, study_uid)
        if rows is None:
            return None
        revision = max(rows[0].revision, 1)
        return build_manifest(*rows, revision=revision, accession=self._accession(rows[0])), rows[0].complete

    def _accession(self, study: Row[Any]) -> str:
        return accession_number_hash(self.key, study.issuer_of_patient_id, study.accession_number)


def instance_ref(row: Row[Any]) -> common_pb2.BlobRef:
    """The reference to an instance's bytes."""
    return common_pb2.BlobRef(
        uri=row.content_uri, sha256=row.content_sha256, size_bytes=row.content_size, media_type=MEDIA_TYPE
    )


def build_manifest(
    study: Row[Any], series: Iterable[Row[Any]], instances: Iterable[Row[Any]], *, revision: int, accession: str
) -> ingest_pb2.StudyManifest:
    """The manifest of a study from its index rows; the same rows give the same bytes."""
    manifest = ingest_pb2.StudyManifest(
        study_instance_uid=study.study_uid,
        patient_key=study.patient_key,
        study_description=study.study_description,
        accession_number_hash=accession,
        revision=revision,
    )
    if study.study_time is not None:
        manifest.study_time.FromDatetime(study.study_time)
    entries = {}
    for row in series:
        entries[row.series_uid] = manifest.series.add(
            series_instance_uid=row.series_uid,
            modality=row.modality,
            frame_of_reference_uid=row.frame_of_reference_uid,
            series_description=row.series_description,
            body_part_examined=row.body_part,
            derived=row.derived,
        )
    for row in instances:
        entries[row.series_uid].instances.add(
            sop_instance_uid=row.sop_uid, sop_class_uid=row.sop_class_uid, content=instance_ref(row)
        )
    return manifest


def _announcement(manifest: ingest_pb2.StudyManifest, ref: common_pb2.BlobRef, reason: int) -> events_pb2.StudyReceived:
    message = events_pb2.StudyReceived(
        patient_key=manifest.patient_key,
        study_instance_uid=manifest.study_instance_uid,
        revision=manifest.revision,
        manifest=ref,
        completion_reason=ingest_pb2.CompletionReason.Name(reason),
        modalities=sorted({entry.modality for entry in manifest.series if entry.modality and not entry.derived}),
    )
    if manifest.HasField("study_time"):
        message.study_time.CopyFrom(manifest.study_time)
    return message
