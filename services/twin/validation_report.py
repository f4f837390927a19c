"""A validation report: sections with tables and figures, as Markdown, HTML and figures in JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WHOLE = "report.json"
Table = Sequence[Mapping[str, Any]]
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left}"
    "img{max-width:100%}.verdict{background:#f2f5f8;padding:.6rem 1rem;border-left:4px solid #1b6ca8}"
)


@dataclass(frozen=True)
class Section:
    """A heading with text, and optionally a table (rows of the same keys) and figures (name to PNG)."""

    title: str
    text: str = ""
    table: Table = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """`name` is the folder; `verdict` one sentence; `figures` every number of the report, for machines."""

    name: str
    title: str
    verdict: str
    sections: Sequence[Section]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """A report that was written: what an index and a machine need of it."""

    name: str
    title: str
    verdict: str
    figures: Mapping[str, Any]


def write(report: Report, folder: Path, made_from: str = "") -> Made:
    """Writes report.md, report.html, figures.json and the PNGs into `folder`/<name>, and last report.json, which says that
    the report is whole and what it was made from (a digest of code, data and options)."""
    target = folder / report.name
    target.mkdir(parents=True, exist_ok=True)
    (target / _WHOLE).unlink(missing_ok=True)
    for section in report.sections:
        for name, png in section.figures.items():
            (target / f"{name}.png").write_bytes(png)
    for name, text in (
        ("report.md", markdown(report)),
        ("report.html", _html(report)),
        ("figures.json", json.dumps(report.figures, indent=1) + "\n"),
    ):
        (target / name).write_text(text, encoding="utf-8")
    said = {"title": report.title, "verdict": report.verdict, "made_from": made_from}
    (target / _WHOLE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return Made(report.name, report.title, report.verdict, report.figures)


def written(name: str, folder: Path, made_from: str) -> Made | None:
    """The report of that name in `folder` if it is whole and was made from the same; None otherwise."""
    target = folder / name
    try:
        said = json.loads((target / _WHOLE).read_text(encoding="utf-8"))
        figures = json.loads((target / "figures.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Made(name, said["title"], said["verdict"], figures) if said["made_from"] == made_from else None


def write_index(reports: Sequence[Made], left_out: Mapping[str, str], folder: Path) -> Path:
    """index.md: the verdict on every model, and why a model could not be looked at."""
    lines = ["# Validation", "", "| model | verdict |", "|---|---|"]
    lines += [f"| [{report.title}]({report.name}/report.html) | {report.verdict} |" for report in reports]
    lines += [f"| {name} | not looked at: {reason} |" for name, reason in left_out.items()]
    path = folder / "index.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def markdown(report: Report) -> str:
    lines = [f"# {report.title}", "", f"**{report.verdict}**", ""]
    for section in report.sections:
        lines += [f"## {section.title}", ""]
        if section.text:
            lines += [section.text, ""]
        if section.table:
            lines += [*table(section.table), ""]
        lines += [f"![{section.title}: {name}]({name}.png)\n" for name in section.figures]
    return "\n".join(lines)


def table(rows: Table) -> list[str]:
    """Lines of a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]


def _html(report: Report) -> str:
    parts = [f"<h1>{html.escape(report.title)}</h1>", f'<p class="verdict">{html.escape(report.verdict)}</p>']
    for section in report.sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        if section.table:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in section.table[0])
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>"
                for row in section.table
            )
            parts.append(f"<table><tr>{head}</tr>{body}</table>")
        parts += [f'<img src="{name}.png" alt="{html.escape(section.title)}">' for name in section.figures]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(report.title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
