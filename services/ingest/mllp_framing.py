"""Minimal Lower Layer Protocol framing: `<VT> message <FS><CR>`.

Source: HL7 Version 2 Implementation Guide: MLLP Transport Specification, Release 1, section 2.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

START_BLOCK = 0x0B
END_BLOCK = 0x1C
CARRIAGE_RETURN = 0x0D
_TOKENS = re.compile(rb"[\x0b\x1c]|[^\x0b\x1c]+")
_PADDING = b"\r\n \t\x00"


@dataclass(frozen=True)
class Frame:
    """A message between start and end of block. `fault`: why it is no whole message, "" when it is one."""

    content: bytes
    fault: str = ""


def frame(content: bytes) -> bytes:
    """A message as it goes over the wire."""
    return bytes([START_BLOCK]) + content + bytes([END_BLOCK, CARRIAGE_RETURN])


class Deframer:
    """Turns received pieces into frames, however the stream is cut.

    Text outside a frame, a frame without an end and an oversized one (its first `limit` bytes) come out with a
    `fault`; only padding between frames is dropped. `limit`: bytes of one message.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = False
        self._oversized = False
        self._pending_end = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        frames: list[Frame] = []
        for token in _TOKENS.findall(data):
            self._step(token, frames)
        return frames

    def close(self) -> list[Frame]:
        """What is left when the sender goes away: a frame without an end, or text outside one."""
        frames: list[Frame] = []
        self._emit(frames, "truncated_frame" if self._inside else "outside_frame")
        self._inside = False
        return frames

    def _step(self, token: bytes, frames: list[Frame]) -> None:
        if self._pending_end:
            self._pending_end = False
            # Some senders leave out the closing carriage return; the next start of block ends the message as well.
            if token[0] in (CARRIAGE_RETURN, START_BLOCK):
                self._emit(frames, "")
                self._inside = token[0] == START_BLOCK
                self._append(token[1:])
                return
            self._append(bytes([END_BLOCK]))
        if token[0] == START_BLOCK:
            self._emit(frames, "truncated_frame" if self._inside else "outside_frame")
            self._inside = True
        elif token[0] == END_BLOCK and self._inside:
            self._pending_end = True
        else:
            self._append(token)

    def _append(self, data: bytes) -> None:
        room = self._limit - len(self._buffer)
        self._oversized = self._oversized or len(data) > room
        self._buffer += data[:room]

    def _emit(self, frames: list[Frame], fault: str) -> None:
        content, oversized = bytes(self._buffer), self._oversized
        self._buffer.clear()
        self._oversized = False
        if oversized:
            frames.append(Frame(content, "oversized"))
        elif not fault:
            frames.append(Frame(content))
        elif content.strip(_PADDING):
            frames.append(Frame(content, fault))
