"""Fusion on both databases: the same records, merges and repetitions end in the same snapshot."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.ingest.v1 import ingest_pb2

from services.fusion import worker
from services.fusion.service import FusionService
from services.platform.blobs import BlobStore
from services.platform.database import Database, migrate
from services.platform.events import pack

RECEIVED = Timestamp(seconds=int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))


def observation(id: str, value: float) -> bytes:
    resource = {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
        "effectiveDateTime": "2025-03-01T10:00:00Z",
        "issued": "2025-03-01T11:00:00Z",
        "valueQuantity": {"value": value, "code": "mg/dL"},
    }
    return json.dumps(resource).encode()


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(f"file://{tmp_path}/blobs")


@pytest.fixture
def ready(database: Database) -> Database:
    migrate(database, "platform")
    migrate(database, "fusion")
    return database


def record(database, blobs, key, content, cause):
    message = events_pb2.RecordReceived(
        patient_key=key,
        format=ingest_pb2.RECORD_FORMAT_FHIR_R4,
        content=blobs.put(content, "application/fhir+json", "record.json"),
        received_at=RECEIVED,
    )
    effect = worker.record_received(blobs)(pack(message, source="ingest", key=key, id=cause), message)
    with database.transaction("fusion") as tx:
        effect(tx)


def merge(database, blobs, merged, surviving, cause):
    message = events_pb2.PatientMerged(merged_patient_key=merged, surviving_patient_key=surviving, merged_at=RECEIVED)
    effect = worker.patient_merged(blobs)(pack(message, source="ingest", key=surviving, id=cause), message)
    with database.transaction("fusion") as tx:
        effect(tx)


def snapshot(database, blobs, key):
    request = fusion_pb2.GetSnapshotRequest(patient_key=key)
    return FusionService(database, blobs).GetSnapshot(request, None).snapshot


def values(found):
    return sorted(entry.quantity.value for entry in found.entries)


def test_records_merges_and_repetitions(ready, blobs):
    record(ready, blobs, "old", observation("a", 1.1), "c1")
    record(ready, blobs, "new", observation("b", 1.9), "c2")
    merge(ready, blobs, "old", "new", "c3")
    before = snapshot(ready, blobs, "old")
    assert (before.patient_key, before.revision, values(before)) == ("new", 2, [1.1, 1.9])
    record(ready, blobs, "old", observation("a", 1.1), "c1")
    merge(ready, blobs, "old", "new", "c3")
    assert snapshot(ready, blobs, "new") == before
    patients = FusionService(ready, blobs).ListPatients(fusion_pb2.ListPatientsRequest(), None).patients
    assert [patient.patient_key for patient in patients] == ["new"]


def test_two_keys_of_one_patient_at_the_same_time_lose_nothing(ready, blobs):
    merge(ready, blobs, "old", "new", "c0")
    failures = []

    def feed(key: str) -> None:
        try:
            for number in range(8):
                record(
                    ready,
                    blobs,
                    key,
                    observation(f"{key}-{number}", 1 + number / 10 + len(key) / 100),
                    f"{key}{number}",
                )
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=feed, args=(key,)) for key in ("old", "new")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = snapshot(ready, blobs, "new")
    assert found.revision == 17
    assert {source.reference for entry in found.entries for source in entry.sources} == {
        f"Observation/{key}-{number}" for key in ("old", "new") for number in range(8)
    }
