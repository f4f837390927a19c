"""The chart's door: HL7 v2 messages and FHIR documents in, each kept once and announced for each patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.ingest.v1 import ingest_pb2

from services.clinical.identity import PatientIdentifier, patient_key
from services.clinical.provenance import timestamp
from services.clinical.refusals import to_refusal
from services.ingest import fhir_import, hl7v2, store
from services.ingest.archive import ROOM
from services.ingest.fhir_parse import digest
from services.platform.blobs import BlobStore
from services.platform.database import Database, DatabaseTransaction
from services.platform.errors import RefusedError
from services.platform.events import event_id, pack
from services.platform.quarantine import Quarantine

HL7_DOOR = "hl7v2"
FHIR_DOOR = "fhir"
HL7_MEDIA_TYPE = "x-application/hl7-v2+er7"
# Messages of one transaction: enough to share the wait for the disk, few enough to lock the database for a moment only.
BATCH = 256
_WRITERS = 16


@dataclass(frozen=True)
class Taken:
    """What an import did: events announced (none for what came before), parts refused, patients seen."""

    event_ids: tuple[str, ...] = ()
    refusals: tuple[common_pb2.Refusal, ...] = ()
    patients: Mapping[str, PatientIdentifier] = field(default_factory=dict)


@dataclass(frozen=True)
class _Incoming:
    """One HL7 v2 message, read as far as the door reads it."""

    parts: tuple[hl7v2.PatientPart, ...]
    merges: tuple[hl7v2.Merge, ...]
    stated_at: datetime
    record_type: str
    digest: str


def _record(key: str, ref: common_pb2.BlobRef, format: ingest_pb2.RecordFormat, record_type: str) -> store.NewRecord:
    content = store.Content(ref.uri, ref.sha256, ref.size_bytes)
    return store.NewRecord(key, content, format, record_type, event_id(ROOM, "record", key, ref.sha256), ref.media_type)


@cache
def _writers() -> ThreadPoolExecutor:
    """Threads that wait for the disk or the object store."""
    return ThreadPoolExecutor(max_workers=_WRITERS, thread_name_prefix="records")


@dataclass(frozen=True)
class Records:
    """Takes in records. `key`: secret of the patient keys; `issuers`, `default_issuer` as in settings.identity."""

    database: Database
    blobs: BlobStore
    quarantine: Quarantine
    key: bytes
    issuers: Mapping[str, str]
    default_issuer: str

    def take_message(self, content: bytes) -> list[str]:
        """Keeps one HL7 v2 message and announces it; the event ids, [] when it came before.

        Raises RefusedError `hl7v2.*` or RetryableError.
        """
        [events] = self._take_incoming([self._incoming(content)])
        return events

    def receive_message(self, content: bytes) -> Taken:
        """As `take_message`, but what is refused is quarantined. Raises RetryableError when neither is possible."""
        return self.receive_batch([content])[0]

    def receive_batch(self, contents: Sequence[bytes]) -> list[Taken]:
        """As `receive_message` for each message, kept in one transaction: all of them, or with an error none.

        What is refused is quarantined by itself and does not hold up the others.
        """
        read: list[_Incoming | RefusedError] = []
        for content in contents:
            try:
                read.append(self._incoming(content))
            except RefusedError as error:
                read.append(error)
        announced = iter(self._take_incoming([row for row in read if isinstance(row, _Incoming)]))
        return [
            Taken(tuple(next(announced)))
            if isinstance(row, _Incoming)
            else Taken(refusals=(self.refuse(HL7_DOOR, content, row),))
            for row, content in zip(read, contents, strict=True)
        ]

    def _incoming(self, content: bytes) -> _Incoming:
        message = hl7v2.parse(content)
        return _Incoming(
            parts=tuple(hl7v2.patient_parts(message, self.issuers, self.default_issuer)),
            merges=tuple(hl7v2.merges(message, self.issuers, self.default_issuer)),
            stated_at=hl7v2.stated_at(message, datetime.now(UTC)),
            record_type=hl7v2.record_type(message),
            digest=digest(content),
        )

    def _take_incoming(self, incoming: Sequence[_Incoming]) -> list[list[str]]:
        """The event ids of each message: those of its records, and of its merges when one of its records is new."""
        parts = [(row, part.content, self._key(part.patient)) for row in incoming for part in row.parts]
        files = [(key, content, HL7_MEDIA_TYPE, "hl7") for _, content, key in parts]
        records = [
            _record(key, ref, ingest_pb2.RECORD_FORMAT_HL7V2, row.record_type)
            for (row, _, key), ref in zip(parts, self._keep_all(files), strict=True)
        ]
        with self.database.transaction(ROOM) as tx:
            new = self._announce(tx, records)
            made: dict[int, list[str]] = {id(row): [] for row in incoming}
            for (row, *_), record in zip(parts, records, strict=True):
                if record.event_id in new:
                    new.discard(record.event_id)
                    made[id(row)].append(record.event_id)
            for row in incoming:
                if made[id(row)]:
                    made[id(row)] += [
                        self._announce_merge(tx, merge, row.digest, row.stated_at) for merge in row.merges
                    ]
        return [made[id(row)] for row in incoming]

    def receive_messages(self, content: bytes) -> Taken:
        """As `receive_message`, for a file of messages or a batch."""
        messages = hl7v2.split_messages(content) or [content]
        taken = [row for n in range(0, len(messages), BATCH) for row in self.receive_batch(messages[n : n + BATCH])]
        return Taken(
            tuple(event for part in taken for event in part.event_ids),
            tuple(refusal for part in taken for refusal in part.refusals),
        )

    def take_fhir(self, content: bytes, known_patients: Mapping[str, PatientIdentifier] | None = None) -> Taken:
        """Keeps a FHIR document, one record for each patient, and announces them; refused parts are quarantined.

        `known_patients`: `Taken.patients` of documents that came before and that this one may refer to.
        Raises RefusedError `fhir.not_json` or `fhir.not_a_resource` for what is no FHIR at all, or RetryableError.
        """
        read = fhir_import.read(content, self.issuers, self.default_issuer, known_patients)
        refusals = tuple(self.refuse(FHIR_DOOR, item.content, item.error) for item in read.refused)
        return Taken(tuple(self.take_charts(read.records)), refusals, read.patients)

    def take_charts(self, charts: Sequence[fhir_import.PatientRecord]) -> list[str]:
        """Keeps charts, each of one patient, in one transaction, and announces them; the event ids of the new ones.

        Raises RetryableError.
        """
        keys = [self._key(row.patient) for row in charts]
        files = [(key, row.content, fhir_import.MEDIA_TYPE, "json") for key, row in zip(keys, charts, strict=True)]
        kind, refs = ingest_pb2.RECORD_FORMAT_FHIR_R4, self._keep_all(files)
        records = [_record(key, ref, kind, "Bundle") for key, ref in zip(keys, refs, strict=True)]
        with self.database.transaction(ROOM) as tx:
            new = self._announce(tx, records)
        return [record.event_id for record in records if record.event_id in new]

    def receive_fhir(self, content: bytes, known_patients: Mapping[str, PatientIdentifier] | None = None) -> Taken:
        """As `take_fhir`, but a document that is no FHIR at all is quarantined as well."""
        try:
            return self.take_fhir(content, known_patients)
        except RefusedError as error:
            return Taken(refusals=(self.refuse(FHIR_DOOR, content, error),), patients=known_patients or {})

    def replay_message(self, content: bytes) -> None:
        """Puts a quarantined message in again. Raises RefusedError when it is refused again."""
        self.take_message(content)

    def replay_fhir(self, content: bytes) -> None:
        """Puts a quarantined document in again. Raises RefusedError when part of it is refused again."""
        read = fhir_import.read(content, self.issuers, self.default_issuer)
        if read.refused:
            raise read.refused[0].error
        self.take_fhir(content)

    def refuse(self, door: str, content: bytes, error: RefusedError) -> common_pb2.Refusal:
        """Quarantines content and returns the refusal."""
        refusal = to_refusal(error, subject=digest(content))
        self.quarantine.add(door, content, refusal)
        return refusal

    def _key(self, patient: PatientIdentifier) -> str:
        return patient_key(self.key, patient.issuer, patient.value)

    def _keep_all(self, files: Sequence[tuple[str, bytes, str, str]]) -> list[common_pb2.BlobRef]:
        """Stores (patient key, content, media type, suffix) side by side: most of the time goes in waiting for the disk."""

        def keep(some: Sequence[tuple[str, bytes, str, str]]) -> list[common_pb2.BlobRef]:
            return [
                self.blobs.put(content, media_type, f"records/{key}/{suffix}.{suffix}")
                for key, content, media_type, suffix in some
            ]

        if len(files) < 2:
            return keep(files)
        each = -(-len(files) // _WRITERS)
        shares = [files[start : start + each] for start in range(0, len(files), each)]
        return [ref for refs in _writers().map(keep, shares) for ref in refs]

    def _announce(self, tx: DatabaseTransaction, records: Sequence[store.NewRecord]) -> set[str]:
        """Announces the records that are new; their event ids."""
        now = datetime.now(UTC)
        new = store.add_records(tx.session, records, now)
        waiting = set(new)
        for record in records:
            if record.event_id not in waiting:
                continue
            waiting.discard(record.event_id)
            content = record.content
            message = events_pb2.RecordReceived(
                patient_key=record.patient_key,
                format=record.format,
                content=common_pb2.BlobRef(
                    uri=content.uri,
                    sha256=content.sha256,
                    size_bytes=content.size_bytes,
                    media_type=record.media_type,
                ),
                record_type=record.record_type,
                received_at=timestamp(now),
            )
            tx.emit(pack(message, source=ROOM, key=record.patient_key, id=record.event_id, time=now))
        return new

    def _announce_merge(self, tx: DatabaseTransaction, merge: hl7v2.Merge, cause: str, stated_at: datetime) -> str:
        surviving, merged = self._key(merge.surviving), self._key(merge.merged)
        id_ = event_id(ROOM, "merge" if merge.same else "unmerge", surviving, merged, cause)
        at, keys = timestamp(stated_at), {"surviving_patient_key": surviving, "merged_patient_key": merged}
        message = (
            events_pb2.PatientMerged(**keys, merged_at=at)
            if merge.same
            else events_pb2.PatientUnmerged(**keys, unmerged_at=at)
        )
        tx.emit(pack(message, source=ROOM, key=surviving, id=id_, time=stated_at))
        return id_
