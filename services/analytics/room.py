"""Wires the analytics room."""

from __future__ import annotations

from pathlib import Path

from services.analytics.app import build_app
from services.analytics.worker import Flusher, buffer
from services.platform.config import Settings
from services.platform.events import CATALOGUE
from services.platform.room import Room, RoomContext


def lake_folder(settings: Settings) -> Path:
    """Where the Parquet files are."""
    return settings.home / "lake"


def build(context: RoomContext) -> Room:
    """Consumes every event type of the catalogue, and shows the figures."""
    folder = lake_folder(context.settings)
    return Room(
        name="analytics",
        handlers=dict.fromkeys(CATALOGUE, buffer(context.blobs)),
        http=build_app(context, folder),
        idle=Flusher(context.database, folder).flush,
    )
