"""Blinded double readings: two people read the same case, neither sees the other's reading nor Osler's before both are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.board.agreement import Kappa, Limits, kappa, limits_of_agreement
from services.platform.errors import RefusedError

CATEGORIES = ("CR", "PR", "SD", "PD", "NE")
_ORDERED = ("CR", "PR", "SD", "PD")
_LARGEST_SUM_MM = 3000.0
_MOST_NEW = 50


@dataclass(frozen=True)
class Reading:
    """One person's reading. `sum_mm`: sum of diameters now, None where nothing is measurable."""

    reader: str
    category: str
    sum_mm: float | None
    new_lesions: int
    note: str
    at: datetime


@dataclass(frozen=True)
class DoubleRead:
    """A case that two people read. `adjudicated`: the category that a third person settled on, or empty."""

    read_id: str
    patient_key: str
    first_reader: str
    second_reader: str
    asked_by: str
    at: datetime
    adjudicated: str
    adjudicated_by: str
    adjudicated_note: str
    readings: Sequence[Reading]

    @property
    def readers(self) -> tuple[str, str]:
        return (self.first_reader, self.second_reader)

    @property
    def complete(self) -> bool:
        return len(self.readings) == 2

    @property
    def agreed(self) -> bool:
        """Same category, and the same answer to whether there is a new lesion."""
        if not self.complete:
            return False
        one, other = self.readings
        return one.category == other.category and bool(one.new_lesions) == bool(other.new_lesions)

    def of(self, reader: str) -> Reading | None:
        return next((r for r in self.readings if r.reader == reader), None)

    def visible_to(self, subject: str) -> list[Reading]:
        """Readings that `subject` may see: their own, and everybody's once both are in."""
        return [r for r in self.readings if self.complete or r.reader == subject]


@dataclass(frozen=True)
class Agreement:
    """Over all complete readings. Evaluable pairs only for the weighted kappa."""

    plain: Kappa
    weighted: Kappa
    sums: Limits | None
    waiting: int
    disagreements: int


def parse(form: Mapping[str, str], reader: str, at: datetime) -> Reading:
    """A reading from a form. Raises RefusedError `read.incomplete`."""
    category, text = form.get("category", ""), form.get("sum_mm", "").strip().replace(",", ".")
    try:
        total = float(text) if text else None
        new = int(form.get("new_lesions", "0") or 0)
    except ValueError:
        raise _incomplete("a number cannot be read") from None
    if category not in CATEGORIES:
        raise _incomplete("the category is missing")
    if total is None and category != "NE":
        raise _incomplete("the sum of diameters is missing")
    if (total is not None and not 0 <= total <= _LARGEST_SUM_MM) or not 0 <= new <= _MOST_NEW:
        raise _incomplete("a number is out of range")
    return Reading(reader, category, total, new, form.get("note", "").strip()[:2000], at)


def _incomplete(what: str) -> RefusedError:
    return RefusedError("read.incomplete", what, remedy="choose a category, and give the sum of diameters in mm")


def require_reader(read: DoubleRead, subject: str) -> None:
    """Raises RefusedError for who is not asked, or has read already: a reading is given once."""
    if subject not in read.readers:
        raise RefusedError("read.not_asked", "you are not one of the two readers", remedy="ask the board's office")
    if read.of(subject) is not None:
        raise RefusedError("read.given", "your reading is in; it cannot be changed", remedy="ask for adjudication")


def agreement(reads: Sequence[DoubleRead]) -> Agreement:
    """Statistics over all complete double readings, first against second reader."""
    pairs = [(r.of(r.first_reader), r.of(r.second_reader)) for r in reads if r.complete]
    both: list[tuple[Any, Any]] = [(one, other) for one, other in pairs if one and other]
    graded = [(a, b) for a, b in both if "NE" not in (a.category, b.category)]
    sized = [(a.sum_mm, b.sum_mm) for a, b in both if a.sum_mm is not None and b.sum_mm is not None]
    return Agreement(
        kappa([a.category for a, _ in both], [b.category for _, b in both], CATEGORIES),
        kappa([a.category for a, _ in graded], [b.category for _, b in graded], _ORDERED, "linear"),
        limits_of_agreement([a for a, _ in sized], [b for _, b in sized]),
        sum(not r.complete for r in reads),
        sum(r.complete and not r.agreed for r in reads),
    )
