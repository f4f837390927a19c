"""Answers one hook: what is known of the patient in the time there is, and a statement of what is not."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
from osler.advisor.v1 import advisor_pb2, advisor_pb2_grpc

from services.alerts import cards, facts, hooks, orders, prefetch, snooze, store
from services.alerts.cards import Finding
from services.alerts.jwt_clients import Caller
from services.clinical.identity import issuer_from_fhir, patient_key
from services.platform.errors import RefusedError
from services.platform.room import RoomContext
from services.platform.security.urls import same_base

log = logging.getLogger(__name__)
_TIDY_EVERY_S = 60.0


@dataclass(frozen=True)
class Patient:
    """Whom a call is about: keyed hash, the latest advice ([] where there is none), what is held back."""

    key: str
    known: bool
    advice: tuple[advisor_pb2.Recommendation, ...]
    silences: tuple[store.Silence, ...]


@dataclass(frozen=True)
class Checked:
    """Advice on draft orders. `answered`: the advisor did. `imaging`: there was an imaging order to check."""

    findings: tuple[Finding, ...] = ()
    answered: bool = True
    imaging: bool = False


class Answers:
    """Answers hooks from stored advice and, for orders, from the advisor."""

    def __init__(
        self, context: RoomContext, advisor: advisor_pb2_grpc.AdvisorServiceStub, http: httpx.AsyncClient
    ) -> None:
        self._context = context
        self._settings = context.settings.cds
        self._advisor = advisor
        self._http = http
        self._identity_key = context.settings.identity_key()

    async def answer(self, service: hooks.Service, request: hooks.HookRequest, caller: Caller) -> hooks.HookResponse:
        """Raises RefusedError `cds.no_patient` or `cds.another_patient` when it cannot be told whom the call is about."""
        now = datetime.now(UTC)
        brought = await prefetch.complete(
            request,
            service.description.prefetch,
            allowed=caller.fhir_servers,
            http=self._http,
            timeout_s=self._settings.fetch_s,
        )
        identifiers = _identifiers(brought, request.context.patient_id)
        patient = await asyncio.to_thread(self._patient, identifiers, now)
        reading = await asyncio.to_thread(facts.read, brought.resources, now, request.context.patient_id)
        found, checked = list(self._stored(service, patient)), Checked()
        if service.orders:
            checked = await self._check(request, patient.key, reading.facts)
            found = [*checked.findings, *self._beside(service, patient, checked)]
        not_known = [*(gap.words() for gap in brought.gaps), *reading.unusable]
        if checked.imaging:
            found += _completeness(patient, checked, brought.gaps, reading.unusable, not_known)
        return await asyncio.to_thread(self._serve, _unique(found), patient, request, caller, not_known)

    def _patient(self, identifiers: Sequence[tuple[str, str]], now: datetime) -> Patient:
        """The first identifier that Osler has advice for, else the first."""
        settings = self._context.settings.identity
        keys = [
            patient_key(self._identity_key, issuer_from_fhir(system, settings.issuers, settings.default_issuer), value)
            for system, value in identifiers
        ]
        with self._context.database.session() as session:
            for key in keys:
                advice = store.load_advice(session, key)
                if advice is not None:
                    return Patient(key, True, tuple(advice.recommendations), tuple(store.silences(session, key, now)))
            return Patient(keys[0], False, (), tuple(store.silences(session, keys[0], now)))

    def _stored(self, service: hooks.Service, patient: Patient) -> list[Finding]:
        wanted = service.categories
        return [Finding(r) for r in patient.advice if not wanted or r.category in wanted]

    def _beside(self, service: hooks.Service, patient: Patient, checked: Checked) -> list[Finding]:
        """Stored advice beside the check of orders: what is due when booking, and all there is when no check was made."""
        booking = service.description.hook == "appointment-book"
        return self._stored(service, patient) if booking or (checked.imaging and not checked.answered) else []

    async def _check(
        self, request: hooks.HookRequest, key: str, brought: Sequence[advisor_pb2.ClinicalFact]
    ) -> Checked:
        """The advisor's word on each imaging draft, all at once."""
        context = request.context
        drafts = orders.selected_orders(context.draft_orders, context.selections)
        drafts += orders.appointments(context.appointments)
        parsed = [(orders.reference(draft), orders.parse(draft)) for draft in drafts]
        imaging = [(name, order) for name, order in parsed if order.modality]
        calls = [
            self._advisor.CheckOrder(
                advisor_pb2.CheckOrderRequest(patient_key=key, order=order, facts=brought),
                timeout=self._settings.advisor_s,
            )
            for _, order in imaging
        ]
        try:
            answers = await asyncio.gather(*calls)
        except grpc.aio.AioRpcError as error:
            log.warning("advisor did not check the order (%s): stored advice is served", error.code().name)
            return Checked(answered=False, imaging=True)
        found: dict[str, Finding] = {}
        for (name, _), answer in zip(imaging, answers, strict=True):
            # Appointments are not removed by a card: only drafts of orders are.
            names = (name,) if name and not name.startswith("Appointment/") else ()
            for r in answer.recommendations:
                known = found.get(r.recommendation_id, Finding(r))
                found[r.recommendation_id] = replace(known, orders=(*known.orders, *names))
        return Checked(tuple(found.values()), True, bool(imaging))

    def _serve(
        self,
        findings: Sequence[Finding],
        patient: Patient,
        request: hooks.HookRequest,
        caller: Caller,
        not_known: Sequence[str],
    ) -> hooks.HookResponse:
        """Cards that are not held back, remembered so that feedback can be told by rule."""
        user = self._user_hash(caller, request.context.user_id)
        kept = [f for f in findings if not snooze.held_back(f.recommendation, patient.silences, user)]
        frame = cards.Frame(
            str(request.hook_instance),
            request.context.patient_id,
            self._settings.most_cards,
            f"{self._board_url()}/case/{patient.key}" if patient.known else "",
            self._smart_url(request) if patient.known else "",
            not_known,
        )
        made = cards.build(kept, frame)
        by_card = {cards.card_id(frame.hook_instance, f.recommendation.recommendation_id): f for f in kept}
        served = [
            _served(card.uuid, by_card[card.uuid].recommendation, patient.key, request.hook, caller.client, user)
            for card in made
        ]
        if served:
            with self._context.database.transaction("alerts", durable=False) as tx:
                store.save_cards(tx.session, served)
        return hooks.HookResponse(cards=made)

    def _user_hash(self, caller: Caller, user_id: str) -> str:
        text = f"cds user\x1f{caller.client}\x1f{user_id}"
        return hmac.new(self._identity_key, text.encode(), "sha256").hexdigest()[:32]

    def _board_url(self) -> str:
        http = self._context.settings.http
        return self._settings.board_url.rstrip("/") or f"http://{http.host}:{http.port('board')}"

    def _smart_url(self, request: hooks.HookRequest) -> str:
        """Where the calling EHR launches the board, when it is registered for that."""
        servers = self._context.settings.smart.servers.values()
        known = request.fhir_server and any(same_base(request.fhir_server, s.fhir_url) for s in servers)
        return f"{self._board_url()}/smart/launch" if known else ""


class Tidy:
    """Forgets used tokens, ended silences and old cards, at most once a minute; for `Room.idle`."""

    def __init__(self, context: RoomContext) -> None:
        self._database = context.database
        self._keep = timedelta(days=context.settings.cds.keep_cards_days)
        self._next = time.monotonic() + _TIDY_EVERY_S

    def __call__(self, force: bool) -> bool:
        """Never reports work: what it does is not waited for."""
        if force or time.monotonic() >= self._next:
            self._next = time.monotonic() + _TIDY_EVERY_S
            now = datetime.now(UTC)
            with self._database.transaction("alerts") as tx:
                store.forget_old(tx.session, now, now, now - self._keep)
        return False


def _identifiers(brought: prefetch.Brought, patient_id: str) -> list[tuple[str, str]]:
    patient = facts.patient_of(facts.resources(brought.resources))
    if patient is not None and patient.get("id") not in (None, patient_id):
        raise RefusedError(
            "cds.another_patient", "the prefetched Patient is not the one that the context names",
            missing=["prefetch.patient"], remedy="send the Patient of context.patientId",
        )  # fmt: skip
    found = facts.identifiers(patient) if patient else []
    if not found:
        gap = next((gap for gap in brought.gaps if gap.key == "patient"), None)
        why = f": {gap.reason}" if gap and gap.tried else ""
        raise RefusedError(
            "cds.no_patient", f"the request brought no Patient with an identifier{why}", missing=["prefetch.patient"],
            remedy="send the prefetch template 'patient', or fhirServer with fhirAuthorization",
        )  # fmt: skip
    return found


def _completeness(
    patient: Patient,
    checked: Checked,
    gaps: Sequence[prefetch.Gap],
    unusable: Sequence[str],
    not_known: Sequence[str],
) -> list[Finding]:
    """A card of its own for what is missing: when Osler's own record cannot stand in, or something went wrong."""
    if not checked.answered:
        return [Finding(cards.unchecked())]
    if not not_known or (patient.known and not unusable and not any(gap.tried for gap in gaps)):
        return []
    titles = [hooks.title_of(gap.key) for gap in gaps] or ["values that could not be used"]
    return [Finding(cards.incomplete(not_known, titles))]


def _unique(findings: Sequence[Finding]) -> list[Finding]:
    """One of each rule on the same facts: the check of an order comes before what was stored."""
    seen: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        r = finding.recommendation
        seen.setdefault((r.rule_id, snooze.fingerprint(r)), finding)
    return list(seen.values())


def _served(card: str, r: advisor_pb2.Recommendation, key: str, hook: str, client: str, user: str) -> store.ServedCard:
    urgency = snooze.URGENCIES.get(r.urgency, "info")
    return store.ServedCard(card, key, r.rule_id, hook, client, user, snooze.fingerprint(r), r.category, urgency)


def problem_members(error: RefusedError) -> Mapping[str, Any]:
    """What a 412 tells the EHR's developers."""
    return {"detail": error.message, "missing": list(error.missing), "remedy": error.remedy}
