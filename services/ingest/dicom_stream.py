"""Is a DICOM file whole? A walk over its elements that reads lengths and no values.

Source: DICOM PS3.5 section 7.1 (data elements), 7.5 (nested data sets), A.4 (encapsulated pixel data); PS3.10
section 7.1 (preamble and file meta information). Libraries read a file that was cut short without a word.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

PREAMBLE_BYTES = 132
_UNDEFINED = 0xFFFFFFFF
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
_DEEPEST = 64


class TruncatedError(ValueError):
    """The file ends inside an element; the message says which."""


@dataclass(frozen=True)
class _Syntax:
    explicit: bool
    endian: str


def has_preamble(content: bytes) -> bool:
    """True when the file begins as PS3.10 7.1 says: 128 bytes, then "DICM"."""
    return content[128:PREAMBLE_BYTES] == b"DICM"


def data_set_offset(content: bytes) -> int:
    """Where the data set begins: after the preamble and group 0002. Raises TruncatedError."""
    offset = PREAMBLE_BYTES
    while content[offset : offset + 2] == b"\x02\x00":
        offset = _next_element(memoryview(content), offset, _Syntax(True, "<"), 0)
    return offset


def check_complete(content: bytes, transfer_syntax_uid: str) -> None:
    """Raises TruncatedError when the data set of a Part 10 file ends inside an element."""
    body = memoryview(content)[data_set_offset(content) :]
    if transfer_syntax_uid == _DEFLATED[0]:
        body = memoryview(_inflate(bytes(body)))
    syntax = _Syntax(transfer_syntax_uid != _IMPLICIT, ">" if transfer_syntax_uid == _BIG_ENDIAN else "<")
    offset = 0
    while offset < len(body):
        if len(body) - offset < 8 and not any(body[offset:]):
            return
        offset = _next_element(body, offset, syntax, 0)


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = stream.decompress(data)
    except zlib.error as error:
        raise TruncatedError("the deflated data set is damaged") from error
    if not stream.eof:
        raise TruncatedError("the deflated data set is cut short")
    return out


def _unpack(body: memoryview, offset: int, form: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, body, offset)
    except struct.error as error:
        raise TruncatedError("the file ends inside the header of an element") from error


def _header(body: memoryview, offset: int, syntax: _Syntax) -> tuple[int, int, bool, int]:
    """(tag, length, is it a sequence of unknown VR, offset of the value)."""
    group, element = _unpack(body, offset, f"{syntax.endian}HH")
    tag = group << 16 | element
    if not syntax.explicit or group == 0xFFFE:
        return tag, _unpack(body, offset + 4, f"{syntax.endian}I")[0], False, offset + 8
    vr = bytes(body[offset + 4 : offset + 6])
    if vr in _LONG:
        return tag, _unpack(body, offset + 8, f"{syntax.endian}I")[0], vr == b"UN", offset + 12
    return tag, _unpack(body, offset + 6, f"{syntax.endian}H")[0], False, offset + 8


def _next_element(body: memoryview, offset: int, syntax: _Syntax, depth: int) -> int:
    tag, length, unknown, start = _header(body, offset, syntax)
    if length != _UNDEFINED:
        if start + length > len(body):
            raise TruncatedError(f"the file ends inside element ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        return start + length
    # A sequence of unknown VR is written in implicit little endian inside (PS3.5 6.2.2 note 4).
    return _end_of_items(body, start, _Syntax(False, "<") if unknown else syntax, depth + 1)


def _end_of_items(body: memoryview, offset: int, syntax: _Syntax, depth: int) -> int:
    if depth > _DEEPEST:
        raise TruncatedError("sequences are nested too deep to be right")
    while True:
        tag, length, _, offset = _header(body, offset, syntax)
        if tag == _SEQUENCE_END:
            return offset
        if tag != _ITEM:
            raise TruncatedError("a sequence holds something that is no item")
        if length != _UNDEFINED:
            offset += length
            if offset > len(body):
                raise TruncatedError("the file ends inside an item of a sequence")
            continue
        while _header(body, offset, syntax)[0] != _ITEM_END:
            offset = _next_element(body, offset, syntax, depth)
        offset += 8
