"""The lake equals the stream, or says where it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from osler.events.v1 import events_pb2

from services.analytics import lake, store
from services.analytics.reconcile import TopicAccount, reconcile
from services.platform.bus import SqliteEventLog
from services.platform.events import Event, pack
from tests.unit.analytics.conftest import Lake

TOPIC = "osler.alert.feedback.v1"


def events(count: int) -> list[Event]:
    at = datetime(2026, 2, 1, tzinfo=UTC)
    return [
        pack(
            events_pb2.AlertFeedback(patient_key=f"p{n}", card_id=str(n), outcome="accepted"),
            source="alerts", key=f"p{n}", id=f"e{n}", time=at,
        )
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> SqliteEventLog:
    return SqliteEventLog(tmp_path / "log.db", partitions=3)


def account(log: SqliteEventLog, lake_of: Lake) -> TopicAccount:
    with lake_of.database.session() as session:
        waiting = store.waiting_ids(session)
    return next(a for a in reconcile(log, lake_of.folder, waiting) if a.topic == TOPIC)


def test_equal_by_count_and_checksum_though_delivered_twice_and_out_of_order(
    log: SqliteEventLog, lake_of: Lake
) -> None:
    told = events(40)
    log.publish(told)
    log.publish(told[:5])
    lake_of.fill(list(reversed(told)) + told[:7])
    found = account(log, lake_of)
    assert found.equal
    assert sum(p.in_stream for p in found.partitions) == sum(p.in_lake for p in found.partitions) == 40
    assert len(found.partitions) == 3
    assert all(p.stream_checksum == p.lake_checksum for p in found.partitions)


def test_death_at_any_point_of_a_flush_leaves_them_equal(log: SqliteEventLog, lake_of: Lake) -> None:
    told = events(30)
    log.publish(told)
    lake_of.take(*told)
    with lake_of.database.transaction("analytics") as tx:
        store.begin_batch(tx.session, "b1", 12)
    assert sum(p.waiting for p in account(log, lake_of).partitions) == 30
    with lake_of.database.session() as session:
        lake.write_batch(lake_of.folder, "b1", store.batch_rows(session, "b1"))
    assert lake_of.flush()
    lake_of.flush()
    assert account(log, lake_of).equal


def test_a_lost_a_changed_and_a_doubled_row_are_told(log: SqliteEventLog, lake_of: Lake) -> None:
    told = events(12)
    log.publish(told)
    lake_of.fill(told[1:])
    (file,) = lake_of.folder.rglob("*.parquet")
    rows = pq.read_table(file)
    changed = rows.to_pylist()
    changed[0]["data"] = changed[0]["data"].replace("accepted", "overridden")
    pq.write_table(pa.Table.from_pylist([*changed, changed[1]], schema=rows.schema), file)
    found = account(log, lake_of)
    assert not found.equal
    totals = [sum(getattr(p, name) for p in found.partitions) for name in ("missing", "different", "waiting")]
    assert totals == [1, 1, 0]
    assert found.doubled == 1
    assert any(p.stream_checksum != p.lake_checksum for p in found.partitions)


def test_events_that_the_broker_keeps_no_more_stay_in_the_lake(log: SqliteEventLog, lake_of: Lake) -> None:
    told = events(10)
    log.publish(told[4:])
    lake_of.fill(told)
    found = account(log, lake_of)
    assert found.equal
    assert found.only_in_lake == 4
