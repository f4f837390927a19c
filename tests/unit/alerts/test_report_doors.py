"""The reports' HTTP door: roles, audit, conflicts; and critical results from proposal to acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fhir.resources.R4B.task import Task
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from sqlalchemy import select

from services.alerts.critical import CriticalResult
from services.alerts.reports import communication
from services.alerts.reports.communication import Communication, Step
from services.alerts.room import build
from services.clinical.provenance import timestamp
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.audit import Audit
from services.platform.config import Settings
from services.platform.errors import RefusedError
from services.platform.tables import AUDIT
from tests.fixtures.demo_case import drain_alerts, publish

KEY, STUDY = "a" * 32, "1.2.3"
NOW = datetime(2026, 8, 25, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def foundations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foundations]:
    """One study with a pneumothorax, of a patient with a short record."""
    found = lay_foundations(Settings.load(home=tmp_path_factory.mktemp("home")))
    migrate_all(found.database, ["alerts"])
    manifest = ingest_pb2.StudyManifest(
        study_instance_uid=STUDY, patient_key=KEY, revision=1, study_description="Chest"
    )
    manifest.series.add(series_instance_uid="1.2.3.1", modality="CR")
    findings = imaging_pb2.StudyFindings(study_instance_uid=STUDY, patient_key=KEY, study_revision=1)
    finding = findings.findings.add(finding_id="2.25.1", kind=imaging_pb2.FINDING_KIND_LESION)
    finding.finding_type.display = "Tension pneumothorax"
    snapshot = fusion_pb2.PatientSnapshot(patient_key=KEY, revision=1)
    snapshot.demographics.family_name = "Doe"
    messages = [
        events_pb2.StudyReceived(
            patient_key=KEY, study_instance_uid=STUDY, revision=1, modalities=["CR"], study_time=timestamp(NOW),
            manifest=found.blobs.put(manifest.SerializeToString(), "application/protobuf", "m"),
        ),
        events_pb2.FindingsReady(findings=findings),
        events_pb2.PatientUpdated(
            patient_key=KEY, revision=1,
            snapshot=found.blobs.put(snapshot.SerializeToString(), "application/protobuf", "s"),
        ),
    ]  # fmt: skip
    publish(found, KEY, messages)
    drain_alerts(found)
    yield found
    found.close()


@pytest.fixture(scope="module")
def client(foundations: Foundations) -> Iterator[TestClient]:
    app = build(foundations.context()).http
    assert app is not None
    app.state.audit = Audit.from_settings(foundations.database, foundations.settings)
    with TestClient(app) as found:
        yield found


@pytest.fixture(scope="module")
def reader(foundations: Foundations) -> dict[str, str]:
    return {"authorization": f"Bearer {foundations.security.issue('reader-1', ['clinician'])}"}


@pytest.fixture(scope="module")
def board(foundations: Foundations) -> dict[str, str]:
    return {"authorization": f"Bearer {foundations.security.issue('member-1', ['board'])}"}


@pytest.fixture(scope="module")
def drafted(client: TestClient, reader: dict[str, str]) -> dict[str, Any]:
    answer = client.post(f"/studies/{STUDY}/report", headers=reader)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/reports/{found['report_id']}"
    return found


def test_the_board_may_look_and_not_write(client: TestClient, board: dict[str, str], drafted: dict[str, Any]) -> None:
    path = f"/reports/{drafted['report_id']}"
    assert client.get(path, headers=board).json()["status"] == "preliminary"
    assert client.post(f"/studies/{STUDY}/report", headers=board).status_code == 403
    assert client.patch(path, headers=board, json={"base_version": 1}).status_code == 403
    body = {"version": 1, "content_sha256": drafted["content_sha256"]}
    assert client.post(f"{path}/signature", headers=board, json=body).status_code == 403
    assert client.get(path).status_code == 401


def test_the_page_allows_its_own_style_only(client: TestClient, board: dict[str, str], drafted: dict[str, Any]) -> None:
    answer = client.get(f"/reports/{drafted['report_id']}/document", headers=board)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]
    assert "Tension pneumothorax. Immediate: tell within 60 minutes" in answer.text
    assert answer.headers["content-disposition"].startswith("inline")
    assert client.get(f"/reports/{drafted['report_id']}/document?form=odt", headers=board).status_code == 406
    assert client.get(f"/reports/{drafted['report_id']}/document?form=sr", headers=board).status_code == 422


@pytest.mark.parametrize("path", ["/reports/none", "/critical-results/none", "/reports/none/differences"])
def test_what_is_not_there_is_404(client: TestClient, reader: dict[str, str], path: str) -> None:
    assert client.get(path, headers=reader).status_code == 404


def test_an_unknown_study_is_404_and_says_what_to_do(client: TestClient, reader: dict[str, str]) -> None:
    answer = client.post("/studies/9.9/report", headers=reader)
    assert (answer.status_code, answer.json()["reason"]) == (404, "report.unknown_study")
    assert "osler worklist" in answer.json()["remedy"]


def test_from_draft_to_signature_with_the_critical_result_told(
    client: TestClient, reader: dict[str, str], drafted: dict[str, Any], foundations: Foundations
) -> None:
    path = f"/reports/{drafted['report_id']}"
    edit = {"base_version": 1, "sections": {"impression": ["Tension pneumothorax on the left."]}}
    edited = client.patch(path, headers=reader, json=edit).json()
    assert edited["versions"][-1]["author"] == "reader-1"
    assert client.patch(path, headers=reader, json=edit).status_code == 409
    assert client.patch(path, headers=reader, json={**edit, "colour": "red"}).status_code == 422

    signature = {"version": 2, "content_sha256": edited["content_sha256"]}
    refused = client.post(f"{path}/signature", headers=reader, json=signature)
    assert (refused.status_code, refused.json()["reason"]) == (409, "report.critical_undecided")
    (task,) = client.get("/critical-results", headers=reader).json()
    assert (task["state"], task["ask"], task["category"]) == ("proposed", "ordering clinician", "immediate")
    result = f"/critical-results/{task['task_id']}"
    assert client.post(f"{result}/confirm", headers=reader, json={}).status_code == 422
    confirmed = client.post(f"{result}/confirm", headers=reader, json={"recipient": "Dr Who, ward 4"}).json()
    assert (confirmed["state"], confirmed["recipient"]) == ("requested", "Dr Who, ward 4")
    assert client.post(f"{path}/signature", headers=reader, json=signature).json()["status"] == "final"

    client.post(f"{result}/attempt", headers=reader, json={"detail": "telephone, no answer"})
    body = {"detail": "telephone, read back", "recipient": "Dr Who"}
    assert client.post(f"{result}/acknowledge", headers=reader, json=body).json()["state"] == "acknowledged"
    assert client.post(f"{result}/attempt", headers=reader, json=body).status_code == 409
    assert client.get("/critical-results", headers=reader).json() == []
    resource = client.get(result, headers=reader).json()
    assert Task.model_validate(resource).status == "completed"
    assert [note["text"].split(":")[0] for note in resource["note"]] == ["confirm", "attempt", "acknowledge"]
    assert client.get(f"{path}/differences", headers=reader).json()["changes"][0]["section"] == "impression"


def test_a_reader_adds_a_critical_result(client: TestClient, reader: dict[str, str], drafted: dict[str, Any]) -> None:
    path = f"/reports/{drafted['report_id']}/critical-results"
    body = {"category": "hours", "statement": "Malpositioned tube"}
    made = client.post(path, headers=reader, json=body)
    assert (made.status_code, made.json()["state"]) == (201, "proposed")
    assert client.post(path, headers=reader, json={**body, "category": "soon"}).status_code == 422
    task = made.json()["task_id"]
    gone = client.post(f"/critical-results/{task}/reject", headers=reader, json={"detail": "seen and placed anew"})
    assert gone.json()["state"] == "rejected"


def test_every_call_is_in_the_audit_trail_without_identity(
    client: TestClient, reader: dict[str, str], drafted: dict[str, Any], foundations: Foundations
) -> None:
    client.get(f"/reports/{drafted['report_id']}", headers=reader)
    with foundations.database.session() as session:
        rows = session.execute(select(AUDIT.c.principal, AUDIT.c.resource_type, AUDIT.c.resource_id_hash)).all()
    audit = Audit.from_settings(foundations.database, foundations.settings)
    said = {(row.principal, row.resource_type.split(" ", 2)[2], row.resource_id_hash) for row in rows}
    report = audit.hash_id(drafted["report_id"])
    assert ("reader-1", "POST /studies/{study_uid}/report", audit.hash_id(STUDY)) in said
    assert ("reader-1", "GET /reports/{report_id}", report) in said
    assert audit.verify_chain().intact


def proposed() -> Communication:
    result = CriticalResult("pneumothorax", "hours", "Pneumothorax", "f1")
    return communication.propose(result, "r1", STUDY, KEY, NOW)


def test_the_same_result_of_a_report_is_one_task() -> None:
    assert proposed().task_id == proposed().task_id


@pytest.mark.parametrize(
    ("actions", "state", "status"),
    [
        ([], "proposed", "draft"),
        (["confirm"], "requested", "requested"),
        (["confirm", "attempt"], "told", "in-progress"),
        (["confirm", "attempt", "attempt"], "told", "in-progress"),
        (["confirm", "acknowledge"], "acknowledged", "completed"),
        (["reject"], "rejected", "rejected"),
        (["confirm", "reject"], "rejected", "rejected"),
    ],
)
def test_states_of_a_task(actions: list[Any], state: str, status: str) -> None:
    item, steps = proposed(), []
    for n, action in enumerate(actions):
        item = communication.move(item, action, detail="said", recipient="Dr Who")
        steps.append(Step(NOW + timedelta(minutes=n), "reader-1", action, "said"))
    task = Task.model_validate(communication.fhir_task(item, steps, NOW + timedelta(hours=13)))
    assert (item.state, task.status) == (state, status)
    assert (task.businessStatus is not None) is (state in communication.OPEN)
    if task.businessStatus:
        assert task.businessStatus.text == "overdue; ask consultant on call of the treating service"


@pytest.mark.parametrize("action", ["attempt", "acknowledge"])
def test_nothing_is_told_before_a_reader_confirms(action: Any) -> None:
    with pytest.raises(RefusedError, match="cannot be followed by"):
        communication.move(proposed(), action, detail="x", recipient="y")


@pytest.mark.parametrize("action", ["confirm", "reject"])
def test_what_must_be_documented_is_asked_for(action: Any) -> None:
    with pytest.raises(RefusedError, match="needs"):
        communication.move(proposed(), action, detail="")
