"""The CDS Hooks 2.0 endpoint: discovery, five hooks, feedback. docs/cds-hooks.md tells it from the EHR's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from osler.advisor.v1 import advisor_pb2_grpc

from services.alerts import feedback as outcomes
from services.alerts import hooks
from services.alerts.hooks_answer import Answers, problem_members
from services.alerts.jwt_clients import Caller, Clients
from services.clinical import units
from services.platform import logs, rpc
from services.platform.errors import RefusedError, RetryableError
from services.platform.http import create_app, problem
from services.platform.room import RoomContext
from services.platform.security import AuthenticationError, become

log = logs.get("cds_hooks")


@dataclass
class _Running:
    """What lives as long as the event loop that serves."""

    answers: Answers | None = None


async def caller_of(request: Request) -> Caller:
    """Who calls this endpoint. Answers 401 without a reason, which only the log has."""
    clients: Clients = request.app.state.cds_clients
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    base = request.app.state.cds_public_url
    identifier = request.path_params["service_id"]
    endpoint = f"{base}/cds-services/{identifier}"
    endpoints = (endpoint, f"{endpoint}/feedback") if request.url.path.endswith("/feedback") else (endpoint,)
    try:
        if kind.lower() != "bearer" or not token:
            raise AuthenticationError("no bearer token")
        caller = await clients.verify(token.strip(), *endpoints)
    except AuthenticationError as error:
        log.warning("cds_call_refused", why=str(error))
        raise HTTPException(HTTPStatus.UNAUTHORIZED, headers={"www-authenticate": "Bearer"}) from None
    except RetryableError as error:
        log.warning("cds_call_not_checked", why=str(error))
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "2"}) from None
    request.state.principal = caller.principal
    become(caller.principal)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]


def build_app(context: RoomContext) -> FastAPI:
    """The web application of the alerts room. Raises ConfigurationError for a client whose URLs are not safe."""
    settings, security = context.settings, context.security
    running = _Running()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # gRPC channels and connections belong to the event loop that serves.
        async with (
            rpc.channel(settings.grpc.endpoint("advisor"), settings, security.token_provider("alerts")) as channel,
            httpx.AsyncClient(timeout=settings.cds.fetch_s, follow_redirects=False, trust_env=False) as http,
        ):
            running.answers = Answers(context, advisor_pb2_grpc.AdvisorServiceStub(channel), http)
            # The table of units takes seconds to build: no clinician should be the one to wait for it.
            warming = asyncio.create_task(
                asyncio.to_thread(units.convert, 1.0, "umol/L", "mg/dL", analyte="creatinine")
            )
            yield
            await warming

    app = create_app("osler alerts", settings=settings, security=security, lifespan=lifespan)
    app.state.cds_clients = Clients(settings.cds, context.database, security, leeway_s=settings.auth.leeway_s)
    public = settings.cds.public_url or f"http://{settings.http.host}:{settings.http.port('alerts')}"
    app.state.cds_public_url = public.rstrip("/")
    # EHR front ends call from the browser; nothing here works without a bearer token.
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "POST"], allow_headers=["*"])
    _add_routes(app, context, running)
    return app


def _add_routes(app: FastAPI, context: RoomContext, running: _Running) -> None:
    @app.get("/cds-services", response_model=hooks.Discovery, response_model_exclude_none=True)
    async def discovery() -> hooks.Discovery:
        return hooks.Discovery(services=[service.description for service in hooks.services().values()])

    @app.post("/cds-services/{service_id}", response_model=hooks.HookResponse, response_model_exclude_none=True)
    async def call(caller: CallerOf, service_id: str, body: hooks.HookRequest) -> Any:
        service = hooks.services().get(service_id)
        if service is None or running.answers is None:
            return _no_such_service(service_id)
        if body.hook != service.description.hook:
            hook = service.description.hook
            return problem(HTTPStatus.BAD_REQUEST, "Wrong hook", detail=f"{service_id} serves the hook {hook!r}")
        if lacking := service.lacking(body.context):
            return problem(HTTPStatus.BAD_REQUEST, "Context incomplete", missing=lacking)
        try:
            return await running.answers.answer(service, body, caller)
        except RefusedError as error:
            return problem(HTTPStatus.PRECONDITION_FAILED, "Data missing", **problem_members(error))

    @app.post("/cds-services/{service_id}/feedback")
    async def feedback(caller: CallerOf, service_id: str, body: hooks.Feedback) -> Response:
        if service_id not in hooks.services():
            return _no_such_service(service_id)
        new = await asyncio.to_thread(
            outcomes.receive, context.database, body.feedback, caller.client, datetime.now(UTC)
        )
        log.info("cds_feedback", received=len(body.feedback), new=new)
        return Response(status_code=HTTPStatus.OK)


def _no_such_service(service_id: str) -> Response:
    return problem(HTTPStatus.NOT_FOUND, "Not found", detail=f"there is no service {service_id!r}; see /cds-services")
