"""Every event reaches the lake once, and DuckDB answers over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from osler.events.v1 import events_pb2

from services.analytics import lake, store
from services.analytics.worker import Flusher, buffer
from services.platform.database import Database, migrate
from services.platform.events import Event, pack, unpack

START = datetime(2026, 6, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    migrate(database, "platform")
    migrate(database, "analytics")
    return database


def study(n: int) -> Event:
    message = events_pb2.StudyReceived(patient_key=f"p{n % 2}", study_instance_uid=f"1.2.{n}", revision=1)
    return pack(message, source="ingest", key=message.patient_key, id=f"event-{n}", time=START + timedelta(days=n))


def take(database: Database, event: Event) -> None:
    effect = buffer(event, unpack(event))
    with database.transaction("analytics") as tx:
        effect(tx)


def count(folder: Path) -> int:
    return int(lake.query(folder, "SELECT count(*) AS n FROM study_received")[0]["n"])


def test_an_event_taken_twice_is_one_row(database: Database, tmp_path: Path) -> None:
    for event in (study(1), study(1), study(2)):
        take(database, event)
    assert Flusher(database, tmp_path / "lake").flush(force=True)
    assert count(tmp_path / "lake") == 2


def test_death_between_file_and_commit_leaves_no_duplicate(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    for n in range(3):
        take(database, study(n))
    with database.transaction("analytics") as tx:
        store.begin_batch(tx.session, "batch-1", 2)
    with database.session() as session:
        lake.write_batch(folder, "batch-1", store.batch_rows(session, "batch-1"))
    # The process dies here: the file is written, the buffer still holds the batch.
    flusher = Flusher(database, folder)
    assert flusher.flush(force=True)
    assert flusher.flush(force=True)
    assert not flusher.flush(force=True)
    assert count(folder) == 3


def test_views_answer_on_an_empty_lake(tmp_path: Path) -> None:
    for view in ("events", "volumes", "turnaround", "findings", "recommendations", "card_outcomes", "registrations"):
        assert lake.query(tmp_path, f"SELECT * FROM {view}") == []


def test_turnaround_joins_a_study_with_its_findings(database: Database, tmp_path: Path) -> None:
    take(database, study(7))
    findings = events_pb2.FindingsReady()
    findings.findings.patient_key, findings.findings.study_instance_uid = "p1", "1.2.7"
    findings.findings.study_revision = 1
    take(database, pack(findings, source="imaging", key="p1", id="f7"))
    Flusher(database, tmp_path / "lake").flush(force=True)
    rows = lake.query(tmp_path / "lake", "SELECT * FROM turnaround")
    assert [r["study_instance_uid"] for r in rows] == ["1.2.7"]
    assert 0 <= rows[0]["seconds"] < 60
    assert rows[0]["received_time"].utcoffset() == timedelta(0)


def test_a_query_cannot_read_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(lake.QueryError, match=r"(?i)permission|disabled|access"):
        lake.query(tmp_path / "lake", f"SELECT * FROM read_csv('{secret}')")


def test_a_wrong_query_says_why(tmp_path: Path) -> None:
    with pytest.raises(lake.QueryError, match="no_such_view"):
        lake.query(tmp_path, "SELECT * FROM no_such_view")
