"""Critical results: what must be told to a person, how soon, and who is asked when nobody answers.

What counts, the limits and the steps are `critical.yaml`, with its sources. Osler proposes; a reader confirms or rejects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from osler.advisor.v1 import advisor_pb2
from osler.imaging.v1 import imaging_pb2

from services.clinical.codes import SCT

_URGENCY = {
    "info": advisor_pb2.URGENCY_INFO,
    "warning": advisor_pb2.URGENCY_WARNING,
    "critical": advisor_pb2.URGENCY_CRITICAL,
}
_RESPONSE = {"progressive": advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE}


@dataclass(frozen=True)
class Step:
    """Whom to ask once `after` has passed since the result was found."""

    after: timedelta
    to: str


@dataclass(frozen=True)
class Category:
    """How soon a result must have been told. Most urgent first in `categories()`."""

    name: str
    title: str
    within: timedelta
    escalation: tuple[Step, ...]


@dataclass(frozen=True)
class CriticalResult:
    """One proposed critical result. `source`: id of the finding, recommendation or assessment that it stands on."""

    rule: str
    category: str
    statement: str
    source: str


@dataclass(frozen=True)
class Escalation:
    """Where the communication of a result stands. `level` counts steps from 0; `next_at` is None at the last one."""

    level: int
    to: str
    deadline: datetime
    overdue: bool
    next_at: datetime | None


@cache
def _tables() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_name("critical.yaml").read_text(encoding="utf-8")))


@cache
def categories() -> dict[str, Category]:
    """The categories by name, most urgent first."""
    return {
        name: Category(
            name,
            row["title"],
            timedelta(minutes=row["within_minutes"]),
            tuple(Step(timedelta(minutes=step["after_minutes"]), step["to"]) for step in row["escalation"]),
        )
        for name, row in _tables()["categories"].items()
    }


def find(
    findings: Iterable[imaging_pb2.Finding],
    advice: advisor_pb2.PatientAdvice | None,
    study_uid: str,
    entry_ids: Collection[str] = (),
) -> list[CriticalResult]:
    """Proposed critical results of one study, most urgent first, each thing once.

    `entry_ids`: timeline entries of the study; advice counts only where its evidence is among them.
    """
    found = [result for finding in findings if (result := _of_finding(finding)) is not None]
    if advice is not None:
        found += _of_response(advice.responses, study_uid)
        found += _of_advice(advice.recommendations, entry_ids)
    rank = list(categories())
    unique = {(result.rule, result.statement): result for result in found}
    return sorted(unique.values(), key=lambda result: (rank.index(result.category), result.rule, result.statement))


def _of_finding(finding: imaging_pb2.Finding) -> CriticalResult | None:
    """The first row that fits; rows stand most specific first."""
    words = finding.finding_type.display.lower()
    for row in _tables()["findings"]:
        coded = finding.finding_type.system == SCT and finding.finding_type.code in row.get("snomed", ())
        if coded or any(word in words for word in row["words"]):
            place = " ".join(
                part for part in (finding.laterality.display.lower(), finding.site.display.lower()) if part
            )
            return CriticalResult(
                row["id"], row["category"], f"{row['title']}{f', {place}' if place else ''}", finding.finding_id
            )
    return None


def _of_response(responses: Sequence[advisor_pb2.ResponseAssessment], study_uid: str) -> list[CriticalResult]:
    """The worst assessment of this study for each row: several criteria that agree are one result to tell."""
    found = []
    for row in _tables()["response"]:
        fitting = [
            r for r in responses if r.category == _RESPONSE[row["response"]] and r.current_study_uid == study_uid
        ]
        if fitting:
            labels = ", ".join(f"{r.criterion} {r.label}" for r in fitting)
            found.append(CriticalResult(row["id"], row["category"], f"{row['title']} ({labels})", fitting[0].criterion))
    return found


def _of_advice(
    recommendations: Sequence[advisor_pb2.Recommendation], entry_ids: Collection[str]
) -> list[CriticalResult]:
    return [
        CriticalResult(row["id"], row["category"], f"{row['title']}: {item.summary}", item.recommendation_id)
        for row in _tables()["advice"]
        for item in recommendations
        if item.category in row["of"]
        and item.urgency >= _URGENCY[row["urgency"]]
        and any(identity in entry_ids for evidence in item.evidence for identity in evidence.entry_ids)
    ]


def escalation(category: str, found_at: datetime, now: datetime) -> Escalation:
    """Whom to ask now about a result that nobody has acknowledged. Raises KeyError for an unknown category."""
    rule = categories()[category]
    waited = now - found_at
    passed = [n for n, step in enumerate(rule.escalation) if waited >= step.after]
    level = passed[-1] if passed else 0
    following = rule.escalation[level + 1 :]
    deadline = found_at + rule.within
    return Escalation(
        level,
        rule.escalation[level].to,
        deadline,
        now > deadline,
        found_at + following[0].after if following else None,
    )
