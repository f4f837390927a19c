"""The archive's index and the record of what came in: the only SQL of this room.

Names and birth dates are in here for authorised queries (QIDO-RS, C-FIND) and go nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from osler.ingest.v1 import ingest_pb2
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.ingest.dicom_file import InstanceHeader
from services.platform.database import UtcDateTime, room_metadata
from services.platform.errors import RefusedError
from services.platform.outbox import insert_new

metadata = room_metadata()

STUDY = Table(
    "ingest_study",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    Column("patient_key", String(32), nullable=False, index=True),
    Column("patient_id", Text, nullable=False, index=True),
    Column("issuer_of_patient_id", Text, nullable=False),
    # Case-folded, for matching only; the name as sent is in attributes_json.
    Column("patient_name", Text, nullable=False),
    Column("patient_birth_date", String(16), nullable=False),
    Column("patient_sex", String(16), nullable=False),
    Column("study_date", String(16), nullable=False, index=True),
    Column("study_clock", String(16), nullable=False),
    Column("study_time", UtcDateTime),
    Column("accession_number", Text, nullable=False, index=True),
    Column("study_id", Text, nullable=False),
    Column("study_description", Text, nullable=False),
    Column("referring_physician", Text, nullable=False),
    Column("attributes_json", Text, nullable=False),
    Column("expected_instances", Integer),
    Column("complete", Boolean, nullable=False),
    Column("completion_reason", Integer, nullable=False),
    # Announced so often; 0 is never.
    Column("revision", Integer, nullable=False),
    # Grows with every instance: a manifest made from an older state is not announced.
    Column("version", Integer, nullable=False),
    Column("first_received_at", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False),
    Index("ix_ingest_study_open", "complete", "last_received_at"),
)

SERIES = Table(
    "ingest_series",
    metadata,
    Column("series_uid", String(64), primary_key=True),
    Column("study_uid", String(64), ForeignKey("ingest_study.study_uid"), nullable=False, index=True),
    Column("modality", String(16), nullable=False),
    Column("series_number", String(16), nullable=False),
    Column("series_description", Text, nullable=False),
    Column("body_part", Text, nullable=False),
    Column("series_date", String(16), nullable=False),
    Column("frame_of_reference_uid", String(64), nullable=False),
    Column("derived", Boolean, nullable=False),
    Column("attributes_json", Text, nullable=False),
)

INSTANCE = Table(
    "ingest_instance",
    metadata,
    Column("sop_uid", String(64), primary_key=True),
    Column("series_uid", String(64), ForeignKey("ingest_series.series_uid"), nullable=False, index=True),
    Column("study_uid", String(64), ForeignKey("ingest_study.study_uid"), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("instance_number", String(16), nullable=False),
    Column("content_uri", Text, nullable=False),
    Column("content_sha256", String(64), nullable=False),
    Column("content_size", BigInteger, nullable=False),
    Column("data_set_sha256", String(64), nullable=False),
    Column("derived", Boolean, nullable=False),
    Column("committed", Boolean, nullable=False),
    Column("attributes_json", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)

RECORD = Table(
    "ingest_record",
    metadata,
    Column("patient_key", String(32), primary_key=True),
    Column("content_sha256", String(64), primary_key=True),
    Column("format", Integer, nullable=False),
    Column("record_type", String(64), nullable=False),
    Column("event_id", String(64), nullable=False),
    Column("content_uri", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)

TABLES: Mapping[str, Table] = {"study": STUDY, "series": SERIES, "instance": INSTANCE}


@dataclass(frozen=True)
class Content:
    """Where an instance is kept. `sha256` is "" for one in a foreign archive."""

    uri: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class StudyState:
    """What decides whether a study is complete; see `completion.py`. Counts are of instances not made by Osler."""

    study_uid: str
    instances: int
    committed: int
    expected: int | None
    complete: bool
    last_received_at: datetime


def find_instance(session: Session, sop_uid: str) -> Row[Any] | None:
    """The index row of an instance."""
    return session.execute(select(INSTANCE).where(INSTANCE.c.sop_uid == sop_uid)).one_or_none()


@dataclass(frozen=True)
class NewInstance:
    """An instance to be indexed: whose it is, and where it is kept."""

    header: InstanceHeader
    patient_key: str
    content: Content


@dataclass(frozen=True)
class Indexed:
    """What became of one instance: `stored` (False when it was there already), or `refusal`.

    `full`: its study has as many instances now as its sender has told.
    """

    stored: bool = False
    refusal: RefusedError | None = None
    full: bool = False


class LostRaceError(Exception):
    """Another process indexed the same study or series meanwhile: do the transaction again."""


def add_instance(session: Session, new: NewInstance, now: datetime, *, derived: bool) -> bool:
    """As `add_instances`, for one. Raises its refusal."""
    (found,) = add_instances(session, [new], now, derived=derived)
    if found.refusal is not None:
        raise found.refusal
    return found.stored


def add_instances(session: Session, news: Sequence[NewInstance], now: datetime, *, derived: bool) -> list[Indexed]:
    """Indexes instances together; what became of each, in their order. Reopens complete studies, unless `derived`.

    Refusals: `dicom.contradictory_patient` or `dicom.contradictory_series` when the study or the series is known with
    another patient or in another study. Raises LostRaceError.
    """
    uids = [new.header.sop_instance_uid for new in news]
    known = set(session.scalars(select(INSTANCE.c.sop_uid).where(INSTANCE.c.sop_uid.in_(uids))))
    fresh = {new.header.sop_instance_uid: new for new in reversed(news) if new.header.sop_instance_uid not in known}
    refused = _ensure_parents(session, list(fresh.values()), now, derived)
    rows = [_instance_row(new, now, derived) for uid, new in fresh.items() if uid not in refused]
    stored = set(_insert_returning(session, INSTANCE, rows))
    full = set() if derived else _count_in(session, [fresh[uid] for uid in stored], now)
    outcomes = []
    for new in news:
        uid = new.header.sop_instance_uid
        if uid in refused:
            outcomes.append(Indexed(refusal=refused[uid]))
        else:
            first = fresh.get(uid) is new and uid in stored
            outcomes.append(Indexed(stored=first, full=first and new.header.study_instance_uid in full))
    return outcomes


def _instance_row(new: NewInstance, now: datetime, derived: bool) -> dict[str, Any]:
    header = new.header
    return {
        "sop_uid": header.sop_instance_uid,
        "series_uid": header.series_instance_uid,
        "study_uid": header.study_instance_uid,
        "sop_class_uid": header.sop_class_uid,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "instance_number": header.text("instance", "InstanceNumber")[:16],
        "content_uri": new.content.uri,
        "content_sha256": new.content.sha256,
        "content_size": new.content.size_bytes,
        "data_set_sha256": header.data_set_sha256,
        "derived": derived,
        "committed": False,
        "attributes_json": json.dumps(header.attributes["instance"]),
        "received_at": now,
    }


def _insert_returning(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> Sequence[str]:
    """Keys of the rows that were not there."""
    if not rows:
        return []
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing().returning(next(iter(table.primary_key)))
    return session.scalars(statement, list(rows)).all()


def _ensure_parents(
    session: Session, news: Sequence[NewInstance], now: datetime, derived: bool
) -> dict[str, RefusedError]:
    """Makes the studies and series that are not there; refusals by SOP instance of those that contradict what is."""
    studies, series = _parents(session, news)
    new_studies: dict[str, dict[str, Any]] = {}
    new_series: dict[str, dict[str, Any]] = {}
    refused: dict[str, RefusedError] = {}
    for new in news:
        header = new.header
        study_uid, series_uid = header.study_instance_uid, header.series_instance_uid
        if studies.get(study_uid, new.patient_key) != new.patient_key:
            refused[header.sop_instance_uid] = _contradictory_patient(header)
        elif series.get(series_uid, study_uid) != study_uid:
            refused[header.sop_instance_uid] = _contradictory_series(header)
        else:
            if study_uid not in studies:
                new_studies[study_uid] = _study_row(new, now, complete=derived)
            if series_uid not in series:
                new_series[series_uid] = _series_row(header, derived)
            studies[study_uid], series[series_uid] = new.patient_key, study_uid
    for table, rows in ((STUDY, new_studies), (SERIES, new_series)):
        if insert_new(session, table, list(rows.values())) < len(rows):
            raise LostRaceError
    return refused


def _parents(session: Session, news: Sequence[NewInstance]) -> tuple[dict[str, str], dict[str, str]]:
    """(study -> its patient key, series -> its study) as far as they are known."""
    study_uids = {new.header.study_instance_uid for new in news}
    series_uids = {new.header.series_instance_uid for new in news}
    studies = session.execute(select(STUDY.c.study_uid, STUDY.c.patient_key).where(STUDY.c.study_uid.in_(study_uids)))
    series = session.execute(
        select(SERIES.c.series_uid, SERIES.c.study_uid).where(SERIES.c.series_uid.in_(series_uids))
    )
    return {row.study_uid: row.patient_key for row in studies}, {row.series_uid: row.study_uid for row in series}


def _count_in(session: Session, news: Sequence[NewInstance], now: datetime) -> set[str]:
    """Notes the arrival of new instances at their studies; the studies that are full now."""
    arrived: dict[str, int | None] = {}
    for new in news:
        uid = new.header.study_instance_uid
        arrived[uid] = new.header.expected_instances or arrived.get(uid)
    for uid, expected in sorted(arrived.items()):
        values: dict[str, Any] = {"complete": False, "version": STUDY.c.version + 1, "last_received_at": now}
        if expected is not None:
            values["expected_instances"] = expected
        session.execute(update(STUDY).where(STUDY.c.study_uid == uid).values(values))
    telling = [uid for uid, expected in arrived.items() if expected is not None]
    if not telling:
        return set()
    counts = session.execute(
        select(INSTANCE.c.study_uid, func.count())
        .where(INSTANCE.c.study_uid.in_(telling), INSTANCE.c.derived.is_(False))
        .group_by(INSTANCE.c.study_uid)
    )
    return {uid for uid, count in counts if count >= (arrived[uid] or 0)}


def _study_row(new: NewInstance, now: datetime, *, complete: bool) -> dict[str, Any]:
    header = new.header
    return {
        "study_uid": header.study_instance_uid,
        "patient_key": new.patient_key,
        "patient_id": header.patient_id,
        "issuer_of_patient_id": header.issuer_of_patient_id,
        "patient_name": header.text("study", "PatientName").casefold(),
        "patient_birth_date": header.text("study", "PatientBirthDate")[:16],
        "patient_sex": header.text("study", "PatientSex")[:16],
        "study_date": header.text("study", "StudyDate")[:16],
        "study_clock": header.text("study", "StudyTime").split(".")[0].replace(":", "")[:16],
        "study_time": header.study_time,
        "accession_number": header.text("study", "AccessionNumber"),
        "study_id": header.text("study", "StudyID"),
        "study_description": header.text("study", "StudyDescription"),
        "referring_physician": header.text("study", "ReferringPhysicianName").casefold(),
        "attributes_json": json.dumps(header.attributes["study"]),
        "expected_instances": header.expected_instances,
        "complete": complete,
        "completion_reason": 0,
        "revision": 0,
        "version": 0,
        "first_received_at": now,
        "last_received_at": now,
    }


def _series_row(header: InstanceHeader, derived: bool) -> dict[str, Any]:
    return {
        "series_uid": header.series_instance_uid,
        "study_uid": header.study_instance_uid,
        "modality": header.text("series", "Modality")[:16],
        "series_number": header.text("series", "SeriesNumber")[:16],
        "series_description": header.text("series", "SeriesDescription"),
        "body_part": header.text("series", "BodyPartExamined"),
        "series_date": header.text("series", "SeriesDate")[:16],
        "frame_of_reference_uid": header.text("series", "FrameOfReferenceUID")[:64],
        "derived": derived,
        "attributes_json": json.dumps(header.attributes["series"]),
    }


def _contradictory_patient(header: InstanceHeader) -> RefusedError:
    return RefusedError(
        "dicom.contradictory_patient",
        "the study is stored with another PatientID or issuer",
        missing=["(0010,0020) PatientID"],
        remedy="correct the patient at the sender, or split the study",
        subject=header.sop_instance_uid,
    )


def _contradictory_series(header: InstanceHeader) -> RefusedError:
    return RefusedError(
        "dicom.contradictory_series",
        "the series is stored in another study",
        missing=["(0020,000E) SeriesInstanceUID"],
        remedy="give the series a UID of its own at the sender",
        subject=header.sop_instance_uid,
    )


def open_studies(session: Session) -> list[StudyState]:
    """Studies that wait for completion, the longest waiting first."""
    query = select(STUDY.c.study_uid).where(STUDY.c.complete.is_(False)).order_by(STUDY.c.last_received_at)
    states = [study_state(session, uid) for uid in session.scalars(query)]
    return [state for state in states if state is not None]


def restart_quiet_periods(session: Session, now: datetime) -> int:
    """Open studies that were last heard of after `now`, because a clock was wrong, count as heard of now; how many."""
    late = (STUDY.c.complete.is_(False)) & (STUDY.c.last_received_at > now)
    return int(session.connection().execute(update(STUDY).where(late).values(last_received_at=now)).rowcount)


def study_state(session: Session, study_uid: str) -> StudyState | None:
    """The state of one study; None when it is unknown."""
    study = session.execute(select(STUDY).where(STUDY.c.study_uid == study_uid)).one_or_none()
    if study is None:
        return None
    own = select(func.count()).where(INSTANCE.c.study_uid == study_uid, INSTANCE.c.derived.is_(False))
    return StudyState(
        study_uid=study_uid,
        instances=session.scalar(own) or 0,
        committed=session.scalar(own.where(INSTANCE.c.committed.is_(True))) or 0,
        expected=study.expected_instances,
        complete=study.complete,
        last_received_at=study.last_received_at,
    )


def study_rows(session: Session, study_uid: str) -> tuple[Row[Any], Sequence[Row[Any]], Sequence[Row[Any]]] | None:
    """(study, its series, its instances) in a stable order; None when the study is unknown."""
    study = session.execute(select(STUDY).where(STUDY.c.study_uid == study_uid)).one_or_none()
    if study is None:
        return None
    series = session.execute(select(SERIES).where(SERIES.c.study_uid == study_uid).order_by(SERIES.c.series_uid)).all()
    instances = session.execute(
        select(INSTANCE).where(INSTANCE.c.study_uid == study_uid).order_by(INSTANCE.c.series_uid, INSTANCE.c.sop_uid)
    ).all()
    return study, series, instances


def mark_complete(session: Session, study_uid: str, *, version: int, revision: int, reason: int) -> bool:
    """Marks a study complete; False when it changed since `version` was read, or is complete already."""
    statement = (
        update(STUDY)
        .where(STUDY.c.study_uid == study_uid, STUDY.c.version == version, STUDY.c.complete.is_(False))
        .values(complete=True, revision=revision, completion_reason=reason)
    )
    return session.connection().execute(statement).rowcount == 1


def commit_instances(session: Session, wanted: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Marks (SOP class, SOP instance) pairs as committed to; (stored, not stored with that class)."""
    stored, failed = [], []
    for sop_class_uid, sop_uid in wanted:
        row = find_instance(session, sop_uid)
        if row is None or row.sop_class_uid != sop_class_uid:
            failed.append(sop_uid)
            continue
        stored.append(sop_uid)
        session.execute(update(INSTANCE).where(INSTANCE.c.sop_uid == sop_uid).values(committed=True))
    return stored, failed


def studies_of(session: Session, sop_uids: Sequence[str]) -> set[str]:
    """The studies that hold these instances."""
    return set(session.scalars(select(INSTANCE.c.study_uid).where(INSTANCE.c.sop_uid.in_(sop_uids)).distinct()))


def list_studies(session: Session, patient_key: str, limit: int, offset: int) -> list[str]:
    """Study UIDs, newest first; of one patient when `patient_key` is given."""
    query = select(STUDY.c.study_uid).order_by(STUDY.c.first_received_at.desc(), STUDY.c.study_uid)
    if patient_key:
        query = query.where(STUDY.c.patient_key == patient_key)
    return list(session.scalars(query.limit(limit).offset(offset)))


def instance_rows(session: Session, study_uid: str, series_uid: str = "", sop_uid: str = "") -> Sequence[Row[Any]]:
    """Instances of a study, of one of its series, or one instance; in image order."""
    query = select(INSTANCE).where(INSTANCE.c.study_uid == study_uid)
    if series_uid:
        query = query.where(INSTANCE.c.series_uid == series_uid)
    if sop_uid:
        query = query.where(INSTANCE.c.sop_uid == sop_uid)
    order = (INSTANCE.c.series_uid, func.length(INSTANCE.c.instance_number), INSTANCE.c.instance_number)
    return session.execute(query.order_by(*order, INSTANCE.c.sop_uid)).all()


@dataclass(frozen=True)
class NewRecord:
    """A record to be noted: its patient, where it is kept, and the event that announces it."""

    patient_key: str
    content: Content
    format: ingest_pb2.RecordFormat
    record_type: str
    event_id: str
    media_type: str = ""


def add_records(session: Session, records: Sequence[NewRecord], now: datetime) -> set[str]:
    """Notes records; the event ids of those that are new: the same content of the same patient counts once."""
    rows = {
        record.event_id: {
            "patient_key": record.patient_key,
            "content_sha256": record.content.sha256,
            "format": record.format,
            "record_type": record.record_type[:64],
            "event_id": record.event_id,
            "content_uri": record.content.uri,
            "received_at": now,
        }
        for record in records
    }
    if not rows:
        return set()
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(RECORD).on_conflict_do_nothing().returning(RECORD.c.event_id)
    return set(session.scalars(statement, list(rows.values())))
