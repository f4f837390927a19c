"""What the features of one vector are computed from, and the small parts that all of them share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from osler.fusion.v1 import fusion_pb2
from osler.fusion.v1.fusion_pb2 import Feature, TimelineEntry

_DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)D)?")


@dataclass(frozen=True)
class View:
    """What the features of one vector are computed from: usable entries by kind, newest last."""

    as_of: datetime
    entries: Mapping[int, Sequence[TimelineEntry]]
    measured: Mapping[str, Sequence[TimelineEntry]]
    demographics: fusion_pb2.Demographics | None
    chart_kinds: Mapping[str, Sequence[str]]

    def of(self, kind: str) -> Sequence[TimelineEntry]:
        """The entries of a kind, by its name without the prefix."""
        return self.entries.get(fusion_pb2.EntryKind.Value(f"ENTRY_KIND_{kind}"), ())

    def has_chart(self, source: str) -> bool:
        """Whether a chart is there that would say so if it were so; see `chart_kinds` of the feature set."""
        return any(self.of(kind) for kind in self.chart_kinds.get(source, ()))

    def since(self, window: str | None) -> datetime | None:
        """Where a window that ends at `as_of` begins."""
        return self.as_of - parse_duration(window) if window else None


def parse_duration(text: str) -> timedelta:
    """An ISO 8601 duration of years, months and days; a year is 365.25 days, a month 30.4375. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"not a duration of years, months and days: {text!r}")
    years, months, days = (int(part or 0) for part in match.groups())
    return timedelta(days=years * 365.25 + months * 30.4375 + days)


def missing(reason: str) -> Feature:
    """A feature without a value, and why."""
    return Feature(missing_reason=reason)


def stand_on(feature: Feature, entries: Sequence[TimelineEntry]) -> Feature:
    """Names the entries that a feature stands on, and when the newest of them was observed."""
    feature.entry_ids.extend(entry.entry_id for entry in entries)
    times = [entry.effective_at for entry in entries if entry.HasField("effective_at")]
    if times:
        feature.observed_at.CopyFrom(max(times, key=lambda time: (time.seconds, time.nanos)))
    return feature
