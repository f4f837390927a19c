"""One DICOM instance from a DICOMweb archive (WADO-RS, DICOM PS3.18 section 10.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import httpx

from services.platform.errors import RefusedError, RetryableError

_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


def fetch_instance(url: str, archives: Sequence[str], headers: Callable[[str], Mapping[str, str]]) -> bytes:
    """The bytes of the instance at `url`, which must lie under one of the archives' base URLs.

    Raises RefusedError ("blob.outside_store", "blob.missing", "blob.archive_answer") or RetryableError when the
    archive cannot be reached.
    """
    if not any(url.startswith(base) for base in archives) or ".." in url:
        raise RefusedError(
            "blob.outside_store",
            "the reference points to an archive that this installation does not use",
            remedy="set archive.url to the base URL of that archive",
        )
    try:
        response = httpx.get(url, headers={"Accept": _ACCEPT, **headers(url)}, timeout=_TIMEOUT)
    except httpx.TransportError as error:
        raise RetryableError(f"the DICOMweb archive cannot be reached: {type(error).__name__}") from error
    if response.status_code in (401, 403, 429) or response.status_code >= 500:
        raise RetryableError(
            f"the DICOMweb archive answered {response.status_code}: check archive.headers and its state"
        )
    if response.status_code in (404, 410):
        raise RefusedError("blob.missing", "the DICOMweb archive does not hold the instance", remedy="send it again")
    if response.status_code != 200:
        raise _unexpected(f"answered {response.status_code}")
    return _single_part(response.headers.get("content-type", ""), response.content)


def _single_part(content_type: str, body: bytes) -> bytes:
    """The one part of a multipart/related answer (RFC 2046); the body itself when the archive sent a plain one."""
    if content_type.startswith("application/dicom"):
        return body
    boundary = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/related") or boundary is None:
        raise _unexpected("sent neither multipart/related nor application/dicom")
    delimiter = b"--" + boundary[1].encode()
    start = body.find(delimiter)
    header_end = body.find(b"\r\n\r\n", start)
    end = body.find(b"\r\n" + delimiter, header_end)
    if min(start, header_end, end) < 0:
        raise _unexpected("sent a truncated multipart answer")
    return body[header_end + 4 : end]


def _unexpected(what: str) -> RefusedError:
    return RefusedError(
        "blob.archive_answer", f"the DICOMweb archive {what}", remedy="check that the URL is a WADO-RS instance"
    )
