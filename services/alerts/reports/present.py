"""What a report looks like to people, before it becomes a page, a Word file or a PDF."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from osler.fusion.v1 import fusion_pb2

from services.alerts.report_store import VersionRow
from services.alerts.reports.desk import Status
from services.alerts.reports.measured import day_text
from services.alerts.reports.model import MeasurementTable, section_rows

_BANNERS = {
    "preliminary": "DRAFT: not read and not signed by a person. Not for clinical use.",
    "waiting": "CHANGED AND NOT SIGNED: the version that counts is the last signed one.",
}
INTENDED_USE = "Decision support for clinicians. Not a cleared medical device."


@dataclass(frozen=True)
class ShownSection:
    name: str
    title: str
    lines: tuple[str, ...]
    numbered: bool
    table: MeasurementTable | None


@dataclass(frozen=True)
class Shown:
    """A report as people read it. `banner` is empty for what a person has signed."""

    title: str
    banner: str
    header: tuple[tuple[str, str], ...]
    sections: tuple[ShownSection, ...]
    signature: str
    footer: tuple[str, ...]
    critical: bool


def shown(version: VersionRow, status: Status, who: fusion_pb2.Demographics) -> Shown:
    """The version for people. `who` names the patient; it stands in no stored report."""
    report = version.report
    signed = version.signed_at is not None
    banner = "" if signed else _BANNERS["preliminary" if status == "preliminary" else "waiting"]
    return Shown(
        title=f"Imaging report{': ' + report.description if report.description else ''}",
        banner=banner,
        header=_header(version, status, who),
        sections=tuple(
            ShownSection(
                section.name,
                str(section_rows()[section.name]["title"]),
                tuple(line.text for line in section.lines),
                bool(section_rows()[section.name].get("numbered")),
                section.table,
            )
            for section in report.sections
        ),
        signature=_signature(version, status),
        footer=_footer(version),
        critical=bool(report.critical),
    )


def _header(version: VersionRow, status: Status, who: fusion_pb2.Demographics) -> tuple[tuple[str, str], ...]:
    report = version.report
    name = ", ".join(part for part in (who.family_name, who.given_name) if part) or "not known"
    born = day_text(_day(who.birth_date)) if _day(who.birth_date) else "not known"
    state = status if version.signed_at is not None or status == "preliminary" else f"{status}, change not signed"
    return (
        ("Patient", f"{name}{' (synthetic)' if who.synthetic else ''}"),
        ("Record number", who.record_number or "not known"),
        ("Born", f"{born}, {who.sex or 'sex not known'}"),
        ("Study", day_text(_day(report.study_date)) if report.study_date else "date not known"),
        ("Modalities", ", ".join(report.modalities) or "not known"),
        ("Status", f"{state}, version {version.version}"),
    )


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def moment(at: datetime) -> str:
    """A time as reports write it, UTC."""
    return f"{day_text(at.date())} {at:%H:%M} UTC"


def _signature(version: VersionRow, status: Status) -> str:
    if version.signed_at is None:
        return "Not signed."
    word = "Amended and signed" if status == "amended" else "Signed"
    return f"{word} by {version.signed_by}, {moment(version.signed_at)}."


def _footer(version: VersionRow) -> tuple[str, ...]:
    report = version.report
    made = f"Drafted by Osler {report.code_version} from record revision {report.snapshot_revision}"
    advice = f", advice of revision {report.advice_revision}" if report.advice_revision else ""
    methods = f"; measured by {', '.join(report.methods)}" if report.methods else ""
    edited = f" Edited by {version.author}, {moment(version.made_at)}." if version.author_kind == "person" else ""
    return (
        f"{made}{advice}{methods}.{edited}",
        f"Study {report.study_instance_uid}. Content SHA-256 {version.body_sha256[:16]}.",
        INTENDED_USE,
    )
