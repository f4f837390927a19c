"""A report: sections in the order in which they are read, each line with what it stands on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from services.alerts.critical import CriticalResult
from services.platform.errors import RefusedError

_LONGEST_LINE = 4000
_MOST_LINES = 200


@dataclass(frozen=True)
class Line:
    """One statement. `sources`: ids of findings, timeline entries, recommendations; empty for a person's own words."""

    text: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasurementTable:
    """Measurements side by side with the comparison; cells are text, rounded as they are shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """`name`: a key of `sections.yaml`."""

    name: str
    lines: tuple[Line, ...] = ()
    table: MeasurementTable | None = None


@dataclass(frozen=True)
class Report:
    """What a report says. Names of people are no part of it: they are looked up when it is shown.

    `study_date`: ISO 8601 or ""; revisions name what the draft was made from.
    """

    study_instance_uid: str
    patient_key: str
    study_date: str
    modalities: tuple[str, ...]
    description: str
    sections: tuple[Section, ...]
    critical: tuple[CriticalResult, ...] = ()
    snapshot_revision: int = 0
    findings_revision: int = 0
    advice_revision: int = 0
    methods: tuple[str, ...] = ()
    code_version: str = ""

    def section(self, name: str) -> Section:
        """The section of this name. Raises RefusedError `report.no_section`."""
        found = next((section for section in self.sections if section.name == name), None)
        if found is None:
            raise RefusedError(
                "report.no_section",
                f"this report has no section {name!r}",
                remedy="use one of " + ", ".join(section.name for section in self.sections),
            )
        return found


_ADAPTER = TypeAdapter(Report)


def to_json(report: Report) -> bytes:
    """The report as JSON; the same report gives the same bytes."""
    return _ADAPTER.dump_json(report)


def from_json(content: bytes) -> Report:
    """The inverse of `to_json`. Raises pydantic.ValidationError."""
    return _ADAPTER.validate_json(content)


def digest(report: Report) -> str:
    """SHA-256 of what a person signs, lower-case hexadecimal."""
    return hashlib.sha256(to_json(report)).hexdigest()


@cache
def section_rows() -> Mapping[str, Mapping[str, Any]]:
    """`sections.yaml`: title and codes of each section, in reading order."""
    rows = yaml.safe_load(Path(__file__).with_name("sections.yaml").read_text(encoding="utf-8"))["sections"]
    return {str(name): row for name, row in rows.items()}


def edited(report: Report, changes: Mapping[str, Sequence[str]], *, drop_tables: Sequence[str] = ()) -> Report:
    """The report with the lines of some sections replaced. Lines that a person kept as they were keep their sources.

    Raises RefusedError `report.no_section`, or `report.bad_text` for empty, too many or too long lines.
    """
    for name in (*changes, *drop_tables):
        report.section(name)
    sections = []
    for section in report.sections:
        if section.name in changes:
            known = {line.text: line for line in section.lines}
            texts = [_checked(text, section.name) for text in changes[section.name]]
            if len(texts) > _MOST_LINES:
                raise _bad_text(section.name, f"has {len(texts)} lines; {_MOST_LINES} at most")
            section = replace(section, lines=tuple(known.get(text, Line(text)) for text in texts))
        if section.name in drop_tables:
            section = replace(section, table=None)
        sections.append(section)
    return replace(report, sections=tuple(sections))


def _checked(text: str, name: str) -> str:
    plain = " ".join(text.split())
    if not plain:
        raise _bad_text(name, "has an empty line")
    if len(plain) > _LONGEST_LINE:
        raise _bad_text(name, f"has a line of {len(plain)} characters; {_LONGEST_LINE} at most")
    if any(ord(character) < 0x20 for character in plain):
        raise _bad_text(name, "has control characters")
    return plain


def _bad_text(name: str, what: str) -> RefusedError:
    return RefusedError("report.bad_text", f"section {name!r} {what}", remedy="send plain lines of text")
