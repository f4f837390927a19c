"""Imaging's rows: the findings of each study, newest revision only."""

from __future__ import annotations

from datetime import datetime

from osler.imaging.v1 import imaging_pb2
from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, delete, select, update
from sqlalchemy.orm import Session

from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

STUDY = Table(
    "imaging_study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(128), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("findings", LargeBinary, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_imaging_study_patient_key", "patient_key"),
)


def put(session: Session, findings: imaging_pb2.StudyFindings, manifest_sha256: str, updated_at: datetime) -> bool:
    """Keeps the findings unless those of a newer revision are there; True when they were kept."""
    uid = findings.study_instance_uid
    held = session.execute(select(STUDY.c.revision).where(STUDY.c.study_instance_uid == uid)).scalar()
    if held is not None and held > findings.study_revision:
        return False
    session.execute(delete(STUDY).where(STUDY.c.study_instance_uid == uid))
    session.execute(
        STUDY.insert().values(
            study_instance_uid=uid,
            patient_key=findings.patient_key,
            revision=findings.study_revision,
            manifest_sha256=manifest_sha256,
            findings=findings.SerializeToString(deterministic=True),
            updated_at=updated_at,
        )
    )
    return True


def of_study(session: Session, study_instance_uid: str) -> tuple[imaging_pb2.StudyFindings, str] | None:
    """The findings of a study and the SHA-256 of the manifest that they were made from."""
    row = session.execute(select(STUDY).where(STUDY.c.study_instance_uid == study_instance_uid)).first()
    return None if row is None else (_findings(row.findings, row.patient_key), row.manifest_sha256)


def of_patient(session: Session, patient_key: str) -> list[imaging_pb2.StudyFindings]:
    """The findings of every study of a patient, oldest study first."""
    rows = session.execute(select(STUDY).where(STUDY.c.patient_key == patient_key)).all()
    studies = [_findings(row.findings, row.patient_key) for row in rows]
    return sorted(studies, key=lambda study: (study.study_time.ToNanoseconds(), study.study_instance_uid))


def merge(session: Session, surviving_key: str, merged_key: str) -> None:
    """Two keys are one patient: every study of one goes to the other."""
    session.execute(update(STUDY).where(STUDY.c.patient_key == merged_key).values(patient_key=surviving_key))


def unmerge(session: Session, surviving_key: str) -> None:
    """A merge was wrong: every study goes back to the key that its images came with."""
    for row in session.execute(select(STUDY).where(STUDY.c.patient_key == surviving_key)).all():
        came_with = imaging_pb2.StudyFindings.FromString(row.findings).patient_key
        mine = STUDY.c.study_instance_uid == row.study_instance_uid
        session.execute(update(STUDY).where(mine).values(patient_key=came_with))


def _findings(content: bytes, patient_key: str) -> imaging_pb2.StudyFindings:
    findings = imaging_pb2.StudyFindings.FromString(content)
    findings.patient_key = patient_key
    return findings
