"""SQL of second readings."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from services.board.reads import DoubleRead, Reading
from services.board.tables import READ, READING
from services.platform.rpc import NotFoundError


def ask(session: Session, patient_key: str, first: str, second: str, by: str) -> str:
    """A new double reading; its id."""
    identity = str(uuid.uuid4())
    values = {
        "patient_key": patient_key, "first_reader": first, "second_reader": second, "asked_by": by, "at": datetime.now(UTC),
        "adjudicated": "", "adjudicated_by": "", "adjudicated_note": "",
    }  # fmt: skip
    session.execute(insert(READ).values(read_id=identity, **values))
    return identity


def keep(session: Session, read_id: str, reading: Reading) -> None:
    values = {
        "category": reading.category, "sum_mm": reading.sum_mm, "new_lesions": reading.new_lesions, "note": reading.note,
        "at": reading.at,
    }  # fmt: skip
    session.execute(insert(READING).values(read_id=read_id, reader=reading.reader, **values))


def adjudicate(session: Session, read_id: str, category: str, by: str, note: str) -> None:
    settled = {"adjudicated": category, "adjudicated_by": by, "adjudicated_note": note}
    session.execute(update(READ).where(READ.c.read_id == read_id).values(settled))


def reads(session: Session) -> list[DoubleRead]:
    """Every double reading, newest first."""
    rows = session.execute(select(READ).order_by(READ.c.at.desc())).all()
    given: dict[str, list[Reading]] = {}
    for r in session.execute(select(READING).order_by(READING.c.at)):
        reading = Reading(r.reader, r.category, r.sum_mm, r.new_lesions, r.note, r.at)
        given.setdefault(r.read_id, []).append(reading)
    return [
        DoubleRead(
            r.read_id, r.patient_key, r.first_reader, r.second_reader, r.asked_by, r.at, r.adjudicated, r.adjudicated_by,
            r.adjudicated_note, given.get(r.read_id, []),
        )
        for r in rows
    ]  # fmt: skip


def read(session: Session, read_id: str) -> DoubleRead:
    """Raises NotFoundError."""
    found = next((r for r in reads(session) if r.read_id == read_id), None)
    if found is None:
        raise NotFoundError("there is no such reading")
    return found
