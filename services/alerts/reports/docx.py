"""A report as a Word file (Office Open XML), with headings that a reader can navigate."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import docx
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor

from services.alerts.reports.model import MeasurementTable
from services.alerts.reports.present import Shown

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_BLUE, _RED, _GREY = RGBColor(0x1F, 0x4B, 0x7A), RGBColor(0xB3, 0x26, 0x1E), RGBColor(0x5A, 0x66, 0x75)


def render(report: Shown) -> bytes:
    """The file. Patient identity stands in the text only, not in the document's properties."""
    document = docx.Document()
    _style(document)
    document.core_properties.title = report.title
    document.core_properties.author = "Osler"
    if report.banner:
        paragraph = document.add_paragraph()
        run = paragraph.add_run(report.banner)
        run.bold = True
        _shade(paragraph, "FFF3D6")
        document.sections[0].header.paragraphs[0].text = report.banner
    document.add_heading(report.title, level=0)
    _header(document, report)
    for section in report.sections:
        heading = document.add_heading(section.title, level=1)
        if section.name == "critical" and report.critical:
            heading.runs[0].font.color.rgb = _RED
        for number, line in enumerate(section.lines, start=1):
            # Numbers as text: Word's own list numbers would run on from one section to the next.
            if section.numbered:
                paragraph = document.add_paragraph(f"{number}.\t{line}")
                paragraph.paragraph_format.left_indent, paragraph.paragraph_format.first_line_indent = (
                    Cm(0.75),
                    Cm(-0.75),
                )
            else:
                document.add_paragraph(line, style="List Bullet")
        if section.table:
            _table(document, section.table)
    signature = document.add_paragraph().add_run(report.signature)
    signature.bold = True
    for text in report.footer:
        run = document.add_paragraph().add_run(text)
        run.font.size, run.font.color.rgb = Pt(8), _GREY
    buffer = BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def _style(document: Any) -> None:
    page = document.sections[0]
    page.page_width, page.page_height = Cm(21.0), Cm(29.7)
    page.left_margin = page.right_margin = Cm(2.2)
    page.top_margin = page.bottom_margin = Cm(2.0)
    normal = document.styles["Normal"]
    normal.font.name, normal.font.size = "Calibri", Pt(10.5)
    normal.paragraph_format.space_after = Pt(3)
    document.styles["List Bullet"].paragraph_format.space_after = Pt(2)
    for name, size in (("Title", 18), ("Heading 1", 12)):
        style = document.styles[name]
        style.font.name, style.font.size, style.font.color.rgb = "Calibri", Pt(size), _BLUE
        style.element.rPr.rFonts.set(qn("w:asciiTheme"), "minorHAnsi")
    document.styles["Heading 1"].paragraph_format.space_before = Pt(10)
    document.styles["Heading 1"].paragraph_format.space_after = Pt(3)


def _header(document: Any, report: Shown) -> None:
    half = (len(report.header) + 1) // 2
    table = document.add_table(rows=half, cols=4)
    for index, (label, value) in enumerate(report.header):
        row, column = index % half, 2 * (index // half)
        table.cell(row, column).paragraphs[0].add_run(label).font.color.rgb = _GREY
        table.cell(row, column + 1).paragraphs[0].add_run(value).bold = True
    for row in table.rows:
        for cell, width in zip(row.cells, (2.8, 6.0, 2.4, 5.4), strict=True):
            cell.width = Cm(width)


def _table(document: Any, content: MeasurementTable) -> None:
    table = document.add_table(rows=1, cols=len(content.columns), style="Light Grid Accent 1")
    for cell, text in zip(table.rows[0].cells, content.columns, strict=True):
        _fill(cell, text, right=cell is not table.rows[0].cells[0])
    _repeat_header(table.rows[0])
    for row in content.rows:
        cells = table.add_row().cells
        for index, (cell, text) in enumerate(zip(cells, row, strict=True)):
            _fill(cell, text, right=index > 0)
    if content.note:
        run = document.add_paragraph().add_run(content.note)
        run.font.size, run.font.color.rgb = Pt(8.5), _GREY


def _fill(cell: Any, text: str, *, right: bool) -> None:
    paragraph = cell.paragraphs[0]
    paragraph.add_run(text).font.size = Pt(8.5)
    paragraph.paragraph_format.space_after = Pt(0)
    if right:
        paragraph.alignment = WD_ALIGN_PARAGRAPH.RIGHT


def _repeat_header(row: Any) -> None:
    """The heading row again on each page that the table reaches (ECMA-376 part 1, 17.4.78 tblHeader)."""
    properties = row._tr.get_or_add_trPr()
    properties.append(OxmlElement("w:tblHeader"))


def _shade(paragraph: Any, colour: str) -> None:
    shading = OxmlElement("w:shd")
    shading.set(qn("w:val"), "clear")
    shading.set(qn("w:fill"), colour)
    paragraph._p.get_or_add_pPr().append(shading)
