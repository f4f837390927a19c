"""When a card stays away after a clinician set it aside or took its advice, and when it comes back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from osler.advisor.v1 import advisor_pb2

from services.alerts.hooks import Coding
from services.alerts.store import ServedCard, Silence
from services.platform.errors import ConfigurationError

URGENCIES: Mapping[int, str] = {
    advisor_pb2.URGENCY_INFO: "info",
    advisor_pb2.URGENCY_WARNING: "warning",
    advisor_pb2.URGENCY_CRITICAL: "critical",
}
# The advisor dates what it says; a fact read again without change is the same fact.
_DATE = re.compile(r"\s*\(\d{4}-\d{2}-\d{2}\)")
_KEYS = {"outcome", "reason", "urgency", "category", "rule", "hours", "scope"}


@dataclass(frozen=True)
class Period:
    """One row of snooze.yaml. Empty fields match everything; `for_all`: holds for every user of the patient."""

    hours: float
    for_all: bool
    outcome: str = ""
    reason: str = ""
    urgency: str = ""
    category: str = ""
    rule: str = ""

    def matches(self, card: ServedCard, outcome: str, reason: str) -> bool:
        wanted = (self.outcome, self.reason, self.urgency, self.category, self.rule)
        found = (outcome, reason, card.urgency, card.category, card.rule_id)
        return all(not want or want == have for want, have in zip(wanted, found, strict=True))


@dataclass(frozen=True)
class Policy:
    """snooze.yaml, checked."""

    version: str
    reasons: tuple[Coding, ...]
    periods: tuple[Period, ...]

    def silence(self, card: ServedCard, outcome: str, reason: str, at: datetime) -> Silence | None:
        """What the outcome of a card at a time (aware UTC) holds back; None where it comes back each time."""
        period = next((p for p in self.periods if p.matches(card, outcome, reason)), None)
        if period is None:
            return None
        user = "" if period.for_all else card.user_hash
        until = at + timedelta(hours=period.hours)
        return Silence(card.patient_key, card.rule_id, user, card.fingerprint, until, reason)


@cache
def policy() -> Policy:
    """The policy of this installation. Raises ConfigurationError for a row that it does not understand."""
    path = Path(__file__).with_name("snooze.yaml")
    return parse(yaml.safe_load(path.read_text(encoding="utf-8")))


def parse(table: Mapping[str, Any]) -> Policy:
    """A policy from the shape of snooze.yaml. Raises ConfigurationError naming the row that is wrong."""
    system = str(table["system"])
    reasons = tuple(Coding(code=row["code"], display=row["display"], system=system) for row in table["reasons"])
    known = {reason.code for reason in reasons}
    periods = []
    for number, row in enumerate(table["periods"], start=1):
        wrong = set(row) - _KEYS or {"hours", "scope"} - set(row)
        if wrong or row["scope"] not in ("user", "patient") or not 0 < row["hours"] <= 24 * 366:
            raise ConfigurationError(
                f"snooze.yaml, period {number}: needs hours (up to a year) and scope user or patient"
            )
        if row.get("reason", "") not in {"", *known} or row.get("outcome", "") not in ("", "accepted", "overridden"):
            raise ConfigurationError(f"snooze.yaml, period {number}: an outcome or reason that is not listed")
        named = {name: str(row.get(name, "")) for name in _KEYS - {"hours", "scope"}}
        periods.append(Period(float(row["hours"]), row["scope"] == "patient", **named))
    return Policy(str(table["version"]), reasons, tuple(periods))


def fingerprint(r: advisor_pb2.Recommendation) -> str:
    """Hash of what a card stands on: rule and version, urgency, the patient's facts, what is missing, what it proposes.

    Dates in words are left out; a new entry of the timeline (another measurement) is another fact even at the same value.
    """
    facts = sorted((_DATE.sub("", e.statement), sorted(e.entry_ids)) for e in r.evidence)
    missing = sorted(r.not_found)
    parts = [r.rule_id, r.rule_version, r.urgency, facts, missing, r.proposed_order.system, r.proposed_order.code]
    # Where a rule names no facts, its words are all there is.
    words = "" if facts else _DATE.sub("", r.summary)
    return hashlib.sha256(json.dumps([*parts, words], ensure_ascii=False).encode()).hexdigest()


def held_back(r: advisor_pb2.Recommendation, silences: Iterable[Silence], user_hash: str) -> bool:
    """True when a silence holds this recommendation back for this user: same rule, same facts."""
    mine = [s for s in silences if s.rule_id == r.rule_id and s.user_hash in ("", user_hash)]
    return bool(mine) and fingerprint(r) in {s.fingerprint for s in mine}
