"""Wires the board's room."""

from __future__ import annotations

from services.board.app import build_app
from services.board.worker import HANDLERS
from services.platform.room import Room, RoomContext


def build(context: RoomContext) -> Room:
    """Follows every case, and shows them."""
    return Room(name="board", handlers=HANDLERS, http=build_app(context))
