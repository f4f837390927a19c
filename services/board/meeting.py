"""The meeting's own rules: is a case ready, what is a decision, who must sign. No reading or writing here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from osler.advisor.v1 import advisor_pb2

from services.board.case import CaseView
from services.platform.errors import RefusedError

_LONGEST = 4000


@cache
def words() -> Mapping[str, Any]:
    """`meeting.yaml`: disciplines, signing groups, intents, options, choices."""
    found: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("meeting.yaml").read_text("utf-8"))
    return found


@dataclass(frozen=True)
class Check:
    """One thing that a case needs before it is discussed; `remedy` and who can give it where it is not `done`."""

    title: str
    done: bool
    remedy: str = ""


@dataclass(frozen=True)
class Readiness:
    checks: list[Check]

    @property
    def missing(self) -> list[Check]:
        return [c for c in self.checks if not c.done]

    @property
    def share(self) -> float:
        """0..1."""
        return sum(c.done for c in self.checks) / len(self.checks)


def readiness(view: CaseView, question: str | None) -> Readiness:
    """What is there and what is missing before the case is discussed. `question`: of the agenda, None on no agenda."""
    table = view.lesions
    judged = [r for r in view.responses if r.label and not r.HasField("refusal")]
    missing = {m.statement or m.fact: m.supplier for r in view.recommendations for m in r.missing}
    checks = [
        Check("Images measured", table is not None, "send the images, or outline the lesions"),
        Check("Findings reviewed", table is not None and not table.unreviewed, _unreviewed(view)),
        Check("Response judged", bool(judged), _not_judged(view)),
        Check(
            "Diagnosis in the record", bool(view.summary.conditions), "the chart holds no diagnosis: referring clinic"
        ),
        Check("Pathology or genomics", view.has_pathology, "no pathology report or genomic result: pathology"),
        Check("Facts for the advice", not missing, _facts(missing)),
    ]
    if question is not None and question != "":
        checks.append(Check("Question for the board", True))
    return Readiness(checks)


def _unreviewed(view: CaseView) -> str:
    if view.lesions is None:
        return "nothing is measured yet"
    return f"{view.lesions.unreviewed} of {len(view.lesions.to_review)} findings wait for a reader: imaging"


def _not_judged(view: CaseView) -> str:
    refusals = [r.refusal.remedy or r.refusal.message for r in view.responses if r.HasField("refusal")]
    return refusals[0] if refusals else "two visits with measured lesions are needed"


def _facts(missing: Mapping[str, str]) -> str:
    return "; ".join(f"{what} ({who})" if who else what for what, who in list(missing.items())[:3])


@dataclass(frozen=True)
class Decision:
    """What the board decides, in parts that minutes and the care plan can carry."""

    summary: str
    intent: str
    options: list[str]
    rationale: str
    next_review: str = ""
    conditions: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Decision:
        return cls(**json.loads(text))

    @property
    def option_titles(self) -> list[str]:
        return [words()["options"][o]["title"] for o in self.options if o in words()["options"]]

    @property
    def intent_title(self) -> str:
        return str(words()["intents"].get(self.intent, self.intent))


def read_decision(form: Mapping[str, Any], options: Sequence[str]) -> Decision:
    """A decision from a form. Raises RefusedError `decision.incomplete` naming what is missing."""
    given = {name: str(form.get(name, "")).strip()[:_LONGEST] for name in ("summary", "rationale", "conditions")}
    intent, chosen = str(form.get("intent", "")), [o for o in options if o in words()["options"]]
    missing = [name for name in ("summary", "rationale") if not given[name]]
    missing += [] if intent in words()["intents"] else ["intent"]
    missing += [] if chosen else ["at least one option"]
    if missing:
        raise RefusedError(
            "decision.incomplete",
            f"the decision lacks: {', '.join(missing)}",
            missing=missing,
            remedy="fill these in, and record it again",
        )
    day = str(form.get("next_review", "")).strip()
    if day:
        _iso_day(day)
    return Decision(given["summary"], intent, chosen, given["rationale"], day, given["conditions"])


def _iso_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RefusedError(
            "decision.bad_date", "a date is not written as 2026-03-31", remedy="choose the day again"
        ) from None


@dataclass(frozen=True)
class Vote:
    subject: str
    choice: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Signature:
    subject: str
    discipline: str
    digest: str
    at: datetime


@dataclass(frozen=True)
class Recorded:
    """One version of a decision with its votes and signatures."""

    decision_id: str
    version: int
    decision: Decision
    author: str
    at: datetime
    votes: Sequence[Vote] = ()
    signatures: Sequence[Signature] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of what is signed: the decision and its version."""
        return hashlib.sha256(f"{self.decision_id}/{self.version}/{self.decision.to_json()}".encode()).hexdigest()

    @property
    def tally(self) -> Mapping[str, int]:
        counted = Counter(v.choice for v in self.votes)
        return {choice: counted.get(choice, 0) for choice in words()["choices"]}

    @property
    def dissents(self) -> list[Vote]:
        return [v for v in self.votes if v.choice == "dissent"]

    @property
    def unsigned(self) -> list[str]:
        """Signing groups that have not signed yet."""
        signed = {s.discipline for s in self.signatures if s.digest == self.digest}
        return [name for name, members in words()["signing"].items() if not signed & set(members)]

    @property
    def final(self) -> bool:
        return not self.unsigned


def check_vote(choice: str, reason: str) -> None:
    """Raises RefusedError for an unknown choice, and for dissent without its reason."""
    if choice not in words()["choices"]:
        raise RefusedError("vote.unknown_choice", "this is no choice", remedy="agree, dissent or abstain")
    if choice == "dissent" and not reason.strip():
        raise RefusedError(
            "vote.dissent_without_reason",
            "a dissent is recorded with its reason",
            missing=["reason"],
            remedy="write in a sentence what you would do instead",
        )


@dataclass(frozen=True)
class Task:
    task_id: str
    title: str
    owner: str
    due_on: date | None
    status: str
    changed_by: str
    changed_at: datetime
    patient_key: str = ""

    def overdue(self, today: date) -> bool:
        return self.status == "open" and self.due_on is not None and self.due_on < today


@dataclass(frozen=True)
class Item:
    """One case on the agenda."""

    item_id: str
    meeting_id: str
    patient_key: str
    position: int
    question: str
    presenter: str


@dataclass(frozen=True)
class Meeting:
    meeting_id: str
    title: str
    starts_at: datetime
    place: str
    status: str
    created_by: str


@dataclass(frozen=True)
class Participant:
    subject: str
    discipline: str
    remote: bool

    @property
    def discipline_title(self) -> str:
        return str(words()["disciplines"].get(self.discipline, self.discipline))


@dataclass(frozen=True)
class Comment:
    author: str
    discipline: str
    at: datetime
    text: str


@dataclass(frozen=True)
class Discussion:
    """Everything that a meeting holds about one case. `decisions`: newest version first."""

    item: Item
    comments: Sequence[Comment] = ()
    decisions: Sequence[Recorded] = ()
    tasks: Sequence[Task] = field(default_factory=list)

    @property
    def decision(self) -> Recorded | None:
        return self.decisions[0] if self.decisions else None


def proposed(recommendations: Sequence[advisor_pb2.Recommendation]) -> str:
    """A first wording for the decision form: what the advice says first; people change it."""
    return recommendations[0].summary if recommendations else ""
