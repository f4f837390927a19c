"""Blob storage: bytes kept outside events and rows, immutable, named by reference with their SHA-256.

Files, S3-compatible storage and memory go through fsspec; instances in a DICOMweb archive are fetched with WADO-RS
(DICOM PS3.18, 10.4 Retrieve Transaction).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import fsspec
from osler.common.v1.common_pb2 import BlobRef

from services.platform.dicomweb import fetch_instance
from services.platform.errors import ConfigurationError, RefusedError, RetryableError

if TYPE_CHECKING:
    from services.platform.config import Settings

_CHUNK = 1024 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_PART = 100


class BlobStore:
    """Immutable blobs under one fsspec URL (`file://`, `s3://bucket/prefix`, `memory://`).

    `options` go to the fsspec file system. `readable` lists further folders (absolute paths) whose files may be
    referenced in place; `dicomweb` the base URLs of archives whose instances may be fetched, with `headers(url)` for
    each request. References that point elsewhere are refused: they come with events and calls.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        readable: Sequence[str | Path] = (),
        dicomweb: Sequence[str] = (),
        headers: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **(options or {}))
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"blobs.url cannot be used: {error}") from error
        self._scheme = url.partition("://")[0] if "://" in url else "file"
        self._local = self._scheme == "file"
        self._root = str(Path(root).resolve()) if self._local else root.rstrip("/")
        self._readable = [Path(folder).resolve() for folder in readable]
        self._dicomweb = [base.rstrip("/") + "/" for base in dicomweb]
        self._headers = headers or (lambda _url: {})

    def put(self, data: bytes, media_type: str, name: str = "") -> BlobRef:
        """Stores bytes and returns their reference; the same bytes again change nothing.

        `name` ("series/<uid>/seg.dcm") gives the path, to which the start of the hash is added before the suffix, so
        that a blob is never overwritten. Names hold UIDs and hashes, never patient data. Raises RetryableError when
        the disk is full or the store cannot be reached.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(name, digest)
        with _storage_faults():
            if self._size(path) != len(data):
                self._write(path, data)
        return self._ref(path, digest, len(data), media_type)

    def put_file(self, source: str | Path, media_type: str, name: str = "") -> BlobRef:
        """As `put`, for a file of any size."""
        digest, size = _digest_of_file(Path(source))
        path = self._path(name, digest)
        with _storage_faults():
            if self._size(path) != size:
                self._write(path, Path(source))
        return self._ref(path, digest, size, media_type)

    def get(self, ref: BlobRef) -> bytes:
        """The bytes, checked against the reference.

        Raises RefusedError ("blob.missing", "blob.hash_mismatch", "blob.outside_store") or RetryableError.
        """
        if ref.uri.startswith(("http://", "https://")):
            data = fetch_instance(ref.uri, self._dicomweb, self._headers)
        else:
            data = self._read(ref)
        _check(ref, hashlib.sha256(data).hexdigest(), len(data))
        return data

    def exists(self, ref: BlobRef) -> bool:
        """True when the bytes are there (not checked)."""
        if ref.uri.startswith(("http://", "https://")):
            return True
        with _storage_faults():
            return self._size(self._path_of(ref)) is not None

    @contextmanager
    def local_path(self, ref: BlobRef) -> Iterator[Path]:
        """A local file with the checked bytes, for libraries that read paths. Do not write to it."""
        if self._local and ref.uri.startswith("file://"):
            path = Path(self._path_of(ref))
            if not path.is_file():
                raise _missing(ref)
            _check(ref, *_digest_of_file(path))
            yield path
            return
        suffix = PurePosixPath(urlsplit(ref.uri).path).suffix
        with tempfile.TemporaryDirectory(prefix="osler-blob-") as folder:
            path = Path(folder) / f"blob{suffix}"
            data = self.get(ref)
            with _storage_faults():
                path.write_bytes(data)
            yield path

    def _path(self, name: str, digest: str) -> str:
        if not name:
            return f"{self._root}/sha256/{digest[:2]}/{digest}"
        parts = [_safe(part) for part in PurePosixPath(name).parts if part not in ("/", ".", "..")]
        if not parts:
            raise ValueError(f"blob name {name!r} holds no usable part")
        last = PurePosixPath(parts[-1])
        parts[-1] = f"{last.stem}.{digest[:16]}{last.suffix}"
        return "/".join([self._root, *parts])

    def _ref(self, path: str, digest: str, size: int, media_type: str) -> BlobRef:
        uri = Path(path).as_uri() if self._local else f"{self._scheme}://{path.lstrip('/')}"
        return BlobRef(uri=uri, sha256=digest, size_bytes=size, media_type=media_type)

    def _path_of(self, ref: BlobRef) -> str:
        """Where a reference points in this store. Raises RefusedError when it points elsewhere."""
        scheme, _, rest = ref.uri.partition("://")
        if scheme == "file":
            path = Path(unquote(rest)).resolve()
            roots = [*([Path(self._root)] if self._local else []), *self._readable]
            if any(path.is_relative_to(root) for root in roots):
                return str(path)
        elif scheme == self._scheme and ".." not in rest.split("/"):
            path_there = self._fs._strip_protocol(ref.uri)
            if str(path_there).startswith(f"{self._root}/"):
                return str(path_there)
        raise RefusedError(
            "blob.outside_store",
            "the reference points outside the blob storage of this installation",
            remedy="store the content first, or add its folder to what may be read",
        )

    def _size(self, path: str) -> int | None:
        if path.startswith("/") and (self._local or self._readable):
            try:
                return os.stat(path).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            return int(self._fs.info(path)["size"])
        except FileNotFoundError:
            return None

    def _read(self, ref: BlobRef) -> bytes:
        path = self._path_of(ref)
        try:
            with _storage_faults():
                return Path(path).read_bytes() if ref.uri.startswith("file://") else bytes(self._fs.cat_file(path))
        except (FileNotFoundError, IsADirectoryError):
            raise _missing(ref) from None

    def _write(self, path: str, content: bytes | Path) -> None:
        if self._local:
            _write_atomically(Path(path), content)
        elif isinstance(content, bytes):
            self._fs.pipe_file(path, content)
        else:
            self._fs.put_file(str(content), path)


def open_blobs(
    settings: Settings,
    *,
    readable: Sequence[str | Path] = (),
    headers: Callable[[str], Mapping[str, str]] | None = None,
) -> BlobStore:
    """The blob storage that the settings name, with the existing archive when there is one."""
    archives = [settings.archive.url] if settings.archive.mode == "dicomweb" else []
    fixed = {name: value.get_secret_value() for name, value in settings.archive.headers.items()}
    return BlobStore(
        settings.blobs.url,
        settings.blobs.options,
        readable=readable,
        dicomweb=archives,
        headers=headers or (lambda _url: fixed),
    )


def _safe(part: str) -> str:
    cleaned = _UNSAFE.sub("_", part).strip(".") or "_"
    if len(cleaned) <= _LONGEST_PART:
        return cleaned
    return f"{cleaned[: _LONGEST_PART - 17]}-{hashlib.sha256(part.encode()).hexdigest()[:16]}"


def _write_atomically(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        with temporary.open("wb") as out:
            if isinstance(content, bytes):
                out.write(content)
            else:
                with content.open("rb") as source:
                    while chunk := source.read(_CHUNK):
                        out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest_of_file(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _check(ref: BlobRef, digest: str, size: int) -> None:
    """Objects of a foreign archive have no hash in their reference."""
    if ref.sha256 and ref.sha256 != digest:
        raise RefusedError(
            "blob.hash_mismatch",
            f"stored content of {size} bytes does not match its SHA-256: it was changed or damaged",
            remedy="restore the object from backup, or send it again",
            subject=ref.sha256,
        )


def _missing(ref: BlobRef) -> RefusedError:
    return RefusedError(
        "blob.missing",
        "the referenced content is not in the blob storage",
        remedy="restore the object from backup, or send it again",
        subject=ref.sha256,
    )


_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _storage_faults() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError):
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise RetryableError("blob storage: the disk is full; free space and the work goes on") from error
        raise RetryableError(f"blob storage: {error.strerror or type(error).__name__}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp"):
            raise RetryableError(f"blob storage cannot be reached: {type(error).__name__}") from error
        raise
