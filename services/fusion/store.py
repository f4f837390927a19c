"""Fusion's rows: facts as they came, who the patients are, which keys are one patient, the latest snapshots.

Facts stay under the key that they came with; a merge is a link between keys, so that it can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    bindparam,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session

from services.fusion import feature_store, identity_store
from services.fusion.facts import DemographicFact, Fact, Reading, Standing, digest
from services.fusion.identity_store import from_us, keys_of, metadata, to_us
from services.platform.outbox import insert_new
from services.platform.tables import UtcDateTime

FACT = Table(
    "fusion_fact",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("fact_id", String(32), primary_key=True),
    Column("origin", Text, nullable=False),
    Column("identity", String(32), nullable=False),
    Column("standing", Integer, nullable=False),
    Column("replaces", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    # Microseconds since 1970 UTC: thousands of facts are read for each snapshot, and plain numbers read fastest.
    Column("known_us", BigInteger, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("entry", LargeBinary, nullable=False),
)
DEMOGRAPHIC = Table(
    "fusion_demographic",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("digest", String(32), primary_key=True),
    Column("known_at", UtcDateTime, nullable=False),
    Column("source", Text, nullable=False),
    Column("deceased_stated", Boolean, nullable=False),
    Column("demographics", LargeBinary, nullable=False),
)
# What was made of each record: how many resources or segments of each kind, and what was refused.
RECORD = Table(
    "fusion_record",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("origin", String(255), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("accounted_json", Text, nullable=False),
    Column("refusals", LargeBinary, nullable=False),
)
PATIENT = Table(
    "fusion_patient",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("merged_into", String(128), nullable=False),
    Column("updated_at", UtcDateTime),
    Column("entry_count", Integer, nullable=False),
    Column("demographics", LargeBinary, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
)

# Looked up for each fact that is read: making an enumeration's member of a number costs more.
_STANDINGS = {int(standing): standing for standing in Standing}


@dataclass(frozen=True)
class Source:
    """Which record a reading is of. `origin`: digest of the content, or the study or pair; a higher revision replaces.

    `studies`: the studies whose images it is made from.
    """

    origin: str
    received_at: datetime
    event_id: str
    revision: int = 0
    studies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """All that is known of one patient, under every key. `as_of`: receipt of the latest record, None for an unknown key."""

    patient_key: str
    merged_keys: tuple[str, ...]
    facts: tuple[Fact, ...]
    demographics: tuple[DemographicFact, ...]
    refusals: tuple[common_pb2.Refusal, ...]
    as_of: datetime | None


@dataclass(frozen=True)
class Summary:
    """One row of the list of patients."""

    patient_key: str
    revision: int
    updated_at: datetime
    entry_count: int
    demographics: fusion_pb2.Demographics


def add_reading(session: Session, patient_key: str, reading: Reading, source: Source) -> bool:
    """Writes what is new in a reading under the key it came with; False when there was nothing new."""
    changed = _add_facts(session, patient_key, reading.facts)
    rows = [
        {
            "patient_key": patient_key,
            "digest": _demographic_digest(fact),
            "known_at": fact.known_at,
            "source": fact.source,
            "deceased_stated": fact.deceased_stated,
            "demographics": fact.demographics.SerializeToString(deterministic=True),
        }
        for fact in reading.demographics
    ]
    changed = insert_new(session, DEMOGRAPHIC, rows) > 0 or changed
    if source.studies:
        ids = [*(fact.fact_id for fact in reading.facts), _record_id(source.origin)]
        identity_store.add_study_facts(session, patient_key, [(id, source.studies) for id in ids])
    return _add_record(session, patient_key, reading, source) or changed


def _record_id(origin: str) -> str:
    """What stands for a record among the facts that are made from a study: what it refused goes where they go."""
    return digest("record", origin)


def _demographic_digest(fact: DemographicFact) -> str:
    body = fact.demographics.SerializeToString(deterministic=True).hex()
    return digest(fact.source, fact.known_at.isoformat(), body, str(fact.deceased_stated))


def _add_facts(session: Session, patient_key: str, facts: Sequence[Fact]) -> bool:
    """The same fact again keeps what was known first, so that the order of arrival leaves no trace."""
    wanted: dict[str, Fact] = {}
    for fact in facts:
        wanted[fact.fact_id] = _earliest(wanted[fact.fact_id], fact) if fact.fact_id in wanted else fact
    held = {fact.fact_id: fact for fact in _facts(session, [patient_key], list(wanted))}
    new = [_fact_row(patient_key, fact) for fact in wanted.values() if fact.fact_id not in held]
    if new:
        session.execute(FACT.insert(), new)
        added, count = [wanted[row["fact_id"]] for row in new], count_facts(session, patient_key)
        feature_store.index_facts(session, patient_key, added, count, lambda: _facts(session, [patient_key]))
    changed = bool(new)
    for fact_id, before in held.items():
        after = _earliest(before, wanted[fact_id])
        if _fact_row(patient_key, after) != _fact_row(patient_key, before):
            where = (FACT.c.patient_key == patient_key) & (FACT.c.fact_id == fact_id)
            session.execute(update(FACT).where(where).values(_fact_row(patient_key, after)))
            changed = True
    return changed


def _earliest(one: Fact, other: Fact) -> Fact:
    # The first to be known gives the provenance too: what came later must not show in an answer as of then.
    return min(
        one,
        other,
        key=lambda fact: (
            fact.known_at,
            fact.recorded_at,
            [source.event_id for source in fact.entry.sources],
            fact.patient_key,
        ),
    )


def _fact_row(patient_key: str, fact: Fact) -> dict[str, Any]:
    return {
        "patient_key": patient_key,
        "fact_id": fact.fact_id,
        "origin": fact.origin,
        "identity": fact.identity,
        "standing": int(fact.standing),
        "replaces": fact.replaces,
        "revision": fact.revision,
        "known_us": to_us(fact.known_at),
        "recorded_us": to_us(fact.recorded_at),
        "entry": fact.entry.SerializeToString(deterministic=True),
    }


def _facts(session: Session, keys: Sequence[str], fact_ids: Sequence[str] | None = None) -> list[Fact]:
    query = select(FACT).where(FACT.c.patient_key.in_(keys))
    parameters: dict[str, Any] = {}
    if fact_ids is not None and len(fact_ids) <= 500:
        # A named list of parameters: SQLAlchemy looks at each element of a plain one.
        query = query.where(FACT.c.fact_id.in_(bindparam("ids", expanding=True)))
        parameters = {"ids": list(fact_ids)}
    wanted = set(fact_ids) if fact_ids is not None else None
    rows = session.execute(query, parameters).all()
    return [fact_of(row) for row in rows if wanted is None or row.fact_id in wanted]


def fact_of(row: Any) -> Fact:
    """The fact of a row with all columns of FACT."""
    key, fact_id, origin, identity, standing, replaces, revision, known, recorded, entry = row
    return Fact(
        fact_id,
        origin,
        identity,
        _STANDINGS[standing],
        replaces,
        revision,
        from_us(known),
        from_us(recorded),
        fusion_pb2.TimelineEntry.FromString(entry),
        key,
    )


def _add_record(session: Session, patient_key: str, reading: Reading, source: Source) -> bool:
    refusals = fusion_pb2.PatientSnapshot(refusals=reading.refusals).SerializeToString(deterministic=True)
    row = {
        "patient_key": patient_key,
        "origin": source.origin,
        "revision": source.revision,
        "received_at": source.received_at,
        "event_id": source.event_id,
        "accounted_json": json.dumps(dict(reading.accounted), sort_keys=True),
        "refusals": refusals,
    }
    if insert_new(session, RECORD, [row]):
        return True
    where = (RECORD.c.patient_key == patient_key) & (RECORD.c.origin == source.origin)
    held = session.execute(select(RECORD.c.revision, RECORD.c.received_at).where(where)).one()
    if (held.revision, held.received_at) >= (source.revision, source.received_at):
        return False
    session.execute(update(RECORD).where(where).values(row))
    return True


def load(session: Session, patient_key: str, as_of: datetime | None = None, *, with_facts: bool = True) -> Held:
    """All that is held of the patient whom a key stood for at `as_of` (None: stands for); empty for an unknown key.

    `as_of` settles who the patient is, not what was known of them: `build_timeline` leaves out what came later.
    Facts are left out unless `with_facts`.
    """
    survivor, merged = keys_of(session, patient_key, as_of)
    keys = [survivor, *merged]
    demographics = demographics_of(session, keys)
    misplaced = identity_store.misplaced(session, keys, as_of)
    records = _records(session, keys, misplaced)
    refusals = {
        refusal.SerializeToString(deterministic=True): refusal
        for row in records
        for refusal in fusion_pb2.PatientSnapshot.FromString(row.refusals).refusals
    }
    return Held(
        patient_key=survivor,
        merged_keys=merged,
        facts=_facts_of_patient(session, keys, misplaced) if with_facts else (),
        demographics=demographics,
        refusals=tuple(refusals[key] for key in sorted(refusals)),
        as_of=max((row.received_at for row in records), default=None),
    )


def _records(session: Session, keys: Sequence[str], misplaced: identity_store.Misplaced) -> list[Any]:
    """The records of a patient, with what each refused."""
    elsewhere = {key for key, _ in misplaced.missing}
    query = (
        select(RECORD.c.patient_key, RECORD.c.origin, RECORD.c.received_at, RECORD.c.refusals)
        .where(RECORD.c.patient_key.in_([*keys, *elsewhere]))
        .order_by(RECORD.c.origin, RECORD.c.patient_key)
    )
    if misplaced == identity_store.Misplaced():
        return list(session.execute(query))
    rows = [(row, (row.patient_key, _record_id(row.origin))) for row in session.execute(query)]
    return [
        row for row, id in rows if id in misplaced.missing or (row.patient_key in keys and id not in misplaced.foreign)
    ]


def _facts_of_patient(session: Session, keys: Sequence[str], misplaced: identity_store.Misplaced) -> tuple[Fact, ...]:
    held = [fact for fact in _facts(session, keys) if (fact.patient_key, fact.fact_id) not in misplaced.foreign]
    held += _held(session, misplaced.missing)
    return once(held)


def once(held: Iterable[Fact]) -> tuple[Fact, ...]:
    """Each fact once, as it was first known, however many keys hold it."""
    facts: dict[str, Fact] = {}
    for fact in held:
        facts[fact.fact_id] = _earliest(facts[fact.fact_id], fact) if fact.fact_id in facts else fact
    return tuple(facts.values())


def demographics_of(session: Session, keys: Sequence[str]) -> tuple[DemographicFact, ...]:
    """What was said of who the patient of some keys is."""
    query = select(DEMOGRAPHIC).where(DEMOGRAPHIC.c.patient_key.in_(keys))
    return tuple(
        DemographicFact(
            row.known_at, row.source, fusion_pb2.Demographics.FromString(row.demographics), row.deceased_stated
        )
        for row in session.execute(query)
    )


def is_known(session: Session, keys: Sequence[str]) -> bool:
    """Whether any record came under one of some keys."""
    return session.execute(select(RECORD.c.origin).where(RECORD.c.patient_key.in_(keys)).limit(1)).first() is not None


def facts_of(session: Session, wanted: Collection[tuple[str, str]]) -> tuple[Fact, ...]:
    """Some facts by (patient key, fact id); one that is held under several keys comes once."""
    return once(_held(session, wanted))


def _held(session: Session, wanted: Collection[tuple[str, str]]) -> Iterator[Fact]:
    for key in sorted({key for key, _ in wanted}):
        yield from _facts(session, [key], [fact_id for holder, fact_id in wanted if holder == key])


def touched(
    session: Session, keys: Sequence[str], origins: Collection[str]
) -> tuple[tuple[Fact, ...], frozenset[str]] | None:
    """What a change of some origins can change: (facts, identities), closed as `fold_timeline` asks.

    None when the patient's facts are not simply those under `keys`, see `identity_store.misplaced`.
    """
    if identity_store.misplaced(session, keys) != identity_store.Misplaced():
        return None
    columns = (FACT.c.patient_key, FACT.c.fact_id, FACT.c.origin, FACT.c.identity)
    rows = session.execute(select(*columns).where(FACT.c.patient_key.in_(keys))).all()
    identities = frozenset(row.identity for row in rows if row.origin in origins)
    same = {row.origin for row in rows if row.identity in identities}
    wanted = {(row.patient_key, row.fact_id) for row in rows if row.origin in same}
    return facts_of(session, wanted), identities


def hold(session: Session, *patient_keys: str) -> None:
    """Holds the rows of these keys and of all that were ever linked with them, always in the same order."""
    linked = identity_store.statements_about(session, patient_keys)
    for key in sorted({*patient_keys, *(key for statement in linked for key in statement.pair)}):
        lock(session, key)


def lock(session: Session, patient_key: str) -> int:
    """Holds the patient's row until the transaction ends; the revision it has, 0 for a new patient."""
    row = {
        "patient_key": patient_key,
        "revision": 0,
        "merged_into": "",
        "updated_at": None,
        "entry_count": 0,
        "demographics": b"",
        "snapshot": b"",
    }
    insert_new(session, PATIENT, [row])
    query = select(PATIENT.c.revision).where(PATIENT.c.patient_key == patient_key).with_for_update()
    return int(session.execute(query).scalar_one())


def put_snapshot(
    session: Session, snapshot: fusion_pb2.PatientSnapshot, reference: common_pb2.BlobRef, merged_keys: Sequence[str]
) -> None:
    """Keeps the reference of a patient's latest snapshot, and hides the keys that were merged into it."""
    session.execute(
        update(PATIENT)
        .where(PATIENT.c.patient_key == snapshot.patient_key)
        .values(
            revision=snapshot.revision,
            merged_into="",
            updated_at=snapshot.as_of.ToDatetime(UTC),
            entry_count=len(snapshot.entries),
            demographics=snapshot.demographics.SerializeToString(deterministic=True),
            snapshot=reference.SerializeToString(deterministic=True),
        )
    )
    if merged_keys:
        where = PATIENT.c.patient_key.in_(merged_keys) & (PATIENT.c.merged_into != snapshot.patient_key)
        session.execute(update(PATIENT).where(where).values(merged_into=snapshot.patient_key))


def get_snapshot(session: Session, patient_key: str) -> common_pb2.BlobRef | None:
    """The reference of the latest snapshot of the patient whom a key stands for."""
    survivor, _ = keys_of(session, patient_key)
    query = select(PATIENT.c.snapshot).where(PATIENT.c.patient_key == survivor, PATIENT.c.revision > 0)
    row = session.execute(query).first()
    return None if row is None else common_pb2.BlobRef.FromString(row.snapshot)


def list_patients(session: Session, after: str, limit: int) -> list[Summary]:
    """Patients by key, from the one after `after`; merged keys are not patients of their own."""
    query = (
        select(PATIENT)
        .where(PATIENT.c.revision > 0, PATIENT.c.merged_into == "", PATIENT.c.patient_key > after)
        .order_by(PATIENT.c.patient_key)
        .limit(limit)
    )
    return [
        Summary(
            row.patient_key,
            row.revision,
            row.updated_at,
            row.entry_count,
            fusion_pb2.Demographics.FromString(row.demographics),
        )
        for row in session.execute(query)
    ]


def contents_of(session: Session, event_ids: Collection[str]) -> dict[str, str]:
    """Event id -> SHA-256 of the message or document that it announced, for those that announced one."""
    query = select(RECORD.c.event_id, RECORD.c.origin).where(RECORD.c.event_id.in_(event_ids))
    return {
        row.event_id: row.origin.removeprefix("record:")
        for row in session.execute(query)
        if row.origin.startswith("record:")
    }


@dataclass(frozen=True)
class Revision:
    """The latest revision of a patient."""

    patient_key: str
    revision: int
    updated_at: datetime
    snapshot: common_pb2.BlobRef


def revisions(session: Session, patient_key: str = "") -> list[Revision]:
    """The latest revision of the patient whom a key stands for, or of every patient."""
    query = select(PATIENT.c.patient_key, PATIENT.c.revision, PATIENT.c.updated_at, PATIENT.c.snapshot)
    query = query.where(PATIENT.c.revision > 0)
    if patient_key:
        query = query.where(PATIENT.c.patient_key == keys_of(session, patient_key)[0])
    else:
        query = query.where(PATIENT.c.merged_into == "").order_by(PATIENT.c.patient_key)
    return [
        Revision(row.patient_key, row.revision, row.updated_at, common_pb2.BlobRef.FromString(row.snapshot))
        for row in session.execute(query)
    ]


def count_facts(session: Session, patient_key: str) -> int:
    """How many facts are held under one key, merged or not."""
    query = select(func.count()).select_from(FACT).where(FACT.c.patient_key == patient_key)
    return int(session.execute(query).scalar_one())
