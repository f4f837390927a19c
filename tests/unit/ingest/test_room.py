"""The room as a host sees it: built from settings, its doors opened, its handlers driven, its contract served."""

import time

import grpc
import pydicom
import pytest
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from pynetdicom import AE

from services.ingest import room as ingest_room
from services.ingest.mllp import MllpListener
from services.ingest.scp import DicomListener
from services.platform import rpc
from services.platform.config import Settings
from services.platform.errors import RefusedError
from services.platform.events import event_id, pack
from services.platform.room import RoomContext
from services.platform.security import Security
from tests.fixtures.dicom_files import CT_IMAGE, ROOT, ct, instance
from tests.unit.ingest.test_records import ORU

FINDINGS = "osler.findings.ready.v1"


@pytest.fixture
def context(parts, tmp_path):
    settings = Settings(
        home=tmp_path / "home",
        dicom={"port": 0, "quiet_period_s": 0.3},
        hl7={"port": 0},
        identity={"secret": "a test key of thirty-two letters"},
    )
    return RoomContext(settings, parts.database, parts.blobs, parts.quarantine, Security.from_settings(settings))


def test_listeners_open_and_a_study_is_announced_after_its_quiet_period(context, parts):
    room = ingest_room.build(context)
    for part in room.background:
        part.start()
    try:
        listener = next(part for part in room.background if isinstance(part, DicomListener))
        assert next(part for part in room.background if isinstance(part, MllpListener)).port
        client = AE("SCANNER")
        client.add_requested_context(CT_IMAGE)
        link = client.associate("127.0.0.1", listener.port, ae_title="OSLER")
        assert link.send_c_store(instance()).Status == 0
        link.release()
        deadline = time.monotonic() + 20
        while not parts.events() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for part in room.background:
            part.stop()
    [(_, message)] = parts.events()
    assert message.completion_reason == ingest_pb2.COMPLETION_REASON_QUIET_PERIOD


def test_idle_by_force_completes_what_is_open(context, parts):
    room = ingest_room.build(context)
    ingest_room.build_importer(context).receiver.receive(ct())
    assert room.idle(True)
    assert not room.idle(True)
    assert parts.events()[0][1].completion_reason == ingest_pb2.COMPLETION_REASON_DECLARED


def derived(parts, number=1, study=f"{ROOT}.1", **changes):
    content = ct(number, series=f"{ROOT}.1.7", study=study, Modality="SEG", **changes)
    ref = parts.blobs.put(content, "application/dicom", "findings/seg.dcm")
    return imaging_pb2.DerivedObject(
        sop_instance_uid=f"{ROOT}.1.7.{number}",
        sop_class_uid=CT_IMAGE,
        study_instance_uid=study,
        series_instance_uid=f"{ROOT}.1.7",
        modality="SEG",
        content=ref,
    )


def findings(parts, *made):
    from services.clinical.identity import patient_key
    from tests.fixtures.ingest_rooms import KEY

    key = patient_key(KEY, "local", "MRN-1")
    result = imaging_pb2.StudyFindings(study_instance_uid=f"{ROOT}.1", patient_key=key, derived_objects=made)
    message = events_pb2.FindingsReady(findings=result)
    return pack(message, source="imaging", key=key, id=event_id("imaging", "x")), message


def handle(room, parts, event, message):
    effect = room.handlers[event.type](event, message)
    with parts.database.transaction("ingest") as tx:
        effect(tx)


def test_derived_objects_are_filed_once_and_not_announced(context, parts):
    room = ingest_room.build(context)
    parts.receiver.receive(ct())
    room.idle(True)
    event, message = findings(parts, derived(parts))
    for _ in range(2):
        handle(room, parts, event, message)
    assert not room.idle(True)
    assert len(parts.events("osler.study")) == 1
    manifest, complete = parts.archive.manifest(f"{ROOT}.1")
    assert complete
    assert [(s.modality, s.derived, len(s.instances)) for s in manifest.series] == [("CT", False, 1), ("SEG", True, 1)]


def test_late_images_bring_the_derived_objects_along_marked(context, parts):
    room = ingest_room.build(context)
    handle(room, parts, *findings(parts, derived(parts)))
    parts.receiver.receive(ct(2))
    assert room.idle(True)
    [(_, message)] = parts.events()
    assert list(message.modalities) == ["CT"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": "MRN-2"}, "dicom.derived_mismatch"),
        ({"number": 1, "StudyDescription": "x"}, "dicom.conflicting_instance"),
    ],
)
def test_a_derived_object_that_cannot_be_right_is_refused(context, parts, changes, reason):
    room = ingest_room.build(context)
    handle(room, parts, *findings(parts, derived(parts)))
    event, message = findings(parts, derived(parts, **{"number": 2, **changes}))
    with pytest.raises(RefusedError) as refused:
        room.handlers[FINDINGS](event, message)
    assert refused.value.reason == reason


def test_a_registration_that_was_refused_files_nothing(context, parts):
    room = ingest_room.build(context)
    message = events_pb2.RegistrationReady()
    message.registration.registration_id = "r"
    event = pack(message, source="registration", key="k", id=event_id("registration", "r"))
    handle(room, parts, event, message)
    assert parts.archive.manifest(f"{ROOT}.1") is None


async def test_the_contract(context, parts):
    room = ingest_room.build(context)
    server = await rpc.serve(room.grpc, settings=context.settings, security=context.security, address="127.0.0.1:0")
    token = context.security.issue("someone", ["clinician"])
    try:
        async with rpc.channel(server.address, context.settings, lambda: token) as channel:
            stub = ingest_pb2_grpc.IngestServiceStub(channel)
            request = ingest_pb2.ImportRecordRequest(format=ingest_pb2.RECORD_FORMAT_HL7V2, content=ORU)
            assert len((await stub.ImportRecord(request)).event_ids) == 1
            assert (await stub.ImportRecord(request)).event_ids == []
            request.content = b"nonsense"
            assert (await stub.ImportRecord(request)).refusals[0].reason == "hl7v2.broken_msh"
            parts.receiver.receive(ct(1))
            parts.receiver.receive(ct(2, study=f"{ROOT}.2", series=f"{ROOT}.2.1"))
            found = await stub.GetStudy(ingest_pb2.GetStudyRequest(study_instance_uid=f"{ROOT}.1"))
            assert (found.complete, found.study.revision) == (False, 1)
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await stub.GetStudy(ingest_pb2.GetStudyRequest(study_instance_uid="1.2"))
            assert missing.value.code() == grpc.StatusCode.NOT_FOUND
            uids, page = [], ingest_pb2.ListStudiesRequest(page_size=1)
            while True:
                answer = await stub.ListStudies(page)
                uids += [study.study_instance_uid for study in answer.studies]
                if not answer.next_page_token:
                    break
                page.page_token = answer.next_page_token
            assert sorted(uids) == [f"{ROOT}.1", f"{ROOT}.2"]
            [item] = (await stub.ListQuarantine(ingest_pb2.ListQuarantineRequest())).items
            assert item.door == "hl7v2"
            replay = ingest_pb2.ReplayQuarantineRequest(item_id=item.item_id)
            assert (await stub.ReplayQuarantine(replay)).refusal.reason == "hl7v2.broken_msh"
            replay.item_id = "unknown"
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await stub.ReplayQuarantine(replay)
            assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    finally:
        await server.stop(0)


def test_what_was_stored_can_be_read_from_its_manifest(context, parts):
    ingest_room.build_importer(context).receiver.receive(ct())
    manifest, _ = parts.archive.manifest(f"{ROOT}.1")
    ref: common_pb2.BlobRef = manifest.series[0].instances[0].content
    with parts.blobs.local_path(ref) as path:
        assert pydicom.dcmread(path).PatientID == "MRN-1"
