"""Who the patient is: the latest that any source said, field by field."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.clinical.refusals import make_refusal
from services.fusion.facts import DemographicFact

_FIELDS = ("family_name", "given_name", "birth_date", "sex", "record_number")


def settle(facts: Iterable[DemographicFact]) -> fusion_pb2.Demographics:
    """One record from all facts: for each field the latest one that is not empty. Order of arrival does not matter."""
    ordered = sorted(
        facts, key=lambda fact: (fact.known_at, fact.source, fact.demographics.SerializeToString(deterministic=True))
    )
    settled = fusion_pb2.Demographics()
    for fact in ordered:
        for name in _FIELDS:
            value = getattr(fact.demographics, name)
            if value and not (name == "sex" and value == "unknown" and settled.sex):
                setattr(settled, name, value)
        if fact.deceased_stated:
            settled.deceased = fact.demographics.deceased
        settled.synthetic = settled.synthetic or fact.demographics.synthetic
    return settled


def contradictions(facts: Iterable[DemographicFact]) -> list[common_pb2.Refusal]:
    """Says, without the values, where sources disagree on sex or birth date: the latest is used, a person must look."""
    facts = list(facts)
    found = []
    for name, title in (("sex", "sex"), ("birth_date", "birth date")):
        values = {value for fact in facts if (value := getattr(fact.demographics, name)) and value != "unknown"}
        # A coarser date that begins the finer one agrees with it.
        values = {value for value in values if not any(o != value and o.startswith(value) for o in values)}
        if len(values) > 1:
            found.append(
                make_refusal(
                    f"demographics.conflicting_{name}",
                    f"{len(values)} different values of the {title} came for this patient; the latest is used",
                    remedy="check the patient's identity: two people may share an identifier",
                )
            )
    return found


def age_years(birth_date: str, at: datetime) -> int | None:
    """Completed years of age at a time, from an ISO 8601 date; None for a date coarser than a year and month.

    A month without a day counts from its first day.

    >>> from datetime import UTC
    >>> age_years("1970-06-15", datetime(2025, 6, 14, tzinfo=UTC))
    54
    """
    parts = birth_date.split("-")
    if len(parts) < 2:
        return None
    try:
        born = date(int(parts[0]), int(parts[1]), int(parts[2]) if len(parts) > 2 else 1)
    except ValueError:
        return None
    today = at.date()
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))
