"""Who is read first, and why: reasons with weights, an urgency, and the time by which to read.

Weights, times and the rule that nobody starves are in `priority.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Reason:
    """Why something is read sooner. `weight`: 0..1."""

    text: str
    weight: float


@dataclass(frozen=True)
class Priority:
    """`urgency`: 0..1; `target`: time from arrival by which to read. `reasons`: heaviest first, never empty."""

    urgency: float
    target: timedelta
    reasons: tuple[Reason, ...]

    @property
    def band(self) -> str:
        """Value of (0074,1200) ScheduledProcedureStepPriority."""
        return band(self.urgency)

    def due(self, arrived_at: datetime) -> datetime:
        return arrived_at + self.target


@dataclass(frozen=True)
class Place:
    """One row of the worklist: what the order and the shown reason need. `uid` settles ties, so the order is total."""

    uid: str
    arrived_at: datetime
    due_at: datetime


@cache
def table() -> dict[str, Any]:
    """`priority.yaml`."""
    return dict(yaml.safe_load(Path(__file__).with_name("priority.yaml").read_text(encoding="utf-8")))


def _limits() -> tuple[timedelta, timedelta]:
    rows = table()
    return timedelta(minutes=rows["most_urgent_minutes"]), timedelta(minutes=rows["least_urgent_minutes"])


def judge(reasons: Iterable[Reason]) -> Priority:
    """The priority that follows from reasons; routine without any.

    >>> judge([Reason("a", 0.5), Reason("b", 0.5)]).urgency
    0.755
    """
    base = table()["base"]
    ordered = sorted(reasons, key=lambda reason: (-reason.weight, reason.text))
    rest = 1.0 - base["weight"]
    for reason in ordered:
        rest *= 1.0 - reason.weight
    urgency = round(1.0 - rest, 4)
    return Priority(urgency, target(urgency), tuple(ordered) or (Reason(base["text"], base["weight"]),))


def target(urgency: float) -> timedelta:
    """Time to read by, from arrival; shorter for the more urgent. `urgency` in 0..1, else ValueError."""
    if not 0.0 <= urgency <= 1.0:
        raise ValueError(f"urgency {urgency} is outside 0..1")
    most, least = _limits()
    return timedelta(seconds=round(least.total_seconds() * (most / least) ** urgency))


def overtaking_bound() -> timedelta:
    """What arrives later than this after a study is never read before it, however urgent."""
    most, least = _limits()
    return least - most


def band(urgency: float) -> str:
    bands = table()["bands"]
    return next((name for name, floor in bands.items() if urgency >= floor), "LOW")


def in_order(places: Iterable[Place]) -> list[Place]:
    """Soonest due first; equal ones in order of arrival. The order of two never changes by waiting."""
    return sorted(places, key=lambda place: (place.due_at, place.arrived_at, place.uid))


def waiting(arrived_at: datetime, due_at: datetime, now: datetime) -> str:
    """How long something has waited and what is left, in words."""
    waited = f"waiting {_span(now - arrived_at)}"
    if now > due_at:
        return f"{waited}, {_span(now - due_at)} late"
    return f"{waited}, due in {_span(due_at - now)}"


def _span(length: timedelta) -> str:
    minutes = max(0, int(length.total_seconds() // 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60:02d} min" if hours else f"{minutes} min"
