"""Rows about what waits to be read: studies with their findings, patients' snapshots and history, and workitems."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
)

from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

STUDY = Table(
    "alerts_study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    # The key that the images came with; tells what a merge that is taken back gives back.
    Column("announced_key", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("manifest_ref", LargeBinary, nullable=False),
    Column("modalities", String(255), nullable=False),
    Column("study_time", UtcDateTime),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("findings_revision", BigInteger, nullable=False),
    Column("findings", LargeBinary, nullable=False),
)

PATIENT = Table(
    "alerts_patient",
    metadata,
    Column("patient_key", String(64), primary_key=True),
    Column("snapshot_revision", BigInteger, nullable=False),
    Column("snapshot_ref", LargeBinary, nullable=False),
    Column("history_json", Text, nullable=False),
)

WORKITEM = Table(
    "alerts_workitem",
    metadata,
    Column("workitem_uid", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("announced_key", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("transaction_uid", String(64), nullable=False),
    # DICOM JSON of what a client gave; what Osler knows stands in the columns.
    Column("dataset_json", Text, nullable=False),
    Column("urgency", Float, nullable=False),
    Column("reasons_json", Text, nullable=False),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("performer", String(255), nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_alerts_workitem_state_due_at", "state", "due_at"),
)
