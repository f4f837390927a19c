"""The case page, its parts, the viewer's volumes, reviews of findings, and what would change under another course."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from osler.imaging.v1 import imaging_pb2

from services.board import findings_review, meeting, saliency, store, whatif
from services.board.findings_review import reasons
from services.board.kept import Kept
from services.board.pages import THEME_COOKIE, THEMES, Pages, Reader
from services.board.ranges import cache_headers, not_modified, ranged
from services.board.worker import ROOM, announce_reviewed
from services.clinical.codes import UNIT_MM3
from services.platform.errors import RefusedError
from services.platform.rpc import NotFoundError

_PARTS = ("strip", "trouble", "findings", "response", "advice", "news")
_SALIENCY_BYTES = 64 * 1024 * 1024
_YEAR_S = 365 * 24 * 3600


def add_case_pages(app: FastAPI, pages: Pages) -> None:
    """Registers the routes."""
    _add_lists(app, pages)
    _add_case(app, pages)
    _add_saliency(app, pages)
    _add_review(app, pages)


def _add_lists(app: FastAPI, pages: Pages) -> None:
    @app.get("/", response_class=HTMLResponse)
    async def index(request: Request, reader: Reader) -> Response:
        def read() -> list[Any]:
            rows = []
            for case, who in pages.board.worklist():
                ready = meeting.readiness(pages.board.page(case.patient_key).view, "")
                rows.append((case, who, ready, pages.may_open(reader, case.patient_key)))
            return rows

        return pages.render(request, "index.html", reader, cases=await asyncio.to_thread(read))

    @app.get("/here", status_code=HTTPStatus.NO_CONTENT)
    async def here(_reader: Reader) -> Response:
        """Says that somebody still sits there."""
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @app.post("/theme", include_in_schema=False)
    async def theme(request: Request, _reader: Reader) -> Response:
        form = await request.form()
        chosen = str(form.get("theme", ""))
        back = str(form.get("back", "/"))
        response = RedirectResponse(
            back if back.startswith("/") and not back.startswith("//") else "/", HTTPStatus.SEE_OTHER
        )
        if chosen in THEMES:
            response.set_cookie(THEME_COOKIE, chosen, max_age=_YEAR_S, samesite="lax", httponly=True)
        return response


def case_values(pages: Pages, patient_key: str) -> dict[str, Any]:
    """What the case page and its parts show."""
    page = pages.board.page(patient_key)
    ready = meeting.readiness(page.view, "")
    return {
        "case": page.case, "view": page.view, "visits": page.visits, "troubles": page.troubles, "ready": ready,
        "key": patient_key,
    }  # fmt: skip


def _add_case(app: FastAPI, pages: Pages) -> None:
    kept = Kept(pages.context.settings.board.volumes_mb * 1024 * 1024)

    @app.get("/case/{patient_key}", response_class=HTMLResponse)
    async def case_page(request: Request, reader: Reader, patient_key: str) -> Response:
        values = await asyncio.to_thread(case_values, pages, patient_key)
        return pages.render(request, "case.html", reader, courses=whatif.courses(), **values)

    @app.get("/case/{patient_key}/part/{name}", response_class=HTMLResponse)
    async def case_part(request: Request, reader: Reader, patient_key: str, name: str) -> Response:
        if name not in _PARTS:
            raise NotFoundError("the case page has no such part")
        values = await asyncio.to_thread(case_values, pages, patient_key)
        return pages.render(request, f"case_{name}.html", reader, courses=whatif.courses(), **values)

    @app.get("/case/{patient_key}/live")
    async def case_live(_reader: Reader, patient_key: str) -> Response:
        return StreamingResponse(pages.hub.stream(f"case:{patient_key}"), media_type="text/event-stream")

    @app.get("/case/{patient_key}/whatif", response_class=HTMLResponse)
    async def what_if(
        request: Request,
        reader: Reader,
        patient_key: str,
        course: str = "continue",
        start_weeks: int = 0,
        pause_weeks: int = 6,
    ) -> Response:
        asked = whatif.Asked(course, start_weeks, pause_weeks)
        found = await whatif.ask(pages, patient_key, asked, datetime.now(UTC))
        return pages.render(request, "case_whatif.html", reader, found=found, asked=asked)

    @app.get("/case/{patient_key}/volume/{series_uid}/in/{space_of}.nii.gz")
    async def series_volume(
        request: Request, _reader: Reader, patient_key: str, series_uid: str, space_of: str
    ) -> Response:
        placed = await asyncio.to_thread(pages.board.placed, patient_key, series_uid, space_of)
        if not_modified(request, placed.tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=cache_headers(placed.tag))
        content = await asyncio.to_thread(kept.get, placed.tag, lambda: pages.board.volume(placed))
        return ranged(request, content, "application/octet-stream", tag=placed.tag)


def _add_saliency(app: FastAPI, pages: Pages) -> None:
    kept = Kept(_SALIENCY_BYTES)

    @app.get("/case/{patient_key}/saliency/{finding}.nii.gz")
    async def saliency_map(request: Request, _reader: Reader, patient_key: str, finding: str) -> Response:
        asked = await asyncio.to_thread(saliency.requests_for, pages, patient_key, finding)
        tag = hashlib.sha256(b"".join(r.SerializeToString(deterministic=True) for r in asked)).hexdigest()[:32]
        if not_modified(request, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=cache_headers(tag))
        serving = asyncio.get_running_loop()

        def make() -> bytes:
            made = asyncio.run_coroutine_threadsafe(saliency.explain(pages, asked), serving).result()
            return saliency.strongest([pages.context.blobs.get(ref) for ref in made])

        content = await asyncio.to_thread(kept.get, tag, make)
        return ranged(request, content, "application/octet-stream", tag=tag)


def _add_review(app: FastAPI, pages: Pages) -> None:
    @app.get("/case/{patient_key}/review", response_class=HTMLResponse)
    async def review_form(request: Request, reader: Reader, patient_key: str, finding: str, verdict: str) -> Response:
        values = await asyncio.to_thread(case_values, pages, patient_key)
        table = values["view"].lesions
        rows = table.rows if table else []
        found = [(row, s) for row in rows for s in row.sightings if s.finding_id == finding]
        if not found or verdict not in reasons():
            raise NotFoundError("there is no such finding in this case")
        row, sighting = found[0]
        shown = {
            "row": row,
            "sighting": sighting,
            "verdict": verdict,
            "reasons": reasons()[verdict],
            "key": patient_key,
        }
        return pages.render(request, "review_form.html", reader, **shown)

    @app.post("/case/{patient_key}/review", response_class=HTMLResponse)
    async def review(request: Request, reader: Reader, patient_key: str) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        await asyncio.to_thread(keep_review, pages, patient_key, form, reader.subject)
        pages.hub.publish(f"case:{patient_key}", "changed", {"stamp": "review"})
        values = await asyncio.to_thread(case_values, pages, patient_key)
        return pages.render(request, "case_findings.html", reader, **values)


def keep_review(pages: Pages, patient_key: str, form: Mapping[str, str], author: str) -> None:
    """Keeps a review of a lesion at one visit and announces the study's findings as they stand with it.

    Raises NotFoundError for a finding that imaging did not announce, RefusedError as `findings_review.check`.
    """
    study, found = pages.board.lesion(patient_key, form.get("finding", ""))
    verdict, reason = form.get("verdict", ""), form.get("reason", "")
    corrections = _corrections(form, found) if verdict == "corrected" else {}
    findings_review.check(verdict, reason, corrections, found)
    review_id, at = str(uuid.uuid4()), datetime.now(UTC)
    with pages.database.transaction(ROOM) as tx:
        for finding in found:
            row = {
                "review_id": str(uuid.uuid4()), "patient_key": patient_key, "study_instance_uid": study,
                "finding_id": finding.finding_id, "verdict": verdict, "reason": reason,
                "note": form.get("note", "").strip()[:2000],
                "corrections": json.dumps(corrections.get(finding.finding_id, {})), "author": author, "at": at,
            }  # fmt: skip
            store.add_review(tx.session, row)
        announce_reviewed(tx, study, review_id)


def _corrections(form: Mapping[str, str], found: Sequence[imaging_pb2.Finding]) -> dict[str, dict[str, float]]:
    """Changed values, in the unit of the measurement. Raises RefusedError for what is no number."""
    changed: dict[str, dict[str, float]] = {}
    for finding in found:
        for measurement in finding.measurements:
            field = f"{finding.finding_id}|{measurement.concept.code}"
            text = form.get(f"value.{field}", "").strip()
            if not text or text == form.get(f"was.{field}", "").strip():
                continue
            try:
                value = float(text.replace(",", "."))
            except ValueError:
                raise RefusedError(
                    "review.not_a_number",
                    "a corrected value is not a number",
                    remedy="write the number only, such as 23.5",
                ) from None
            scale = 1000.0 if measurement.value.unit == UNIT_MM3 else 1.0
            changed.setdefault(finding.finding_id, {})[measurement.concept.code] = value * scale
    return changed
