"""Minutes of a meeting as PDF: who was there, what was known, what was decided, who dissented, who signed, what follows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

from osler.fusion.v1 import fusion_pb2
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from services.board.case import CaseView
from services.board.meeting import Discussion, Meeting, Participant, Recorded, words

_STYLES = getSampleStyleSheet()
_SMALL = ParagraphStyle(
    "small", parent=_STYLES["BodyText"], fontSize=8.5, leading=11, textColor=colors.HexColor("#444b55")
)
_BODY = ParagraphStyle("body", parent=_STYLES["BodyText"], fontSize=10, leading=13.5)
_HEAD = ParagraphStyle("head", parent=_STYLES["Heading2"], fontSize=13, spaceBefore=10, spaceAfter=2)
_LINE = colors.HexColor("#c8ced6")


@dataclass(frozen=True)
class CaseMinutes:
    discussion: Discussion
    view: CaseView
    who: fusion_pb2.Demographics


@dataclass(frozen=True)
class Minutes:
    meeting: Meeting
    people: Sequence[Participant]
    cases: Sequence[CaseMinutes]
    printed_at: datetime

    @property
    def final(self) -> bool:
        """Every case of the agenda has a decision that the required groups have signed."""
        decisions = [case.discussion.decision for case in self.cases]
        return bool(decisions) and all(d is not None and d.final for d in decisions)


def to_pdf(minutes: Minutes) -> bytes:
    """A4, one section for each case. Marked as draft until every decision is signed."""
    buffer = io.BytesIO()
    # The title of the document is shown in windows and lists: it names no patient.
    document = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=20 * mm, rightMargin=20 * mm, topMargin=18 * mm, bottomMargin=18 * mm,
        title="Tumour board minutes", author="Osler",
    )  # fmt: skip
    meeting = minutes.meeting
    state = "" if minutes.final else " (draft: not every decision is signed)"
    story: list[Any] = [
        Paragraph(escape(meeting.title) + state, _STYLES["Title"]),
        Paragraph(escape(f"{meeting.starts_at:%d %b %Y %H:%M} UTC {meeting.place}".strip()), _BODY),
        Paragraph("<b>Present</b>: " + (escape("; ".join(map(_person, minutes.people))) or "nobody recorded"), _BODY),
        Spacer(1, 4 * mm),
    ]
    for number, case in enumerate(minutes.cases, start=1):
        story += _case(number, case)
    document.build(story, onFirstPage=_footer(minutes), onLaterPages=_footer(minutes))
    return buffer.getvalue()


def _person(person: Participant) -> str:
    return f"{person.subject} ({person.discipline_title}{', remote' if person.remote else ''})"


def _footer(minutes: Minutes) -> Any:
    def draw(canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont("Helvetica", 8)
        canvas.setFillColor(colors.HexColor("#666c75"))
        canvas.drawString(20 * mm, 10 * mm, f"Printed {minutes.printed_at:%d %b %Y %H:%M} UTC. Confidential.")
        canvas.drawRightString(190 * mm, 10 * mm, f"Page {document.page}")
        canvas.restoreState()

    return draw


def _case(number: int, case: CaseMinutes) -> list[Any]:
    view, decision = case.view, case.discussion.decision
    who = f"{view.summary.name}, born {case.who.birth_date or 'unknown'}, record {case.who.record_number or 'unknown'}"
    known = [f"<b>Diagnoses</b>: {escape('; '.join(view.summary.conditions[:5]) or 'none recorded')}"]
    for response in view.responses:
        told = response.refusal.message if response.HasField("refusal") else f"{response.label}. {response.explanation}"
        known.append(f"<b>{escape(response.criterion)}</b>: {escape(told)}")
    if case.discussion.item.question:
        known.insert(0, f"<b>Question</b>: {escape(case.discussion.item.question)}")
    head = KeepTogether([Paragraph(escape(f"{number}. {who}"), _HEAD), *(Paragraph(k, _BODY) for k in known)])
    parts = [head, *_lesions(view)]
    parts += _decision(decision) if decision else [Paragraph("<b>Decision</b>: none recorded.", _BODY)]
    if case.discussion.comments:
        said = [f"{c.author} ({c.at:%H:%M}): {c.text}" for c in case.discussion.comments]
        parts += [Paragraph("<b>Discussion</b>", _BODY), *(Paragraph(escape(text), _SMALL) for text in said)]
    if case.discussion.tasks:
        rows = [
            [t.title, t.owner, f"{t.due_on:%d %b %Y}" if t.due_on else "no date", t.status]
            for t in case.discussion.tasks
        ]
        parts += [Spacer(1, 2 * mm), _table([["Follow-up", "Who", "By", "State"], *rows], [80, 40, 25, 25])]
    return [*parts, Spacer(1, 5 * mm)]


def _lesions(view: CaseView) -> list[Any]:
    if view.lesions is None:
        return []
    columns = [f"{name} ({unit})" for name, unit in view.lesions.columns[-3:]]
    rows = []
    for row in view.lesions.lesions:
        state = row.latest.verdict or "not reviewed"
        cells = row.cells[-3:]
        told = [
            f"{c.known[0]:.3g} to {c.known[-1]:.3g}" if len(c.known) > 1 else "".join(f"{v:.3g}" for v in c.known)
            for c in cells
        ]
        rows.append([row.label, *told, state])
    widths = [45, *([35] * len(columns)), 20][: len(columns) + 2]
    return [Spacer(1, 2 * mm), _table([["Lesion", *columns, "Reader"], *rows], widths)]


def _table(rows: Sequence[Sequence[str]], widths_mm: Sequence[float]) -> Table:
    wrapped = [[Paragraph(escape(str(cell)), _SMALL) for cell in row] for row in rows]
    table = Table(wrapped, colWidths=[w * mm for w in widths_mm], repeatRows=1)
    table.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _decision(recorded: Recorded) -> list[Any]:
    decision = recorded.decision
    lines = [
        f"<b>Decision</b> (version {recorded.version}): {escape(decision.summary)}",
        f"<b>Intent</b>: {escape(decision.intent_title)}. <b>Options</b>: {escape(', '.join(decision.option_titles))}.",
        f"<b>Why</b>: {escape(decision.rationale)}",
    ]
    if decision.conditions:
        lines.append(f"<b>Provided that</b>: {escape(decision.conditions)}")
    if decision.next_review:
        lines.append(f"<b>Next review</b>: {escape(decision.next_review)}")
    titles = words()["choices"]
    lines.append("<b>Votes</b>: " + ", ".join(f"{titles[name]} {count}" for name, count in recorded.tally.items()))
    lines += [f"<b>Dissent</b> of {escape(v.subject)}: {escape(v.reason)}" for v in recorded.dissents]
    signed = [
        f"{s.subject} ({words()['disciplines'].get(s.discipline, s.discipline)}, {s.at:%d %b %Y %H:%M} UTC)"
        for s in recorded.signatures
    ]
    lines.append(f"<b>Signed</b>: {escape('; '.join(signed) or 'nobody yet')}")
    if recorded.unsigned:
        lines.append(f"<b>Not signed yet for</b>: {', '.join(recorded.unsigned)}")
    lines.append(f"<font size=7>SHA-256 of what was signed: {recorded.digest}</font>")
    return [Spacer(1, 2 * mm), *(Paragraph(line, _BODY) for line in lines)]
