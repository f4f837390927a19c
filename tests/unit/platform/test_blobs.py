"""Blob storage: immutable, checked, atomic, and closed to references that point elsewhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osler.common.v1.common_pb2 import BlobRef

from services.platform.blobs import BlobStore
from services.platform.errors import ConfigurationError, RefusedError, RetryableError

_DICOM = b"\x00" * 128 + b"DICM" + bytes(range(256))


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return BlobStore((tmp_path / "blobs").as_uri() if request.param == "file" else f"memory://{tmp_path.name}/blobs")


def test_bytes_come_back_with_their_hash_size_and_type(store: BlobStore) -> None:
    ref = store.put(_DICOM, "application/dicom", "series/1.2.3/seg.dcm")
    assert ref.sha256 == hashlib.sha256(_DICOM).hexdigest()
    assert (ref.size_bytes, ref.media_type) == (len(_DICOM), "application/dicom")
    assert ref.uri.endswith(f"/series/1.2.3/seg.{ref.sha256[:16]}.dcm")
    assert store.get(ref) == _DICOM
    assert store.exists(ref)
    with store.local_path(ref) as path:
        assert path.suffix == ".dcm"
        assert path.read_bytes() == _DICOM


def test_the_same_bytes_again_are_the_same_blob_and_others_of_that_name_are_not(store: BlobStore) -> None:
    first = store.put(b"one", "text/plain", "a/b.txt")
    assert store.put(b"one", "text/plain", "a/b.txt") == first
    second = store.put(b"two", "text/plain", "a/b.txt")
    assert second.uri != first.uri
    assert (store.get(first), store.get(second)) == (b"one", b"two")


def test_a_file_is_stored_as_its_bytes_are(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(_DICOM * 9000)
    ref = store.put_file(source, "application/octet-stream")
    assert store.get(ref) == source.read_bytes()
    assert ref == store.put(source.read_bytes(), "application/octet-stream")


@settings(max_examples=60)
@given(name=st.text(max_size=300), data=st.binary(max_size=20))
def test_no_name_leads_out_of_the_store(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "names"
    store = BlobStore(root.as_uri())
    try:
        ref = store.put(data, "text/plain", name)
    except ValueError:
        return
    path = Path(ref.uri.removeprefix("file://"))
    assert path.resolve().is_relative_to(root.resolve())
    assert store.get(ref) == data


def test_changed_content_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path.as_uri())
    ref = store.put(b"as measured", "text/plain")
    Path(ref.uri.removeprefix("file://")).write_bytes(b"as altered!")
    with pytest.raises(RefusedError) as refused:
        store.get(ref)
    assert refused.value.reason == "blob.hash_mismatch"
    with pytest.raises(RefusedError), store.local_path(ref):
        pytest.fail("the altered file was given out")


def test_missing_content_is_refused(store: BlobStore) -> None:
    ref = store.put(b"x", "text/plain")
    gone = BlobRef(uri=ref.uri.replace(ref.sha256[:10], "0" * 10), sha256=ref.sha256)
    assert not store.exists(gone)
    with pytest.raises(RefusedError) as refused:
        store.get(gone)
    assert refused.value.reason == "blob.missing"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "file://{root}/../secret",
        "file://{root}/%2e%2e/secret",
        "s3://bucket/key",
        "memory://elsewhere/x",
        "http://127.0.0.1:9/instances/1",
        "",
    ],
)
def test_references_that_point_elsewhere_are_refused(tmp_path: Path, uri: str) -> None:
    (tmp_path / "secret").write_text("x")
    root = tmp_path / "blobs"
    store = BlobStore(root.as_uri())
    with pytest.raises(RefusedError) as refused:
        store.get(BlobRef(uri=uri.format(root=root)))
    assert refused.value.reason == "blob.outside_store"


def test_a_symbolic_link_does_not_lead_out_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    root = tmp_path / "blobs"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(RefusedError, match="outside"):
        BlobStore(root.as_uri()).get(BlobRef(uri=(root / "link").as_uri()))


def test_a_folder_can_be_opened_for_reading_in_place(tmp_path: Path) -> None:
    given_folder = tmp_path / "dicom"
    given_folder.mkdir()
    (given_folder / "1.dcm").write_bytes(_DICOM)
    store = BlobStore((tmp_path / "blobs").as_uri(), readable=[given_folder])
    ref = BlobRef(uri=(given_folder / "1.dcm").as_uri(), sha256=hashlib.sha256(_DICOM).hexdigest())
    assert store.get(ref) == _DICOM


_FILL_A_DISK = """
import sys
from pathlib import Path
from services.platform.blobs import BlobStore
from services.platform.errors import RetryableError
root = Path(sys.argv[1])
store = BlobStore(root.as_uri())
small = store.put(b"fits", "text/plain", "small")
try:
    store.put(bytes(4_000_000), "text/plain", "large")
except RetryableError as error:
    print(error)
left = [path.name for path in root.rglob("*") if path.is_file()]
print(store.get(small).decode(), left == ["small." + small.sha256[:16]])
"""


def test_a_full_disk_is_a_passing_fault_and_leaves_no_debris(tmp_path: Path, repository_root: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec {sys.executable} -c '{_FILL_A_DISK}' {tmp_path}"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    environment = {"PYTHONPATH": f"{repository_root}:{repository_root / 'protos' / 'gen'}", "PATH": "/usr/bin:/bin"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        pytest.skip("no `unshare` to make a small disk: install util-linux")
    if "unshare" in result.stderr or "mount:" in result.stderr:
        pytest.skip(f"this machine lets no test mount a small disk: {result.stderr.strip()}")
    assert result.stdout.splitlines() == [
        "blob storage: the disk is full; free space and the work goes on",
        "fits True",
    ]


class _Archive(BaseHTTPRequestHandler):
    """Answers like a DICOMweb archive."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        type(self).seen.append(dict(self.headers))
        name = self.path.rpartition("/")[2]
        if name == "busy":
            self.send_error(503)
        elif name == "multipart":
            body = b"--xYz\r\nContent-Type: application/dicom\r\n\r\n" + _DICOM + b"\r\n--xYz--\r\n"
            self._answer('multipart/related; type="application/dicom"; boundary=xYz', body)
        elif name == "truncated":
            self._answer(
                'multipart/related; boundary="xYz"', b"--xYz\r\nContent-Type: application/dicom\r\n\r\n" + _DICOM
            )
        elif name == "plain":
            self._answer("application/dicom", _DICOM)
        elif name == "page":
            self._answer("text/html", b"<html>sign in</html>")
        else:
            self.send_error(404)

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive() -> Iterator[str]:
    _Archive.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/dicom-web"
    server.shutdown()
    server.server_close()


def _with_archive(tmp_path: Path, archive: str) -> BlobStore:
    return BlobStore(tmp_path.as_uri(), dicomweb=[archive], headers=lambda _url: {"Authorization": "Bearer t"})


@pytest.mark.parametrize("answer", ["multipart", "plain"])
def test_an_instance_is_fetched_from_the_archive(tmp_path: Path, archive: str, answer: str) -> None:
    store = _with_archive(tmp_path, archive)
    ref = BlobRef(uri=f"{archive}/studies/1/series/2/instances/{answer}")
    assert store.get(ref) == _DICOM
    with store.local_path(ref) as path:
        assert path.read_bytes() == _DICOM
    assert _Archive.seen[0]["Accept"].startswith('multipart/related; type="application/dicom"')
    assert _Archive.seen[0]["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("truncated", "blob.archive_answer"), ("page", "blob.archive_answer"), ("none", "blob.missing")],
)
def test_an_archive_that_answers_nonsense_is_refused(tmp_path: Path, archive: str, answer: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        _with_archive(tmp_path, archive).get(BlobRef(uri=f"{archive}/studies/1/{answer}"))
    assert refused.value.reason == reason


def test_an_archive_that_is_busy_or_away_is_a_passing_fault(tmp_path: Path, archive: str) -> None:
    with pytest.raises(RetryableError, match="503"):
        _with_archive(tmp_path, archive).get(BlobRef(uri=f"{archive}/busy"))
    away = "http://127.0.0.1:1/dicom-web"
    with pytest.raises(RetryableError, match="cannot be reached"):
        _with_archive(tmp_path, away).get(BlobRef(uri=f"{away}/instances/1"))


def test_another_host_than_the_archive_is_not_asked(tmp_path: Path, archive: str) -> None:
    with pytest.raises(RefusedError, match="does not use"):
        _with_archive(tmp_path, archive).get(BlobRef(uri=archive.replace("dicom-web", "internal/secrets")))
    assert _Archive.seen == []


def test_a_storage_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"blobs\.url"):
        BlobStore("nosuchscheme://x")
