"""Instances filed together end as if each had been filed alone."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from services.ingest import store
from services.ingest.dicom_filing import Filer
from services.platform.errors import RefusedError, RetryableError
from tests.fixtures import ingest_rooms
from tests.fixtures.dicom_files import ROOT, ct


@pytest.fixture
def parts(tmp_path):
    parts = ingest_rooms.build(tmp_path)
    yield parts
    parts.database.close()


def new(parts, content: bytes) -> store.NewInstance:
    header = parts.receiver.header(content)
    return store.NewInstance(header, parts.archive.patient_key(header), store.Content("file:///x", "0" * 64, 1))


def test_a_batch_refuses_what_contradicts_and_stores_the_rest(parts):
    contents = [
        ct(1, NumberOfStudyRelatedInstances=2),
        ct(1, NumberOfStudyRelatedInstances=2),
        ct(2, PatientID="OTHER"),
        ct(3, study=f"{ROOT}.2"),
        ct(4, NumberOfStudyRelatedInstances=2),
        ct(1, study=f"{ROOT}.3", series=f"{ROOT}.3.1"),
    ]
    news = [new(parts, content) for content in contents]
    with parts.database.transaction("ingest") as tx:
        found = store.add_instances(tx.session, news, parts.clock(), derived=False)
    assert [one.stored for one in found] == [True, False, False, False, True, True]
    assert [one.refusal.reason if one.refusal else "" for one in found] == [
        "", "", "dicom.contradictory_patient", "dicom.contradictory_series", "", "",
    ]  # fmt: skip
    assert [one.full for one in found] == [True, False, False, False, True, False]
    with parts.database.session() as session:
        assert sorted(store.list_studies(session, "", 9, 0)) == [f"{ROOT}.1", f"{ROOT}.3"]
        assert store.study_state(session, f"{ROOT}.1").instances == 2


def test_many_senders_at_once_each_hear_of_their_own(parts):
    filer = Filer(parts.database, "ingest")
    news = [new(parts, ct(n % 12, PatientID="OTHER" if n % 12 == 7 else "MRN-1")) for n in range(36)]
    filer.file(new(parts, ct(50)), parts.clock())
    ends: list[str] = []

    def send(one: store.NewInstance) -> None:
        try:
            ends.append("stored" if filer.file(one, parts.clock()).stored else "known")
        except RefusedError as refusal:
            ends.append(refusal.reason)

    threads = [threading.Thread(target=send, args=(one,)) for one in news]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {end: ends.count(end) for end in set(ends)} == {
        "stored": 11, "known": 22, "dicom.contradictory_patient": 3,
    }  # fmt: skip


def test_one_that_meets_a_fault_does_not_take_the_others_with_it(parts, monkeypatch):
    filer = Filer(parts.database, "ingest")
    good, bad = new(parts, ct(1)), new(parts, ct(2))
    real = store.add_instances

    def failing(session, news, now, *, derived):
        if bad in news:
            raise ZeroDivisionError
        return real(session, news, now, derived=derived)

    monkeypatch.setattr(store, "add_instances", failing)
    with filer._filing:
        ends = {}
        threads = [
            threading.Thread(target=lambda name, one: ends.update({name: _end(filer, one, parts)}), args=pair)
            for pair in (("good", good), ("bad", bad))
        ]
        for thread in threads:
            thread.start()
        while len(filer._waiting) < 2:
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join()
    assert ends == {"good": "stored", "bad": "ZeroDivisionError"}


def _end(filer: Filer, one: store.NewInstance, parts) -> str:
    try:
        filer.file(one, parts.clock())
    except Exception as error:
        return type(error).__name__
    return "stored"


def test_races_that_never_end_are_told_to_the_sender(parts, monkeypatch):
    def losing(*_args, **_options):
        raise store.LostRaceError

    monkeypatch.setattr(store, "add_instances", losing)
    with pytest.raises(RetryableError):
        Filer(parts.database, "ingest").file(new(parts, ct(1)), parts.clock())


def test_a_study_of_a_clock_that_went_ahead_waits_one_quiet_period_and_no_longer(parts):
    parts.clock.pass_s(86400)
    parts.receiver.receive(ct(1))
    parts.clock.pass_s(-86400)
    assert not parts.archive.complete_due()
    parts.clock.pass_s(parts.archive.quiet_period / timedelta(seconds=1))
    assert parts.archive.complete_due()
    assert len(parts.events()) == 1
