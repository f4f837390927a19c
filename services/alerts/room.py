"""Wires the alerts room."""

from __future__ import annotations

from services.alerts.app import build_app
from services.alerts.worker import HANDLERS
from services.platform.room import Room, RoomContext


def build(context: RoomContext) -> Room:
    """Follows advice, and answers the EHR."""
    return Room(name="alerts", handlers=HANDLERS, http=build_app(context))
