"""The archive: filed once, announced when complete, announced again when late instances reopen a study."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from osler.ingest.v1 import ingest_pb2
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from services.ingest import store
from services.ingest.archive import instance_ref
from services.platform.errors import RetryableError
from services.platform.events import event_id
from tests.fixtures.dicom_files import ROOT, ct, encode, instance

STUDY = f"{ROOT}.1"


def manifest_of(parts, message):
    manifest = ingest_pb2.StudyManifest()
    manifest.ParseFromString(parts.blobs.get(message.manifest))
    return manifest


def test_an_instance_is_stored_once(parts):
    assert [parts.receiver.receive(ct()).status for _ in range(2)] == ["stored", "duplicate"]
    assert parts.quarantine.list() == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_the_same_instance_in_another_transfer_syntax_is_the_same(parts, syntax):
    dataset = instance()
    parts.receiver.receive(encode(dataset))
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            swapped = bytearray(dataset.PixelData)
            swapped[0::2], swapped[1::2] = dataset.PixelData[1::2], dataset.PixelData[0::2]
            dataset.PixelData = bytes(swapped)
    assert parts.receiver.receive(encode(dataset)).status == "duplicate"


@pytest.mark.parametrize("change", [{"StudyDescription": "MR"}, {"PixelData": b"\1" * 128}])
def test_the_same_uid_with_other_content_is_quarantined_and_changes_nothing(parts, change):
    parts.receiver.receive(ct())
    outcome = parts.receiver.receive(ct(**change))
    assert (outcome.status, outcome.refusal.reason) == ("quarantined", "dicom.conflicting_instance")
    with parts.database.session() as session:
        kept = store.find_instance(session, f"{ROOT}.1.1.1")
    assert parts.blobs.get(instance_ref(kept)) == ct()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"number": 2, "PatientID": "MRN-2"}, "dicom.contradictory_patient"),
        ({"number": 2, "study": f"{ROOT}.2"}, "dicom.contradictory_series"),
    ],
)
def test_contradictions_are_refused(parts, other, reason):
    parts.receiver.receive(ct())
    assert parts.receiver.receive(ct(**other)).refusal.reason == reason


def test_a_study_is_announced_once_after_its_quiet_period(parts):
    for number in (1, 2):
        parts.receiver.receive(ct(number))
    assert not parts.archive.complete_due()
    parts.clock.pass_s(19)
    assert not parts.archive.complete_due()
    parts.clock.pass_s(1)
    assert parts.archive.complete_due()
    assert not parts.archive.complete_due()
    [(id_, message)] = parts.events("osler.study.received")
    assert id_ == event_id("ingest", "study", STUDY, "1")
    assert message.completion_reason == ingest_pb2.COMPLETION_REASON_QUIET_PERIOD
    assert list(message.modalities) == ["CT"]
    manifest = manifest_of(parts, message)
    assert [i.sop_instance_uid[-2:] for i in manifest.series[0].instances] == [".1", ".2"]
    assert parts.blobs.get(manifest.series[0].instances[0].content) == ct()
    assert message.study_time.ToDatetime().isoformat() == "2025-01-02T10:15:00"


def test_nothing_that_names_the_patient_is_announced(parts):
    parts.receiver.receive(ct())
    parts.archive.complete_due(force=True)
    [(_, message)] = parts.events()
    text = message.SerializeToString() + manifest_of(parts, message).SerializeToString()
    for secret in (b"Doe", b"Jane", b"MRN-1", b"1960", b"A-1"):
        assert secret not in text


def test_late_instances_reopen_the_study(parts):
    parts.receiver.receive(ct(1))
    parts.archive.complete_due(force=True)
    parts.receiver.receive(ct(1))
    assert not parts.archive.complete_due(force=True)
    parts.receiver.receive(ct(2))
    parts.archive.complete_due(force=True)
    revisions = [message.revision for _, message in parts.events()]
    assert revisions == [1, 2]
    assert len(manifest_of(parts, parts.events()[1][1]).series[0].instances) == 2


def test_the_expected_count_completes_at_once(parts):
    parts.receiver.receive(ct(1, NumberOfStudyRelatedInstances=2))
    assert parts.events() == []
    parts.receiver.receive(ct(2, NumberOfStudyRelatedInstances=2))
    [(_, message)] = parts.events()
    assert message.completion_reason == ingest_pb2.COMPLETION_REASON_EXPECTED_COUNT


def test_storage_commitment_completes_what_is_held_in_full(parts):
    for number in (1, 2):
        parts.receiver.receive(ct(number))
    uid = "1.2.840.10008.5.1.4.1.1.2"
    held, missing = parts.archive.commit([(uid, f"{ROOT}.1.1.1"), (uid, "1.2.3"), ("1.2", f"{ROOT}.1.1.2")])
    assert (held, missing) == ([f"{ROOT}.1.1.1"], ["1.2.3", f"{ROOT}.1.1.2"])
    assert parts.events() == []
    parts.archive.commit([(uid, f"{ROOT}.1.1.2")])
    [(_, message)] = parts.events()
    assert message.completion_reason == ingest_pb2.COMPLETION_REASON_STORAGE_COMMITMENT


def test_an_instance_that_comes_while_the_study_is_completed_is_not_left_out(parts, monkeypatch):
    parts.receiver.receive(ct(1))
    put = parts.blobs.put

    def late(*args):
        monkeypatch.undo()
        parts.receiver.receive(ct(2))
        return put(*args)

    monkeypatch.setattr(parts.blobs, "put", late)
    assert not parts.archive.complete(STUDY, declared=True)
    assert parts.archive.complete(STUDY, declared=True)
    [(_, message)] = parts.events()
    assert len(manifest_of(parts, message).series[0].instances) == 2


def test_many_senders_at_once_store_each_instance_once(parts):
    files = [ct(number) for number in range(1, 9)] * 3
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda f: parts.receiver.receive(f).status, files))
    assert sorted(statuses) == ["duplicate"] * 16 + ["stored"] * 8
    parts.archive.complete_due(force=True)
    assert len(manifest_of(parts, parts.events()[0][1]).series[0].instances) == 8


def test_when_storage_fails_the_sender_must_keep_it(parts, monkeypatch):
    def full(*_):
        raise RetryableError("disk full")

    monkeypatch.setattr(parts.blobs, "put", full)
    with pytest.raises(RetryableError):
        parts.receiver.receive(ct())
    monkeypatch.undo()
    assert parts.receiver.receive(ct()).status == "stored"
