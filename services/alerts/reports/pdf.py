"""A report as PDF, A4: the banner and the page number on every page."""

from __future__ import annotations

from functools import cache
from html import escape
from io import BytesIO
from typing import Any

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    KeepTogether,
    ListFlowable,
    ListItem,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from services.alerts.reports.model import MeasurementTable
from services.alerts.reports.present import Shown, ShownSection
from services.platform.errors import RefusedError

MEDIA_TYPE = "application/pdf"
_BLUE, _RED = colors.HexColor("#1f4b7a"), colors.HexColor("#b3261e")
_GREY, _PALE = colors.HexColor("#5a6675"), colors.HexColor("#f4f6f9")
# Comes with reportlab and is embedded, so that signs such as the minus show everywhere.
_FONT, _BOLD = "Vera", "VeraBd"


@cache
def _fonts() -> frozenset[int]:
    """Registers the fonts; the characters that both can show."""
    for name in (_FONT, _BOLD):
        pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    pdfmetrics.registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)
    faces = [pdfmetrics.getFont(name).face for name in (_FONT, _BOLD)]
    return frozenset(set(faces[0].charToGlyph) & set(faces[1].charToGlyph))


@cache
def _styles() -> dict[str, ParagraphStyle]:
    body = ParagraphStyle("body", fontName=_FONT, fontSize=8.8, leading=12.2)
    return {
        "body": body,
        "cell": ParagraphStyle("cell", body, fontSize=7.3, leading=9.4, alignment=2),
        "name": ParagraphStyle("name", body, fontSize=7.6, leading=9.6),
        "label": ParagraphStyle("label", body, textColor=_GREY),
        "value": ParagraphStyle("value", body, fontName=_BOLD),
        "title": ParagraphStyle("title", body, fontName=_BOLD, fontSize=14, leading=18, textColor=_BLUE, spaceAfter=4),
        "heading": ParagraphStyle(
            "heading", body, fontName=_BOLD, fontSize=10, leading=13, textColor=_BLUE, spaceBefore=8, spaceAfter=3
        ),
        "critical": ParagraphStyle(
            "critical", body, fontName=_BOLD, fontSize=10, leading=13, textColor=_RED, spaceBefore=8, spaceAfter=3
        ),
        "small": ParagraphStyle("small", body, fontSize=7, leading=9, textColor=_GREY),
        "signature": ParagraphStyle("signature", body, fontName=_BOLD, spaceBefore=10, spaceAfter=6),
    }


def render(report: Shown) -> bytes:
    """The file. Raises RefusedError `report.no_glyph` for text that the font cannot show, rather than showing boxes."""
    _check(report)
    styles = _styles()
    story: list[Any] = [Paragraph(escape(report.title), styles["title"]), _header(report), Spacer(1, 2 * mm)]
    for section in report.sections:
        story += _section(section, critical=report.critical)
    story.append(Paragraph(escape(report.signature), styles["signature"]))
    story += [Paragraph(escape(text), styles["small"]) for text in report.footer]
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=22 * mm,
        bottomMargin=18 * mm,
        title=report.title,
        author="Osler",
    )

    def frame(canvas: Any, document: Any) -> None:
        _page(canvas, document.page, report)

    document.build(story, onFirstPage=frame, onLaterPages=frame)
    return buffer.getvalue()


def _page(canvas: Any, number: int, report: Shown) -> None:
    canvas.saveState()
    width, height = A4
    if report.banner:
        canvas.setFillColor(colors.HexColor("#fff3d6"))
        canvas.rect(20 * mm, height - 17 * mm, width - 40 * mm, 7 * mm, stroke=0, fill=1)
        canvas.setFillColor(colors.HexColor("#6b4f00"))
        canvas.setFont(_BOLD, 8)
        canvas.drawCentredString(width / 2, height - 14.6 * mm, report.banner)
    canvas.setFillColor(_GREY)
    canvas.setFont(_FONT, 7)
    patient, record = report.header[0][1], report.header[1][1]
    canvas.drawString(20 * mm, 10 * mm, f"{patient}, {record}")
    canvas.drawRightString(width - 20 * mm, 10 * mm, f"Page {number}")
    canvas.restoreState()


def _header(report: Shown) -> Table:
    styles = _styles()
    half = (len(report.header) + 1) // 2
    cells: list[list[Any]] = [["", "", "", ""] for _ in range(half)]
    for index, (label, value) in enumerate(report.header):
        row, column = index % half, 2 * (index // half)
        cells[row][column] = Paragraph(escape(label), styles["label"])
        cells[row][column + 1] = Paragraph(escape(value), styles["value"])
    table = Table(cells, colWidths=[32 * mm, 60 * mm, 24 * mm, 54 * mm])
    table.setStyle(
        TableStyle([("BACKGROUND", (0, 0), (-1, -1), _PALE), ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("TOPPADDING", (0, 0), (-1, -1), 2), ("BOTTOMPADDING", (0, 0), (-1, -1), 2)])
    )  # fmt: skip
    return table


def _section(section: ShownSection, *, critical: bool) -> list[Any]:
    styles = _styles()
    heading = Paragraph(
        escape(section.title), styles["critical" if section.name == "critical" and critical else "heading"]
    )
    items = [ListItem(Paragraph(escape(line), styles["body"])) for line in section.lines]
    kind = {"bulletType": "1", "bulletFormat": "%s."} if section.numbered else {"bulletType": "bullet", "start": "•"}
    form = {"bulletFontName": _FONT, "bulletFontSize": 8, "leftIndent": 12, "bulletDedent": 11, **kind}
    first = ListFlowable(items[:1], **form)
    found: list[Any] = [KeepTogether([heading, first])] if items else [heading]
    if items[1:]:
        found.append(ListFlowable(items[1:], **{**form, "start": 2 if section.numbered else "•"}))
    return found + (_table(section.table) if section.table else [])


def _table(content: MeasurementTable) -> list[Any]:
    styles = _styles()
    rows = [
        [Paragraph(escape(text), styles["name" if index == 0 else "cell"]) for index, text in enumerate(row)]
        for row in (content.columns, *content.rows)
    ]
    name = 29 * mm
    rest = (170 * mm - name) / max(1, len(content.columns) - 1)
    table = Table(rows, colWidths=[name, *([rest] * (len(content.columns) - 1))], repeatRows=1)
    table.setStyle(
        TableStyle([("LINEBELOW", (0, 0), (-1, 0), 0.9, _GREY), ("LINEBELOW", (0, 1), (-1, -1), 0.3, colors.lightgrey),
                    ("VALIGN", (0, 0), (-1, -1), "MIDDLE"), ("TOPPADDING", (0, 0), (-1, -1), 2),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 2)])
    )  # fmt: skip
    note = [Paragraph(escape(content.note), styles["small"])] if content.note else []
    return [Spacer(1, 1.5 * mm), table, *note]


def _check(report: Shown) -> None:
    known = _fonts() | {ord("\n")}
    texts = [report.title, report.banner, report.signature, *report.footer]
    texts += [part for row in report.header for part in row]
    for section in report.sections:
        texts += [section.title, *section.lines]
        if section.table:
            texts += [section.table.note, *section.table.columns, *(cell for row in section.table.rows for cell in row)]
    missing = sorted({character for text in texts for character in text if ord(character) not in known})
    if missing:
        codes = ", ".join(f"U+{ord(character):04X}" for character in missing[:8])
        raise RefusedError(
            "report.no_glyph",
            f"the PDF font cannot show {codes}",
            missing=[f"U+{ord(character):04X}" for character in missing],
            remedy="use HTML or DOCX, which take the reader's own fonts",
        )
