"""What the EHR gets: cards that fit the specification, in time, with a statement of what was not known."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from osler.advisor.v1 import advisor_pb2

from services.advisor.room import build as build_advisor
from services.alerts import cards, facts, hooks, prefetch, snooze, store
from services.alerts.room import build
from services.clinical.identity import patient_key
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform import rpc
from services.platform.config import Settings
from services.platform.errors import ConfigurationError
from services.platform.events import unpack
from services.platform.outbox import Relay
from services.platform.security.scopes import allows
from services.platform.security.urls import same_base
from tests.peers import free_port
from tests.unit.alerts import cds_schemas
from tests.unit.alerts.ehr import Ehr
from tests.unit.alerts.test_hooks import SYSTEM, advice

PATIENT = {"resourceType": "Patient", "id": "p", "identifier": [{"system": SYSTEM, "value": "42"}]}
CT = {
    "resourceType": "ServiceRequest", "id": "o1", "status": "draft", "intent": "order",
    "subject": {"reference": "Patient/p"}, "code": {"text": "CT abdomen with contrast"},
}  # fmt: skip
LOW_EGFR = {
    "resourceType": "Observation", "id": "e", "status": "final", "subject": {"reference": "Patient/p"},
    "effectiveDateTime": f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
    "code": {"coding": [{"system": "http://loinc.org", "code": "98979-8"}]},
    "valueQuantity": {"value": 22, "unit": "mL/min/{1.73_m2}", "code": "mL/min/{1.73_m2}"},
}  # fmt: skip
EVERYTHING = {"patient": PATIENT, **dict.fromkeys(["kidney", "pregnancy", "allergies", "medications", "conditions"])}


class Door:
    """The alerts room beside a real advisor, and an EHR that calls it."""

    def __init__(self, foundations: Foundations, client: TestClient, ehr: Ehr) -> None:
        self.foundations, self.client, self.ehr = foundations, client, ehr
        self.key = patient_key(foundations.settings.identity_key(), SYSTEM, "42")

    def advise(self, found: advisor_pb2.PatientAdvice) -> None:
        with self.foundations.database.transaction("alerts") as tx:
            store.save_advice(tx.session, found)

    def forget(self) -> None:
        with self.foundations.database.transaction("alerts") as tx:
            store.drop_advice(tx.session, self.key)
            store.forget_old(tx.session, *[datetime.now(UTC) + timedelta(days=900)] * 3)

    def post(self, service: str, body: dict[str, Any]) -> Any:
        headers = {"authorization": f"Bearer {self.ehr.token(service)}"}
        return self.client.post(f"/cds-services/{service}", json=body, headers=headers)

    def hook(
        self, name: str, *, user: str = "Practitioner/1", more: dict[str, Any] | None = None, **context: Any
    ) -> Any:
        """Cards of one call, checked against the specification's schema."""
        body = {
            "hook": name, "hookInstance": str(uuid.uuid4()), "prefetch": {"patient": PATIENT},
            "context": {"userId": user, "patientId": "p", **context}, **(more or {}),
        }  # fmt: skip
        answer = self.post(f"osler-{name}", body)
        assert answer.status_code == 200, answer.text
        cds_schemas.CARDS.validate(answer.json())
        return answer.json()["cards"]

    def order(self, resource: dict[str, Any] = CT, name: str = "order-sign", **more: Any) -> Any:
        return self.hook(name, draftOrders={"resourceType": "Bundle", "entry": [{"resource": resource}]}, more=more)

    def feedback(self, card: dict[str, Any], outcome: str = "overridden", **more: Any) -> int:
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        item = {"card": card["uuid"], "outcome": outcome, "outcomeTimestamp": at, **more}
        cds_schemas.FEEDBACK.validate({"feedback": [item]})
        answers = [self.post("osler-patient-view/feedback", {"feedback": [item, item]}).status_code for _ in range(2)]
        assert len(set(answers)) == 1
        return int(answers[0])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    ehr, port = Ehr(), free_port()
    smart = {"servers": {"ward": {"fhir_url": ehr.fhir, "client_id": "osler"}}}
    grpc_settings = {"ports": {"advisor": port}}
    home = tmp_path_factory.mktemp("cds")
    settings = Settings.load(home=home, cds=ehr.settings(), smart=smart, grpc=grpc_settings)
    found = lay_foundations(settings)
    migrate_all(found.database, ["alerts", "advisor"])
    app = build(found.context()).http
    assert app is not None
    with _advisor(found), TestClient(app) as client:
        yield Door(found, client, ehr)
    found.close()
    ehr.close()


@contextmanager
def _advisor(found: Foundations) -> Iterator[None]:
    """The real advisor's gRPC server, on its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    room, settings = build_advisor(found.context()), found.settings
    address = settings.grpc.address("advisor")
    serving = rpc.serve(room.grpc, settings=settings, security=found.security, address=address)
    server = asyncio.run_coroutine_threadsafe(serving, loop).result(30)
    yield
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture
def door(running: Door) -> Iterator[Door]:
    running.ehr.answers, running.ehr.asked, running.ehr.delay_s, running.ehr.status = {}, [], 0.0, 200
    yield running
    running.forget()


def texts(found: list[dict[str, Any]]) -> str:
    return " ".join(f"{card['summary']} {card.get('detail', '')}" for card in found)


def test_discovery_fits_the_specification(door: Door) -> None:
    document = door.client.get("/cds-services").json()
    cds_schemas.DISCOVERY.validate(document)
    hooks_ = ["patient-view", "order-select", "order-sign", "appointment-book", "encounter-discharge"]
    assert [service["hook"] for service in document["services"]] == hooks_
    tokens = {t for s in document["services"] for q in s["prefetch"].values() for t in prefetch._TOKEN.findall(q)}
    assert tokens == {"patientId"}


def test_each_hook_says_what_its_context_lacks(door: Door) -> None:
    lacking = {"order-select": "draftOrders", "appointment-book": "appointments", "encounter-discharge": "encounterId"}
    for hook, member in lacking.items():
        body = {
            "hook": hook,
            "hookInstance": str(uuid.uuid4()),
            "context": {"userId": "Practitioner/1", "patientId": "p"},
        }
        answer = door.post(f"osler-{hook}", body)
        assert (answer.status_code, answer.json()["missing"]) == (400, [f"context.{member}"])


def test_a_patient_id_that_would_change_the_address_is_refused(door: Door) -> None:
    body = {"hook": "patient-view", "hookInstance": str(uuid.uuid4()), **door.ehr.authorization()}
    answer = door.post(
        "osler-patient-view", {**body, "context": {"userId": "Practitioner/1", "patientId": "../Patient"}}
    )
    assert (answer.status_code, door.ehr.asked) == (422, [])


def test_a_contrast_order_at_low_egfr_is_stopped_with_evidence_and_a_way_out(door: Door) -> None:
    found = door.order(prefetch={**EVERYTHING, "kidney": LOW_EGFR})
    card = next(c for c in found if "contrast" in c["summary"])
    assert card["indicator"] in ("warning", "critical")
    assert "22" in card["detail"]
    assert all(c["overrideReasons"] for c in found)
    actions = [a for c in found for s in c.get("suggestions", []) for a in s["actions"]]
    assert all(a["resourceId"] == "ServiceRequest/o1" for a in actions if a["type"] == "delete")


def test_missing_prefetch_is_fetched_with_the_calls_own_token(door: Door) -> None:
    door.ehr.answers = {
        "Patient/p": PATIENT,
        "Observation": {"resourceType": "Bundle", "entry": [{"resource": LOW_EGFR}]},
    }
    found = door.order(prefetch={}, **door.ehr.authorization())
    assert "22" in texts(found)
    assert len(door.ehr.asked) == 6
    assert not any("checked without" in c["summary"] for c in found)


def test_a_slow_server_gets_an_answer_in_time_that_says_what_is_not_known(door: Door) -> None:
    door.ehr.delay_s = 5.0
    begun = time.monotonic()
    found = door.order(prefetch={"patient": PATIENT}, **door.ehr.authorization())
    assert time.monotonic() - begun < 2.0
    said = next(c for c in found if c["summary"].startswith("Order checked without: kidney function"))
    assert "allergies (the EHR's FHIR server did not answer within 0.4 s)" in said["detail"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"fhirServer": "http://127.0.0.1:9/fhir"}, "not on the list of servers"),
        ({"fhirServer": "https://evil.example/fhir"}, "not on the list of servers"),
    ],
)
def test_a_token_goes_to_listed_servers_only(door: Door, more: dict[str, Any], reason: str) -> None:
    found = door.order(prefetch={"patient": PATIENT}, **{**door.ehr.authorization(), **more})
    assert reason in texts(found)
    assert door.ehr.asked == []


def test_a_server_that_is_down_or_refuses_is_named(door: Door) -> None:
    door.ehr.status = 503
    assert "FHIR server answered 503" in texts(door.order(prefetch={"patient": PATIENT}, **door.ehr.authorization()))


def test_scopes_are_respected(door: Door) -> None:
    found = door.order(prefetch={"patient": PATIENT}, **door.ehr.authorization("patient/Observation.rs launch"))
    assert {address.partition("?")[0] for address in door.ehr.asked} == {"Observation"}
    assert "scopes do not allow to search AllergyIntolerance" in texts(found)


def test_without_any_patient_the_answer_is_412_and_says_why(door: Door) -> None:
    door.ehr.delay_s = 5.0
    body = {"hook": "patient-view", "hookInstance": str(uuid.uuid4()), "context": {"userId": "P/1", "patientId": "p"}}
    answer = door.post("osler-patient-view", {**body, **door.ehr.authorization()})
    assert (answer.status_code, answer.json()["missing"]) == (412, ["prefetch.patient"])
    assert "did not answer within" in answer.json()["detail"]


def test_another_patient_in_the_prefetch_is_refused(door: Door) -> None:
    body = {"hook": "patient-view", "hookInstance": str(uuid.uuid4()), "context": {"userId": "P/1", "patientId": "q"}}
    assert door.post("osler-patient-view", {**body, "prefetch": {"patient": PATIENT}}).status_code == 412


def test_what_cannot_be_used_is_left_out_and_said(door: Door) -> None:
    strange = {**LOW_EGFR, "valueQuantity": {"value": 22, "unit": "furlong", "code": "furlong"}}
    foreign = {**LOW_EGFR, "subject": {"reference": "Patient/other"}}
    bundle = {"resourceType": "Bundle", "entry": [{"resource": strange}, {"resource": foreign}]}
    said = texts(door.order(prefetch={**EVERYTHING, "kidney": bundle}))
    assert "in a unit that cannot be read" in said
    assert "belongs to another patient" in said
    assert "eGFR 22" not in said


def test_an_implausible_value_is_a_likely_error_of_unit() -> None:
    wrong = {**LOW_EGFR, "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]}}
    wrong["valueQuantity"] = {"value": 97, "unit": "mg/dL", "code": "mg/dL"}
    reading = facts.read({"kidney": wrong}, datetime.now(UTC))
    assert (reading.facts, len(reading.unusable)) == ((), 1)


def test_pregnancy_status_is_read_both_ways() -> None:
    for code, value in (("LA15173-0", 1.0), ("LA26683-5", 0.0)):
        answer = {"coding": [{"system": "http://loinc.org", "code": code}]}
        question = {"coding": [{"system": "http://loinc.org", "code": "82810-3"}]}
        status = {"resourceType": "Observation", "status": "final", "code": question, "valueCodeableConcept": answer}
        assert [(f.name, f.value) for f in facts.facts({"p": status}, datetime.now(UTC))] == [("pregnant", value)]


def test_booking_checks_the_appointment_and_shows_what_is_due(door: Door) -> None:
    found = advice(door.key)
    found.recommendations[0].category = "follow-up"
    door.advise(found)
    visit = {"resourceType": "Appointment", "id": "a", "status": "proposed", "description": "CT abdomen with contrast"}
    shown = door.hook("appointment-book", appointments=[visit], more={"prefetch": {**EVERYTHING, "kidney": LOW_EGFR}})
    assert "Summary 0" in texts(shown)
    assert "22" in texts(shown)


def test_discharge_shows_follow_up_and_leaves_contrast_out(door: Door) -> None:
    found = advice(door.key, count=2)
    found.recommendations[0].category, found.recommendations[1].category = "follow-up", "contrast-safety"
    door.advise(found)
    assert [c["summary"] for c in door.hook("encounter-discharge", encounterId="e1")] == ["Summary 0"]


def test_links_launch_the_board_where_it_is_registered(door: Door) -> None:
    door.advise(advice(door.key))
    (card,) = door.hook("patient-view", more=door.ehr.authorization())
    assert [(link["type"], link["url"].rpartition("/")[2]) for link in card["links"]] == [("smart", "launch")]
    (card,) = door.hook("patient-view")
    assert [link["type"] for link in card["links"]] == ["absolute"]


def test_more_than_a_few_cards_are_counted_not_shown(door: Door) -> None:
    door.advise(advice(door.key, count=9))
    found = door.hook("patient-view")
    assert len(found) == 4
    assert "5 more recommendations are on the board" in found[-1]["detail"]


def test_an_overridden_card_stays_away_for_that_user_until_its_facts_change(door: Door) -> None:
    found = advice(door.key, count=2)
    door.advise(found)
    first = next(c for c in door.hook("patient-view") if c["summary"] == "Summary 0")
    assert door.feedback(first, overrideReason={"reason": {"code": "not-applicable"}, "userComment": "seen"}) == 200
    assert [c["summary"] for c in door.hook("patient-view")] == ["Summary 1"]
    assert len(door.hook("patient-view", user="Practitioner/2")) == 2
    found.snapshot_revision = 2
    found.recommendations[0].evidence[0].statement = "eGFR 24"
    door.advise(found)
    assert len(door.hook("patient-view")) == 2


def test_an_accepted_card_stays_away_for_everybody(door: Door) -> None:
    door.advise(advice(door.key))
    (card,) = door.hook("patient-view")
    assert door.feedback(card, "accepted", acceptedSuggestions=[{"id": card["suggestions"][0]["uuid"]}]) == 200
    assert door.hook("patient-view", user="Practitioner/3") == []


def test_feedback_is_counted_once_and_told_by_rule(door: Door) -> None:
    door.advise(advice(door.key))
    (card,) = door.hook("patient-view")
    door.feedback(card, overrideReason={"reason": {"code": "remind-later"}})
    door.feedback(card, "accepted", acceptedSuggestions=[{"id": card["suggestions"][0]["uuid"]}])
    Relay(door.foundations.database, door.foundations.log, "alerts").drain()
    told = [unpack(r.event) for r in door.foundations.log.read(["osler.alert.feedback.v1"])]
    mine = [(t.rule_id, t.outcome, t.override_reason_code) for t in told if t.card_id == card["uuid"]]
    assert mine == [("rule.0", "overridden", "remind-later"), ("rule.0", "accepted", "")]


def test_an_accepted_outcome_must_name_the_suggestions(door: Door) -> None:
    item = {"card": str(uuid.uuid4()), "outcome": "accepted", "outcomeTimestamp": "2026-08-26T10:00:00Z"}
    assert door.post("osler-patient-view/feedback", {"feedback": [item]}).status_code == 422


def test_nobody_speaks_for_another_clients_card(door: Door) -> None:
    door.advise(advice(door.key))
    (card,) = door.hook("patient-view")
    own = {"authorization": f"Bearer {door.foundations.security.issue('x', ['clinician'])}"}
    item = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": "2026-08-26T10:00:00Z"}
    door.client.post("/cds-services/osler-patient-view/feedback", json={"feedback": [item]}, headers=own)
    assert len(door.hook("patient-view")) == 1


def recommendation(statement: str, **more: Any) -> advisor_pb2.Recommendation:
    found = advisor_pb2.Recommendation(recommendation_id="r", rule_id="rule", summary="s", urgency=2, **more)
    found.evidence.add(statement=statement)
    return found


def test_a_date_alone_is_no_new_fact() -> None:
    one, other = (
        snooze.fingerprint(recommendation(f"takes metformin ({day})")) for day in ("2026-08-01", "2026-08-02")
    )
    assert one == other
    assert snooze.fingerprint(recommendation("eGFR 28")) != snooze.fingerprint(recommendation("eGFR 29"))


def test_periods_end_to_the_second() -> None:
    at = datetime(2026, 8, 1, tzinfo=UTC)
    card = store.ServedCard("c", "k", "rule", "patient-view", "", "u", "f", "imaging", "critical")
    silence = snooze.policy().silence(card, "overridden", "already-addressed", at)
    assert silence is not None
    assert (silence.user_hash, silence.until - at) == ("u", timedelta(hours=24)), "critical: one day, one user"
    info = snooze.policy().silence(card._replace(urgency="info"), "overridden", "already-addressed", at)
    assert info is not None
    assert info.user_hash == ""


@pytest.mark.parametrize(
    "row", [{"hours": 1}, {"hours": 0, "scope": "user"}, {"hours": 1, "scope": "user", "reason": "x"}]
)
def test_a_policy_that_is_not_understood_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="period 1"):
        snooze.parse({"version": "1", "system": "urn:x", "reasons": [], "periods": [row]})


@given(st.text(min_size=1, max_size=400))
def test_summaries_stay_below_140_characters(text: str) -> None:
    r = advisor_pb2.Recommendation(recommendation_id="r", rule_id="rule", summary=f"x{text}", urgency=1)
    (card,) = cards.build([cards.Finding(r)], cards.Frame("i", "p", 4))
    assert len(card.summary) < 140
    assert hooks.Card.model_validate(card.model_dump())


@pytest.mark.parametrize(
    ("scope", "kind", "action", "good"),
    [
        ("patient/Observation.rs", "Observation", "search", True),
        ("patient/Observation.r", "Observation", "search", False),
        ("patient/*.read", "Patient", "search", True),
        ("user/*.cruds", "Patient", "update", True),
        ("patient/Observation.rs?category=x", "Observation", "search", False),
        ("patient/Observation.reads", "Observation", "search", False),
        ("openid launch/patient", "Patient", "read", False),
    ],
)
def test_what_scopes_allow(scope: str, kind: str, action: Any, good: bool) -> None:
    assert allows(scope, kind, action) is good


@pytest.mark.parametrize(
    ("given_url", "good"),
    [
        ("https://ehr.example/fhir/", True),
        ("HTTPS://EHR.example:443/fhir", True),
        ("http://ehr.example/fhir", False),
        ("https://ehr.example/fhir/../admin", False),
        ("https://ehr.example@evil.example/fhir", False),
        ("https://ehr.example.evil.example/fhir", False),
        ("https://ehr.example/fhir?x=1", False),
        ("https://ehr.example:x/fhir", False),
    ],
)
def test_base_urls_are_compared_by_their_parts(given_url: str, good: bool) -> None:
    assert same_base(given_url, "https://ehr.example/fhir") is good
