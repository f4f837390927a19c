"""The twin's rows: the latest predictions of each patient."""

from __future__ import annotations

from datetime import datetime

from osler.twin.v1 import twin_pb2
from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, delete, select
from sqlalchemy.orm import Session

from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

PREDICTION = Table(
    "twin_prediction",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("snapshot_sha256", String(64), nullable=False),
    Column("predictions", LargeBinary, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)


def put(session: Session, predictions: twin_pb2.PatientPredictions, snapshot_sha256: str, updated_at: datetime) -> bool:
    """Keeps the predictions unless newer ones (by snapshot revision) are there; True when they were kept."""
    key, revision = predictions.patient_key, predictions.snapshot_revision
    held = session.execute(select(PREDICTION.c.revision).where(PREDICTION.c.patient_key == key)).scalar()
    if held is not None and held > revision:
        return False
    forget(session, [key])
    session.execute(
        PREDICTION.insert().values(
            patient_key=key,
            revision=revision,
            snapshot_sha256=snapshot_sha256,
            predictions=predictions.SerializeToString(deterministic=True),
            updated_at=updated_at,
        )
    )
    return True


def get(session: Session, patient_key: str) -> tuple[twin_pb2.PatientPredictions, str] | None:
    """The latest predictions and the SHA-256 of their snapshot."""
    columns = select(PREDICTION.c.predictions, PREDICTION.c.snapshot_sha256)
    row = session.execute(columns.where(PREDICTION.c.patient_key == patient_key)).first()
    return None if row is None else (twin_pb2.PatientPredictions.FromString(row.predictions), row.snapshot_sha256)


def forget(session: Session, patient_keys: list[str]) -> None:
    """Removes the rows of these keys (merged into another)."""
    session.execute(delete(PREDICTION).where(PREDICTION.c.patient_key.in_(patient_keys)))
