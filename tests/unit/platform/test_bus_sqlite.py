"""What only the embedded log has: idempotent publication, leases that know dead processes, several processes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from osler.events.v1 import events_pb2

from services.platform.bus import SqliteEventLog, open_log
from services.platform.bus.sqlite_consumer import is_dead, this_process
from services.platform.bus.sqlite_log import partition_of
from services.platform.config import Settings
from services.platform.errors import RetryableError
from services.platform.events import Event, pack

TOPIC = "osler.study.received.v1"


def _event(id_: str, key: str = "k") -> Event:
    return pack(events_pb2.StudyReceived(), source="ingest", key=key, id=id_)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(tmp_path / "events.db")
    yield log
    log.close()


# Computed with org.apache.kafka.common.utils.Utils.murmur2 (Kafka 4.1.0).
@pytest.mark.parametrize(("key", "partition"), [("", 681), ("a", 524), ("patient-7f3a", 288), ("0f3c", 240)])
def test_partitions_are_those_of_kafka(key: str, partition: int) -> None:
    assert partition_of(key, 1000) == partition


def test_the_same_event_is_published_once_to_a_topic(log: SqliteEventLog) -> None:
    log.publish([_event("1"), _event("1")])
    log.publish([_event("1")])
    log.publish_to("imaging.dlq", [_event("1")])
    assert len(list(log.read([TOPIC]))) == 1
    assert len(list(log.read(["imaging.dlq"]))) == 1


def test_offsets_have_no_gaps(log: SqliteEventLog) -> None:
    for number in range(10):
        log.publish([_event(str(number)), _event("0")])
    assert [record.offset for record in log.read([TOPIC])] == list(range(10))


def test_the_partitions_of_a_topic_stay_as_they_were_made(tmp_path: Path) -> None:
    first = SqliteEventLog(tmp_path / "events.db", partitions=2)
    first.publish([_event("1")])
    second = SqliteEventLog(tmp_path / "events.db", partitions=16)
    second.publish([_event("2")])
    assert len({record.partition for record in second.read([TOPIC])}) == 1
    assert len(second.lag("g", [TOPIC])) == 2
    first.close()
    second.close()


def test_the_lease_of_a_process_that_died_is_free_at_once(log: SqliteEventLog, tmp_path: Path) -> None:
    script = (
        "import sys, os\nfrom services.platform.bus import SqliteEventLog\n"
        f"log = SqliteEventLog({str(log.path)!r}, lease_s=3600)\n"
        f"consumer = log.consumer('imaging', [{TOPIC!r}])\n"
        "assert len(consumer.poll(0)) == 3\nprint('held', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    log.publish([_event("1"), _event("2"), _event("3")])
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert died.stdout == "held\n", died.stderr
    heir = log.consumer("imaging", [TOPIC])
    assert [record.event.id for record in heir.poll(1.0)] == ["1", "2", "3"]
    heir.close()


def test_the_lease_of_a_silent_process_of_another_machine_expires(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "events.db", lease_s=0.3)
    log.publish([_event("1")])
    elsewhere = json.dumps([["another-machine", "pid:[1]"], 1, "1"])
    with log.write() as connection:
        row = ("imaging", "0", elsewhere, json.dumps([TOPIC]), 4102444800.0)
        connection.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?)", row)
        for partition in range(4):
            connection.execute("INSERT INTO leases VALUES (?, ?, ?, ?)", ("imaging", TOPIC, partition, "0"))
    consumer = log.consumer("imaging", [TOPIC])
    assert consumer.poll(0.3) == []
    with log.write() as connection:
        connection.execute("UPDATE members SET expires_at = 0 WHERE member = '0'")
    assert [record.event.id for record in consumer.poll(5.0)] == ["1"]
    consumer.close()
    log.close()


def test_a_commit_for_a_partition_that_was_taken_over_is_ignored(log: SqliteEventLog) -> None:
    log.publish([_event("1"), _event("2")])
    consumer = log.consumer("imaging", [TOPIC])
    records = consumer.poll(1.0)
    with log.write() as connection:
        connection.execute("UPDATE leases SET member = 'another'")
    consumer.commit(records)
    assert sum(log.lag("imaging", [TOPIC]).values()) == 2
    consumer.close()


def test_only_processes_that_are_gone_are_dead() -> None:
    assert not is_dead(this_process())
    machine, _, _ = json.loads(this_process())
    assert is_dead(json.dumps([machine, os.getpid(), "1"]))  # the number was given to another process
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert is_dead(json.dumps([machine, ended.pid, "5"]))  # a zombie that nobody has waited for
    ended.wait()
    assert not is_dead(json.dumps([["another-machine", "pid:[1]"], ended.pid, "5"]))


def test_a_full_log_is_a_passing_fault_and_keeps_what_it_has(log: SqliteEventLog) -> None:
    log.publish([_event("1")])
    log.connection().execute("PRAGMA max_page_count = 1")
    with pytest.raises(RetryableError, match="free space"):
        log.publish([replace(_event(str(number)), data=bytes(10_000)) for number in range(2, 99)])
    log.connection().execute("PRAGMA max_page_count = 1000000")
    log.publish([_event("after")])
    assert [record.event.id for record in log.read([TOPIC])] == ["1", "after"]


def test_a_log_whose_folder_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RetryableError, match="cannot be made"):
        SqliteEventLog(tmp_path / "file" / "events.db")


def test_what_is_published_survives_as_a_plain_sqlite_file(log: SqliteEventLog) -> None:
    log.publish([_event("1")])
    with sqlite3.connect(log.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT event_id FROM records").fetchall() == [("1",)]


def test_the_settings_choose_the_log(tmp_path: Path) -> None:
    log = open_log(Settings(home=tmp_path))
    assert isinstance(log, SqliteEventLog)
    assert log.path == tmp_path / "events.db"
    log.close()
