"""HTTP routes of the reports: draft, read, edit, sign; critical results until they are acknowledged.

Readers (`clinician`) edit, sign and decide; `board` and `admin` may look. Every call is a row of the audit trail, with the
study, report or task that it was about.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.alerts import critical
from services.alerts.report_refusals import RefusalRoute
from services.alerts.reports import communication
from services.alerts.reports.desk import ReportDesk, Stored, Told
from services.alerts.reports.output import Printer
from services.platform.http import require
from services.platform.room import RoomContext
from services.platform.security import Principal

Looker = Annotated[Principal, Depends(require("clinician", "board", "admin"))]
Reader = Annotated[Principal, Depends(require("clinician"))]
_Text = Annotated[str, Field(max_length=4000)]


class Edit(BaseModel):
    """New lines for some sections, made on the version that the reader saw."""

    model_config = ConfigDict(extra="forbid")
    base_version: int = Field(ge=1)
    sections: dict[str, list[_Text]] = Field(default_factory=dict, max_length=20)
    drop_tables: list[str] = Field(default_factory=list, max_length=20)


class Signature(BaseModel):
    """What is signed: the version and the digest of its content, as `GET` gave them."""

    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1)
    content_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class NewCritical(BaseModel):
    model_config = ConfigDict(extra="forbid")
    category: str
    statement: _Text


class Deed(BaseModel):
    """`recipient`: who is told (confirm) or took it (acknowledge); `detail`: how, read-back, or why not."""

    model_config = ConfigDict(extra="forbid")
    recipient: str = Field(default="", max_length=255)
    detail: _Text = ""


def router(context: RoomContext) -> APIRouter:
    """The routes, under `/studies/{uid}/report`, `/reports` and `/critical-results`."""
    desk = ReportDesk(context.database, context.blobs)
    routes = APIRouter(route_class=RefusalRoute)
    _add_reading(routes, desk, Printer(desk, context.blobs))
    _add_writing(routes, desk)
    _add_critical(routes, desk)
    return routes


def _add_reading(routes: APIRouter, desk: ReportDesk, printer: Printer) -> None:
    @routes.get("/reports")
    def recent(_caller: Looker, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> list[dict[str, Any]]:
        return [summary(stored) for stored in desk.recent(limit)]

    @routes.get("/reports/{report_id}")
    def read(_caller: Looker, report_id: str) -> dict[str, Any]:
        return plain(desk.get(report_id))

    @routes.get("/reports/{report_id}/document")
    def document(
        _caller: Looker, report_id: str, form: str = "html", version: Annotated[int, Query(ge=0)] = 0
    ) -> Response:
        made = printer.make(desk.get(report_id), form, version)
        headers = {
            "content-disposition": f'{"inline" if form in ("html", "pdf") else "attachment"}; filename="{made.name}"'
        }
        if form == "html":
            from services.alerts.reports.html import content_security_policy

            headers["content-security-policy"] = content_security_policy()
        return Response(made.content, media_type=made.media_type, headers=headers)

    @routes.get("/reports/{report_id}/differences")
    def differences(_caller: Looker, report_id: str) -> dict[str, Any]:
        return asdict(desk.differences(report_id))


def _add_writing(routes: APIRouter, desk: ReportDesk) -> None:
    @routes.post("/studies/{study_uid}/report")
    def draft(_caller: Reader, response: Response, study_uid: str, redraft: bool = False) -> dict[str, Any]:
        stored = desk.draft(study_uid, redraft=redraft)
        response.headers["location"] = f"/reports/{stored.row.report_id}"
        return plain(stored)

    @routes.patch("/reports/{report_id}")
    def edit(caller: Reader, report_id: str, body: Edit) -> dict[str, Any]:
        stored = desk.edit(report_id, body.base_version, body.sections, by=caller.subject, drop_tables=body.drop_tables)
        return plain(stored)

    @routes.post("/reports/{report_id}/signature")
    def sign(caller: Reader, report_id: str, body: Signature) -> dict[str, Any]:
        return plain(desk.sign(report_id, body.version, body.content_sha256, by=caller.subject))

    @routes.post("/reports/{report_id}/critical-results", status_code=201)
    def add(caller: Reader, report_id: str, body: NewCritical) -> dict[str, Any]:
        return told(desk.add_critical(report_id, body.category, body.statement, by=caller.subject))


def _add_critical(routes: APIRouter, desk: ReportDesk) -> None:
    @routes.get("/critical-results")
    def waiting(_caller: Looker, everything: bool = False) -> list[dict[str, Any]]:
        return [told(item) for item in desk.communications(states=() if everything else communication.OPEN)]

    @routes.get("/critical-results/{task_id}")
    def task(_caller: Looker, task_id: str) -> Response:
        found = desk.communication(task_id)
        resource = communication.fhir_task(found.item, found.steps, datetime.now(UTC))
        return _fhir(resource)

    @routes.post("/critical-results/{task_id}/{action}")
    def act(
        caller: Reader, task_id: str, action: Literal["confirm", "attempt", "acknowledge", "reject"], body: Deed
    ) -> dict[str, Any]:
        return told(desk.act(task_id, action, by=caller.subject, detail=body.detail, recipient=body.recipient))


def _fhir(resource: dict[str, Any]) -> Response:
    return Response(json.dumps(resource, ensure_ascii=False), media_type="application/fhir+json")


def summary(stored: Stored) -> dict[str, Any]:
    """A report in a list."""
    report = stored.latest.report
    return {
        "report_id": stored.row.report_id,
        "study_instance_uid": report.study_instance_uid,
        "patient_key": stored.row.patient_key,
        "status": stored.status,
        "version": stored.latest.version,
        "signed_version": stored.row.signed_version,
        "study_date": report.study_date,
        "modalities": list(report.modalities),
        "critical": len(report.critical),
        "updated_at": stored.row.updated_at.isoformat(),
    }


def plain(stored: Stored) -> dict[str, Any]:
    """A report with its latest content and who made each version."""
    return {
        **summary(stored),
        "content_sha256": stored.latest.body_sha256,
        "report": asdict(stored.latest.report),
        "versions": [
            {
                "version": version.version,
                "author": version.author,
                "author_kind": version.author_kind,
                "made_at": version.made_at.isoformat(),
                "signed_by": version.signed_by,
                "signed_at": version.signed_at.isoformat() if version.signed_at else None,
            }
            for version in stored.versions
        ],
    }


def told(found: Told) -> dict[str, Any]:
    """A critical result: where it stands and whom to ask now."""
    item, now = found.item, datetime.now(UTC)
    due = critical.escalation(item.category, item.found_at, now)
    waiting = item.state in communication.OPEN
    return {
        "task_id": item.task_id,
        "report_id": item.report_id,
        "study_instance_uid": item.study_instance_uid,
        "category": item.category,
        "statement": item.statement,
        "state": item.state,
        "recipient": item.recipient,
        "found_at": item.found_at.isoformat(),
        "deadline": due.deadline.isoformat(),
        "overdue": waiting and due.overdue,
        "ask": due.to if waiting else "",
        "escalation_level": due.level if waiting else None,
        "steps": [{**asdict(step), "at": step.at.isoformat()} for step in found.steps],
    }
