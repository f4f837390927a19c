"""The consumers that the documentation shows: they run as they are printed, but for the address and the folder."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from osler.events.v1 import events_pb2

from services.analytics import lake
from services.analytics.store import LakeRow
from services.platform.bus import KafkaEventLog
from services.platform.events import pack

TOPIC = "osler.findings.ready.v1"
AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def example(root: Path, language: str) -> str:
    (found,) = re.findall(
        rf"```{language}\n(.*?)```", (root / "docs/analytics.md").read_text(encoding="utf-8"), re.DOTALL
    )
    return str(found)


@pytest.mark.kafka
def test_the_consumer_in_python(kafka_broker, repository_root):
    log = KafkaEventLog(kafka_broker.bootstrap, partitions=2)
    message = events_pb2.FindingsReady()
    message.findings.study_instance_uid = "1.2.3"
    log.publish([pack(message, source="imaging", key="k", id=f"example-{n}", time=AT) for n in (1, 2, 2)])
    log.close()
    source = example(repository_root, "python").replace("kafka:9092", kafka_broker.bootstrap)
    consumer = subprocess.Popen(
        [sys.executable, "-u", "-c", source], stdout=subprocess.PIPE, text=True, cwd=repository_root / "protos/gen"
    )
    try:
        lines = [consumer.stdout.readline().split() for _ in range(2)]
    finally:
        consumer.kill()
        consumer.wait()
        consumer.stdout.close()
    assert [line[1:] for line in lines] == [["1.2.3", "0"]] * 2


def test_the_consumer_in_sql(tmp_path, repository_root):
    row = LakeRow("e1", TOPIC, "/osler/imaging", "k", AT, AT, AT, "", "{}", "{}")
    lake.write_batch(tmp_path / "lake", "b1", [row, row._replace(event_id="e2")])
    sql = example(repository_root, "sql").replace("'lake/", f"'{tmp_path}/lake/")
    with duckdb.connect() as connection:
        assert connection.execute(sql).fetchall() == [(AT.date(), 2)]
