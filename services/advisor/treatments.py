"""Treatment of cancer on the record, as advice on follow-up names it: drugs and radiotherapy (`treatments.yaml`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2

from services.advisor.facts_chart import holding, in_effect, time_of
from services.advisor.tables import table

_FILE = "treatments.yaml"


@dataclass(frozen=True)
class Treatment:
    """One drug or radiotherapy. `since`: the first time that the record names it; `ended`: no entry of it still holds."""

    title: str
    since: datetime | None
    ended: bool
    entry_ids: tuple[str, ...]


def from_timeline(entries: Iterable[fusion_pb2.TimelineEntry], as_of: datetime) -> list[Treatment]:
    """Treatments that began by `as_of`, the latest first; entries with the same title are one treatment."""
    kinds = {fusion_pb2.EntryKind.Value(f"ENTRY_KIND_{name}") for name in table(_FILE)["kinds"]}
    by_title: dict[str, list[fusion_pb2.TimelineEntry]] = {}
    for entry in entries:
        at = time_of(entry)
        if entry.kind not in kinds or entry.status == fusion_pb2.ENTRY_STATUS_RETRACTED or (at and at > as_of):
            continue
        if holding(entry, _FILE):
            by_title.setdefault(entry.title.strip().lower(), []).append(entry)
    found = [_treatment(same, as_of) for same in by_title.values()]
    return sorted(
        found, key=lambda item: (item.since is None, -(item.since.timestamp() if item.since else 0), item.title)
    )


def _treatment(same: list[fusion_pb2.TimelineEntry], as_of: datetime) -> Treatment:
    times = [at for entry in same if (at := time_of(entry)) is not None]
    return Treatment(
        same[0].title.strip(),
        min(times, default=None),
        not any(in_effect(entry, as_of) for entry in same),
        tuple(sorted(entry.entry_id for entry in same)),
    )


def evidence(treatments: Iterable[Treatment]) -> list[advisor_pb2.Evidence]:
    """What the record says of each, in plain words."""
    return [
        advisor_pb2.Evidence(
            statement=f"Treatment on the record: {item.title}"
            + (f", since {item.since:%Y-%m-%d}" if item.since else ", start not recorded")
            + (", ended" if item.ended else ""),
            entry_ids=item.entry_ids,
        )
        for item in treatments
    ]
