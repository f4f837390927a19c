"""The CDS Hooks 2.0 door: discovery, cards from stored advice, feedback once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from osler.advisor.v1 import advisor_pb2
from osler.events.v1 import events_pb2

from services.alerts import cards, store
from services.alerts.room import build
from services.clinical.identity import patient_key
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.events import pack, unpack
from services.platform.outbox import Relay
from services.platform.worker import Worker, drain_all

INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
SYSTEM = "urn:osler:demo-hospital"


@pytest.fixture
def foundations(tmp_path: Path) -> Iterator[Foundations]:
    found = lay_foundations(Settings.load(home=tmp_path))
    migrate_all(found.database, ["alerts"])
    yield found
    found.close()


@pytest.fixture
def key(foundations: Foundations) -> str:
    return patient_key(foundations.settings.identity_key(), SYSTEM, "42")


def advice(key: str, revision: int = 1, count: int = 1) -> advisor_pb2.PatientAdvice:
    found = advisor_pb2.PatientAdvice(patient_key=key, snapshot_revision=revision, priority=0.7)
    for n in range(count):
        r = found.recommendations.add(
            recommendation_id=f"r{n}",
            rule_id=f"rule.{n}",
            summary=f"Summary {n}",
            urgency=1 + n % 3,
            category="imaging",
        )
        r.evidence.add(statement="eGFR 28")
        r.proposed_order.system, r.proposed_order.code, r.proposed_order.display = (
            "http://loinc.org",
            "24556-3",
            "MRI abdomen",
        )
    return found


def announce(foundations: Foundations, found: advisor_pb2.PatientAdvice) -> None:
    event = pack(
        events_pb2.RecommendationReady(advice=found),
        source="advisor",
        key=found.patient_key,
        id=f"e{found.snapshot_revision}",
    )
    foundations.log.publish([event])
    room = build(foundations.context())
    worker = Worker(room, foundations.database, foundations.log, foundations.quarantine)
    drain_all([worker], [])
    worker.close()


@pytest.fixture
def client(foundations: Foundations) -> Iterator[TestClient]:
    app = build(foundations.context()).http
    assert app is not None
    token = foundations.security.issue("ehr", ["clinician"])
    with TestClient(app, headers={"authorization": f"Bearer {token}"}) as found:
        yield found


def request(value: str = "42", **more: Any) -> dict[str, Any]:
    patient = {"resourceType": "Patient", "id": "p", "identifier": [{"system": SYSTEM, "value": value}]}
    return {
        "hook": "patient-view", "hookInstance": INSTANCE,
        "context": {"userId": "Practitioner/1", "patientId": "p"}, "prefetch": {"patient": patient}, **more,
    }  # fmt: skip


def test_discovery_needs_no_token(foundations: Foundations) -> None:
    app = build(foundations.context()).http
    assert app is not None
    with TestClient(app) as client:
        services = client.get("/cds-services").json()["services"]
        hooks = {"patient-view", "order-select", "order-sign", "appointment-book", "encounter-discharge"}
        assert {s["hook"] for s in services} == hooks
        assert client.post("/cds-services/osler-patient-view", json=request()).status_code == 401


def test_cards_carry_evidence_suggestion_and_override_reasons(
    foundations: Foundations, client: TestClient, key: str
) -> None:
    announce(foundations, advice(key))
    (card,) = client.post("/cds-services/osler-patient-view", json=request()).json()["cards"]
    assert card["summary"] == "Summary 0"
    assert "eGFR 28" in card["detail"]
    assert card["selectionBehavior"] == "any"
    assert card["suggestions"][0]["actions"][0]["resource"]["subject"] == {"reference": "Patient/p"}
    assert card["overrideReasons"]


def test_at_most_four_cards_most_urgent_first(foundations: Foundations, client: TestClient, key: str) -> None:
    announce(foundations, advice(key, count=9))
    found = client.post("/cds-services/osler-patient-view", json=request()).json()["cards"]
    assert [c["indicator"] for c in found] == ["critical", "critical", "critical", "warning"]


def test_older_advice_does_not_replace_newer(foundations: Foundations, client: TestClient, key: str) -> None:
    announce(foundations, advice(key, revision=2, count=2))
    announce(foundations, advice(key, revision=1, count=1))
    assert len(client.post("/cds-services/osler-patient-view", json=request()).json()["cards"]) == 2


def test_an_unknown_patient_gets_no_cards(client: TestClient) -> None:
    assert client.post("/cds-services/osler-patient-view", json=request("other")).json() == {"cards": []}


def test_a_request_without_patient_is_412_and_says_what_is_missing(client: TestClient) -> None:
    answer = client.post("/cds-services/osler-patient-view", json={**request(), "prefetch": {}})
    assert answer.status_code == 412
    assert answer.json()["missing"] == ["prefetch.patient"]


def test_the_wrong_hook_is_refused(client: TestClient) -> None:
    assert client.post("/cds-services/osler-order-select", json=request()).status_code == 400


def test_feedback_that_arrives_twice_is_one_event(foundations: Foundations, client: TestClient, key: str) -> None:
    announce(foundations, advice(key))
    client.post("/cds-services/osler-patient-view", json=request())
    identity = cards.card_id(INSTANCE, "r0")
    body = {"feedback": [{"card": identity, "outcome": "overridden", "outcomeTimestamp": "2026-08-26T10:00:00Z",
                          "overrideReason": {"reason": {"code": "not-applicable"}}}]}  # fmt: skip
    for _ in range(2):
        assert client.post("/cds-services/osler-patient-view/feedback", json=body).status_code == 200
    Relay(foundations.database, foundations.log, "alerts").drain()
    found = [unpack(r.event) for r in foundations.log.read(["osler.alert.feedback.v1"])]
    assert [(f.rule_id, f.outcome, f.override_reason_code) for f in found] == [
        ("rule.0", "overridden", "not-applicable")
    ]


def test_cards_are_remembered_once(foundations: Foundations, client: TestClient, key: str) -> None:
    announce(foundations, advice(key))
    for _ in range(2):
        client.post("/cds-services/osler-patient-view", json=request())
    with foundations.database.session() as session:
        found = store.find_card(session, cards.card_id(INSTANCE, "r0"))
    assert found is not None
    assert found.rule_id == "rule.0"
