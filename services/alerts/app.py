"""The CDS Hooks 2.0 endpoint: discovery, `patient-view`, `order-select`, feedback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import grpc
from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from osler.advisor.v1 import advisor_pb2, advisor_pb2_grpc
from osler.events.v1 import events_pb2

from services.alerts import cards, facts, hooks, orders, store
from services.clinical.identity import issuer_from_fhir, patient_key
from services.platform import rpc
from services.platform.errors import RefusedError
from services.platform.events import event_id, pack
from services.platform.http import create_app, problem, require
from services.platform.room import RoomContext
from services.platform.security import Principal

log = logging.getLogger(__name__)
Caller = Annotated[Principal, Depends(require("clinician", "service", "admin"))]
_PRECONDITION_FAILED = 412
# Categories that belong on a draft order; the rest waits for the patient's page.
_ORDER_CATEGORIES = frozenset({"contrast-safety"})

_PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "kidney": "Observation?patient={{context.patientId}}&code=http://loinc.org|2160-0,http://loinc.org|38483-4,"
    "http://loinc.org|14682-9,http://loinc.org|98979-8,http://loinc.org|62238-1&_sort=-date&_count=10",
    "allergies": "AllergyIntolerance?patient={{context.patientId}}",
    "medications": "MedicationRequest?patient={{context.patientId}}&status=active",
}
SERVICES = {
    "osler-patient-view": hooks.ServiceDescription(
        hook="patient-view",
        id="osler-patient-view",
        title="Osler: what imaging and the record say now",
        description="Response to treatment, next imaging step, and risks, with their evidence.",
        prefetch={"patient": _PREFETCH["patient"]},
    ),
    "osler-order-select": hooks.ServiceDescription(
        hook="order-select",
        id="osler-order-select",
        title="Osler: is this imaging order safe for this patient?",
        description="Checks contrast and modality of draft imaging orders against kidney function, allergies and drugs.",
        prefetch=_PREFETCH,
    ),
}


class Alerts:
    """Answers hooks from stored advice and, for orders, the advisor."""

    def __init__(self, context: RoomContext, advisor: advisor_pb2_grpc.AdvisorServiceStub) -> None:
        self._context = context
        self._advisor = advisor

    def key_of(self, prefetch: dict[str, Any]) -> str:
        """Patient key from the prefetched Patient: the first identifier that Osler has advice for, else the first.

        Raises RefusedError `cds.no_patient` when no identifier came along.
        """
        patient = facts.patient_of(facts.resources(prefetch))
        found = facts.identifiers(patient) if patient else []
        if not found:
            raise RefusedError(
                "cds.no_patient", "the request brought no Patient with an identifier", missing=["prefetch.patient"],
                remedy="send the prefetch template 'patient'",
            )  # fmt: skip
        secret, settings = self._context.settings.identity_key(), self._context.settings.identity
        keys = [
            patient_key(
                secret,
                issuer_from_fhir(system, settings.issuers, settings.default_issuer),
                value,
            )
            for system, value in found
        ]
        with self._context.database.session() as session:
            known = [key for key in keys if store.load_advice(session, key) is not None]
        return (known or keys)[0]

    def advice(self, key: str) -> list[advisor_pb2.Recommendation]:
        with self._context.database.session() as session:
            advice = store.load_advice(session, key)
        return list(advice.recommendations) if advice else []

    async def check_orders(self, key: str, request: hooks.HookRequest) -> list[advisor_pb2.Recommendation]:
        """Advice on the selected draft orders; what is stored when the advisor does not answer in time."""
        brought = facts.facts(request.prefetch, datetime.now(UTC))
        drafts = [
            orders.parse(o) for o in orders.selected_orders(request.context.draft_orders, request.context.selections)
        ]
        imaging = [d for d in drafts if d.modality]
        try:
            answers = await asyncio.gather(
                *(
                    self._advisor.CheckOrder(
                        advisor_pb2.CheckOrderRequest(patient_key=key, order=d, facts=brought), timeout=2.0
                    )
                    for d in imaging
                )
            )
        except grpc.aio.AioRpcError as error:
            log.warning("advisor did not check the order (%s): stored advice is served", error.code().name)
            stored = await asyncio.to_thread(self.advice, key)
            return [r for r in stored if r.category in _ORDER_CATEGORIES] if imaging else []
        unique = {r.recommendation_id: r for answer in answers for r in answer.recommendations}
        return list(unique.values())

    def serve(
        self, key: str, found: Sequence[advisor_pb2.Recommendation], request: hooks.HookRequest
    ) -> hooks.HookResponse:
        """Cards, remembered so that feedback can be told by rule."""
        instance = str(request.hook_instance)
        made = cards.build(found, instance, request.context.patient_id, self._board_url(key))
        rules = {cards.card_id(instance, r.recommendation_id): r.rule_id for r in found}
        served = [store.ServedCard(c.uuid, key, rules[c.uuid], request.hook) for c in made]
        if served:
            with self._context.database.transaction("alerts") as tx:
                store.save_cards(tx.session, served)
        return hooks.HookResponse(cards=made)

    def _board_url(self, key: str) -> str:
        http = self._context.settings.http
        with self._context.database.session() as session:
            known = store.load_advice(session, key) is not None
        return f"http://{http.host}:{http.port('board')}/case/{key}" if known else ""

    def feedback(self, item: hooks.FeedbackItem) -> None:
        """Announces what became of a card, once for each outcome at one time."""
        identity = event_id("alerts", "feedback", str(item.card), item.outcome, item.outcome_timestamp.isoformat())
        at = item.outcome_timestamp
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        with self._context.database.transaction("alerts") as tx:
            card = store.find_card(tx.session, str(item.card))
            if card is None or not store.save_feedback(tx.session, identity, str(item.card), item.outcome, at):
                return
            message = events_pb2.AlertFeedback(
                patient_key=card.patient_key, card_id=card.card_id, rule_id=card.rule_id, outcome=item.outcome,
                override_reason_code=_override_code(item),
            )  # fmt: skip
            message.outcome_at.FromDatetime(at.astimezone(UTC))
            tx.emit(pack(message, source="alerts", key=card.patient_key, id=identity, time=at))


def _override_code(item: hooks.FeedbackItem) -> str:
    reason = item.override_reason.reason if item.override_reason else None
    return str(reason.get("code", "")) if reason else ""


def build_app(context: RoomContext) -> FastAPI:
    """The web application of the alerts room."""
    settings, security = context.settings, context.security
    stub: dict[str, Alerts] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # gRPC channels belong to the event loop that serves.
        async with rpc.channel(
            settings.grpc.endpoint("advisor"), settings, security.token_provider("alerts")
        ) as channel:
            stub["alerts"] = Alerts(context, advisor_pb2_grpc.AdvisorServiceStub(channel))
            yield

    app = create_app("osler alerts", settings=settings, security=security, lifespan=lifespan)
    # EHR front ends call from the browser; nothing here works without a bearer token.
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "POST"], allow_headers=["*"])
    _add_routes(app, stub)
    return app


def _add_routes(app: FastAPI, stub: dict[str, Alerts]) -> None:
    @app.get("/cds-services", response_model=hooks.Discovery, response_model_exclude_none=True)
    async def discovery() -> hooks.Discovery:
        return hooks.Discovery(services=list(SERVICES.values()))

    @app.post("/cds-services/{service_id}", response_model=hooks.HookResponse, response_model_exclude_none=True)
    async def call(_caller: Caller, service_id: str, body: hooks.HookRequest) -> Any:
        service = SERVICES.get(service_id)
        if service is None:
            return problem(404, "Not found", detail=f"there is no service {service_id!r}; see /cds-services")
        if body.hook != service.hook:
            return problem(400, "Wrong hook", detail=f"{service_id} serves the hook {service.hook!r}")
        alerts = stub["alerts"]
        try:
            key = await asyncio.to_thread(alerts.key_of, body.prefetch)
        except RefusedError as error:
            return problem(
                _PRECONDITION_FAILED,
                "Data missing",
                detail=error.message,
                missing=list(error.missing),
                remedy=error.remedy,
            )
        if body.hook == "order-select":
            found = await alerts.check_orders(key, body)
        else:
            found = await asyncio.to_thread(alerts.advice, key)
        return await asyncio.to_thread(alerts.serve, key, found, body)

    @app.post("/cds-services/{service_id}/feedback")
    async def feedback(request: Request, _caller: Caller, service_id: str, body: hooks.Feedback) -> Response:
        if service_id not in SERVICES:
            return problem(404, "Not found", detail=f"there is no service {service_id!r}; see /cds-services")
        for item in body.feedback:
            await asyncio.to_thread(stub["alerts"].feedback, item)
        return Response(status_code=200)
