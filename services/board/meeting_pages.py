"""The meeting: list, agenda, presenter mode, discussion, decision, votes, signatures, tasks, minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from services.board import meeting, meeting_store, minutes, minutes_fhir, whatif
from services.board.access import KEEPERS
from services.board.case_pages import case_values
from services.board.meeting import Discussion, Item, Meeting, Participant, words
from services.board.pages import Pages, Reader
from services.board.worker import ROOM
from services.platform.errors import RefusedError
from services.platform.http import require
from services.platform.security import PermissionDeniedError, Principal

Keeper = Annotated[Principal, Depends(require(*KEEPERS))]
_STATUSES = ("planned", "running", "closed")


class Place(BaseModel):
    """Where the presenter is: a section of a case, the pointer as a share of the page, the viewer's state."""

    patient_key: str = Field(default="", max_length=64)
    section: str = Field(default="", max_length=40)
    scroll: float = Field(default=0.0, ge=0, le=1)
    x: float = Field(default=-1.0, ge=-1, le=2)
    y: float = Field(default=-1.0, ge=-1, le=200_000)
    viewer: dict[str, str | float | list[float]] = Field(default_factory=dict, max_length=20)


def add_meeting_pages(app: FastAPI, pages: Pages) -> None:
    """Registers the routes."""
    _add_meetings(app, pages)
    _add_agenda(app, pages)
    _add_case_of_meeting(app, pages)
    _add_decision(app, pages)
    _add_tasks(app, pages)
    _add_live(app, pages)
    _add_minutes(app, pages)


def _back(path: str) -> Response:
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


async def _write(pages: Pages, work: Callable[[Session], Any]) -> Any:
    def run() -> Any:
        with pages.database.transaction(ROOM) as tx:
            return work(tx.session)

    return await asyncio.to_thread(run)


async def _read(pages: Pages, work: Callable[[Session], Any]) -> Any:
    def run() -> Any:
        with pages.database.session() as session:
            return work(session)

    return await asyncio.to_thread(run)


async def _form(request: Request) -> dict[str, str]:
    return {name: str(value).strip() for name, value in (await request.form()).items()}


def _tell(pages: Pages, meeting_id: str, what: str) -> None:
    pages.hub.publish(f"meeting:{meeting_id}", "changed", {"what": what})


def _starts_at(day: str, time_of_day: str) -> datetime:
    try:
        return datetime.fromisoformat(f"{day}T{time_of_day or '12:00'}").replace(tzinfo=UTC)
    except ValueError:
        raise RefusedError(
            "meeting.bad_time", "the day or time of the meeting cannot be read", remedy="choose them again"
        ) from None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise RefusedError("task.bad_date", "the day cannot be read", remedy="choose it again") from None


def _add_meetings(app: FastAPI, pages: Pages) -> None:
    @app.get("/meetings", response_class=HTMLResponse)
    async def meetings(request: Request, reader: Reader) -> Response:
        found = await _read(pages, meeting_store.meetings)
        return pages.render(request, "meetings.html", reader, meetings=found, today=datetime.now(UTC).date())

    @app.post("/meetings")
    async def create(request: Request, reader: Reader, _keeper: Keeper) -> Response:
        form = await _form(request)
        title = form.get("title", "")[:200] or "Tumour board"
        at = _starts_at(form.get("day", ""), form.get("time", ""))

        def work(session: Session) -> str:
            made = meeting_store.add_meeting(session, title, at, form.get("place", "")[:200], reader.subject)
            meeting_store.join(session, made, reader.subject, "chair", remote=False)
            return made

        return _back(f"/meetings/{await _write(pages, work)}")

    @app.get("/meetings/{meeting_id}", response_class=HTMLResponse)
    async def agenda(request: Request, reader: Reader, meeting_id: str) -> Response:
        values = await asyncio.to_thread(_agenda_values, pages, meeting_id, reader)
        return pages.render(request, "meeting.html", reader, **values)

    @app.post("/meetings/{meeting_id}/status")
    async def status(request: Request, _reader: Reader, _keeper: Keeper, meeting_id: str) -> Response:
        wanted = (await _form(request)).get("status", "")
        if wanted not in _STATUSES:
            raise RefusedError("meeting.unknown_status", "this is no state of a meeting", remedy="reload the page")
        await _write(pages, lambda session: meeting_store.set_status(session, meeting_id, wanted))
        _tell(pages, meeting_id, "status")
        return _back(f"/meetings/{meeting_id}")

    @app.post("/meetings/{meeting_id}/join")
    async def join(request: Request, reader: Reader, meeting_id: str) -> Response:
        form = await _form(request)
        subject, discipline = form.get("subject") or reader.subject, form.get("discipline", "")
        await asyncio.to_thread(_require_may_join, pages, meeting_id, reader, subject, discipline)
        remote = form.get("remote") == "yes"
        await _write(pages, lambda session: meeting_store.join(session, meeting_id, subject, discipline, remote))
        _tell(pages, meeting_id, "people")
        return _back(f"/meetings/{meeting_id}")


def _require_may_join(pages: Pages, meeting_id: str, reader: Principal, subject: str, discipline: str) -> None:
    """Taking part opens the cases of the agenda: keepers invite; others join where they may open every case anyway."""
    if discipline not in words()["disciplines"]:
        raise RefusedError("meeting.unknown_discipline", "choose a discipline", remedy="choose one from the list")
    if reader.has(*KEEPERS):
        return
    with pages.database.session() as session:
        invited = any(p.subject == reader.subject for p in meeting_store.participants(session, meeting_id))
        agenda = meeting_store.items(session, meeting_id)
    if subject != reader.subject or discipline == "chair":
        raise PermissionDeniedError("only the board's office invites others or names the chair")
    if not invited and not all(pages.may_open(reader, item.patient_key) for item in agenda):
        raise PermissionDeniedError("a case of this meeting is not open to you: ask the board's office to invite you")


def _agenda_values(pages: Pages, meeting_id: str, reader: Principal) -> dict[str, Any]:
    with pages.database.session() as session:
        found = meeting_store.meeting(session, meeting_id)
        people = meeting_store.participants(session, meeting_id)
        discussions = [meeting_store.discussion(session, item) for item in meeting_store.items(session, meeting_id)]
    rows = []
    for discussion in discussions:
        key = discussion.item.patient_key
        opened = pages.may_open(reader, key)
        page = pages.board.page(key) if opened else None
        ready = meeting.readiness(page.view, discussion.item.question) if page else None
        rows.append({"discussion": discussion, "page": page, "ready": ready, "opened": opened})
    on_agenda = {d.item.patient_key for d in discussions}
    others = [
        (case, who)
        for case, who in pages.board.worklist()
        if case.patient_key not in on_agenda and pages.may_open(reader, case.patient_key)
    ]
    me = next((p for p in people if p.subject == reader.subject), None)
    return {"meeting": found, "people": people, "rows": rows, "others": others, "me": me, "words": words()}


def _add_agenda(app: FastAPI, pages: Pages) -> None:
    @app.post("/meetings/{meeting_id}/agenda")
    async def add(request: Request, reader: Reader, meeting_id: str) -> Response:
        form = await _form(request)
        key, question = form.get("case", ""), form.get("question", "")[:1000]
        await asyncio.to_thread(pages.require_open, reader, key)
        presenter = form.get("presenter", "")[:255] or reader.subject
        await _write(pages, lambda session: meeting_store.add_item(session, meeting_id, key, question, presenter))
        _tell(pages, meeting_id, "agenda")
        return _back(f"/meetings/{meeting_id}")

    @app.post("/meetings/{meeting_id}/agenda/{item_id}")
    async def change(request: Request, _reader: Reader, _keeper: Keeper, meeting_id: str, item_id: str) -> Response:
        what = (await _form(request)).get("do", "")
        if what == "remove":
            await _write(pages, lambda session: meeting_store.remove_item(session, item_id))
        elif what in ("up", "down"):
            step = -1 if what == "up" else 1
            await _write(pages, lambda session: meeting_store.move_item(session, meeting_id, item_id, step))
        _tell(pages, meeting_id, "agenda")
        return _back(f"/meetings/{meeting_id}")


def _dock_values(pages: Pages, meeting_id: str, patient_key: str, reader: Principal) -> dict[str, Any]:
    with pages.database.session() as session:
        found = meeting_store.meeting(session, meeting_id)
        people = meeting_store.participants(session, meeting_id)
        agenda = meeting_store.items(session, meeting_id)
        discussion = meeting_store.discussion(session, meeting_store.item(session, meeting_id, patient_key))
    place = next(n for n, item in enumerate(agenda) if item.patient_key == patient_key)
    me = next((p for p in people if p.subject == reader.subject), None)
    return {
        "meeting": found, "people": people, "discussion": discussion, "me": me, "words": words(), "key": patient_key,
        "before": agenda[place - 1] if place else None,
        "after": agenda[place + 1] if place + 1 < len(agenda) else None, "place": place + 1, "length": len(agenda),
        "today": datetime.now(UTC).date(),
    }  # fmt: skip


def _add_case_of_meeting(app: FastAPI, pages: Pages) -> None:
    @app.get("/meetings/{meeting_id}/case/{patient_key}", response_class=HTMLResponse)
    async def case_of_meeting(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        dock = await asyncio.to_thread(_dock_values, pages, meeting_id, patient_key, reader)
        values = await asyncio.to_thread(case_values, pages, patient_key)
        values |= dock | {"proposed": meeting.proposed(values["view"].recommendations)}
        return pages.render(request, "case.html", reader, courses=whatif.courses(), **values)

    @app.get("/meetings/{meeting_id}/case/{patient_key}/part/dock", response_class=HTMLResponse)
    async def dock_part(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        values = await asyncio.to_thread(_dock_values, pages, meeting_id, patient_key, reader)
        return pages.render(request, "case_dock.html", reader, **values)

    @app.post("/meetings/{meeting_id}/case/{patient_key}/comment", response_class=HTMLResponse)
    async def comment(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        text = (await _form(request)).get("text", "")[:4000]

        def work(session: Session, me: Participant, item: Item) -> None:
            if text:
                meeting_store.add_comment(session, item.item_id, reader.subject, me.discipline, text)

        return await _act(request, pages, meeting_id, patient_key, reader, work)


async def _act(
    request: Request,
    pages: Pages,
    meeting_id: str,
    patient_key: str,
    reader: Principal,
    work: Callable[[Session, Participant, Item], None],
) -> Response:
    """Does something in a discussion as a participant, tells everybody, answers with the dock as it is then.

    Raises PermissionDeniedError for somebody who does not take part, RefusedError for a meeting that is closed.
    """

    def run(session: Session) -> None:
        found = meeting_store.meeting(session, meeting_id)
        people = meeting_store.participants(session, meeting_id)
        me = next((p for p in people if p.subject == reader.subject), None)
        if me is None:
            raise PermissionDeniedError("join the meeting first: only participants speak, vote and sign")
        if found.status == "closed":
            raise RefusedError("meeting.closed", "this meeting is closed", remedy="the chair can open it again")
        work(session, me, meeting_store.item(session, meeting_id, patient_key))

    await _write(pages, run)
    _tell(pages, meeting_id, "discussion")
    values = await asyncio.to_thread(_dock_values, pages, meeting_id, patient_key, reader)
    return pages.render(request, "case_dock.html", reader, **values)


def _add_decision(app: FastAPI, pages: Pages) -> None:
    @app.post("/meetings/{meeting_id}/case/{patient_key}/decision", response_class=HTMLResponse)
    async def decide(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        form = await request.form()
        decision = meeting.read_decision(form, [str(o) for o in form.getlist("options")])

        def work(session: Session, me: Participant, item: Item) -> None:
            meeting_store.add_decision(session, item.item_id, decision, reader.subject)

        return await _act(request, pages, meeting_id, patient_key, reader, work)

    @app.post("/meetings/{meeting_id}/case/{patient_key}/vote", response_class=HTMLResponse)
    async def vote(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        form = await _form(request)
        choice, reason = form.get("choice", ""), form.get("reason", "")[:2000]
        meeting.check_vote(choice, reason)

        def work(session: Session, me: Participant, item: Item) -> None:
            current = _current(session, item, form.get("decision", ""))
            meeting_store.vote(session, current.decision_id, reader.subject, choice, reason)

        return await _act(request, pages, meeting_id, patient_key, reader, work)

    @app.post("/meetings/{meeting_id}/case/{patient_key}/sign", response_class=HTMLResponse)
    async def sign(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        form = await _form(request)

        def work(session: Session, me: Participant, item: Item) -> None:
            current = _current(session, item, form.get("decision", ""))
            meeting_store.sign(session, current.decision_id, reader.subject, me.discipline, current.digest)

        return await _act(request, pages, meeting_id, patient_key, reader, work)


def _current(session: Session, item: Item, decision_id: str) -> meeting.Recorded:
    """The newest version, when it is the one that the person saw. Raises RefusedError."""
    current = meeting_store.discussion(session, item).decision
    if current is None or current.decision_id != decision_id:
        raise RefusedError(
            "decision.changed",
            "the decision was changed after this page was shown",
            remedy="read the new version, then vote or sign",
        )
    return current


def _add_tasks(app: FastAPI, pages: Pages) -> None:
    @app.post("/meetings/{meeting_id}/case/{patient_key}/task", response_class=HTMLResponse)
    async def add(request: Request, reader: Reader, meeting_id: str, patient_key: str) -> Response:
        form = await _form(request)
        title, owner, due = form.get("title", "")[:300], form.get("owner", "")[:255], _day(form.get("due_on", ""))

        def work(session: Session, me: Participant, item: Item) -> None:
            if title:
                meeting_store.add_task(session, item, title, owner or reader.subject, due, reader.subject)

        return await _act(request, pages, meeting_id, patient_key, reader, work)

    @app.get("/tasks", response_class=HTMLResponse)
    async def tasks(request: Request, reader: Reader) -> Response:
        def read() -> list[Any]:
            with pages.database.session() as session:
                found = meeting_store.tasks(session)
            may = {key: pages.may_open(reader, key) for key in {t.patient_key for t in found}}
            names = {key: pages.board.summary(key).name for key, allowed in may.items() if allowed}
            return [(task, names[task.patient_key]) for task in found if task.patient_key in names]

        rows = await asyncio.to_thread(read)
        return pages.render(request, "tasks.html", reader, rows=rows, today=datetime.now(UTC).date())

    @app.post("/tasks/{task_id}")
    async def change(request: Request, reader: Reader, task_id: str) -> Response:
        form = await _form(request)
        status = form.get("status", "")
        task = await _read(pages, lambda session: meeting_store.task(session, task_id))
        await asyncio.to_thread(pages.require_open, reader, task.patient_key)
        if status in ("open", "done", "dropped"):
            await _write(pages, lambda session: meeting_store.set_task(session, task_id, status, reader.subject))
        return _back("/tasks")


def _add_live(app: FastAPI, pages: Pages) -> None:
    presenters: dict[str, str] = {}

    @app.get("/meetings/{meeting_id}/live")
    async def live(reader: Reader, meeting_id: str) -> Response:
        await _read(pages, lambda session: meeting_store.meeting(session, meeting_id))
        return StreamingResponse(pages.hub.stream(f"meeting:{meeting_id}"), media_type="text/event-stream")

    @app.post("/meetings/{meeting_id}/presenter", status_code=HTTPStatus.NO_CONTENT)
    async def take_over(request: Request, reader: Reader, meeting_id: str) -> Response:
        people = await _read(pages, lambda session: meeting_store.participants(session, meeting_id))
        if not any(p.subject == reader.subject for p in people):
            raise PermissionDeniedError("join the meeting first: only participants present")
        channel = f"meeting:{meeting_id}"
        if (await _form(request)).get("on") == "yes":
            presenters[meeting_id] = reader.subject
        elif presenters.get(meeting_id) == reader.subject:
            presenters.pop(meeting_id)
            pages.hub.forget(channel, "place")
        pages.hub.publish(channel, "presenter", {"who": presenters.get(meeting_id, "")}, keep=True)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @app.post("/meetings/{meeting_id}/present", status_code=HTTPStatus.NO_CONTENT)
    async def present(reader: Reader, meeting_id: str, place: Place) -> Response:
        if presenters.get(meeting_id) != reader.subject:
            raise PermissionDeniedError("somebody else presents now")
        pages.hub.publish(f"meeting:{meeting_id}", "place", place.model_dump() | {"who": reader.subject}, keep=True)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _minutes_of(pages: Pages, meeting_id: str, reader: Principal) -> minutes.Minutes:
    with pages.database.session() as session:
        found: Meeting = meeting_store.meeting(session, meeting_id)
        people = meeting_store.participants(session, meeting_id)
        discussions: list[Discussion] = [
            meeting_store.discussion(session, item) for item in meeting_store.items(session, meeting_id)
        ]
    cases = []
    for discussion in discussions:
        pages.require_open(reader, discussion.item.patient_key)
        page = pages.board.page(discussion.item.patient_key)
        cases.append(minutes.CaseMinutes(discussion, page.view, pages.board.snapshot(page.case).demographics))
    return minutes.Minutes(found, people, cases, datetime.now(UTC))


def _add_minutes(app: FastAPI, pages: Pages) -> None:
    @app.get("/meetings/{meeting_id}/minutes.pdf")
    async def minutes_pdf(reader: Reader, meeting_id: str) -> Response:
        def make() -> bytes:
            return minutes.to_pdf(_minutes_of(pages, meeting_id, reader))

        headers = {"content-disposition": 'attachment; filename="minutes.pdf"'}
        return Response(await asyncio.to_thread(make), media_type="application/pdf", headers=headers)

    @app.get("/meetings/{meeting_id}/minutes.fhir.json")
    async def minutes_bundle(reader: Reader, meeting_id: str) -> Response:
        def make() -> str:
            return minutes_fhir.to_bundle(_minutes_of(pages, meeting_id, reader))

        headers = {"content-disposition": 'attachment; filename="minutes.fhir.json"'}
        return Response(await asyncio.to_thread(make), media_type="application/fhir+json", headers=headers)
