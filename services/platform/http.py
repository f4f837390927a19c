"""Doors that speak HTTP: one FastAPI application each, with the same manners.

`create_app` gives tracing, request ids, security headers, a limit on bodies, errors as RFC 9457 problem documents, and
`/healthz` and `/readyz`. `require("clinician")` is the dependency that asks who calls.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.platform import logs, telemetry
from services.platform.config import Settings
from services.platform.errors import OslerError, RefusedError, RetryableError
from services.platform.http_audit import AuditMiddleware
from services.platform.rpc_errors import InvalidRequestError
from services.platform.security import (
    AuthenticationError,
    PermissionDeniedError,
    Principal,
    Security,
    acting_as,
    authorize,
    become,
)

SESSION_COOKIE = "osler_session"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf_token"
PROBLEM = "application/problem+json"
# Content Security Policy level 3; a door may loosen single directives.
STRICT_CSP: Mapping[str, str] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
# FastAPI's own telemetry records exception messages and arguments, which may hold patient data; `_Tracing` does not.
_NO_FASTAPI_TELEMETRY = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logs.get("http")
Readiness = Callable[[], bool]


def create_app(
    title: str,
    *,
    settings: Settings,
    security: Security,
    readiness: Sequence[Readiness] = (),
    csp: Mapping[str, str] | None = None,
    max_body_mb: int | None = None,
    metrics: bool = False,
    login_path: str = "",
    **fastapi: Any,
) -> FastAPI:
    """An application for one door.

    `csp` replaces directives of `STRICT_CSP`; `login_path` is where browsers without a session are sent (empty: they get
    401); `metrics` adds `/metrics`, for doors that only operators reach.
    """
    chosen = {"docs_url": None, "redoc_url": None, "openapi_url": None, "telemetry": _NO_FASTAPI_TELEMETRY} | fastapi
    app = FastAPI(title=title, **chosen)
    app.state.security = security
    app.state.settings = settings
    app.state.login_path = login_path
    policy = "; ".join(f"{name} {value}".strip() for name, value in {**STRICT_CSP, **(csp or {})}.items())
    limit = (max_body_mb or settings.http.max_body_mb) * 1024 * 1024
    app.add_middleware(_BodyLimit, limit=limit)
    app.add_middleware(AuditMiddleware, door=title)
    app.add_middleware(_Tracing, door=title)
    app.add_middleware(_SecurityHeaders, csp=policy)
    for kind in (OslerError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _on_error)
    _add_operations(app, readiness, metrics)
    return app


def _add_operations(app: FastAPI, readiness: Sequence[Readiness], metrics: bool) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> PlainTextResponse:
        if await asyncio.to_thread(_all_ready, readiness):
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", HTTPStatus.SERVICE_UNAVAILABLE)

    if metrics:

        @app.get("/metrics", include_in_schema=False)
        async def prometheus() -> Response:
            return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _all_ready(readiness: Sequence[Readiness]) -> bool:
    try:
        return all(check() for check in readiness)
    except Exception as error:
        log.warning("readiness_failed", error=type(error).__name__)
        return False


def require(*roles: str) -> Callable[[Request], Awaitable[Principal]]:
    """FastAPI dependency: the caller, by bearer token or browser session, when it holds one of `roles`.

    A session that changes something must also bring its CSRF token (header `X-CSRF-Token` or form field `csrf_token`).
    A caller who is limited to one patient gets routes about that patient only (path parameter `patient_key`).
    Raises AuthenticationError (401) or PermissionDeniedError (403).
    """

    async def dependency(request: Request) -> Principal:
        principal = authorize(await principal_of(request), *roles)
        if principal.limited_to and request.path_params.get("patient_key") != principal.limited_to:
            raise PermissionDeniedError("this sign-in is for the patient of the launch only")
        return principal

    return dependency


async def principal_of(request: Request) -> Principal | None:
    """The caller, if any. Raises AuthenticationError for a token that does not hold."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    security: Security = request.app.state.security
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    principal = None
    if kind.lower() == "bearer" and token:
        principal = await security.verify_async(token.strip())
    elif cookie := request.cookies.get(SESSION_COOKIE):
        principal = security.verify_session(cookie)
        if request.method not in _SAFE_METHODS:
            await _check_csrf(request, security, principal)
    request.state.principal = principal
    become(principal)
    return principal


async def _check_csrf(request: Request, security: Security, principal: Principal) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        given = str((await request.form()).get(CSRF_FIELD, ""))
    if not secrets.compare_digest(given.encode(), security.csrf_token(principal).encode()):
        raise PermissionDeniedError("the page is out of date (CSRF token missing or wrong): reload it and try again")


def csrf_token(request: Request) -> str:
    """The CSRF token for forms of a signed-in page; empty without a session."""
    principal: Principal | None = getattr(request.state, "principal", None)
    security: Security = request.app.state.security
    return security.csrf_token(principal) if principal else ""


def problem(
    status: int, title: str, *, detail: str = "", headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """An RFC 9457 problem document; empty members are left out."""
    body = {"type": "about:blank", "title": title, "status": int(status), "detail": detail, **members}
    body = {name: value for name, value in body.items() if value not in ("", (), [])}
    return JSONResponse(body, int(status), dict(headers or {}), media_type=PROBLEM)


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, AuthenticationError):
        return _unauthenticated(request, error)
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        detail = str(error.detail) if error.detail != phrase else ""
        return problem(error.status_code, phrase, detail=detail, headers=error.headers)
    if isinstance(error, RequestValidationError):
        fields = [{"field": ".".join(map(str, item["loc"])), "problem": item["msg"]} for item in error.errors()]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request does not fit", fields=fields)
    return _osler_problem(error)


def _osler_problem(error: Exception) -> Response:
    if isinstance(error, PermissionDeniedError):
        return problem(HTTPStatus.FORBIDDEN, "Not allowed", detail=str(error))
    if isinstance(error, RefusedError):
        return problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Refused",
            detail=error.message,
            reason=error.reason,
            missing=list(error.missing),
            remedy=error.remedy,
            subject=error.subject,
        )
    if isinstance(error, InvalidRequestError):
        fields = [{"field": name, "problem": text} for name, text in error.violations]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request does not fit", fields=fields)
    if isinstance(error, RetryableError):
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "Try again", detail=str(error), headers={"retry-after": "2"})
    if isinstance(error, LookupError):
        return problem(HTTPStatus.NOT_FOUND, "Not found", detail=str(error))
    return _unexpected(error)


def _unauthenticated(request: Request, error: AuthenticationError) -> Response:
    if error.retry_after_s:
        wait = {"retry-after": str(int(error.retry_after_s) + 1)}
        return problem(HTTPStatus.TOO_MANY_REQUESTS, "Wait", detail=str(error), headers=wait)
    login = request.app.state.login_path
    if login and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{request.url_for('login_page').path}?{urlencode({'next': request.url.path})}", 303)
    challenge = {"www-authenticate": 'Bearer realm="osler"'}
    return problem(HTTPStatus.UNAUTHORIZED, "Sign in first", detail=str(error), headers=challenge)


def _unexpected(error: Exception) -> Response:
    trace_id = telemetry.trace_id()
    log.error("http_failed", error=type(error).__name__, where=logs.where(error), trace_id=trace_id)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Unexpected error",
        detail="The service's log has it under this trace.",
        trace_id=trace_id,
    )


class _Tracing:
    """Request id, span, counters, and an answer for what nobody foresaw."""

    def __init__(self, app: ASGIApp, door: str) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        answered = {"status": 0}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered["status"] = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with (
            telemetry.measured(f"http {self._door}", scope["method"]) as result,
            telemetry.span(scope["method"], kind="server", parent=headers.get("traceparent")) as span,
            structlog.contextvars.bound_contextvars(request_id=request_id),
            acting_as(None),
        ):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                if answered["status"]:
                    raise
                await _unexpected(error)(scope, receive, send_with_id)
            route = getattr(scope.get("route"), "path", "unmatched")
            result["method"] = f"{scope['method']} {route}"
            result["code"] = str(answered["status"])
            span.update_name(result["method"])
            span.set_attributes(
                {
                    "http.request.method": scope["method"],
                    "http.route": route,
                    "http.response.status_code": answered["status"],
                }
            )


class _SecurityHeaders:
    """Headers of the OWASP Secure Headers project; a handler's own value stays."""

    def __init__(self, app: ASGIApp, csp: str) -> None:
        self._app = app
        self._headers = {
            "content-security-policy": csp,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=()",
            "cache-control": "no-store",
        }
        if "frame-ancestors 'none'" not in csp:
            del self._headers["x-frame-options"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class _BodyLimit:
    """Refuses bodies over the limit, announced or not, with 413."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > self._limit:
            await self._refusal()(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"bodies end at {self._limit} bytes here")
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> Response:
        return problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Body too large", detail=f"bodies end at {self._limit} bytes here"
        )
