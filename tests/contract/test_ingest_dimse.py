"""The DICOM listener against dcmtk, the reference implementation of other houses, and pynetdicom as a client."""

import shutil
import socket
import subprocess
import threading
import time

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from services.ingest.commitment import Peer
from services.ingest.scp import DicomListener
from services.platform.errors import RetryableError
from tests.fixtures import ingest_rooms
from tests.fixtures.dicom_files import CT_IMAGE, ROOT, ct, encode, instance
from tests.peers import require_or_skip

pytestmark = pytest.mark.dcmtk


@pytest.fixture
def parts(tmp_path):
    parts = ingest_rooms.build(tmp_path)
    yield parts
    parts.database.close()


@pytest.fixture
def listener(parts):
    listener = DicomListener(parts.receiver, ae_title="OSLER", host="127.0.0.1", port=0, peers={})
    listener.start()
    yield listener
    listener.stop()


def dcmtk(tool, listener, *arguments, expect=0):
    if shutil.which(tool) is None:
        require_or_skip("no dcmtk: apt-get install dcmtk")
    command = [tool, "-aec", "OSLER", "127.0.0.1", str(listener.port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert expect is None or done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def test_echoscu(listener):
    dcmtk("echoscu", listener)


def test_storescu_stores_and_findscu_finds(listener, parts, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.dcm").write_bytes(ct(number))
    dcmtk("storescu", listener, str(tmp_path / "1.dcm"), str(tmp_path / "2.dcm"))
    dcmtk("storescu", listener, str(tmp_path / "1.dcm"))
    found = dcmtk(
        "findscu",
        listener,
        "-S",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        "PatientName=doe*",
        "-k",
        "StudyDate=20250101-20250131",
        "-k",
        "StudyInstanceUID",
        "-k",
        "ModalitiesInStudy",
        "-k",
        "NumberOfStudyRelatedInstances",
    )
    assert f"{ROOT}.1" in found
    assert "[Doe^Jane]" in found
    assert "[2 ]" in found
    images = dcmtk(
        "findscu",
        listener,
        "-P",
        "-k",
        "QueryRetrieveLevel=IMAGE",
        "-k",
        "SOPInstanceUID",
        "-k",
        f"SeriesInstanceUID={ROOT}.1.1",
    )
    assert images.count(f"[{ROOT}.1.1.") >= 2
    nothing = dcmtk("findscu", listener, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=MRN-9")
    assert "Find Response: 1" not in nothing
    patients = dcmtk("findscu", listener, "-P", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID")
    assert patients.count("[MRN-1 ]") == 1
    parts.archive.complete_due(force=True)
    assert len(parts.events()) == 1


def test_storescu_keeps_compressed_pixels_as_sent(listener, parts, tmp_path):
    dataset = instance()
    dataset.compress(RLELossless, generate_instance_uid=False)
    (tmp_path / "rle.dcm").write_bytes(encode(dataset))
    dcmtk("storescu", listener, "-xr", str(tmp_path / "rle.dcm"))
    manifest, _ = parts.archive.manifest(f"{ROOT}.1")
    kept = pydicom.dcmread(pydicom.filebase.DicomBytesIO(parts.blobs.get(manifest.series[0].instances[0].content)))
    assert kept.file_meta.TransferSyntaxUID == RLELossless
    assert kept.PixelData == dataset.PixelData


def test_getscu_gets_what_was_stored(listener, parts, tmp_path):
    parts.receiver.receive(ct(1))
    parts.receiver.receive(ct(2))
    out = tmp_path / "out"
    out.mkdir()
    dcmtk(
        "getscu", listener, "-S", "-od", str(out), "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.1"
    )
    assert sorted(pydicom.dcmread(p).InstanceNumber for p in out.iterdir()) == [1, 2]


def test_movescu_moves_to_a_configured_peer_only(parts):
    moved = []

    def take(event):
        moved.append(event.dataset.InstanceNumber)
        return 0x0000

    peer = AE("STATION")
    peer.add_supported_context(CTImageStorage)
    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    listener = DicomListener(
        parts.receiver,
        ae_title="OSLER",
        host="127.0.0.1",
        port=0,
        peers={"STATION": Peer("127.0.0.1", server.server_address[1])},
    )
    listener.start()
    try:
        for number in (1, 2):
            parts.receiver.receive(ct(number))
        keys = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"SeriesInstanceUID={ROOT}.1.1"]
        dcmtk("movescu", listener, "-S", "-aem", "STATION", *keys)
        assert sorted(moved) == [1, 2]
        assert "MoveDestinationUnknown" in dcmtk(
            "movescu", listener, "-v", "-S", "-aem", "STRANGER", *keys, expect=None
        )
    finally:
        listener.stop()
        server.shutdown()


def test_a_full_disk_is_answered_so_that_the_sender_keeps_its_images(listener, parts, monkeypatch):
    def full(*_):
        raise RetryableError("disk full")

    monkeypatch.setattr(parts.blobs, "put", full)
    assert store(listener, instance()) == 0xA700
    monkeypatch.undo()
    assert store(listener, instance()) == 0x0000


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"PatientID": None}, 0xA900, "dicom.missing_patient_id"),
        ({"sop_class": "1.2.3.4.5"}, 0x0122, "dicom.unknown_sop_class"),
        ({"StudyDescription": "other"}, 0x0111, "dicom.conflicting_instance"),
    ],
)
def test_refused_images_are_answered_and_kept(listener, parts, changes, status, reason):
    if status == 0x0111:
        store(listener, instance())
    assert store(listener, instance(**changes)) == status
    assert parts.reasons() == [reason]


def store(listener, dataset):
    client = AE("SCANNER")
    client.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    link = client.associate("127.0.0.1", listener.port, ae_title="OSLER")
    assert link.is_established
    try:
        return link.send_c_store(dataset).Status
    finally:
        link.release()


def request_commitment(listener, pairs, title="SCANNER", handlers=()):
    client = AE(title)
    client.add_requested_context(StorageCommitmentPushModel)
    link = client.associate(
        "127.0.0.1",
        listener.port,
        ae_title="OSLER",
        evt_handlers=list(handlers),
        ext_neg=[build_role(StorageCommitmentPushModel, scu_role=True)],
    )
    information = Dataset()
    information.TransactionUID = f"{ROOT}.77"
    information.ReferencedSOPSequence = []
    for sop_class, uid in pairs:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        information.ReferencedSOPSequence.append(item)
    status, _ = link.send_n_action(information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    assert status.Status == 0x0000
    return link


class Reports:
    def __init__(self):
        self.arrived = threading.Event()

    def __call__(self, event):
        self.type, self.information = event.event_type, event.event_information
        self.arrived.set()
        return 0x0000, None


def test_storage_commitment_is_reported_on_the_same_association(listener, parts):
    parts.receiver.receive(ct(1))
    reports = Reports()
    pairs = [(CTImageStorage, f"{ROOT}.1.1.1"), (CTImageStorage, "1.2.3")]
    link = request_commitment(listener, pairs, handlers=[(evt.EVT_N_EVENT_REPORT, reports)])
    assert reports.arrived.wait(15)
    link.release()
    assert reports.type == 2
    assert reports.information.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{ROOT}.1.1.1"
    assert reports.information.FailedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    assert len(parts.events()) == 1


def test_storage_commitment_is_reported_to_a_configured_peer(parts):
    reports = Reports()
    peer = AE("MODALITY")
    peer.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports)])
    listener = DicomListener(
        parts.receiver,
        ae_title="OSLER",
        host="127.0.0.1",
        port=0,
        peers={"MODALITY": Peer("127.0.0.1", server.server_address[1])},
    )
    listener.start()
    try:
        parts.receiver.receive(ct(1))
        request_commitment(listener, [(CT_IMAGE, f"{ROOT}.1.1.1")], title="MODALITY").release()
        assert reports.arrived.wait(15)
        assert reports.type == 1
    finally:
        listener.stop()
        server.shutdown()


def test_only_named_callers_are_let_in(parts):
    listener = DicomListener(
        parts.receiver, ae_title="OSLER", host="127.0.0.1", port=0, peers={}, allowed_calling_aes=("SCANNER",)
    )
    listener.start()
    try:
        dcmtk("echoscu", listener, "-aet", "SCANNER")
        dcmtk("echoscu", listener, "-aet", "STRANGER", expect=1)
    finally:
        listener.stop()


def test_a_sender_that_dies_halfway_leaves_nothing_half_stored(listener, parts):
    with socket.create_connection(("127.0.0.1", listener.port)) as link:
        link.sendall(b"\x01\x00\x00\x00\x00\xcd")
    time.sleep(0.2)
    assert parts.quarantine.list() == []
    dcmtk("echoscu", listener)
