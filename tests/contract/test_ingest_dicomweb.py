"""DICOMweb against dicomweb-client, over a running server with real tokens."""

import threading
import time

import httpx
import numpy as np
import pydicom
import pytest
import uvicorn
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless
from requests.exceptions import HTTPError

from services.ingest.room import build_app
from services.ingest.upstream import UpstreamKeeper
from services.platform.blobs import BlobStore
from services.platform.config import Settings
from services.platform.errors import RetryableError
from services.platform.room import RoomContext
from services.platform.security import Security
from tests.fixtures import ingest_rooms
from tests.fixtures.dicom_files import ROOT, ct, encode, instance
from tests.peers import free_port

STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.1.1"


class Door:
    """The ingest room's HTTP door on loopback."""

    def __init__(self, folder):
        self.parts = ingest_rooms.build(folder)
        self.settings = Settings(home=folder / "home")
        self.security = Security.from_settings(self.settings)
        p = self.parts
        context = RoomContext(self.settings, p.database, p.blobs, p.quarantine, self.security)
        port = free_port()
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        app = build_app(context, p.receiver, p.records)
        self.server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)

    def headers(self, *roles):
        return {"Authorization": f"Bearer {self.security.issue('someone', roles or ('clinician',))}"}

    def client(self):
        session = create_session()
        session.headers.update(self.headers())
        return DICOMwebClient(self.url, session=session)

    def get(self, path, accept="*/*", **more):
        headers = {**self.headers(), "accept": accept, **more}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30)

    def close(self):
        self.server.should_exit = True
        self.thread.join(10)
        self.parts.database.close()


@pytest.fixture
def door(tmp_path):
    door = Door(tmp_path)
    yield door
    door.close()


def test_store_search_and_retrieve(door):
    client = door.client()
    answer = client.store_instances([instance(1), instance(2)])
    assert len(answer.ReferencedSOPSequence) == 2
    [study] = client.search_for_studies(search_filters={"PatientName": "Doe*", "StudyDate": "20250101-"})
    assert study["0020000D"]["Value"] == [STUDY]
    assert study["00080061"]["Value"] == ["CT"]
    assert study["00201208"]["Value"] == [2]
    assert study["00081190"]["Value"] == [f"{door.url}/studies/{STUDY}"]
    [series] = client.search_for_series(STUDY)
    assert (series["00080060"]["Value"], series["00201209"]["Value"]) == (["CT"], [2])
    found = client.search_for_instances(STUDY, SERIES)
    assert [one["00200013"]["Value"][0] for one in found] == [1, 2]
    assert sorted(d.InstanceNumber for d in client.retrieve_study(STUDY)) == [1, 2]
    assert len(client.retrieve_series(STUDY, SERIES)) == 2
    got = client.retrieve_instance(STUDY, SERIES, f"{SERIES}.1")
    assert (got.pixel_array == instance(1).pixel_array).all()


MATCHES = [
    ("PatientID=MRN-1", 1),
    ("00100020=MRN-2", 0),
    ("PatientName=doe^jane", 1),
    ("PatientName=ja&fuzzymatching=true", 1),
    ("PatientName=oe&fuzzymatching=true", 0),
    ("PatientName=D%3Fe*", 1),
    ("PatientName=100%25", 0),
    ("ModalitiesInStudy=CT", 1),
    ("ModalitiesInStudy=MR", 0),
    ("StudyDate=20250102", 1),
    ("StudyDate=-20250101", 0),
    ("StudyTime=1000-1100", 1),
    ("AccessionNumber=A-1&StudyDescription=ct*", 1),
    (f"StudyInstanceUID={STUDY},1.2.3", 1),
    ("limit=0", 0),
    ("offset=1", 0),
    ("SOPClassUID=1.2.840.10008.5.1.4.1.1.2", 1),
]


def test_matching(door):
    door.parts.receiver.receive(ct(1))
    for query, number in MATCHES:
        answer = door.get(f"/studies?{query}")
        assert answer.headers["content-type"] == "application/dicom+json", query
        assert len(answer.json()) == number, query


def test_only_asked_for_attributes_are_returned(door):
    door.parts.receiver.receive(ct(1, InstitutionName="GH", PatientAge="064Y"))
    plain = door.get("/studies").json()[0]
    assert "00101010" not in plain
    assert door.get("/studies?includefield=PatientAge").json()[0]["00101010"]["Value"] == ["064Y"]
    assert door.get("/studies?includefield=all").json()[0]["00101010"]["Value"] == ["064Y"]
    [one] = door.get("/instances?includefield=00081030").json()
    assert one["00081030"]["Value"] == ["CT thorax"]


def test_a_bad_query_is_told(door):
    for query in ("StudyDate=yesterday", "Nonsense=1", "limit=-1"):
        assert door.get(f"/studies?{query}").status_code == 400, query


def test_metadata_and_bulk_data(door):
    door.parts.receiver.receive(ct(1, rows=32))
    client = door.client()
    [found] = client.retrieve_series_metadata(STUDY, SERIES)
    pixels = found["7FE00010"]
    assert set(pixels) == {"vr", "BulkDataURI"}
    [value] = client.retrieve_bulkdata(pixels["BulkDataURI"])
    assert value == instance(1, rows=32).PixelData
    assert pydicom.Dataset.from_json({k: v for k, v in found.items() if k != "7FE00010"}).PatientName == "Doe^Jane"


def test_metadata_names_the_host_that_a_proxy_shows(door):
    door.parts.receiver.receive(ct(1))
    answer = door.get(
        f"/studies/{STUDY}/metadata", **{"x-forwarded-host": "board.example", "x-forwarded-proto": "https"}
    )
    assert answer.json()[0]["7FE00010"]["BulkDataURI"].startswith("https://board.example/dicom-web/studies/")


def frames_of(door, accept, numbers="1"):
    return door.get(f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/frames/{numbers}", accept)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_frames_come_in_little_endian_whatever_was_sent(door, syntax):
    dataset = instance(1)
    expected = dataset.pixel_array
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = expected.astype(">u2").tobytes()
    assert door.parts.receiver.receive(encode(dataset)).status == "stored"
    [frame] = door.client().retrieve_instance_frames(STUDY, SERIES, f"{SERIES}.1", [1])
    assert (np.frombuffer(frame, "<u2").reshape(8, 8) == expected).all()
    whole = door.get(
        f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1",
        f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}",
    )
    got = pydicom.dcmread(pydicom.filebase.DicomBytesIO(whole.content))
    assert got.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (got.pixel_array == expected).all()


def test_frames_as_stored(door):
    dataset = instance(1)
    dataset.compress(RLELossless, generate_instance_uid=False)
    door.parts.receiver.receive(encode(dataset))
    answer = frames_of(door, "multipart/related; type=application/octet-stream; transfer-syntax=*")
    assert f"image/dicom-rle; transfer-syntax={RLELossless}".encode() in answer.content
    assert pydicom.encaps.get_frame(dataset.PixelData, 0) in answer.content
    assert frames_of(door, "multipart/related; type=image/dicom-rle").status_code == 200
    assert frames_of(door, "multipart/related; type=image/jls").status_code == 406
    assert frames_of(door, "*/*", "2").status_code == 404
    assert frames_of(door, "*/*", "x").status_code == 400


def test_frames_of_a_bit_packed_segmentation(door, shared_data):
    path = shared_data / "dicom-seg-sr" / "data" / "test_files" / "seg_image_ct_binary.dcm"
    dataset = pydicom.dcmread(path)
    door.parts.receiver.receive(path.read_bytes())
    count = int(dataset.NumberOfFrames)
    found = door.client().retrieve_instance_frames(
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID, list(range(1, count + 1))
    )
    size = dataset.Rows * dataset.Columns
    for got, expected in zip(found, np.atleast_3d(dataset.pixel_array), strict=True):
        bits = np.unpackbits(np.frombuffer(got, np.uint8), bitorder="little")[:size]
        assert (bits == expected.ravel()).all()


def test_refused_instances_are_told_and_kept(door):
    client = door.client()
    answer = client.store_instances([instance(1), instance(2, PatientID=None)])
    assert len(answer.ReferencedSOPSequence) == 1
    assert answer.FailedSOPSequence[0].FailureReason == 0xC000
    with pytest.raises(HTTPError) as failed:
        client.store_instances([instance(3)], study_instance_uid="1.2.3")
    assert failed.value.response.status_code == 409
    assert door.parts.reasons() == ["dicom.missing_patient_id", "dicom.other_study"]


def test_a_body_that_is_cut_short_stores_only_what_is_whole(door):
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + ct(1) + b"\r\n"
    headers = {**door.headers(), "content-type": kind}
    body = part + b"--b\r\nContent-Type: application/dicom\r\n\r\n" + ct(2)[:100]
    assert httpx.post(f"{door.url}/studies", content=body, headers=headers).status_code == 400
    assert len(door.get("/instances").json()) == 1
    for wrong in ("application/json", "multipart/related; type=application/dicom"):
        answer = httpx.post(f"{door.url}/studies", content=body, headers={**headers, "content-type": wrong})
        assert answer.status_code in (400, 415)


def test_a_full_disk_is_answered_with_try_again(door, monkeypatch):
    def full(*_):
        raise RetryableError("disk full")

    monkeypatch.setattr(door.parts.blobs, "put", full)
    headers = {**door.headers(), "content-type": "application/dicom"}
    answer = httpx.post(f"{door.url}/studies", content=ct(1), headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


def test_only_those_with_a_role_come_in(door):
    assert httpx.get(f"{door.url}/studies").status_code == 401
    assert httpx.get(f"{door.url}/studies", headers=door.headers("analyst")).status_code == 403
    assert httpx.post(f"{door.url}/studies", content=ct(), headers=door.headers("board")).status_code == 403
    assert httpx.post(f"{door.root}/fhir", content=b"{}").status_code == 401


def test_fhir_over_http(door):
    patient = b'{"resourceType":"Patient","id":"1","identifier":[{"value":"MRN-1"}]}'
    answer = httpx.post(f"{door.root}/fhir", content=patient, headers=door.headers())
    assert (answer.status_code, answer.json()["issue"][0]["diagnostics"]) == (200, "1 new")
    again = httpx.put(f"{door.root}/fhir", content=patient, headers=door.headers())
    assert again.json()["issue"][0]["diagnostics"] == "0 new"
    bad = httpx.post(f"{door.root}/fhir", content=b"no", headers=door.headers())
    assert (bad.status_code, bad.json()["issue"][0]["details"]["text"]) == (422, "fhir.not_json")


def test_in_front_of_another_archive(door, tmp_path):
    (tmp_path / "front").mkdir()
    front = ingest_rooms.build(
        tmp_path / "front",
        keeper=lambda _blobs: UpstreamKeeper(door.url, door.headers()),
        open_blobs=lambda url: BlobStore(url, dicomweb=[door.url], headers=lambda _url: door.headers()),
    )
    try:
        assert [front.receiver.receive(ct(1)).status for _ in range(2)] == ["stored", "duplicate"]
        assert front.receiver.receive(ct(1, StudyDescription="x")).refusal.reason == "dicom.conflicting_instance"
        manifest, _ = front.archive.manifest(STUDY)
        ref = manifest.series[0].instances[0].content
        assert ref.uri == f"{door.url}/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"
        assert ref.sha256 == ""
        assert front.blobs.get(ref) == ct(1)
        door.server.should_exit = True
        door.thread.join(10)
        with pytest.raises(RetryableError):
            front.receiver.receive(ct(2))
    finally:
        front.database.close()
