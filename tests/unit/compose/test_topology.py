"""The flow as data is the flow that the rooms implement."""

from __future__ import annotations

from pathlib import Path

from services.compose.rooms import build_room, lay_foundations
from services.compose.topology import SUBSCRIPTIONS
from services.platform.config import ROOMS, Settings


def test_subscriptions_are_the_handlers_of_the_rooms(tmp_path: Path) -> None:
    foundations = lay_foundations(Settings.load(home=tmp_path))
    try:
        handled = {room: set(build_room(room, foundations).handlers) for room in ROOMS}
    finally:
        foundations.close()
    assert {room: set(topics) for room, topics in SUBSCRIPTIONS.items()} == handled
