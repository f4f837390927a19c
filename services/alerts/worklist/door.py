"""HTTP route of the reading worklist: what waits, in which order, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from services.alerts import worklist_store
from services.alerts.worklist import priority
from services.alerts.worklist_store import Study, Workitem
from services.platform.database import Database
from services.platform.http import require
from services.platform.room import RoomContext
from services.platform.security import Principal

Looker = Annotated[Principal, Depends(require("clinician", "board", "admin", "service"))]


def router(context: RoomContext) -> APIRouter:
    """`GET /worklist`."""
    routes = APIRouter()

    @routes.get("/worklist")
    def worklist(_caller: Looker, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> list[dict[str, Any]]:
        return rows(context.database, datetime.now(UTC), limit)

    return routes


def rows(database: Database, now: datetime, limit: int = 200) -> list[dict[str, Any]]:
    """Studies that wait for a reading or are being read, soonest due first."""
    with database.session() as session:
        items = worklist_store.workitems(session, kinds=["reading"], states=["SCHEDULED", "IN PROGRESS"], limit=limit)
        return [_row(item, worklist_store.find_study(session, item.study_instance_uid), now) for item in items]


def _row(item: Workitem, study: Study | None, now: datetime) -> dict[str, Any]:
    return {
        "workitem_uid": item.workitem_uid,
        "study_instance_uid": item.study_instance_uid,
        "patient_key": item.patient_key,
        "priority": priority.band(item.urgency),
        "urgency": item.urgency,
        "state": item.state,
        "modalities": list(study.modalities) if study else [],
        "study_time": study.study_time.isoformat() if study and study.study_time else None,
        "arrived_at": item.arrived_at.isoformat(),
        "due_at": item.due_at.isoformat(),
        "waiting": priority.waiting(item.arrived_at, item.due_at, now),
        "overdue": now > item.due_at,
        "reasons": [{"text": reason.text, "weight": reason.weight} for reason in item.reasons],
    }
