"""Blob storage on files and on an S3-compatible server behave alike."""

from __future__ import annotations

import importlib
import importlib.util
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from osler.common.v1.common_pb2 import BlobRef

from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError, RetryableError
from tests.peers import require_or_skip


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    if importlib.util.find_spec("moto") is None:
        require_or_skip("no S3-compatible server: uv pip install 'moto[server]'")
    server: Any = importlib.import_module("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "file":
        return BlobStore(tmp_path.as_uri())
    server: str = request.getfixturevalue("s3_server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"b{uuid.uuid4().hex}"
    options = {"endpoint_url": server, "skip_instance_cache": True}
    importlib.import_module("s3fs").S3FileSystem(**options).mkdir(bucket)
    return BlobStore(f"s3://{bucket}/osler", options)


def test_what_is_put_can_be_had_again(store: BlobStore, tmp_path: Path) -> None:
    ref = store.put(b"measured", "text/plain", "series/1.2.3/note.txt")
    assert store.put(b"measured", "text/plain", "series/1.2.3/note.txt") == ref
    assert store.exists(ref)
    assert store.get(ref) == b"measured"
    with store.local_path(ref) as path:
        assert path.read_bytes() == b"measured"


def test_a_large_file_is_stored_whole(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(os.urandom(6_000_000))
    assert store.get(store.put_file(source, "application/octet-stream")) == source.read_bytes()


def test_missing_and_foreign_references_are_refused(store: BlobStore) -> None:
    ref = store.put(b"x", "text/plain")
    reasons = []
    for uri in (ref.uri[:-8] + "00000000", ref.uri.replace("/sha256/", "/../sha256/"), "s3://elsewhere/x"):
        with pytest.raises(RefusedError) as refused:
            store.get(BlobRef(uri=uri))
        reasons.append(refused.value.reason)
    assert reasons == ["blob.missing", "blob.outside_store", "blob.outside_store"]


def test_a_store_that_is_away_is_a_passing_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    store = BlobStore(
        "s3://bucket/osler", {"endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": {"max_attempts": 0}}}
    )
    with pytest.raises(RetryableError, match="cannot be reached"):
        store.put(b"x", "text/plain")
