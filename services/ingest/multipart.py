"""multipart/related bodies and Accept headers of DICOMweb.

Source: RFC 2387 (multipart/related), RFC 9110 12.5.1 (Accept), DICOM PS3.18 8.7 (media types, transfer syntax).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message

from python_multipart.multipart import MultipartParser

from services.platform.errors import RefusedError


@dataclass(frozen=True)
class Acceptable:
    """One choice of an Accept header. `media_type`: that of the parts for multipart/related."""

    media_type: str
    transfer_syntax: str = ""
    multipart: bool = False
    quality: float = 1.0

    def takes(self, media_type: str) -> bool:
        """True when content of this media type is acceptable."""
        wanted, _, kind = self.media_type.partition("/")
        return self.media_type in ("*/*", media_type) or (kind == "*" and media_type.startswith(f"{wanted}/"))


def content_type(text: str) -> tuple[str, dict[str, str]]:
    """("multipart/related", {"type": ..., "boundary": ...}) of a Content-Type or of one choice of an Accept header."""
    message = Message()
    message["content-type"] = text
    parameters = {name.lower(): str(value) for name, value in (message.get_params() or [])[1:]}
    return message.get_content_type() if "/" in text.split(";")[0] else "", parameters


def parse_accept(text: str) -> list[Acceptable]:
    """The choices of an Accept header, best first; an empty header accepts everything."""
    choices = []
    for part in _split(text or "*/*"):
        # The email parser knows no wildcard types.
        media_type = part.split(";")[0].strip().lower()
        _, parameters = content_type(part.replace(media_type, "x/y", 1) if "*" in media_type else part)
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        related = media_type == "multipart/related"
        kind = parameters.get("type", "*/*").lower() if related else media_type
        choices.append(Acceptable(kind, parameters.get("transfer-syntax", ""), related, quality))
    return sorted((choice for choice in choices if choice.quality > 0), key=lambda choice: -choice.quality)


def _split(text: str) -> Iterator[str]:
    """Parts between commas that are not in quotes."""
    part, quoted = "", False
    for character in text:
        quoted ^= character == '"'
        if character == "," and not quoted:
            yield part.strip()
            part = ""
        else:
            part += character
    yield part.strip()


@dataclass
class RelatedWriter:
    """Writes a multipart/related body piece by piece."""

    media_type: str
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def content_type(self) -> str:
        """The Content-Type of the whole body."""
        return f'multipart/related; type="{self.media_type}"; boundary={self.boundary}'

    def write(self, parts: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
        """Body pieces for (Content-Type, content) parts."""
        for kind, content in parts:
            yield f"--{self.boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
            yield content
            yield b"\r\n"
        yield f"--{self.boundary}--\r\n".encode()


class RelatedReader:
    """Reads a multipart/related body as it arrives.

    Raises RefusedError `http.bad_multipart` for a body that is none or a part larger than `limit` bytes.
    """

    def __init__(self, boundary: str, limit: int) -> None:
        self._done: list[bytes] = []
        self._part = bytearray()
        self._limit = limit
        self._ended = False
        callbacks = {"on_part_data": self._on_data, "on_part_end": self._on_part_end, "on_end": self._on_end}
        try:
            self._parser = MultipartParser(boundary.encode("latin-1"), callbacks)  # type: ignore[arg-type]
        except (ValueError, UnicodeEncodeError) as error:
            raise _bad("the boundary of the multipart body is missing or wrong") from error

    def feed(self, data: bytes) -> list[bytes]:
        """The contents of the parts that `data` completes."""
        try:
            self._parser.write(data)
        except ValueError as error:
            raise _bad("the multipart body is malformed") from error
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Raises RefusedError when the body ended before its last boundary."""
        if not self._ended:
            raise _bad("the multipart body is cut short")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if len(self._part) > self._limit:
            raise _bad("a part of the multipart body is too large")

    def _on_part_end(self) -> None:
        self._done.append(bytes(self._part))
        self._part.clear()

    def _on_end(self) -> None:
        self._ended = True


def _bad(what: str) -> RefusedError:
    return RefusedError("http.bad_multipart", what, remedy="send multipart/related as in RFC 2387")
