"""What the record says that a reader needs beside the images: who, what is known, what is given, what is out of range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime

from osler.fusion.v1 import fusion_pb2

from services.alerts.reports.measured import day_text, phrases
from services.alerts.reports.model import Line
from services.clinical import terminology


def lines(snapshot: fusion_pb2.PatientSnapshot, on: date) -> list[Line]:
    """Age and sex, diagnoses, drugs, allergies and laboratory values outside their range, as they were `on` the day."""
    most = phrases()["most"]
    standing = [e for e in snapshot.entries if e.status != fusion_pb2.ENTRY_STATUS_RETRACTED and e.title]
    found = [_person(snapshot, on)]
    for kind, words, limit in (
        (fusion_pb2.ENTRY_KIND_CONDITION, "Diagnoses", most["diagnoses"]),
        (fusion_pb2.ENTRY_KIND_MEDICATION, "Medication", most["medications"]),
        (fusion_pb2.ENTRY_KIND_ALLERGY, "Allergies", most["diagnoses"]),
    ):
        found.append(_listed(words, [e for e in standing if e.kind == kind and _holds(e, on)], limit))
    found.append(_laboratory(standing, on, most["laboratory"]))
    known = [line for line in found if line is not None]
    return known or [Line("The record of this patient holds no clinical information.")]


def _person(snapshot: fusion_pb2.PatientSnapshot, on: date) -> Line | None:
    who = snapshot.demographics
    age = _age(who.birth_date, on)
    words = [word for word in (f"{age} years" if age is not None else "", who.sex) if word]
    if not words:
        return None
    return Line(f"Patient: {', '.join(words)}{', synthetic data' if who.synthetic else ''}.")


def _age(birth_date: str, on: date) -> int | None:
    try:
        born = date.fromisoformat(birth_date)
    except ValueError:
        return None
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def _at(entry: fusion_pb2.TimelineEntry) -> datetime | None:
    return entry.effective_at.ToDatetime(UTC) if entry.HasField("effective_at") else None


def _holds(entry: fusion_pb2.TimelineEntry, on: date) -> bool:
    """Begun by that day and not ended before it; what has no date counts."""
    at = _at(entry)
    ended = entry.HasField("effective_end") and entry.effective_end.ToDatetime(UTC).date() < on
    return not ended and (at is None or at.date() <= on)


def _newest_first(entries: Iterable[fusion_pb2.TimelineEntry]) -> list[fusion_pb2.TimelineEntry]:
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(entries, key=lambda e: (_at(e) or oldest, e.title), reverse=True)


def _listed(words: str, entries: Sequence[fusion_pb2.TimelineEntry], limit: int) -> Line | None:
    """Titles once each, newest first, with the year or month of onset for those that have one."""
    unique: dict[str, fusion_pb2.TimelineEntry] = {}
    for entry in _newest_first(entries):
        unique.setdefault(entry.title.casefold(), entry)
    if not unique:
        return None
    rows = list(unique.values())
    parts = [f"{e.title} ({at:%b %Y})" if (at := _at(e)) else e.title for e in rows[:limit]]
    more = f"; and {len(rows) - limit} more" if len(rows) > limit else ""
    return Line(f"{words}: {'; '.join(parts)}{more}.", tuple(e.entry_id for e in rows[:limit]))


def _laboratory(entries: Sequence[fusion_pb2.TimelineEntry], on: date, limit: int) -> Line | None:
    """The latest value of each analyte, where it lies outside its reference range."""
    latest: dict[str, fusion_pb2.TimelineEntry] = {}
    for entry in _newest_first(entries):
        at = _at(entry)
        if entry.kind == fusion_pb2.ENTRY_KIND_OBSERVATION and entry.HasField("quantity") and at and at.date() <= on:
            analyte = terminology.analyte_of((c.system, c.code) for c in entry.codes)
            latest.setdefault(analyte.title if analyte else entry.title, entry)
    outside = {title: e for title, e in latest.items() if _outside(e)}
    if not outside:
        return None
    parts = [_value(title, entry) for title, entry in sorted(outside.items())[:limit]]
    return Line(f"Laboratory outside its range: {'; '.join(parts)}.", tuple(e.entry_id for e in outside.values()))


def _outside(entry: fusion_pb2.TimelineEntry) -> bool:
    if not entry.HasField("reference_range"):
        return False
    return not entry.reference_range.lower <= entry.quantity.value <= entry.reference_range.upper


def _value(title: str, entry: fusion_pb2.TimelineEntry) -> str:
    span, at = entry.reference_range, _at(entry)
    unit = "" if entry.quantity.unit == "1" else f" {entry.quantity.unit}"
    when = f"{day_text(at.date())}, " if at else ""
    limits = f"range {_limit(span.lower)} to {_limit(span.upper)}"
    return f"{title} {entry.quantity.value:.3g}{unit} ({when}{limits})"


def _limit(value: float) -> str:
    """A limit of a range; two digits suffice below 10, where a converted unit adds meaningless ones."""
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.4g}"
