"""HL7 v2 messages as segments, fields, components and text (HL7 v2.5.1 chapter 2, sections 2.5 to 2.7 and 2.10).

Reads what real senders produce: any line ending, missing trailing fields, a truncation character in MSH-2 (v2.7), local
escape sequences, several character sets. It reads; acknowledging and refusing whole messages is the door's work.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.platform.errors import RefusedError

# HL7 table 0211 "Alternate character sets" to Python codecs.
_CHARSETS = {
    "ASCII": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UTF-8": "utf-8",
    "UNICODE UTF-16": "utf-16",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
    "ISO IR87": "iso2022_jp",
    **{f"8859/{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}
_LINES = re.compile(r"[\r\n]+")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")


@dataclass(frozen=True)
class Separators:
    """The delimiters that a message declares in MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


@dataclass(frozen=True)
class Segment:
    """One segment; fields count from 1 as in the standard (MSH-1 is the field separator itself)."""

    name: str
    fields: Sequence[str]
    separators: Separators

    def raw(self, field: int) -> str:
        """The field as sent, or "" beyond the end."""
        return self.fields[field - 1] if 0 < field <= len(self.fields) else ""

    def repetitions(self, field: int) -> list[str]:
        """The repetitions of a field as sent; none for an empty field."""
        raw = self.raw(field)
        return raw.split(self.separators.repetition) if raw else []

    def component(self, field: int, component: int = 1, *, repetition: int = 0) -> str:
        """The text of one component of one repetition, unescaped; its first subcomponent when it has several."""
        rows = self.repetitions(field)
        return self.part(rows[repetition], component) if repetition < len(rows) else ""

    def part(self, repetition: str, component: int = 1, subcomponent: int = 1) -> str:
        """The text of a component (and subcomponent) of a repetition as sent, unescaped. HL7's null ('""') is ""."""
        components = repetition.split(self.separators.component)
        if component > len(components):
            return ""
        parts = components[component - 1].split(self.separators.subcomponent)
        text = parts[subcomponent - 1] if subcomponent <= len(parts) else ""
        return "" if text == '""' else unescape(text, self.separators).strip()

    def text(self, field: int) -> str:
        """The whole field as text, repetitions on lines of their own."""
        return "\n".join(unescape(row, self.separators).strip() for row in self.repetitions(field))


@dataclass(frozen=True)
class Message:
    """A message: its segments in order, MSH first."""

    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        return self.segments[0]

    @property
    def type(self) -> str:
        """MSH-9 as "ORU^R01"."""
        return "^".join(filter(None, (self.header.component(9, 1), self.header.component(9, 2))))

    def first(self, name: str) -> Segment | None:
        """The first segment of that name, or None."""
        return next((segment for segment in self.segments if segment.name == name), None)


def parse(content: bytes) -> Message:
    """Splits one message. Raises RefusedError `hl7v2.no_header`, `hl7v2.bad_header` or `hl7v2.several_messages`."""
    text = decode(content.strip(b"\x0b\x1c\r\n \t"))
    lines = [line for line in _LINES.split(text) if line.strip()]
    if not lines or not lines[0].startswith("MSH"):
        raise RefusedError(
            "hl7v2.no_header",
            "the message does not begin with an MSH segment",
            missing=("MSH",),
            remedy="send one complete HL7 v2 message",
        )
    if sum(line.startswith("MSH" + lines[0][3:4]) for line in lines) > 1:
        raise RefusedError(
            "hl7v2.several_messages", "several messages came as one", remedy="send each message on its own"
        )
    separators = _separators(lines[0])
    segments: list[Segment] = []
    for line in lines:
        if _SEGMENT.match(line) and (len(line) == 3 or line[3] == separators.field):
            segments.append(_segment(line, separators))
        elif segments:
            segments[-1] = _continued(segments[-1], line)
    return Message(tuple(segments))


def decode(content: bytes) -> str:
    """Bytes to text in the character set of MSH-18; UTF-8, then Latin-1, when none or a wrong one is declared."""
    names = []
    head = content.split(b"\r", 1)[0].split(b"\n", 1)[0]
    fields = head.split(head[3:4]) if len(head) > 3 else []
    if len(fields) > 17:
        declared = fields[17].split(b"~")[0].decode("ascii", errors="replace").strip().upper()
        if declared in _CHARSETS:
            names.append(_CHARSETS[declared])
    for name in [*names, "utf-8"]:
        try:
            return codecs.decode(content, name).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def unescape(text: str, separators: Separators) -> str:
    r"""Resolves escape sequences (section 2.7): \F\ \S\ \T\ \R\ \E\ \P\, \Xhh..\, \.br\, \.sp<n>\, highlighting.

    Unknown and local sequences (\Zdd\) are left as they are: dropping them could change a value.
    """
    escape = separators.escape
    if not escape or escape not in text:
        return text
    letters = {
        "F": separators.field,
        "S": separators.component,
        "T": separators.subcomponent,
        "R": separators.repetition,
        "E": escape,
        "P": "#",
        "H": "",
        "N": "",
    }

    def resolve(match: re.Match[str]) -> str:
        inner = match.group(1)
        if inner in letters:
            return letters[inner]
        if re.fullmatch(r"\.(br|ce)", inner):
            return "\n"
        if re.fullmatch(r"\.(sp|sk|in|ti)[+-]?\d*", inner) or inner in (".fi", ".nf"):
            return "\n" if inner.startswith(".sp") else " "
        if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", inner):
            return bytes.fromhex(inner[1:]).decode("utf-8", errors="replace")
        return match.group(0)

    sign = re.escape(escape)
    return re.sub(f"{sign}([^{sign}\r\n]*){sign}", resolve, text)


def _separators(line: str) -> Separators:
    if len(line) < 8:
        raise _bad_header()
    field = line[3]
    declared = line[4:].split(field, 1)[0]
    if len(declared) < 2 or field.isalnum() or len(set(declared) | {field}) != len(declared) + 1:
        raise _bad_header()
    padded = declared.ljust(4, "\x00")
    return Separators(field, padded[0], padded[1], padded[2].strip("\x00"), padded[3])


def _bad_header() -> RefusedError:
    return RefusedError(
        "hl7v2.bad_header",
        "MSH-1 and MSH-2 do not declare usable separators",
        missing=("MSH-1", "MSH-2"),
        remedy="send MSH with its five separators, for example MSH|^~\\&|",
    )


def _segment(line: str, separators: Separators) -> Segment:
    name, fields = line[:3], line[4:].split(separators.field)
    return Segment(name, [separators.field, *fields] if name == "MSH" else fields, separators)


def _continued(segment: Segment, line: str) -> Segment:
    # A raw line break inside a field: the rest of the line belongs to the field before it.
    first, *rest = line.split(segment.separators.field)
    fields = [*segment.fields]
    fields[-1] = f"{fields[-1]} {first}" if fields else first
    return Segment(segment.name, [*fields, *rest], segment.separators)
