"""The advisor's rows: the latest advice of each patient, and the facts that an order is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, delete, select
from sqlalchemy.orm import Session

from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

ADVICE = Table(
    "advisor_advice",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("snapshot_ref", LargeBinary, nullable=False),
    Column("advice", LargeBinary, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True)
class Stored:
    """The latest advice, and the snapshot it was made from."""

    advice: advisor_pb2.PatientAdvice
    snapshot: common_pb2.BlobRef


def put(
    session: Session, advice: advisor_pb2.PatientAdvice, snapshot: common_pb2.BlobRef, updated_at: datetime
) -> bool:
    """Keeps the advice unless newer advice (by snapshot revision) is there; True when it was kept."""
    key, revision = advice.patient_key, advice.snapshot_revision
    held = session.execute(select(ADVICE.c.revision).where(ADVICE.c.patient_key == key)).scalar()
    if held is not None and held > revision:
        return False
    forget(session, [key])
    session.execute(
        ADVICE.insert().values(
            patient_key=key,
            revision=revision,
            snapshot_ref=snapshot.SerializeToString(deterministic=True),
            advice=advice.SerializeToString(deterministic=True),
            updated_at=updated_at,
        )
    )
    return True


def get(session: Session, patient_key: str) -> Stored | None:
    """What is kept for a patient."""
    columns = select(ADVICE.c.advice, ADVICE.c.snapshot_ref).where(ADVICE.c.patient_key == patient_key)
    row = session.execute(columns).first()
    if row is None:
        return None
    return Stored(advisor_pb2.PatientAdvice.FromString(row.advice), common_pb2.BlobRef.FromString(row.snapshot_ref))


def forget(session: Session, patient_keys: Sequence[str]) -> None:
    """Removes the rows of these keys (merged into another)."""
    session.execute(delete(ADVICE).where(ADVICE.c.patient_key.in_(patient_keys)))
