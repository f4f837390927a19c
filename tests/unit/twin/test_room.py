"""The twin's room on a real database and real blobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from osler.events.v1 import events_pb2
from osler.twin.v1 import twin_pb2

from services.platform.blobs import BlobStore
from services.platform.config import Settings
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from services.platform.events import pack
from services.platform.rpc import NotFoundError
from services.twin import store
from services.twin.room import build
from services.twin.service import TwinService

TOPIC = "osler.patient.updated.v1"


@pytest.fixture
def context(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate(database, "platform")
    migrate(database, "twin")
    settings = Settings.load(None, home=tmp_path)
    yield SimpleNamespace(settings=settings, database=database, blobs=BlobStore(f"file://{tmp_path}/blobs"))
    database.close()


@pytest.fixture
def announce(context):
    """Runs the handler on a snapshot as the worker would; returns the announced events."""
    handler = build(context).handlers[TOPIC]

    def run(snapshot, *, cause="cause-1", merged=(), patient_key=None):
        blob = context.blobs.put(snapshot.SerializeToString(), "application/protobuf", "snapshot.binpb")
        message = events_pb2.PatientUpdated(
            patient_key=patient_key or snapshot.patient_key,
            revision=snapshot.revision,
            snapshot=blob,
            merged_patient_keys=merged,
        )
        effect = handler(pack(message, source="fusion", key=message.patient_key, id=cause), message)
        emitted = []
        with context.database.transaction("twin") as tx:
            effect(SimpleNamespace(session=tx.session, emit=emitted.append))
        return emitted

    return run


def test_the_tables_of_the_migration_are_those_of_the_store(context):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with context.database.engine.connect() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name.startswith("twin_")}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), store.metadata) == []


def test_a_snapshot_becomes_predictions_announced_with_the_same_snapshot(context, announce, snapshot, lesion):
    (event,) = announce(snapshot([lesion("1", 0, "a", 40), lesion("2", 60, "a", 24)]))
    ready = events_pb2.PredictionReady.FromString(event.data)
    assert (event.type, event.key) == ("osler.prediction.ready.v1", "key-1")
    assert ready.snapshot.sha256
    answer = TwinService(context.database).GetPredictions(twin_pb2.GetPredictionsRequest(patient_key="key-1"), None)
    assert answer.predictions == ready.predictions


def test_handling_the_same_event_twice_announces_the_same_id(announce, snapshot):
    assert announce(snapshot())[0].id == announce(snapshot())[0].id


def test_a_late_older_snapshot_does_not_replace_newer_predictions(context, announce, snapshot):
    announce(snapshot())
    older = snapshot(systolic_bp_mmhg=120.0)
    older.revision = 2
    announce(older, cause="cause-0")
    with context.database.session() as session:
        assert store.get(session, "key-1")[0].snapshot_revision == 3


def test_predictions_of_a_merged_key_go(context, announce, snapshot):
    announce(snapshot())
    survivor = snapshot()
    survivor.patient_key = "key-2"
    announce(survivor, cause="cause-2", merged=["key-1"])
    with context.database.session() as session:
        assert store.get(session, "key-1") is None
        assert store.get(session, "key-2") is not None


def test_a_snapshot_of_another_patient_is_refused(announce, snapshot):
    with pytest.raises(RefusedError) as refusal:
        announce(snapshot(), patient_key="key-9")
    assert refusal.value.reason == "snapshot.wrong_patient"


def test_an_unknown_patient_is_not_found(context):
    with pytest.raises(NotFoundError):
        TwinService(context.database).GetPredictions(twin_pb2.GetPredictionsRequest(patient_key="nobody"), None)


def _simulate(context, effect, change_at):
    request = twin_pb2.SimulateRequest(patient_key="key-1", treatment_effect=effect, horizon_days=120)
    request.change_at.FromDatetime(change_at)
    return TwinService(context.database).Simulate(request, None).forecast


def test_stopping_treatment_is_projected_worse_than_going_on(context, announce, snapshot, lesion):
    announce(snapshot([lesion("1", 0, "a", 40), lesion("2", 60, "a", 30), lesion("3", 120, "a", 24)]))
    change = datetime(2024, 7, 15, tzinfo=UTC)
    stopped, going_on, doubled = (_simulate(context, effect, change) for effect in (0, 1, 2))
    assert stopped.curve[-1].median > going_on.curve[-1].median > doubled.curve[-1].median
    assert stopped.horizon.ToDatetime(UTC) == change + timedelta(days=120)
    assert stopped.provenance.parameters["effect"] == "0.0"


def test_what_if_needs_a_course_and_a_change_after_it(context, announce, snapshot, lesion):
    announce(snapshot([lesion("1", 0, "a", 40)]))
    with pytest.raises(RefusedError, match="two visits"):
        _simulate(context, 1, datetime(2024, 7, 15, tzinfo=UTC))
    announce(snapshot([lesion("1", 0, "a", 40), lesion("2", 60, "a", 30)]), cause="cause-2")
    with pytest.raises(RefusedError) as refusal:
        _simulate(context, 1, datetime(2024, 3, 20, tzinfo=UTC))
    assert refusal.value.reason == "growth.change_before_last_measurement"
