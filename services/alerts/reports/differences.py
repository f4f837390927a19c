"""What a reader changed in a draft: by section, which lines went, which came, which stayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from services.alerts.reports.model import Report, Section


@dataclass(frozen=True)
class SectionChange:
    """Lines of one section that differ between two versions. A reworded line is in both `removed` and `added`."""

    section: str
    removed: tuple[str, ...]
    added: tuple[str, ...]
    kept: int
    table_dropped: bool = False


@dataclass(frozen=True)
class Difference:
    """Changed sections only. `kept_share`: share of the earlier version's lines that stand unchanged, 0..1."""

    changes: tuple[SectionChange, ...]
    kept_share: float


def between(before: Report, after: Report) -> Difference:
    """The difference of two versions of one report."""
    later = {section.name: section for section in after.sections}
    compared = [_section(section, later.get(section.name, Section(section.name))) for section in before.sections]
    total = sum(len(section.lines) for section in before.sections)
    kept = sum(change.kept for change in compared)
    changed = tuple(change for change in compared if change.removed or change.added or change.table_dropped)
    return Difference(changed, round(kept / total, 4) if total else 1.0)


def _section(before: Section, after: Section) -> SectionChange:
    old, new = [line.text for line in before.lines], [line.text for line in after.lines]
    removed: list[str] = []
    added: list[str] = []
    kept = 0
    for tag, i1, i2, j1, j2 in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if tag == "equal":
            kept += i2 - i1
        else:
            removed += old[i1:i2]
            added += new[j1:j2]
    dropped = before.table is not None and after.table is None
    return SectionChange(before.name, tuple(removed), tuple(added), kept, dropped)


def as_text(difference: Difference, titles: dict[str, str]) -> Sequence[str]:
    """The difference for a terminal: section titles, then lines with - and +."""
    found: list[str] = []
    for change in difference.changes:
        found.append(f"@@ {titles.get(change.section, change.section)}")
        found += [f"- {line}" for line in change.removed]
        found += [f"+ {line}" for line in change.added]
        found += ["- (table)"] if change.table_dropped else []
    return found
