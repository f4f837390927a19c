"""Access to cases: breaking the glass, teams, restrictions, and who has looked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from services.board import access_store, store
from services.board.access import KEEPERS
from services.board.pages import Pages, Reader
from services.board.worker import ROOM
from services.platform.errors import RefusedError
from services.platform.http import require
from services.platform.rpc import NotFoundError
from services.platform.security import Principal

Keeper = Annotated[Principal, Depends(require(*KEEPERS))]
_SHORTEST_REASON = 10


def add_access_pages(app: FastAPI, pages: Pages) -> None:
    """Registers the routes."""

    @app.post("/case/{patient_key}/glass")
    async def break_glass(request: Request, reader: Reader, patient_key: str) -> Response:
        reason = str((await request.form()).get("reason", "")).strip()
        if len(reason) < _SHORTEST_REASON:
            raise RefusedError(
                "access.no_reason",
                "breaking the glass needs a reason",
                missing=["reason"],
                remedy="write in a sentence why you need this case now",
            )
        await asyncio.to_thread(_break_glass, request, pages, patient_key, reader, reason)
        return RedirectResponse(f"/case/{patient_key}", HTTPStatus.SEE_OTHER)

    @app.get("/case/{patient_key}/access", response_class=HTMLResponse)
    async def access_page(request: Request, reader: Reader, _keeper: Keeper, patient_key: str) -> Response:
        def read() -> dict[str, Any]:
            with pages.database.session() as session:
                found = access_store.case_access(session, patient_key, reader.subject)
            return {"found": found, "summary": pages.board.summary(patient_key)}

        values = await asyncio.to_thread(read)
        return pages.render(request, "access.html", reader, key=patient_key, now=datetime.now(UTC), **values)

    @app.post("/case/{patient_key}/access")
    async def change(request: Request, reader: Reader, _keeper: Keeper, patient_key: str) -> Response:
        form = {name: str(value).strip() for name, value in (await request.form()).items()}
        await asyncio.to_thread(_change, pages, patient_key, form, reader)
        return RedirectResponse(f"/case/{patient_key}/access", HTTPStatus.SEE_OTHER)


def _break_glass(request: Request, pages: Pages, patient_key: str, reader: Principal, reason: str) -> None:
    """Opens the case for a while. The audit trail has it before the case opens; the words of the reason stay here."""
    with pages.database.session() as session:
        if store.find_case(session, patient_key) is None:
            raise NotFoundError("there is no such case")
    audit = getattr(request.app.state, "audit", None)
    if audit is not None:
        audit.record(reader, "E", "board break-glass", patient_key, "success", {"reason_length": len(reason)})
    now = datetime.now(UTC)
    until = now + timedelta(minutes=pages.context.settings.board.break_glass_minutes)
    with pages.database.transaction(ROOM) as tx:
        access_store.grant(
            tx.session,
            patient_key,
            reader.subject,
            "glass",
            reason=reason[:1000],
            by=reader.subject,
            at=now,
            until=until,
        )


def _change(pages: Pages, patient_key: str, form: dict[str, str], reader: Principal) -> None:
    what, subject, now = form.get("do", ""), form.get("subject", "")[:255], datetime.now(UTC)
    with pages.database.transaction(ROOM) as tx:
        if what == "add" and subject:
            access_store.grant(
                tx.session,
                patient_key,
                subject,
                "team",
                reason=form.get("reason", "")[:1000],
                by=reader.subject,
                at=now,
            )
        elif what == "remove" and subject:
            access_store.take_back(tx.session, patient_key, subject)
        elif what == "restrict":
            access_store.restrict(tx.session, patient_key, reader.subject, now)
            # Whoever restricts a case must not lock themselves out of taking it back.
            access_store.grant(
                tx.session, patient_key, reader.subject, "team", reason="restricted the case", by=reader.subject, at=now
            )
        elif what == "free":
            access_store.free(tx.session, patient_key)
