"""The doors of the worklist and the reports: HTTP routes on the room's application, and the Modality Worklist."""

from __future__ import annotations

from fastapi import FastAPI

from services.alerts.reports import door as reports_door
from services.alerts.worklist import door, ups_rs
from services.platform.room import Background, RoomContext


def add_to(app: FastAPI, context: RoomContext) -> FastAPI:
    """The application with the routes of worklist, workitems and reports."""
    for routes in (door.router(context), ups_rs.router(context), reports_door.router(context)):
        app.include_router(routes)
    return app


def listeners(context: RoomContext) -> tuple[Background, ...]:
    """The Modality Worklist, where a port is set for it."""
    if context.settings.dicom.worklist_port is None:
        return ()
    from services.alerts.worklist.mwl import WorklistListener

    return (WorklistListener(context),)
