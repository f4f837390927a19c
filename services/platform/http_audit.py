"""Audit of HTTP doors: one row for each request that a known caller made, or that was turned away.

The row is written before the answer leaves: what cannot be recorded is not answered. The host gives the trail to each
application (`app.state.audit`). A page of images is hundreds of reads of one resource: the same caller reading through the
same route the same resource again within a minute is one row.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.platform import logs
from services.platform.audit import Action, Audit, Outcome
from services.platform.errors import RetryableError
from services.platform.security import Principal

REPEAT_S = 60.0
_REMEMBERED = 10_000
_ACTIONS: Mapping[str, Action] = {"GET": "R", "HEAD": "R", "PUT": "U", "PATCH": "U", "DELETE": "D"}
_TURNED_AWAY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

log = logs.get("audit")
Row = tuple[str, Action, str, str, Outcome]


class AuditMiddleware:
    """Writes the rows. Works inside the tracing middleware, whose trace id they carry."""

    def __init__(self, app: ASGIApp, door: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._door = door
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: OrderedDict[Row, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        audit: Audit | None = getattr(scope["app"].state, "audit", None) if scope["type"] == "http" else None
        if audit is None:
            await self._app(scope, receive, send)
            return
        replaced = False

        async def recorded(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                replaced = not await self._record(audit, scope, message["status"])
                if replaced:
                    await _unrecorded()(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, recorded)

    async def _record(self, audit: Audit, scope: Scope, status: int) -> bool:
        """False when the row cannot be written now."""
        row = self._row(scope, status)
        if row is None or self._repeats(row):
            return True
        subject, action, kind, resource, outcome = row
        detail = {"status": status}
        try:
            await asyncio.to_thread(audit.record, subject, action, kind, resource, outcome, detail)
        except RetryableError as error:
            log.error("audit_unwritten", error=type(error).__name__)
            with self._lock:
                self._recent.pop(row, None)
            return False
        return True

    def _row(self, scope: Scope, status: int) -> Row | None:
        principal: Principal | None = scope.get("state", {}).get("principal")
        if principal is None and status not in _TURNED_AWAY:
            return None
        route = getattr(scope.get("route"), "path", "unmatched")
        outcome: Outcome = "denied" if status in _TURNED_AWAY else "error" if status >= 400 else "success"
        subject = principal.subject if principal else ""
        action = _ACTIONS.get(scope["method"], "E")
        return (subject, action, f"{self._door} {scope['method']} {route}", resource_in(scope), outcome)

    def _repeats(self, row: Row) -> bool:
        """True for a read recorded within the last minute."""
        if row[1] != "R":
            return False
        with self._lock:
            now = self._clock()
            known = self._recent.get(row)
            if known is not None and now - known < REPEAT_S:
                return True
            self._recent[row] = now
            self._recent.move_to_end(row)
            while len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
            return False


def resource_in(scope: Scope) -> str:
    """The first path parameter that names one thing (`..._key`, `..._uid`, `..._id`, or just that)."""
    parameters: Mapping[str, Any] = scope.get("path_params", {})
    named = (str(value) for name, value in parameters.items() if name.rpartition("_")[2] in ("key", "uid", "id"))
    return next(named, "")


def _unrecorded() -> JSONResponse:
    body = {
        "type": "about:blank",
        "title": "Try again",
        "status": 503,
        "detail": "the audit trail cannot be written now, so the request is not answered",
    }
    return JSONResponse(body, 503, {"retry-after": "2"}, media_type="application/problem+json")
