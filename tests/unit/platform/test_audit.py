"""The audit trail: complete, without identifiers, and sealed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from osler.fusion.v1 import fusion_pb2
from sqlalchemy import create_engine, delete, insert, select, text, update
from sqlalchemy.event import listen

from services.platform import telemetry
from services.platform.audit import GENESIS, Audit
from services.platform.config import Settings
from services.platform.database import Database, migrate, open_database
from services.platform.security import Principal
from services.platform.tables import AUDIT

DOCTOR = Principal("dr-a", frozenset({"clinician"}))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(Settings(home=tmp_path))
    migrate(opened, "platform")
    yield opened
    opened.close()


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database, b"k" * 32)


def rows(database: Database) -> list[dict]:
    with database.session() as session:
        return [dict(row) for row in session.execute(select(AUDIT).order_by(AUDIT.c.id)).mappings()]


def tamper(tmp_path: Path, *statements: object) -> None:
    """What somebody with the database file can do: without the triggers, past Osler."""
    engine = create_engine(f"sqlite:///{tmp_path / 'osler.db'}")
    with engine.begin() as connection:
        for change in ("update", "delete"):
            connection.execute(text(f"DROP TRIGGER IF EXISTS platform_audit_no_{change}"))
        for statement in statements:
            connection.execute(statement)
    engine.dispose()


def test_a_row_says_who_did_what_to_which_and_how_it_ended(audit: Audit, database: Database) -> None:
    with telemetry.recorded_spans(), telemetry.span("read"):
        audit.record(DOCTOR, "R", "timeline", "patient-1", "denied", {"code": "PERMISSION_DENIED", "count": 3})
        trace_id = telemetry.trace_id()
    (row,) = rows(database)
    assert (row["principal"], row["action"], row["resource_type"], row["outcome"]) == (
        "dr-a",
        "R",
        "timeline",
        "denied",
    )
    assert json.loads(row["detail_json"]) == {"code": "PERMISSION_DENIED", "count": 3}
    assert row["trace_id"] == trace_id
    assert row["prev_hash"] == GENESIS
    assert row["at"].tzinfo is not None


def test_identifiers_are_kept_as_keyed_hashes(audit: Audit, database: Database) -> None:
    audit.record(DOCTOR, "R", "timeline", "patient-1", detail={"patient_name": "Doe^Jane", "why": "asked by Doe^Jane"})
    audit.record("room:fusion", "U", "timeline", "patient-1")
    audit.record(None, "R", "timeline", "patient-2")
    found = rows(database)
    assert [row["resource_id_hash"] for row in found[:2]] == [audit.hash_id("patient-1")] * 2
    assert [row["principal"] for row in found] == ["dr-a", "room:fusion", "anonymous"]
    assert "patient-1" not in str(found)
    assert "Doe" not in str(found)
    assert audit.hash_id("patient-1") != Audit(database, b"x" * 32).hash_id("patient-1")


def test_an_untouched_trail_is_intact(audit: Audit) -> None:
    assert audit.verify_chain().intact
    for number in range(5):
        audit.record(DOCTOR, "R", "case", str(number))
    checked = audit.verify_chain()
    assert (checked.intact, checked.rows, checked.broken_at) == (True, 5, None)


def test_long_trails_are_checked_in_parts(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.platform.audit._BATCH", 2)
    for number in range(5):
        audit.record(DOCTOR, "R", "case", str(number))
    assert audit.verify_chain().rows == 5


@pytest.mark.parametrize(
    "column",
    ["at", "principal", "action", "resource_type", "resource_id_hash", "outcome", "trace_id", "detail_json"],
)
def test_a_changed_row_is_found(audit: Audit, database: Database, tmp_path: Path, column: str) -> None:
    for _ in range(4):
        audit.record(DOCTOR, "R", "case", "1")
    old = rows(database)[1][column]
    new = old.replace(year=2001) if column == "at" else "x"
    tamper(tmp_path, update(AUDIT).where(AUDIT.c.id == 2).values({column: new}))
    checked = audit.verify_chain()
    assert (checked.intact, checked.broken_at, checked.rows) == (False, 2, 1)


def test_a_removed_row_is_found(audit: Audit, tmp_path: Path) -> None:
    for _ in range(4):
        audit.record(DOCTOR, "R", "case", "1")
    tamper(tmp_path, delete(AUDIT).where(AUDIT.c.id == 2))
    assert audit.verify_chain().broken_at == 3


def test_rows_cut_off_the_end_are_found_by_a_noted_head(audit: Audit, tmp_path: Path) -> None:
    for _ in range(3):
        audit.record(DOCTOR, "R", "case", "1")
    head = audit.verify_chain().head
    audit.record(DOCTOR, "R", "case", "1")
    assert audit.verify_chain(head).intact
    tamper(tmp_path, delete(AUDIT).where(AUDIT.c.id >= 3))
    assert audit.verify_chain().intact
    assert not audit.verify_chain(head).intact


def test_whoever_lacks_the_key_cannot_add_or_reseal(audit: Audit, database: Database, tmp_path: Path) -> None:
    audit.record(DOCTOR, "R", "case", "1")
    (row,) = rows(database)
    forged = {**row, "id": 2, "principal": "nobody", "prev_hash": row["hash"], "hash": "f" * 64}
    tamper(tmp_path, insert(AUDIT).values(**forged))
    assert audit.verify_chain().broken_at == 2
    assert Audit(database, b"x" * 32).verify_chain().broken_at == 1


def test_the_database_itself_refuses_changes(audit: Audit, database: Database) -> None:
    audit.record(DOCTOR, "R", "case", "1")
    for statement in (update(AUDIT).values(principal="x"), delete(AUDIT)):
        with pytest.raises(Exception, match="append-only"), database.transaction("platform") as transaction:
            transaction.session.execute(statement)
    assert audit.verify_chain().intact


def test_rows_that_wait_for_the_database_are_committed_together(audit: Audit, database: Database) -> None:
    commits: list[object] = []
    with database.transaction("platform"):
        writers = [threading.Thread(target=audit.record, args=(DOCTOR, "R", "case", f"p{n}")) for n in range(12)]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 10
        while audit.waiting < len(writers) - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        listen(database.engine, "commit", commits.append)
    for writer in writers:
        writer.join()
    # The holder's own, the first writer's, and one for all that came meanwhile.
    assert len(commits) <= 3
    assert audit.verify_chain().rows == 12


def test_what_cannot_be_committed_is_told_to_each_caller(audit: Audit, tmp_path: Path) -> None:
    tamper(tmp_path, text("ALTER TABLE platform_audit RENAME TO gone"))
    failed = []

    def write() -> None:
        try:
            audit.record(DOCTOR, "R", "case")
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(failed) == 6


def test_writers_side_by_side_make_one_chain(audit: Audit, tmp_path: Path) -> None:
    trails = [audit, Audit(open_database(Settings(home=tmp_path)), b"k" * 32)]

    def write(trail: Audit) -> None:
        for _ in range(15):
            trail.record(DOCTOR, "R", "case", "1")

    threads = [threading.Thread(target=write, args=(trail,)) for trail in trails * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checked = audit.verify_chain()
    assert (checked.intact, checked.rows) == (True, 60)


@pytest.mark.parametrize(
    ("method", "code", "action", "outcome"),
    [
        ("GetTimeline", "OK", "R", "success"),
        ("ListPatients", "PERMISSION_DENIED", "R", "denied"),
        ("ImportFhir", "INTERNAL", "C", "error"),
        ("CheckOrder", "OK", "E", "success"),
        ("Simulate", "UNAUTHENTICATED", "E", "denied"),
    ],
)
def test_a_call_becomes_a_row(
    audit: Audit, database: Database, method: str, code: str, action: str, outcome: str
) -> None:
    request = fusion_pb2.GetTimelineRequest(patient_key="p" * 64)
    audit.rpc_hook(DOCTOR, f"/osler.fusion.v1.FusionService/{method}", request, code)
    audit.rpc_hook(None, f"/osler.fusion.v1.FusionService/{method}", None, code)
    first, second = rows(database)
    assert (first["action"], first["outcome"]) == (action, outcome)
    assert first["resource_type"] == f"osler.fusion.v1.FusionService/{method}"
    assert first["resource_id_hash"] == audit.hash_id("p" * 64)
    assert second["resource_id_hash"] == ""
