"""Registration's rows: the studies of each patient, and every registration with its verdict."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from osler.common.v1 import common_pb2
from osler.registration.v1 import registration_pb2
from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, delete, select, update
from sqlalchemy.orm import Session

from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

STUDY = Table(
    "registration_study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(128), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    # The key that its images came with, whoever that is by now: a merge that is taken back goes by it.
    Column("came_with", String(128), nullable=False),
    Index("ix_registration_study_patient_key", "patient_key"),
)

REGISTRATION = Table(
    "registration_result",
    metadata,
    Column("registration_id", String(64), primary_key=True),
    Column("patient_key", String(128), nullable=False),
    Column("registration", LargeBinary, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_registration_result_patient_key", "patient_key"),
)


def put_study(
    session: Session, uid: str, patient_key: str, revision: int, manifest: common_pb2.BlobRef, updated_at: datetime
) -> bool:
    """Keeps a study's manifest reference unless a newer revision is there; True when it was kept."""
    held = session.execute(select(STUDY.c.revision).where(STUDY.c.study_instance_uid == uid)).scalar()
    if held is not None and held > revision:
        return False
    session.execute(delete(STUDY).where(STUDY.c.study_instance_uid == uid))
    session.execute(
        STUDY.insert().values(
            study_instance_uid=uid,
            patient_key=patient_key,
            revision=revision,
            manifest=manifest.SerializeToString(deterministic=True),
            updated_at=updated_at,
            came_with=patient_key,
        )
    )
    return True


def studies(session: Session, patient_key: str) -> dict[str, tuple[int, common_pb2.BlobRef]]:
    """Study UID to revision and manifest reference, of one patient."""
    rows = session.execute(select(STUDY).where(STUDY.c.patient_key == patient_key)).all()
    return {row.study_instance_uid: (row.revision, common_pb2.BlobRef.FromString(row.manifest)) for row in rows}


def put(session: Session, registration: registration_pb2.Registration, updated_at: datetime) -> None:
    """Keeps one registration; the same id again replaces it."""
    key = REGISTRATION.c.registration_id == registration.registration_id
    session.execute(delete(REGISTRATION).where(key))
    session.execute(
        REGISTRATION.insert().values(
            registration_id=registration.registration_id,
            patient_key=registration.patient_key,
            registration=registration.SerializeToString(deterministic=True),
            updated_at=updated_at,
        )
    )


def get(session: Session, registration_id: str) -> registration_pb2.Registration | None:
    """One registration by id."""
    row = session.execute(select(REGISTRATION).where(REGISTRATION.c.registration_id == registration_id)).first()
    return None if row is None else _registration(row.registration, row.patient_key)


def of_patient(session: Session, patient_key: str) -> list[registration_pb2.Registration]:
    """A patient's registrations, newest fixed image first."""
    rows = session.execute(select(REGISTRATION).where(REGISTRATION.c.patient_key == patient_key)).all()
    found = [_registration(row.registration, row.patient_key) for row in rows]
    return sorted(found, key=lambda r: (-r.fixed_time.ToNanoseconds(), r.registration_id))


def known(session: Session, registration_ids: Iterable[str]) -> set[str]:
    """Which of these ids are there."""
    column = REGISTRATION.c.registration_id
    return set(session.execute(select(column).where(column.in_(list(registration_ids)))).scalars())


def merge(session: Session, surviving_key: str, merged_key: str) -> None:
    """Two keys are one patient: everything of one goes to the other."""
    for table in (STUDY, REGISTRATION):
        session.execute(update(table).where(table.c.patient_key == merged_key).values(patient_key=surviving_key))


def unmerge(session: Session, surviving_key: str) -> None:
    """Studies that came with another key go back to it, and registrations with them; one of two patients' images goes."""
    away = (STUDY.c.patient_key == surviving_key) & (STUDY.c.came_with != surviving_key)
    session.execute(update(STUDY).where(away).values(patient_key=STUDY.c.came_with))
    for row in session.execute(select(REGISTRATION).where(REGISTRATION.c.patient_key == surviving_key)).all():
        pair = registration_pb2.Registration.FromString(row.registration).pair
        uids = [pair.fixed.study_instance_uid, pair.moving.study_instance_uid]
        homes = set(session.scalars(select(STUDY.c.patient_key).where(STUDY.c.study_instance_uid.in_(uids))))
        mine = REGISTRATION.c.registration_id == row.registration_id
        if len(homes) > 1:
            session.execute(delete(REGISTRATION).where(mine))
        elif homes:
            session.execute(update(REGISTRATION).where(mine).values(patient_key=homes.pop()))


def _registration(content: bytes, patient_key: str) -> registration_pb2.Registration:
    registration = registration_pb2.Registration.FromString(content)
    registration.patient_key = patient_key
    return registration
