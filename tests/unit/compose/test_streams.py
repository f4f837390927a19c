"""The stream described as data is the stream that runs, and what a room sets aside comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from osler.common.v1.common_pb2 import Refusal
from osler.events.v1 import events_pb2
from typer.testing import CliRunner

from services.cli import app
from services.compose import asyncapi
from services.compose.rooms import lay_foundations, migrate_all
from services.compose.topology import SUBSCRIPTIONS
from services.platform import deadletter
from services.platform.config import ROOMS, Settings
from services.platform.events import CATALOGUE, pack
from services.platform.topics import broker_settings, catalogue

DOCS = Path(__file__).parents[3] / "docs"
Osler = Callable[..., tuple[int, Any]]


@pytest.fixture
def osler(tmp_path: Path) -> Osler:
    def run(*arguments: str) -> tuple[int, Any]:
        result = CliRunner().invoke(app, ["--home", str(tmp_path), *arguments, "--json"])
        return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("[") else result.stdout

    return run


def bury(home: Path, n: int, room: str, reason: str) -> None:
    foundations = lay_foundations(Settings.load(home=home))
    try:
        migrate_all(foundations.database, ["analytics"])
        at = datetime(2026, 5, 1, tzinfo=UTC)
        message = events_pb2.StudyReceived(patient_key=f"p{n}", study_instance_uid=f"1.2.{n}", revision=1)
        event = pack(message, source="ingest", key=f"p{n}", id=f"event-{n}", time=at)
        foundations.log.publish([event])
        refusal = Refusal(reason=reason, message="no such model", remedy="add it")
        deadletter.bury(foundations.database, foundations.quarantine, room, event, refusal)
    finally:
        foundations.close()


def test_every_event_type_is_declared_once_and_said_by_rooms_that_exist() -> None:
    assert set(catalogue()) == set(CATALOGUE)
    for topic in catalogue().values():
        assert set(topic.producers) <= set(ROOMS)
        assert topic.producers


def test_only_whole_states_may_be_compacted_and_nothing_expires_by_age() -> None:
    compacted = {name for name in CATALOGUE if broker_settings(name)["cleanup.policy"] == "compact"}
    assert compacted == {"osler.patient.updated.v1", "osler.prediction.ready.v1", "osler.recommendation.ready.v1"}
    assert {broker_settings(name)["retention.ms"] for name in [*CATALOGUE, "fusion.dlq"]} == {"-1"}
    assert broker_settings("osler.patient.updated.v1")["min.compaction.lag.ms"] == str(90 * 86_400_000)


def test_the_asyncapi_document_is_current_and_refers_only_to_what_it_holds() -> None:
    written = (DOCS / "asyncapi.yaml").read_text(encoding="utf-8")
    assert written == asyncapi.text("v1"), "run `osler events asyncapi > docs/asyncapi.yaml`"
    document = yaml.safe_load(written)

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [v for k, v in node.items() if k == "$ref"] + [r for v in node.values() for r in references(v)]
        return [r for item in node for r in references(item)] if isinstance(node, list) else []

    found = set(references(document))
    assert len(found) > 50
    for reference in found:
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    receives = {name for name, operation in document["operations"].items() if operation["action"] == "receive"}
    assert len(receives) == sum(len(types) for types in SUBSCRIPTIONS.values())


def test_dead_letters_are_listed_by_room_and_replayed_by_reason(osler: Osler, tmp_path: Path) -> None:
    bury(tmp_path, 1, "imaging", "model.missing")
    bury(tmp_path, 2, "imaging", "disk.full")
    bury(tmp_path, 3, "fusion", "model.missing")
    code, rows = osler("dlq", "list", "--room", "imaging")
    assert code == 0
    assert [(row["event_id"], row["reason"]) for row in rows] == [
        ("event-1", "model.missing"),
        ("event-2", "disk.full"),
    ]
    code, lag = osler("events", "lag")
    assert {row["room"]: (row["behind"], row["dead_letters"]) for row in lag}["imaging"] == (3, 2)
    assert osler("events", "lag", "--limit", "2")[0] == 2
    assert osler("events", "lag", "--limit", "3")[0] == 0
    code, replayed = osler("dlq", "replay", "--reason", "model.missing", "--room", "imaging")
    assert (code, [row["outcome"] for row in replayed]) == (0, ["accepted"])
    assert [row["event_id"] for row in osler("dlq", "list")[1]] == ["event-2", "event-3"]
    assert {row["event_id"]: row["replays"] for row in osler("dlq", "list", "--all")[1]}["event-1"] == 1
    published = [json.loads(line)["id"] for line in osler("events", "tail")[1].splitlines()]
    assert sorted(published) == ["event-1", "event-1", "event-2", "event-3"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "--all"),
        (["replay", "no-such-id"], "osler dlq list"),
        (["list", "--room", "kitchen"], "known: ingest"),
    ],
)
def test_a_wrong_call_says_what_to_do(osler: Osler, arguments: list[str], says: str) -> None:
    code, _ = osler("dlq", *arguments)
    assert code != 0
    result = CliRunner().invoke(app, ["dlq", *arguments])
    assert says in str(result.exception)
