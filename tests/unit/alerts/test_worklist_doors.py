"""The reading worklist's doors: orders that come in, UPS-RS, and what a scanner asks the Modality Worklist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from google.protobuf.message import Message
from osler.advisor.v1 import advisor_pb2
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset
from pynetdicom import AE

from services.alerts import worklist_store
from services.alerts.room import build
from services.alerts.worklist import matching, scheduled
from services.alerts.worklist.mwl import MODALITY_WORKLIST_FIND, WorklistListener
from services.clinical.provenance import timestamp
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.errors import RefusedError
from tests.fixtures.demo_case import drain_alerts, publish

KEY, OTHER = "a" * 32, "b" * 32
NOW = datetime(2026, 8, 25, 9, 0, tzinfo=UTC)
OMI = (
    "MSH|^~\\&|RIS|HOSP|OSLER|OSLER|20260825080000||OMI^O23^OMI_O23|1|P|2.5.1\r"
    "PID|1||MRN-1^^^HOSP^MR||Doe^Jane||19700101|F\r"
    "ORC|NW|ORD-77^RIS|F-77^RIS\r"
    "TQ1|1||||||20260825103000||S^Stat^HL70485\r"
    "OBR|1|ORD-77^RIS||24627-2^CT Chest W contrast IV^LN|||||||||||||||ACC-77||||||CT|||||||^suspected embolism\r"
    "IPC|ACC-77|RP-77|1.2.840.77|SPS-77|CT|CTCHEST^CT chest^99RIS|CT1||CT1_AE\r"
)


def snapshot(key: str, revision: int = 1, name: str = "Doe") -> fusion_pb2.PatientSnapshot:
    found = fusion_pb2.PatientSnapshot(patient_key=key, revision=revision)
    found.demographics.family_name, found.demographics.given_name = name, "Jane"
    found.demographics.record_number, found.demographics.birth_date = "MRN-1", "1970-01-01"
    found.demographics.sex = "female"
    found.entries.add(entry_id="1", kind=fusion_pb2.ENTRY_KIND_ALLERGY, title="Iohexol")
    return found


def updated(foundations: Foundations, found: fusion_pb2.PatientSnapshot, *merged: str) -> Message:
    reference = foundations.blobs.put(found.SerializeToString(deterministic=True), "application/protobuf", "s")
    return events_pb2.PatientUpdated(
        patient_key=found.patient_key, revision=found.revision, snapshot=reference, merged_patient_keys=merged
    )


def study(foundations: Foundations, uid: str, key: str = KEY, revision: int = 1) -> Message:
    manifest = ingest_pb2.StudyManifest(study_instance_uid=uid, patient_key=key, revision=revision)
    manifest.series.add(series_instance_uid=f"{uid}.1", modality="CT")
    reference = foundations.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf", "m")
    return events_pb2.StudyReceived(
        patient_key=key, study_instance_uid=uid, revision=revision, manifest=reference, modalities=["CT"],
        study_time=timestamp(NOW),
    )  # fmt: skip


def record(foundations: Foundations, content: str, kind: int, record_type: str) -> Message:
    reference = foundations.blobs.put(content.encode(), "text/plain", "r")
    return events_pb2.RecordReceived(
        patient_key=KEY, format=kind, content=reference, record_type=record_type, received_at=timestamp(NOW)
    )


@pytest.fixture
def foundations(tmp_path: Path) -> Iterator[Foundations]:
    found = lay_foundations(Settings.load(home=tmp_path))
    migrate_all(found.database, ["alerts"])
    yield found
    found.close()


def tell(foundations: Foundations, *messages: Message) -> None:
    publish(foundations, KEY, list(messages))
    drain_alerts(foundations)


def items(foundations: Foundations, **which: Any) -> list[worklist_store.Workitem]:
    with foundations.database.session() as session:
        return worklist_store.workitems(session, **which)


@pytest.fixture
def client(foundations: Foundations) -> Iterator[TestClient]:
    app = build(foundations.context()).http
    assert app is not None
    token = foundations.security.issue("reader-1", ["clinician"])
    with TestClient(app, headers={"authorization": f"Bearer {token}"}) as found:
        yield found


def test_a_study_is_one_task_and_late_images_reopen_it_only_after_a_reading(foundations: Foundations) -> None:
    tell(foundations, study(foundations, "1.2.3"))
    tell(foundations, study(foundations, "1.2.3", revision=2))
    (item,) = items(foundations, kinds=["reading"])
    with foundations.database.transaction("alerts") as tx:
        worklist_store.save_workitem(tx.session, replace(item, state="COMPLETED"))
    tell(foundations, study(foundations, "1.2.3", revision=3))
    assert sorted(i.state for i in items(foundations, kinds=["reading"])) == ["COMPLETED", "SCHEDULED"]


def test_work_follows_a_merged_patient_and_comes_back_when_the_merge_is_taken_back(foundations: Foundations) -> None:
    tell(foundations, study(foundations, "1.2.3", key=OTHER))
    tell(foundations, updated(foundations, snapshot(KEY), OTHER))
    assert [i.patient_key for i in items(foundations)] == [KEY]
    tell(foundations, updated(foundations, snapshot(KEY, revision=2)))
    assert [i.patient_key for i in items(foundations)] == [OTHER]


def test_the_worklist_tells_why(foundations: Foundations, client: TestClient) -> None:
    found = snapshot(KEY)
    stay = found.entries.add(entry_id="2", kind=fusion_pb2.ENTRY_KIND_ENCOUNTER, title="Visit")
    stay.codes.add(system="http://terminology.hl7.org/CodeSystem/v2-0004", code="E")
    stay.effective_at.CopyFrom(timestamp(datetime.now(UTC)))
    tell(foundations, study(foundations, "1.2.3"), study(foundations, "1.2.4", key=OTHER), updated(foundations, found))
    rows = client.get("/worklist").json()
    assert [row["study_instance_uid"] for row in rows] == ["1.2.3", "1.2.4"]
    assert [reason["text"] for reason in rows[0]["reasons"]] == ["in the emergency department"]
    assert rows[0]["priority"] == "HIGH"
    assert [reason["text"] for reason in rows[1]["reasons"]] == ["routine"]


def test_an_order_message_becomes_a_scheduled_step(foundations: Foundations) -> None:
    tell(foundations, record(foundations, OMI, ingest_pb2.RECORD_FORMAT_HL7V2, "OMI^O23"))
    (item,) = items(foundations, kinds=["acquisition"])
    assert (item.study_instance_uid, item.state) == ("1.2.840.77", "SCHEDULED")
    assert item.due_at == datetime(2026, 8, 25, 10, 30, tzinfo=UTC)
    assert [reason.text for reason in item.reasons] == ["ordered as immediate"]
    tell(foundations, record(foundations, OMI.replace("ORC|NW", "ORC|CA"), ingest_pb2.RECORD_FORMAT_HL7V2, "OMI^O23"))
    assert [i.state for i in items(foundations)] == ["CANCELED"]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"intent": "proposal"}, False),
        ({"status": "draft"}, False),
        ({"code": {"text": "Physiotherapy"}}, False),
    ],
)
def test_only_imaging_orders_of_the_chart_are_scheduled(change: dict[str, Any], kept: bool) -> None:
    resource = {
        "resourceType": "ServiceRequest", "id": "o1", "status": "active", "intent": "order", "priority": "urgent",
        "code": {"text": "MRI brain without contrast"}, "occurrenceDateTime": "2026-08-26T08:00:00+02:00", **change,
    }  # fmt: skip
    order = scheduled.from_fhir(resource)
    assert (order is not None) is kept
    if order:
        assert (order.modality, order.priority, order.scheduled_at) == (
            "MR",
            "HIGH",
            datetime(2026, 8, 26, 6, tzinfo=UTC),
        )


def test_a_scanner_finds_its_work_with_what_makes_it_safer(foundations: Foundations) -> None:
    advice = advisor_pb2.PatientAdvice(patient_key=KEY, snapshot_revision=1)
    advice.recommendations.add(
        recommendation_id="r", rule_id="x", summary="eGFR 26: no iodinated contrast without prophylaxis",
        urgency=advisor_pb2.URGENCY_WARNING, category="contrast-safety",
    )  # fmt: skip
    tell(
        foundations,
        record(foundations, OMI, ingest_pb2.RECORD_FORMAT_HL7V2, "OMI^O23"),
        updated(foundations, snapshot(KEY)),
        events_pb2.RecommendationReady(advice=advice),
    )
    listener = WorklistListener(foundations.context())
    listener.start()
    try:
        (found,) = ask(listener.port, modality="CT", date="20260825")
        assert ask(listener.port, modality="MR", date="") == []
        assert ask(listener.port, modality="", date="20260826-") == []
    finally:
        listener.stop()
    step = found.ScheduledProcedureStepSequence[0]
    assert (str(found.PatientName), found.PatientID, found.AccessionNumber) == ("Doe^Jane", "MRN-1", "ACC-77")
    assert (found.StudyInstanceUID, found.RequestedProcedurePriority) == ("1.2.840.77", "STAT")
    assert (step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepStartTime) == (
        "CT",
        "CT1_AE",
        "103000",
    )
    assert found.Allergies == "Iohexol"
    assert found.MedicalAlerts == "eGFR 26: no iodinated contrast without prophylaxis"
    assert "ReferringPhysicianName" not in found


def ask(port: int, modality: str, date: str) -> list[Dataset]:
    step = Dataset()
    step.Modality, step.ScheduledProcedureStepStartDate = modality, date
    step.ScheduledStationAETitle = step.ScheduledProcedureStepStartTime = ""
    query = Dataset()
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "Allergies", "MedicalAlerts"):
        setattr(query, keyword, "")
    query.RequestedProcedurePriority = ""
    query.ScheduledProcedureStepSequence = [step]
    ae = AE("SCANNER")
    ae.add_requested_context(MODALITY_WORKLIST_FIND)
    association = ae.associate("127.0.0.1", port)
    assert association.is_established
    try:
        answers = list(association.send_c_find(query, MODALITY_WORKLIST_FIND))
    finally:
        association.release()
    assert answers[-1][0].Status == 0x0000
    return [dataset for status, dataset in answers if status.Status == 0xFF00]


def state(wanted: str, transaction: str) -> list[dict[str, Any]]:
    return [{"00741000": {"vr": "CS", "Value": [wanted]}, "00081195": {"vr": "UI", "Value": [transaction]}}]


_TIMES = {tag: {"vr": "DT", "Value": [f"202608251{n}0000"]} for n, tag in enumerate(("00404050", "00404051"))}
PERFORMED = [{"00741216": {"vr": "SQ", "Value": [_TIMES]}}]


def test_a_workstation_claims_and_completes_a_reading(foundations: Foundations, client: TestClient) -> None:
    tell(foundations, study(foundations, "1.2.3"), updated(foundations, snapshot(KEY)))
    (found,) = client.get("/dicom-web/workitems?ProcedureStepState=SCHEDULED&PatientName=doe*").json()
    path = f"/dicom-web/workitems/{found['00080018']['Value'][0]}"
    assert found["00404018"]["Value"][0]["00080100"]["Value"] == ["110005"]
    assert found["00404021"]["Value"][0]["0020000D"]["Value"] == ["1.2.3"]
    assert client.put(f"{path}/state", json=state("COMPLETED", "1.9")).status_code == 409
    assert client.put(f"{path}/state", json=state("IN PROGRESS", "1.9")).status_code == 200
    twice = client.put(f"{path}/state", json=state("IN PROGRESS", "1.10"))
    assert (twice.status_code, "C302" in twice.headers["warning"]) == (409, True)
    shown = client.get(path).json()[0]
    assert shown["00741000"]["Value"] == ["IN PROGRESS"]
    assert "00081195" not in shown
    assert client.post(f"{path}?transaction-uid=1.10", json=PERFORMED).status_code == 409
    not_yet = client.put(f"{path}/state", json=state("COMPLETED", "1.9"))
    assert (not_yet.status_code, "C304" in not_yet.headers["warning"]) == (409, True)
    assert client.post(f"{path}?transaction-uid=1.9", json=PERFORMED).status_code == 200
    assert client.put(f"{path}/state", json=state("COMPLETED", "1.9")).status_code == 200
    again = client.put(f"{path}/state", json=state("COMPLETED", "1.9"))
    assert (again.status_code, "B306" in again.headers["warning"]) == (200, True)
    assert client.post(f"{path}/cancelrequest").status_code == 409
    assert [item.performer for item in items(foundations)] == ["reader-1"]


def test_workitems_are_created_searched_and_canceled(foundations: Foundations, client: TestClient) -> None:
    new = {
        "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
        "00741200": {"vr": "CS", "Value": ["HIGH"]},
        "00741204": {"vr": "LO", "Value": ["Segment the liver"]},
        "00404005": {"vr": "DT", "Value": ["20260825120000+0000"]},
    }
    made = client.post("/dicom-web/workitems?1.2.99", json=[new])
    assert (made.status_code, made.headers["location"]) == (201, "/dicom-web/workitems/1.2.99")
    assert client.post("/dicom-web/workitems?1.2.99", json=[new]).status_code == 409
    assert client.post("/dicom-web/workitems?1.2.x", json=[new]).status_code == 400
    assert client.post("/dicom-web/workitems?1.2.98", json=["x"]).status_code == 400
    busy = {**new, "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}}
    assert client.post("/dicom-web/workitems?1.2.98", json=[busy]).status_code == 409
    for query, count in (
        ("ProcedureStepLabel=Segment*", 1),
        ("ScheduledProcedureStepStartDateTime=20260825-20260826", 1),
        ("ScheduledProcedureStepStartDateTime=20260826-", 0),
        ("SOPInstanceUID=1.2.99", 1),
        ("ScheduledWorkitemCodeSequence.CodeValue=110005", 0),
    ):
        answer = client.get(f"/dicom-web/workitems?{query}")
        assert (len(answer.json()) if answer.status_code == 200 else 0) == count, query
    assert client.get("/dicom-web/workitems?NoSuchThing=1").status_code == 400
    assert client.post("/dicom-web/workitems/1.2.99/cancelrequest").status_code == 202
    assert client.get("/dicom-web/workitems/1.2.99").json()[0]["00741000"]["Value"] == ["CANCELED"]
    assert client.get("/dicom-web/workitems/1.2.100").status_code == 404


def test_the_doors_ask_who_calls(foundations: Foundations) -> None:
    app = build(foundations.context()).http
    assert app is not None
    analyst = {"authorization": f"Bearer {foundations.security.issue('a', ['analyst'])}"}
    with TestClient(app) as client:
        for path in ("/worklist", "/dicom-web/workitems", "/reports", "/critical-results"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=analyst).status_code == 403


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ("20260825120000+0000", "20260825", True),
        ("20260825120000+0000", "20260825140000+0200", True),
        ("20260825120000+0000", "2025-2026", True),
        ("20260825120000+0000", "-20260825", True),
        ("20260825120000+0000", "20260825120001-", False),
        ("20260825120000+0000", "20260825070000-0500", True),
    ],
)
def test_times_match_as_ranges_and_with_offsets(value: str, wanted: str, fits: bool) -> None:
    have, query = Dataset(), Dataset()
    have.ScheduledProcedureStepStartDateTime, query.ScheduledProcedureStepStartDateTime = value, wanted
    assert matching.matches(have, query) is fits


def test_a_range_that_is_none_is_refused() -> None:
    have, query = Dataset(), Dataset()
    have.StudyDate, query.StudyDate = "20260825", "yesterday"
    with pytest.raises(RefusedError):
        matching.matches(have, query)


def test_square_brackets_are_no_wildcards() -> None:
    have, query = Dataset(), Dataset()
    have.StudyDescription, query.StudyDescription = "a", "[ab]*"
    assert not matching.matches(have, query)


def test_json_of_a_workitem_is_dicom_json(foundations: Foundations, client: TestClient) -> None:
    tell(foundations, study(foundations, "1.2.3"))
    answer = client.get("/dicom-web/workitems")
    assert answer.headers["content-type"] == "application/dicom+json"
    (found,) = json.loads(answer.text)
    assert Dataset.from_json(found).WorklistLabel == "Osler reading"
