"""After a merge that was wrong is taken back, no room shows the images of two patients as one's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from osler.registration.v1 import registration_pb2
from sqlalchemy import select

from services.board import access_store
from services.board import store as board
from services.board.tables import RESTRICTION
from services.board.worker import HANDLERS
from services.imaging import store as imaging
from services.imaging import worker as imaging_worker
from services.platform.database import Database, migrate
from services.platform.events import pack
from services.registration import store as registration
from services.registration import worker as registration_worker

NOW = datetime(2025, 1, 1, tzinfo=UTC)
STUDIES = {"1.1": "a", "1.2": "a", "2.1": "b", "2.2": "b"}
PAIRS = {"of-a": ("1.1", "1.2"), "of-b": ("2.1", "2.2"), "of-both": ("1.1", "2.1")}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    made = Database(f"sqlite:///{tmp_path_factory.mktemp('unmerge')}/state.db")
    for room in ("platform", "board", "imaging", "registration"):
        migrate(made, room)
    yield made
    made.close()


def tell(database, message):
    """All three rooms hear what happened."""
    rooms = {
        "board": HANDLERS,
        "imaging": imaging_worker.handlers(analyst=None),
        "registration": registration_worker.handlers(registrar=None),
    }
    event = pack(message, source="ingest", key="a", id=f"{type(message).__name__}")
    for room, handlers in rooms.items():
        with database.transaction(room) as tx:
            handlers[event.type](event, message)(tx)


def receive(database):
    manifest = common_pb2.BlobRef(uri="file:///m", sha256="0" * 64)
    for uid, key in STUDIES.items():
        findings = imaging_pb2.StudyFindings(study_instance_uid=uid, patient_key=key, study_revision=1)
        with database.transaction("imaging") as tx:
            imaging.put(tx.session, findings, "0" * 64, NOW)
        with database.transaction("registration") as tx:
            registration.put_study(tx.session, uid, key, 1, manifest, NOW)
        with database.transaction("board") as tx:
            board.save_study(tx.session, board.Study(uid, key, manifest, NOW), 1)
            board.save_analysis(tx.session, findings)


def register(database):
    """While the two are one patient, the images of both are registered to each other."""
    for name, (fixed, moving) in PAIRS.items():
        made = registration_pb2.Registration(registration_id=name, patient_key="a")
        made.pair.fixed.study_instance_uid, made.pair.moving.study_instance_uid = fixed, moving
        with database.transaction("registration") as tx:
            registration.put(tx.session, made, NOW)
        with database.transaction("board") as tx:
            board.save_registration(tx.session, made)


def seen(database, key):
    """room -> what it shows of a patient."""
    with database.session() as session:
        return {
            "imaging": {study.study_instance_uid for study in imaging.of_patient(session, key)},
            "registration": set(registration.studies(session, key)),
            "registrations": {row.registration_id for row in registration.of_patient(session, key)},
            "board": {study.study_instance_uid for study in board.studies(session, key)},
            "board registrations": {row.registration_id for row in board.registrations(session, key)},
        }


def test_a_merge_taken_back_leaves_no_room_with_two_patients(database):
    receive(database)
    keys = {"surviving_patient_key": "a", "merged_patient_key": "b"}
    tell(database, events_pb2.PatientMerged(**keys))
    register(database)
    with database.transaction("board") as tx:
        access_store.restrict(tx.session, "a", "chief", NOW)
    together = seen(database, "a")
    assert together["imaging"] == together["registration"] == together["board"] == set(STUDIES)
    assert together["registrations"] == together["board registrations"] == set(PAIRS)
    tell(database, events_pb2.PatientUnmerged(**keys))
    for key in "ab":
        own = {uid for uid, owner in STUDIES.items() if owner == key}
        apart = seen(database, key)
        assert apart["imaging"] == apart["registration"] == apart["board"] == own
        assert apart["registrations"] == apart["board registrations"] == {f"of-{key}"}
    with database.session() as session:
        assert set(session.scalars(select(RESTRICTION.c.patient_key))) == {"a", "b"}
