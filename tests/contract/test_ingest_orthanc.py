"""In front of a real archive: Orthanc with its DICOMweb plugin.

Debian packages `orthanc` and `orthanc-dicomweb`; where they are only unpacked, OSLER_ORTHANC_PREFIX names the folder.
"""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from osler.ingest.v1 import ingest_pb2
from pydicom.uid import RLELossless

from services.ingest.upstream import UpstreamKeeper
from services.platform.blobs import BlobStore
from services.platform.errors import RetryableError
from tests.fixtures import ingest_rooms
from tests.fixtures.dicom_files import ROOT, ct, encode, instance
from tests.peers import free_port, require_or_skip, wait_for_port

PREFIX = Path(os.environ.get("OSLER_ORTHANC_PREFIX", "/"))
PROGRAM = PREFIX / "usr/sbin/Orthanc"
PLUGIN = PREFIX / "usr/share/orthanc/plugins/libOrthancDicomWeb.so"
HEADERS = {"Authorization": "Basic b3NsZXI6b3NsZXI="}


class Orthanc:
    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/dicom-web"
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"osler": "osler"},
            "Plugins": [str(PLUGIN.resolve())],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        libraries = sorted({str(path.parent) for path in PREFIX.glob("usr/lib/**/*.so*")}) if str(PREFIX) != "/" else []
        environment = {**os.environ, **({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})}
        log = folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(PROGRAM), str(folder / "orthanc.json")], stdout=out, stderr=out, env=environment
            )
        wait_for_port(self.port, self.process, log)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def orthanc(tmp_path):
    if not PROGRAM.exists() or not PLUGIN.exists():
        require_or_skip("no Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb")
    (tmp_path / "orthanc").mkdir()
    server = Orthanc(tmp_path / "orthanc")
    yield server
    server.stop()


@pytest.fixture
def front(orthanc, tmp_path):
    (tmp_path / "front").mkdir()
    parts = ingest_rooms.build(
        tmp_path / "front",
        keeper=lambda _blobs: UpstreamKeeper(orthanc.url, HEADERS),
        open_blobs=lambda url: BlobStore(url, dicomweb=[orthanc.url], headers=lambda _url: HEADERS),
    )
    yield parts
    parts.database.close()


def test_instances_live_in_the_archive_and_are_announced_by_reference(orthanc, front):
    dataset = instance(2)
    dataset.compress(RLELossless, generate_instance_uid=False)
    for content in (ct(1), encode(dataset)):
        assert [front.receiver.receive(content).status for _ in range(2)] == ["stored", "duplicate"]
    front.archive.complete_due(force=True)
    [(_, message)] = front.events()
    manifest = ingest_pb2.StudyManifest.FromString(front.blobs.get(message.manifest))
    refs = [one.content for one in manifest.series[0].instances]
    assert [ref.uri for ref in refs] == [
        f"{orthanc.url}/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.1.1.{n}" for n in (1, 2)
    ]
    assert [front.receiver.header(front.blobs.get(ref)).sop_instance_uid[-2:] for ref in refs] == [".1", ".2"]
    found = httpx.get(f"{orthanc.url}/studies", headers=HEADERS).json()
    assert [study["0020000D"]["Value"] for study in found] == [[f"{ROOT}.1"]]


def test_other_content_under_a_known_uid_is_seen(front):
    front.receiver.receive(ct(1))
    assert front.receiver.receive(ct(1, StudyDescription="x")).refusal.reason == "dicom.conflicting_instance"


def test_while_the_archive_is_away_the_sender_must_keep_its_images(orthanc, front):
    orthanc.stop()
    with pytest.raises(RetryableError):
        front.receiver.receive(ct(1))
    assert front.quarantine.list() == []


def test_a_wrong_password_is_no_reason_to_lose_an_image(orthanc, tmp_path):
    (tmp_path / "wrong").mkdir()
    parts = ingest_rooms.build(tmp_path / "wrong", keeper=lambda _blobs: UpstreamKeeper(orthanc.url, {}))
    with pytest.raises(RetryableError, match=r"archive\.headers"):
        parts.receiver.receive(ct(1))
    parts.database.close()
