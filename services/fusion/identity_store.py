"""Rows about whose facts are whose: statements that keys are or are not one patient, and whose each study is."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    CompoundSelect,
    Float,
    Index,
    Integer,
    Select,
    String,
    Table,
    Text,
    bindparam,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from services.fusion.linkage import Candidate
from services.fusion.merges import Grouping, Statement, group
from services.platform.outbox import insert_new
from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535.
_PARAMETERS = 5_000

# Append-only: a merge that is taken back stays, beside the statement that takes it back.
STATEMENT = Table(
    "fusion_statement",
    metadata,
    Column("merged_key", String(128), primary_key=True),
    Column("surviving_key", String(128), primary_key=True),
    Column("stated_at", UtcDateTime, primary_key=True),
    Column("same", Boolean, primary_key=True),
    Column("event_id", String(255), nullable=False),
    Index("ix_fusion_statement_surviving_key", "surviving_key"),
)
# The patient that each stored study came with, by its images; findings follow their study.
STUDY = Table(
    "fusion_study",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    Column("patient_key", String(128), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("known_us", BigInteger, nullable=False),
    Index("ix_fusion_study_patient_key", "patient_key"),
)
# Which facts, and records of what was refused, are made from the images of which studies.
STUDY_FACT = Table(
    "fusion_study_fact",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    Column("patient_key", String(128), primary_key=True),
    Column("fact_id", String(32), primary_key=True),
    Index("ix_fusion_study_fact_patient_key", "patient_key"),
)

# Pairs that may be one person, for a person to decide. Holds no names, dates or numbers: those stay in demographics.
CANDIDATE = Table(
    "fusion_candidate",
    metadata,
    Column("first_key", String(128), primary_key=True),
    Column("second_key", String(128), primary_key=True),
    Column("match_weight", Float, nullable=False),
    Column("probability", Float, nullable=False),
    Column("evidence_json", Text, nullable=False),
    Column("model", String(128), nullable=False),
    Column("found_at", UtcDateTime, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("decided_at", UtcDateTime),
    Column("decided_by", String(128), nullable=False),
    Index("ix_fusion_candidate_decision", "decision", "match_weight"),
)


def to_us(time: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (time - EPOCH) // _MICROSECOND


def from_us(number: int) -> datetime:
    """The inverse of `to_us`, aware UTC."""
    return EPOCH + timedelta(microseconds=number)


def add_statement(session: Session, statement: Statement, event_id: str) -> bool:
    """Keeps a statement about two keys; False when it was there."""
    row = {
        "merged_key": statement.merged,
        "surviving_key": statement.surviving,
        "stated_at": statement.at,
        "same": statement.same,
        "event_id": event_id,
    }
    return insert_new(session, STATEMENT, [row]) > 0


def statements_about(session: Session, patient_keys: Iterable[str]) -> set[Statement]:
    """Every statement that some keys can be grouped by, also by way of other keys, taken back or not."""
    found: set[Statement] = set()
    keys, asked = set(patient_keys), set[str]()
    while keys - asked:
        new = sorted(keys - asked)
        asked |= set(new)
        for row in session.execute(_about(), {"keys": new}):
            found.add(Statement(row.stated_at, row.merged_key, row.surviving_key, row.same))
            keys |= {row.merged_key, row.surviving_key}
    return found


@lru_cache(maxsize=1)
def _about() -> Select[Any]:
    keys: BindParameter[Any] = bindparam("keys", expanding=True)
    return select(STATEMENT).where(or_(STATEMENT.c.merged_key.in_(keys), STATEMENT.c.surviving_key.in_(keys)))


def grouping_of(session: Session, patient_keys: Iterable[str], as_of: datetime | None = None) -> Grouping:
    """How some keys, and those they are linked with, were grouped as known at `as_of`."""
    return group(statements_about(session, patient_keys), as_of)


def keys_of(session: Session, patient_key: str, as_of: datetime | None = None) -> tuple[str, tuple[str, ...]]:
    """(the key that survives, the keys merged into it) as known at `as_of`, for any key of a patient."""
    grouping = grouping_of(session, [patient_key], as_of)
    survivor = grouping.survivor(patient_key)
    return survivor, grouping.merged_into(survivor)


@dataclass(frozen=True)
class Misplaced:
    """Facts that came under another key than the study that they are made from.

    `foreign`: (patient key, fact id) under our keys of somebody else's study. `missing`: ours, under other keys.
    """

    foreign: frozenset[tuple[str, str]] = frozenset()
    missing: frozenset[tuple[str, str]] = frozenset()


def add_study(session: Session, study_uid: str, patient_key: str, revision: int, known_at: datetime) -> None:
    """Keeps whose a study is."""
    row = {"study_uid": study_uid, "patient_key": patient_key, "revision": revision, "known_us": to_us(known_at)}
    insert_new(session, STUDY, [row])


def add_study_facts(session: Session, patient_key: str, studies_of: Iterable[tuple[str, Collection[str]]]) -> None:
    """Keeps which studies each of some facts is made from: (fact id, study UIDs)."""
    insert_new(
        session,
        STUDY_FACT,
        [
            {"study_uid": uid, "patient_key": patient_key, "fact_id": fact_id}
            for fact_id, uids in studies_of
            for uid in sorted(uids)
        ],
    )


def owners_of(session: Session, study_uids: Collection[str]) -> set[str]:
    """The keys that some studies came with."""
    query = select(STUDY.c.patient_key).where(STUDY.c.study_uid.in_(study_uids))
    return set(session.execute(query).scalars())


def holders_of(session: Session, study_uid: str) -> set[str]:
    """The keys under which facts made from a study came."""
    query = select(STUDY_FACT.c.patient_key).where(STUDY_FACT.c.study_uid == study_uid)
    return set(session.execute(query).scalars())


def misplaced(session: Session, keys: Sequence[str], as_of: datetime | None = None) -> Misplaced:
    """Which image facts the patient of `keys` must not see, and which are held elsewhere.

    While two keys were wrongly merged, findings of one's images are announced under the other. They belong to the
    patient that their study came with; what is made from studies of two patients belongs to neither.
    """
    uids = set(session.execute(_studies_near(), {"keys": keys}).scalars())
    if not uids:
        return Misplaced()
    studies_of = _studies_of(session, uids)
    home = _homes(session, {uid for made_from in studies_of.values() for uid in made_from}, as_of)
    foreign, missing = set(), set()
    for (key, fact_id), made_from in studies_of.items():
        at_home = [home[uid] in keys for uid in made_from if uid in home]
        if key in keys and not all(at_home):
            foreign.add((key, fact_id))
        elif key not in keys and len(at_home) == len(made_from) and all(at_home):
            missing.add((key, fact_id))
    return Misplaced(frozenset(foreign), frozenset(missing))


@lru_cache(maxsize=1)
def _studies_near() -> CompoundSelect[Any]:
    keys: BindParameter[Any] = bindparam("keys", expanding=True)
    own = select(STUDY.c.study_uid).where(STUDY.c.patient_key.in_(keys))
    return own.union(select(STUDY_FACT.c.study_uid).where(STUDY_FACT.c.patient_key.in_(keys)))


def _studies_of(session: Session, uids: set[str]) -> dict[tuple[str, str], set[str]]:
    """(patient key, fact id) -> all studies of it, for each fact that is made from one of `uids`."""
    found: dict[tuple[str, str], set[str]] = {}
    ids: set[str] = set()
    for part in _parts(uids):
        ids |= set(session.execute(select(STUDY_FACT.c.fact_id).where(STUDY_FACT.c.study_uid.in_(part))).scalars())
    for part in _parts(ids):
        for row in session.execute(select(STUDY_FACT).where(STUDY_FACT.c.fact_id.in_(part))):
            found.setdefault((row.patient_key, row.fact_id), set()).add(row.study_uid)
    return found


def _homes(session: Session, uids: set[str], as_of: datetime | None) -> dict[str, str]:
    """Study -> the key of its newest revision."""
    home: dict[str, tuple[int, str]] = {}
    for part in _parts(uids):
        query = select(STUDY).where(STUDY.c.study_uid.in_(part))
        if as_of is not None:
            query = query.where(STUDY.c.known_us <= to_us(as_of))
        for row in session.execute(query):
            home[row.study_uid] = max(home.get(row.study_uid, (-1, "")), (row.revision, row.patient_key))
    return {uid: key for uid, (_, key) in home.items()}


def _parts(values: Collection[str]) -> Iterable[Sequence[str]]:
    ordered = sorted(values)
    return (ordered[start : start + _PARAMETERS] for start in range(0, len(ordered), _PARAMETERS))


@dataclass(frozen=True)
class Waiting:
    """A pair in the review queue. `decision`: "open", "same" or "different"."""

    candidate: Candidate
    found_at: datetime
    decision: str
    decided_at: datetime | None
    decided_by: str


def put_candidates(session: Session, candidates: Iterable[Candidate], model: str, now: datetime) -> int:
    """Queues pairs and renews the figures of those that still wait; the number of new ones. A decided pair stays so."""
    new = 0
    for candidate in candidates:
        pair = {"first_key": candidate.first, "second_key": candidate.second}
        figures = {
            "match_weight": candidate.match_weight,
            "probability": candidate.probability,
            "evidence_json": json.dumps(dict(candidate.evidence), sort_keys=True),
            "model": model,
        }
        row = {**pair, **figures, "found_at": now, "decision": "open", "decided_at": None, "decided_by": ""}
        added = insert_new(session, CANDIDATE, [row])
        new += added
        if not added:
            where = (CANDIDATE.c.first_key == candidate.first) & (CANDIDATE.c.second_key == candidate.second)
            session.execute(update(CANDIDATE).where(where, CANDIDATE.c.decision == "open").values(**figures))
    return new


def decide(session: Session, one: str, other: str, same: bool, now: datetime, by: str) -> None:
    """Notes what a person decided about a pair, when it is in the queue."""
    first, second = sorted((one, other))
    where = (CANDIDATE.c.first_key == first) & (CANDIDATE.c.second_key == second)
    values = {"decision": "same" if same else "different", "decided_at": now, "decided_by": by}
    session.execute(update(CANDIDATE).where(where).values(**values))


def list_candidates(session: Session, decisions: Collection[str] = ("open",)) -> list[Waiting]:
    """Pairs in the review queue, the most probable first."""
    query = (
        select(CANDIDATE)
        .where(CANDIDATE.c.decision.in_(decisions))
        .order_by(CANDIDATE.c.match_weight.desc(), CANDIDATE.c.first_key, CANDIDATE.c.second_key)
    )
    return [
        Waiting(
            Candidate(row.first_key, row.second_key, row.match_weight, row.probability, json.loads(row.evidence_json)),
            row.found_at,
            row.decision,
            row.decided_at,
            row.decided_by,
        )
        for row in session.execute(query)
    ]


def stated_pairs(session: Session) -> set[frozenset[str]]:
    """Every pair of keys about which anything was said, or that a person decided."""
    said = session.execute(select(STATEMENT.c.merged_key, STATEMENT.c.surviving_key))
    decided = session.execute(
        select(CANDIDATE.c.first_key, CANDIDATE.c.second_key).where(CANDIDATE.c.decision != "open")
    )
    return {frozenset(row) for row in (*said, *decided)}
