"""Second readings: asking for them, reading blinded, agreement, adjudication, and teaching files."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from services.board import reads, reads_store, teaching
from services.board.access import KEEPERS
from services.board.pages import Pages, Reader
from services.board.worker import ROOM
from services.platform.errors import RefusedError
from services.platform.http import require
from services.platform.security import Principal

Keeper = Annotated[Principal, Depends(require(*KEEPERS))]


def add_reads_pages(app: FastAPI, pages: Pages) -> None:
    """Registers the routes."""

    @app.get("/reads", response_class=HTMLResponse)
    async def overview(request: Request, reader: Reader) -> Response:
        return pages.render(request, "reads.html", reader, **await asyncio.to_thread(_overview, pages, reader))

    @app.post("/reads")
    async def ask(request: Request, reader: Reader, _keeper: Keeper) -> Response:
        form = {name: str(value).strip() for name, value in (await request.form()).items()}
        await asyncio.to_thread(_ask, pages, form, reader)
        return RedirectResponse("/reads", HTTPStatus.SEE_OTHER)

    @app.get("/reads/{read_id}", response_class=HTMLResponse)
    async def one(request: Request, reader: Reader, read_id: str) -> Response:
        values = await asyncio.to_thread(_one, pages, read_id, reader)
        return pages.render(request, "read.html", reader, **values)

    @app.post("/reads/{read_id}")
    async def give(request: Request, reader: Reader, read_id: str) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        await asyncio.to_thread(_give, pages, read_id, form, reader)
        return RedirectResponse(f"/reads/{read_id}", HTTPStatus.SEE_OTHER)

    @app.post("/reads/{read_id}/adjudicate")
    async def settle(request: Request, reader: Reader, _keeper: Keeper, read_id: str) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        await asyncio.to_thread(_settle, pages, read_id, form, reader)
        return RedirectResponse(f"/reads/{read_id}", HTTPStatus.SEE_OTHER)

    @app.get("/case/{patient_key}/teaching.zip")
    async def teaching_file(_reader: Reader, _keeper: Keeper, patient_key: str) -> Response:
        def make() -> bytes:
            page = pages.board.page(patient_key)
            pictures = teaching.key_images(pages, patient_key)
            return teaching.export(page.view, pages.board.snapshot(page.case), pictures)

        headers = {"content-disposition": 'attachment; filename="teaching-file.zip"'}
        return Response(await asyncio.to_thread(make), media_type="application/zip", headers=headers)


def _overview(pages: Pages, reader: Principal) -> dict[str, Any]:
    with pages.database.session() as session:
        found = reads_store.reads(session)
    mine = [r for r in found if reader.subject in r.readers or reader.has(*KEEPERS)]
    names = {
        r.patient_key: pages.board.summary(r.patient_key).name for r in mine if pages.may_open(reader, r.patient_key)
    }
    cases = [(c, who) for c, who in pages.board.worklist() if pages.may_open(reader, c.patient_key)]
    shown = [(r, names[r.patient_key]) for r in mine if r.patient_key in names]
    return {"rows": shown, "cases": cases, "agreement": reads.agreement(found)}


def _ask(pages: Pages, form: dict[str, str], reader: Principal) -> None:
    key, first, second = form.get("case", ""), form.get("first", "")[:255], form.get("second", "")[:255]
    pages.require_open(reader, key)
    if not first or not second or first == second:
        raise RefusedError("read.two_readers", "a double reading needs two different readers", remedy="name two people")
    with pages.database.transaction(ROOM) as tx:
        reads_store.ask(tx.session, key, first, second, reader.subject)


def _one(pages: Pages, read_id: str, reader: Principal) -> dict[str, Any]:
    with pages.database.session() as session:
        found = reads_store.read(session, read_id)
    pages.require_open(reader, found.patient_key)
    page = pages.board.page(found.patient_key)
    may_read = reader.subject in found.readers and found.of(reader.subject) is None
    return {
        "read": found, "summary": page.view.summary, "visits": page.visits, "may_read": may_read,
        "responses": page.view.responses if found.complete else [], "visible": found.visible_to(reader.subject),
        "categories": reads.CATEGORIES,
    }  # fmt: skip


def _give(pages: Pages, read_id: str, form: dict[str, str], reader: Principal) -> None:
    with pages.database.transaction(ROOM) as tx:
        found = reads_store.read(tx.session, read_id)
        reads.require_reader(found, reader.subject)
        reads_store.keep(tx.session, read_id, reads.parse(form, reader.subject, datetime.now(UTC)))


def _settle(pages: Pages, read_id: str, form: dict[str, str], reader: Principal) -> None:
    category = form.get("category", "")
    with pages.database.transaction(ROOM) as tx:
        found = reads_store.read(tx.session, read_id)
        if not found.complete or found.agreed or category not in reads.CATEGORIES:
            raise RefusedError(
                "read.nothing_to_settle",
                "only two readings that disagree are settled, with one of the categories",
                remedy="wait for both readings",
            )
        if reader.subject in found.readers:
            raise RefusedError(
                "read.own_reading", "whoever read the case cannot settle it", remedy="ask a third person"
            )
        reads_store.adjudicate(tx.session, read_id, category, reader.subject, form.get("note", "").strip()[:2000])
