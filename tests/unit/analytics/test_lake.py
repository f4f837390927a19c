"""Every event reaches the lake once, and DuckDB answers over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from osler.events.v1 import events_pb2

from services.analytics import lake, store
from services.platform.events import Event, pack
from tests.unit.analytics.conftest import Lake

START = datetime(2026, 6, 2, 9, 0, tzinfo=UTC)


def study(n: int) -> Event:
    message = events_pb2.StudyReceived(patient_key=f"p{n % 2}", study_instance_uid=f"1.2.{n}", revision=1)
    return pack(message, source="ingest", key=message.patient_key, id=f"event-{n}", time=START + timedelta(days=n))


def count(folder: Path) -> int:
    return int(lake.query(folder, "SELECT count(*) AS n FROM study_received")[0]["n"])


def test_an_event_taken_twice_is_one_row(lake_of: Lake) -> None:
    lake_of.take(study(1), study(1), study(2))
    assert lake_of.flush()
    assert count(lake_of.folder) == 2


def test_death_between_file_and_commit_leaves_no_duplicate(lake_of: Lake) -> None:
    lake_of.take(*(study(n) for n in range(3)))
    with lake_of.database.transaction("analytics") as tx:
        store.begin_batch(tx.session, "batch-1", 2)
    with lake_of.database.session() as session:
        lake.write_batch(lake_of.folder, "batch-1", store.batch_rows(session, "batch-1"))
    # The process dies here: the file is written, the buffer still holds the batch.
    assert lake_of.flush()
    assert lake_of.flush()
    assert not lake_of.flush()
    assert count(lake_of.folder) == 3


def test_files_of_before_a_column_was_added_still_answer(lake_of: Lake) -> None:
    lake_of.fill([study(1)])
    (old,) = (lake_of.folder / "osler.study.received.v1").glob("*/*.parquet")
    pq.write_table(pq.read_table(old).drop_columns(["context"]), old)
    lake_of.fill([study(2)])
    assert count(lake_of.folder) == 2
    assert [row["scanner"] for row in lake.query(lake_of.folder, "SELECT * FROM studies")] == ["unknown"] * 2


def test_every_event_type_is_among_the_events(lake_of: Lake) -> None:
    at = Timestamp(seconds=1)
    keys = {"surviving_patient_key": "a", "merged_patient_key": "b"}
    merged, unmerged = (
        events_pb2.PatientMerged(**keys, merged_at=at),
        events_pb2.PatientUnmerged(**keys, unmerged_at=at),
    )
    lake_of.fill([pack(m, source="ingest", key="a", id=str(n)) for n, m in enumerate([merged, unmerged])])
    assert lake.query(lake_of.folder, "SELECT count(*) AS n FROM events") == [{"n": 2}]


def test_views_answer_on_an_empty_lake(tmp_path: Path) -> None:
    sql = "SELECT view_name AS name FROM duckdb_views() WHERE NOT internal"
    names = {row["name"] for row in lake.query(tmp_path, sql)}
    assert {"events", "volumes", "turnaround_by_step", "adherence", "signals", "response_visits"} <= names
    with lake.connect(tmp_path) as connection:
        for view in names:
            assert connection.execute(f"SELECT * FROM {view}").fetchall() == []


def test_turnaround_joins_a_study_with_its_findings(lake_of: Lake) -> None:
    findings = events_pb2.FindingsReady()
    findings.findings.patient_key, findings.findings.study_instance_uid = "p1", "1.2.7"
    findings.findings.study_revision = 1
    lake_of.fill([study(7), pack(findings, source="imaging", key="p1", id="f7")])
    rows = lake.query(lake_of.folder, "SELECT * FROM turnaround")
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
