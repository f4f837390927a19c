"""Wires the alerts room."""

from __future__ import annotations

from services.alerts.app import build_app
from services.alerts.hooks_answer import Tidy
from services.alerts.worker import HANDLERS
from services.alerts.worklist import doors
from services.alerts.worklist.handlers import handlers
from services.platform.room import Room, RoomContext


def build(context: RoomContext) -> Room:
    """Follows advice, findings and orders; answers the EHR and the readers."""
    return Room(
        name="alerts",
        handlers={**HANDLERS, **handlers(context.blobs)},
        http=doors.add_to(build_app(context), context),
        background=doors.listeners(context),
        idle=Tidy(context),
    )
