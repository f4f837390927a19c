"""The timeline: a pure function of the set of facts, and so the same whatever the order in which they came.

Bitemporal: `effective_at` says when it happened, `known_at` when it was known; `as_of` shows what was known by then.
Append-only: a correction or retraction marks an entry, with the time at which it became known, and removes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, pairwise

from google.protobuf.timestamp_pb2 import Timestamp
from osler.fusion.v1 import fusion_pb2
from osler.fusion.v1.fusion_pb2 import TimelineEntry

from services.fusion.facts import Fact, Standing, digest
from services.fusion.measures import analyte_of

_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DELTA_CHECK = "delta_check"


@dataclass
class Told:
    """What all sources say of one identity. `standing`: what its own source did not replace; `dropped`: when a source
    corrected or withdrew it."""

    facts: list[Fact] = field(default_factory=list)
    standing: list[Fact] = field(default_factory=list)
    dropped: list[datetime] = field(default_factory=list)

    @property
    def dropped_at(self) -> datetime | None:
        """When it was last dropped."""
        return max(self.dropped, default=None)

    @property
    def live(self) -> list[Fact]:
        """The facts that count: what stands and was said, or said again, after it was last dropped."""
        dropped = self.dropped_at
        return self.standing if dropped is None else [fact for fact in self.standing if fact.known_at > dropped]


def build_timeline(patient_key: str, facts: Iterable[Fact], as_of: datetime | None = None) -> list[TimelineEntry]:
    """The entries of one patient, oldest first, as known at `as_of` (aware UTC; None for all that is known).

    Sources that say the same share an entry. When one of them corrects or withdraws it, the entry is RETRACTED from
    then on, unless a source says it again later. Entry ids depend on the patient and on what is said, nothing else.
    """
    entries = [_entry(patient_key, identity, what) for identity, what in weigh(facts, as_of).items()]
    check_deltas(entries)
    return sorted(entries, key=entry_order)


def some_entries(
    patient_key: str, facts: Iterable[Fact], as_of: datetime, wanted: Callable[[str], bool]
) -> list[TimelineEntry]:
    """The entries of the identities that are wanted, as `build_timeline` has them but unordered and without delta checks.

    `facts`: at least every fact of these identities and of their origins.
    """
    return [_entry(patient_key, identity, what) for identity, what in weigh(facts, as_of).items() if wanted(identity)]


def fold_timeline(
    patient_key: str, before: Iterable[TimelineEntry], facts: Collection[Fact], identities: Collection[str]
) -> list[TimelineEntry]:
    """The timeline after a change, from the one before it: the same as building it anew, for less.

    `identities`: all that any changed fact, or another version of its origin, says; `facts`: every fact of these
    identities and of their origins. The entries of `before` may be changed in place.
    """
    told = weigh(facts)
    renewed = {
        entry_id(patient_key, identity): _entry(patient_key, identity, told[identity]) for identity in identities
    }
    entries, analytes = list(renewed.values()), {_analyte_name(entry) for entry in renewed.values()}
    for entry in before:
        if entry.entry_id in renewed:
            analytes.add(_analyte_name(entry))
        else:
            entries.append(entry)
    check_deltas(entries, analytes - {""})
    return sorted(entries, key=entry_order)


def _analyte_name(entry: TimelineEntry) -> str:
    analyte = analyte_of(entry)
    return analyte.name if analyte else ""


def weigh(facts: Iterable[Fact], as_of: datetime | None = None) -> dict[str, Told]:
    """Identity -> what is said of it, as known at `as_of`, and what of that stands."""
    told: dict[str, Told] = defaultdict(Told)
    by_origin: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        if as_of is None or fact.known_at <= as_of:
            by_origin[fact.origin].append(fact)
            told[fact.identity].facts.append(fact)
    for versions in by_origin.values():
        _weigh(sorted(versions, key=_version_key), told)
    return told


def entry_id(patient_key: str, identity: str) -> str:
    """The id of the entry that says `identity` of a patient."""
    return digest(patient_key, identity)


def entry_order(entry: TimelineEntry) -> tuple[int, int, int, str]:
    """Oldest first by effective time; what has none stands at the time when it was known."""
    at = entry.effective_at if entry.HasField("effective_at") else entry.known_at
    return at.seconds, at.nanos, entry.kind, entry.entry_id


def _version_key(fact: Fact) -> tuple[int, datetime, datetime, int, str]:
    return fact.revision, fact.known_at, fact.recorded_at, int(fact.standing), fact.fact_id


def _weigh(ordered: Sequence[Fact], told: dict[str, Told]) -> None:
    """Finds, within one origin, which facts still stand and when the others were dropped."""
    if len(ordered) == 1:
        versions = [list(ordered)]
    else:
        versions = [list(group) for _, group in groupby(ordered, key=lambda fact: _version_key(fact)[:4])]
    for index, version in enumerate(versions):
        for fact in version:
            what = told[fact.identity]
            if fact.standing == Standing.RETRACTED:
                what.dropped.append(fact.known_at)
                continue
            cover = next((later for later in versions[index + 1 :] if _covers(later, fact)), None)
            if cover is None:
                what.standing.append(fact)
            elif not any(g.identity == fact.identity and g.standing != Standing.RETRACTED for g in cover):
                what.dropped.append(cover[0].known_at)


def _covers(version: Sequence[Fact], fact: Fact) -> bool:
    return any(newer.replaces or newer.effective == fact.effective for newer in version)


def _entry(patient_key: str, identity: str, what: Told) -> TimelineEntry:
    dropped, live = what.dropped_at, what.live
    said = live or what.facts
    latest = said[0] if len(said) == 1 else max(said, key=_newest_key)
    entry = TimelineEntry()
    entry.CopyFrom(latest.entry)
    entry.entry_id = entry_id(patient_key, identity)
    _put_time(entry.known_at, min(fact.known_at for fact in what.facts))
    if live:
        final = any(fact.standing >= Standing.FINAL for fact in live)
        entry.status = fusion_pb2.ENTRY_STATUS_ACTIVE if final else fusion_pb2.ENTRY_STATUS_PRELIMINARY
    else:
        entry.status = fusion_pb2.ENTRY_STATUS_RETRACTED
        if dropped is not None:
            _put_time(entry.retracted_at, dropped)
    if len(what.facts) > 1:
        sources = {
            (source.system, source.reference): source
            for fact in sorted(what.facts, key=lambda fact: fact.fact_id, reverse=True)
            for source in fact.entry.sources
        }
        del entry.sources[:]
        entry.sources.extend(sources[key] for key in sorted(sources))
    return entry


def _newest_key(fact: Fact) -> tuple[datetime, datetime, int, str]:
    return fact.known_at, fact.recorded_at, int(fact.standing), fact.fact_id


def _put_time(stamp: Timestamp, time: datetime) -> None:
    since = time - _EPOCH
    stamp.seconds, stamp.nanos = since.days * _DAY_S + since.seconds, since.microseconds * 1_000


def check_deltas(entries: Iterable[TimelineEntry], analytes: Collection[str] | None = None) -> None:
    """Flags "delta_check" on a value too far from the one before it (CLSI EP33); limits are in analytes.yaml.

    `analytes`: names of those whose values are looked at, None for all; a flag that they had before counts for nothing.
    """
    for rows in _series(entries, analytes).values():
        rows.sort(key=entry_order)
        analyte = analyte_of(rows[0])
        limit = analyte.delta if analyte else None
        for before, after in pairwise(rows):
            days = (after.effective_at.seconds - before.effective_at.seconds) / _DAY_S
            change = abs(after.quantity.value - before.quantity.value)
            if limit and days <= limit.days and change > limit.relative * abs(before.quantity.value):
                after.flags.append(DELTA_CHECK)


def _series(entries: Iterable[TimelineEntry], analytes: Collection[str] | None) -> dict[str, list[TimelineEntry]]:
    """The values of each analyte that has a limit, and that count; without the flag of an earlier check."""
    series: dict[str, list[TimelineEntry]] = defaultdict(list)
    for entry in entries if analytes is None or analytes else ():
        analyte = analyte_of(entry)
        if analyte is None or not analyte.delta or (analytes is not None and analyte.name not in analytes):
            continue
        if DELTA_CHECK in entry.flags:
            entry.flags.remove(DELTA_CHECK)
        if entry.status == fusion_pb2.ENTRY_STATUS_RETRACTED or entry.WhichOneof("value") != "quantity":
            continue
        if entry.quantity.unit == analyte.unit and entry.HasField("effective_at"):
            series[analyte.name].append(entry)
    return series
