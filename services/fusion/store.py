"""Fusion's rows: facts as they came, who the patients are, which keys are one patient, the latest snapshots.

Facts stay under the key that they came with; a merge is a link between keys, so that it can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from services.fusion.facts import DemographicFact, Fact, Reading, Standing, digest
from services.fusion.merges import Merge, survivors
from services.platform.outbox import insert_new
from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

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
ALIAS = Table(
    "fusion_alias",
    metadata,
    Column("merged_key", String(128), primary_key=True),
    Column("surviving_key", String(128), primary_key=True),
    Column("merged_at", UtcDateTime, primary_key=True),
    Column("undone_at", UtcDateTime),
    Index("ix_fusion_alias_surviving_key", "surviving_key"),
)


@dataclass(frozen=True)
class Source:
    """Which record a reading is of. `origin`: digest of the content, or the study or pair; a higher revision replaces."""

    origin: str
    received_at: datetime
    event_id: str
    revision: int = 0


@dataclass(frozen=True)
class Held:
    """All that is known of one patient, under every key."""

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
    return _add_record(session, patient_key, reading, source) or changed


def _demographic_digest(fact: DemographicFact) -> str:
    body = fact.demographics.SerializeToString(deterministic=True).hex()
    return digest(fact.source, body, str(fact.deceased_stated))


def _add_facts(session: Session, patient_key: str, facts: Sequence[Fact]) -> bool:
    """The same fact again keeps the earliest times, so that the order of arrival leaves no trace."""
    wanted: dict[str, Fact] = {}
    for fact in facts:
        wanted[fact.fact_id] = _earliest(wanted[fact.fact_id], fact) if fact.fact_id in wanted else fact
    held = {fact.fact_id: fact for fact in _facts(session, [patient_key], list(wanted))}
    new = [_fact_row(patient_key, fact) for fact in wanted.values() if fact.fact_id not in held]
    if new:
        session.execute(FACT.insert(), new)
    changed = bool(new)
    for fact_id, before in held.items():
        after = _earliest(before, wanted[fact_id])
        if _fact_row(patient_key, after) != _fact_row(patient_key, before):
            where = (FACT.c.patient_key == patient_key) & (FACT.c.fact_id == fact_id)
            session.execute(update(FACT).where(where).values(_fact_row(patient_key, after)))
            changed = True
    return changed


def _earliest(one: Fact, other: Fact) -> Fact:
    first = min(one, other, key=lambda fact: [source.event_id for source in fact.entry.sources])
    return replace(
        first,
        known_at=min(one.known_at, other.known_at),
        recorded_at=min(one.recorded_at, other.recorded_at),
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
        "known_us": (fact.known_at - _EPOCH) // _MICROSECOND,
        "recorded_us": (fact.recorded_at - _EPOCH) // _MICROSECOND,
        "entry": fact.entry.SerializeToString(deterministic=True),
    }


def _facts(session: Session, keys: Sequence[str], fact_ids: Sequence[str] | None = None) -> list[Fact]:
    columns = [column for column in FACT.c if column.name != "patient_key"]
    query = select(*columns).where(FACT.c.patient_key.in_(keys))
    if fact_ids is not None and len(fact_ids) <= 500:
        query = query.where(FACT.c.fact_id.in_(fact_ids))
    wanted = set(fact_ids) if fact_ids is not None else None
    return [
        Fact(
            fact_id=fact_id,
            origin=origin,
            identity=identity,
            standing=Standing(standing),
            replaces=replaces,
            revision=revision,
            known_at=_EPOCH + timedelta(microseconds=known),
            recorded_at=_EPOCH + timedelta(microseconds=recorded),
            entry=fusion_pb2.TimelineEntry.FromString(entry),
        )
        for fact_id, origin, identity, standing, replaces, revision, known, recorded, entry in session.execute(query)
        if wanted is None or fact_id in wanted
    ]


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


def add_merge(session: Session, merge: Merge) -> bool:
    """Links two keys; False when the link was there."""
    row = {"merged_key": merge.merged, "surviving_key": merge.surviving, "merged_at": merge.at, "undone_at": None}
    return insert_new(session, ALIAS, [row]) > 0


def undo_merge(session: Session, merged_key: str, surviving_key: str, undone_at: datetime) -> bool:
    """Takes the links between two keys back; False when none stood."""
    where = (ALIAS.c.merged_key == merged_key) & (ALIAS.c.surviving_key == surviving_key)
    statement = update(ALIAS).where(where & ALIAS.c.undone_at.is_(None)).values(undone_at=undone_at)
    return session.connection().execute(statement).rowcount > 0


def keys_of(session: Session, patient_key: str) -> tuple[str, tuple[str, ...]]:
    """(the key that survives, the keys merged into it), for any key of a patient."""
    merges: set[Merge] = set()
    keys, asked = {patient_key}, set[str]()
    while keys - asked:
        new = sorted(keys - asked)
        asked |= set(new)
        rows = session.execute(select(ALIAS).where(or_(ALIAS.c.merged_key.in_(new), ALIAS.c.surviving_key.in_(new))))
        for row in rows:
            merges.add(Merge(row.merged_at, row.merged_key, row.surviving_key, row.undone_at))
            if row.undone_at is None:
                keys |= {row.merged_key, row.surviving_key}
    final = survivors(merges)
    survivor = final.get(patient_key, patient_key)
    return survivor, tuple(sorted(key for key, into in final.items() if into == survivor))


def load(session: Session, patient_key: str) -> Held:
    """All that is known of the patient whom a key stands for; empty for an unknown key."""
    survivor, merged = keys_of(session, patient_key)
    keys = [survivor, *merged]
    demographics = tuple(
        DemographicFact(
            row.known_at, row.source, fusion_pb2.Demographics.FromString(row.demographics), row.deceased_stated
        )
        for row in session.execute(select(DEMOGRAPHIC).where(DEMOGRAPHIC.c.patient_key.in_(keys)))
    )
    records = session.execute(
        select(RECORD.c.origin, RECORD.c.received_at, RECORD.c.refusals)
        .where(RECORD.c.patient_key.in_(keys))
        .order_by(RECORD.c.origin, RECORD.c.patient_key)
    ).all()
    refusals = {
        refusal.SerializeToString(deterministic=True): refusal
        for row in records
        for refusal in fusion_pb2.PatientSnapshot.FromString(row.refusals).refusals
    }
    return Held(
        patient_key=survivor,
        merged_keys=merged,
        facts=tuple(_facts(session, keys)),
        demographics=demographics,
        refusals=tuple(refusals[key] for key in sorted(refusals)),
        as_of=max((row.received_at for row in records), default=None),
    )


def hold(session: Session, *patient_keys: str) -> None:
    """Holds the rows of all keys of these patients until the transaction ends, always in the same order."""
    keys = set(patient_keys)
    for key in patient_keys:
        survivor, merged = keys_of(session, key)
        keys |= {survivor, *merged}
    for key in sorted(keys):
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


def count_facts(session: Session, patient_key: str) -> int:
    """How many facts are held under one key, merged or not."""
    query = select(func.count()).select_from(FACT).where(FACT.c.patient_key == patient_key)
    return int(session.execute(query).scalar_one())
