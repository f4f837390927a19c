"""Large files to browsers: whole or in parts, and not again while the browser holds them."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request, Response


def cache_headers(tag: str) -> dict[str, str]:
    """The reader's own browser keeps it for ten minutes, and then asks whether it is still the same (RFC 9111)."""
    return (
        {"cache-control": "private, max-age=600", "etag": f'"{tag}"'} if tag else {"cache-control": "private, no-cache"}
    )


def not_modified(request: Request, tag: str) -> bool:
    """Whether the browser holds this already (RFC 9110 section 13.1.2)."""
    known = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    return f'"{tag}"' in known


def ranged(request: Request, content: bytes, media_type: str, name: str = "", tag: str = "") -> Response:
    """The content, or the one part that the browser asks for (RFC 9110 section 14).

    `tag`: other content, other tag; a part of what the browser held under another tag (If-Range) is the whole instead.
    Not Content-Encoding: the viewer expects the file itself to be gzipped.
    """
    headers = {**cache_headers(tag), "accept-ranges": "bytes"}
    if name:
        headers["content-disposition"] = f'attachment; filename="{name}"'
    whole = Response(content, media_type=media_type, headers=headers)
    asked = request.headers.get("range", "")
    if not asked.startswith("bytes=") or "," in asked or request.headers.get("if-range", f'"{tag}"') != f'"{tag}"':
        return whole
    first, _, last = asked.removeprefix("bytes=").partition("-")
    try:
        start = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last), len(content) - 1) if first and last else len(content) - 1
    except ValueError:
        return whole
    if start > end:
        headers["content-range"] = f"bytes */{len(content)}"
        return Response(status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    headers["content-range"] = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], HTTPStatus.PARTIAL_CONTENT, headers, media_type)
