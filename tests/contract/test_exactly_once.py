"""Killed at any point and started again, a chain of rooms has each effect exactly once and in order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.platform.bus import EventLog
from services.platform.database import Database
from tests.contract.events import STUDY, study_event
from tests.contract.pipeline import SEEN, create_tables, process_everything
from tests.contract.processes import forkserver, stacks_of
from tests.fixtures.kafka.broker import KafkaBroker

# Ten times what it takes on a busy machine.
_LONGEST_LIFE_S = 240.0


@pytest.fixture
def place(setting: str, setting_log: EventLog, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if setting == "embedded":
        return str(tmp_path / "events.db")
    broker: KafkaBroker = request.getfixturevalue("kafka_broker")
    return f"kafka:{broker.bootstrap}"


def _announce(database: Database, count: int) -> list[tuple[str, str]]:
    create_tables(database)
    announced = [(f"key{number % 3}", f"study-{number}") for number in range(count)]
    with database.transaction("ingest") as transaction:
        for key, id_ in announced:
            transaction.emit(study_event(id_, key))
    return announced


def _run(place: str, url: str, folder: Path, points: int = 0, kill_after_s: float | None = None) -> bool:
    """Runs the chain in a process of its own; False when it was killed."""
    process = forkserver.Process(target=process_everything, args=(place, url, str(folder), points))
    process.start()
    process.join(kill_after_s or _LONGEST_LIFE_S)
    if process.exitcode is None:
        # Left alive, it would hold the partitions of the tests that follow.
        stacks = stacks_of(process, folder) if kill_after_s is None else ""
        process.kill()
        process.join()
        assert kill_after_s, f"the chain did not come to its end within {_LONGEST_LIFE_S:.0f} s:\n{stacks}"
    assert process.exitcode in (0, -9), f"the process failed by itself: {process.exitcode}"
    return process.exitcode == 0


def _check(database: Database, announced: list[tuple[str, str]]) -> None:
    with database.session() as session:
        rows = session.execute(sa.select(SEEN.c.room, SEEN.c.event_key, SEEN.c.event_id).order_by(SEEN.c.id)).all()
    for key in {key for key, _ in announced}:
        expected = [id_ for own, id_ in announced if own == key]
        assert [row.event_id for row in rows if (row.room, row.event_key) == ("imaging", key)] == expected
    assert sum(row.room == "fusion" for row in rows) == len(announced)
    assert len({row.event_id for row in rows if row.room == "fusion"}) == len(announced)


def test_dying_at_each_point_in_turn(
    setting: str, place: str, setting_database: Database, setting_url: str, tmp_path: Path
) -> None:
    """One long life in pieces: each process gets one point further than the last died, until one comes through."""
    announced = _announce(setting_database, 4)
    deaths = 0
    # Every point on SQLite; on servers, where each start costs a second, every fourth.
    stride = 1 if setting == "embedded" else 4
    while not _run(place, setting_url, tmp_path, points=1 + deaths * stride):
        deaths += 1
    assert deaths >= (6 if setting == "embedded" else 2)
    _check(setting_database, announced)


def test_killed_at_random_moments(place: str, setting_database: Database, setting_url: str, tmp_path: Path) -> None:
    announced = _announce(setting_database, 40)
    moments = random.Random(20260301)
    kills = 0
    while kills < 6 and not _run(place, setting_url, tmp_path, kill_after_s=moments.uniform(0.05, 1.0)):
        kills += 1
    while not _run(place, setting_url, tmp_path):
        pass
    assert kills
    _check(setting_database, announced)


def test_replaying_a_topic_changes_nothing(
    place: str, setting_log: EventLog, setting_database: Database, setting_url: str, tmp_path: Path
) -> None:
    announced = _announce(setting_database, 10)
    assert _run(place, setting_url, tmp_path)
    setting_log.reset("imaging", [STUDY])
    assert sum(setting_log.lag("imaging", [STUDY]).values()) >= 10
    assert _run(place, setting_url, tmp_path)
    assert sum(setting_log.lag("imaging", [STUDY]).values()) <= 4  # Kafka counts the marker of each partition
    _check(setting_database, announced)


def test_two_processes_share_the_work(place: str, setting_database: Database, setting_url: str, tmp_path: Path) -> None:
    announced = _announce(setting_database, 30)
    processes = [
        forkserver.Process(target=process_everything, args=(place, setting_url, str(tmp_path))) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_LONGEST_LIFE_S)
    stuck = "".join(stacks_of(process, tmp_path) for process in processes if process.exitcode is None)
    for process in processes:
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0, 0], stuck
    assert _run(place, setting_url, tmp_path)
    _check(setting_database, announced)
