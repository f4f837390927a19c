"""Worklist and reports on both databases: the same flow, and one winner where several people act at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.alerts import worklist_store
from services.alerts.reports.desk import ReportDesk
from services.alerts.worklist.handlers import handlers
from services.clinical.provenance import timestamp
from services.platform.blobs import BlobStore
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from services.platform.events import pack

KEY, STUDY = "a" * 32, "1.2.3"
NOW = datetime(2026, 8, 25, 9, 0, tzinfo=UTC)


@pytest.fixture
def blobs(tmp_path) -> BlobStore:
    return BlobStore(f"file://{tmp_path}/blobs")


@pytest.fixture
def desk(database: Database, blobs: BlobStore) -> ReportDesk:
    """A desk that has heard of one study with a pneumothorax; the findings came before the study."""
    migrate(database, "platform")
    migrate(database, "alerts")
    findings = imaging_pb2.StudyFindings(study_instance_uid=STUDY, patient_key=KEY, study_revision=1)
    findings.findings.add(finding_id="f", kind=imaging_pb2.FINDING_KIND_LESION).finding_type.display = "Pneumothorax"
    manifest = ingest_pb2.StudyManifest(study_instance_uid=STUDY, patient_key=KEY, revision=1)
    snapshot = fusion_pb2.PatientSnapshot(patient_key=KEY, revision=1)
    messages = [
        events_pb2.FindingsReady(findings=findings),
        events_pb2.StudyReceived(
            patient_key=KEY, study_instance_uid=STUDY, revision=1, modalities=["CR"], study_time=timestamp(NOW),
            manifest=blobs.put(manifest.SerializeToString(), "application/protobuf", "m"),
        ),
        events_pb2.PatientUpdated(
            patient_key=KEY, revision=1, snapshot=blobs.put(snapshot.SerializeToString(), "application/protobuf", "s")
        ),
    ]  # fmt: skip
    known = handlers(blobs)
    for number, message in enumerate([*messages, *messages]):
        event = pack(message, source="test", key=KEY, id=f"e{number}", time=NOW)
        effect = known[event.type](event, message)
        with database.transaction("alerts") as tx:
            effect(tx)
    return ReportDesk(database, blobs)


def at_once(work, count: int) -> list[str]:
    """What each of several callers got: "done", or the reason of the refusal."""

    def one(number: int) -> str:
        try:
            work(number)
        except RefusedError as error:
            return error.reason
        return "done"

    with ThreadPoolExecutor(count) as pool:
        return sorted(pool.map(one, range(count)))


def test_events_in_any_order_and_twice_make_one_task(desk: ReportDesk, database: Database) -> None:
    with database.session() as session:
        (item,) = worklist_store.workitems(session)
    assert (item.study_instance_uid, [reason.text for reason in item.reasons]) == (STUDY, ["Pneumothorax"])


def test_one_of_several_edits_and_one_of_several_decisions_wins(desk: ReportDesk) -> None:
    stored = desk.draft(STUDY)
    identity = stored.row.report_id
    edits = at_once(lambda n: desk.edit(identity, 1, {"impression": [f"Reading {n}."]}, by=f"reader-{n}"), 4)
    assert edits == ["done", "report.stale", "report.stale", "report.stale"]
    (task,) = desk.communications(report_id=identity)
    decisions = at_once(lambda n: desk.act(task.item.task_id, "confirm", by=f"reader-{n}", recipient="ward"), 4)
    assert decisions == ["critical.wrong_state"] * 3 + ["done"]
    latest = desk.get(identity).latest
    desk.sign(identity, 2, latest.body_sha256, by="reader-1")
    signed = desk.get(identity)
    assert (signed.status, signed.latest.signed_by, signed.latest.author_kind) == ("final", "reader-1", "person")
    assert len(desk.communication(task.item.task_id).steps) == 2
