"""What was measured on a study, beside what was measured before: lines and a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from osler.imaging.v1 import imaging_pb2

from services.alerts.reports.model import Line, MeasurementTable
from services.clinical import codes

_KINDS = {
    imaging_pb2.FINDING_KIND_LESION: "lesion",
    imaging_pb2.FINDING_KIND_ORGAN: "organ",
    imaging_pb2.FINDING_KIND_REFERENCE: "reference",
}


@cache
def phrases() -> dict[str, Any]:
    """`phrases.yaml`."""
    return dict(yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8")))


@dataclass
class Thing:
    """One lesion, organ or reference region at one visit; several series may have measured it.

    `values`: concept name of `phrases.yaml` -> value in the unit that is shown.
    """

    key: str
    kind: str
    label: str
    site: str
    values: dict[str, float] = field(default_factory=dict)
    finding_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Earlier:
    """Things of an earlier visit, by key, and its day."""

    day: date | None
    things: Mapping[str, Thing]


def things(findings: Iterable[imaging_pb2.Finding], lesions: Mapping[str, str] | None = None) -> dict[str, Thing]:
    """What findings are about: by the advisor's lesion, else by tracking UID (else tracking id, else the finding itself).

    `lesions`: finding id -> lesion, as the response was judged; what the category counts as one lesion the report does too.
    One thing drawn on several images under names that differ by the image only ("GTV_CT", "GTV_PET") is one thing.
    """
    told = [finding for finding in findings if finding.kind in _KINDS]
    taken = _lesions_of_names(told, lesions or {})
    found: dict[str, Thing] = {}
    for finding in told:
        kind = _KINDS[finding.kind]
        key, label = _identity(finding)
        if lesion := (lesions or {}).get(finding.finding_id, taken.get(key)):
            key = f"lesion:{lesion}"
        thing = found.setdefault(key, Thing(key, kind, label, _site(finding)))
        thing.finding_ids.append(finding.finding_id)
        for name, value in _values(finding, kind):
            thing.values.setdefault(name, value)
    return found


def _lesions_of_names(findings: Iterable[imaging_pb2.Finding], lesions: Mapping[str, str]) -> dict[str, str]:
    """Name -> the one lesion that its findings are; a finding that the advisor did not follow goes with its namesakes."""
    named: dict[str, set[str]] = {}
    for finding in findings:
        if finding.finding_id in lesions:
            named.setdefault(_identity(finding)[0], set()).add(lesions[finding.finding_id])
    return {name: found.pop() for name, found in named.items() if len(found) == 1}


def _identity(finding: imaging_pb2.Finding) -> tuple[str, str]:
    """Key and label. A name with words for the image loses them, and is then itself the key."""
    label = finding.tracking_id or finding.finding_type.display or "Finding"
    words = re.split(r"[\s_]+", label.strip())
    kept = [word for word in words if word.lower() not in phrases()["image_words"]]
    if finding.kind == imaging_pb2.FINDING_KIND_LESION and kept and len(kept) < len(words):
        return f"label:{' '.join(kept).casefold()}", " ".join(kept)
    return finding.tracking_uid or finding.tracking_id or finding.finding_id, label


def _site(finding: imaging_pb2.Finding) -> str:
    return " ".join(part for part in (finding.laterality.display.lower(), finding.site.display.lower()) if part)


def _values(finding: imaging_pb2.Finding, kind: str) -> Iterable[tuple[str, float]]:
    for row in phrases()["measurements"]:
        if kind not in row.get("only", (kind,)):
            continue
        concept: codes.Concept = getattr(codes, row["concept"])
        for measurement in finding.measurements:
            if concept.matches(measurement.concept):
                per = row.get("per", 1) if measurement.value.unit == row.get("stored", measurement.value.unit) else 1
                yield row["concept"], measurement.value.value / per
                break


def earlier_of(
    visits: Sequence[tuple[date | None, Iterable[imaging_pb2.Finding]]], lesions: Mapping[str, str] | None = None
) -> Earlier:
    """The newest earlier visit at which anything was measured; `visits` newest first. `lesions`: as in `things`."""
    for day, findings in visits:
        found = things(findings, lesions)
        if any(thing.kind == "lesion" for thing in found.values()):
            return Earlier(day, found)
    return Earlier(None, {})


def lines(current: Mapping[str, Thing], earlier: Earlier) -> list[Line]:
    """One line for each thing, head to foot; then what was measured before and is not now."""
    words = phrases()
    found = [_line(thing, earlier) for thing in ordered(current.values())]
    found += [
        Line(
            words["lesion"]["missing"].format(
                label=gone.label, site=_in(gone), when=day_text(earlier.day), measured=_told(gone.values)
            ),
            tuple(gone.finding_ids),
        )
        for gone in ordered(earlier.things.values())
        if gone.kind == "lesion" and gone.key not in current and gone.values
    ]
    return found or [Line(words["none"])]


def ordered(found: Iterable[Thing]) -> list[Thing]:
    """Lesions, organs, reference regions; each head to foot."""
    order, kinds = phrases()["site_order"], list(_KINDS.values())

    def rank(thing: Thing) -> tuple[int, int, str]:
        place = f"{thing.site} {thing.label.lower()}"
        at = next((n for n, name in enumerate(order) if name in thing.site), None)
        at = at if at is not None else next((n for n, name in enumerate(order) if name in place), len(order))
        return kinds.index(thing.kind), at, thing.label

    return sorted(found, key=rank)


def _line(thing: Thing, earlier: Earlier) -> Line:
    words = phrases()
    before = earlier.things.get(thing.key)
    told = _told(thing.values, before.values if before else {}, earlier.day)
    filled = {"label": thing.label, "site": _in(thing), "measured": told}
    if thing.kind != "lesion":
        return Line(words[thing.kind].format(**filled), tuple(thing.finding_ids))
    if not thing.values:
        return Line(words["lesion"]["bare"].format(**filled), tuple(thing.finding_ids))
    change = "first" if not earlier.things else "new" if before is None else _change(thing, before)
    sources = (*thing.finding_ids, *(before.finding_ids if before else ()))
    renamed = words["lesion"]["renamed"].format(label=before.label) if before and before.label != thing.label else ""
    return Line(words["lesion"][change].format(**filled) + renamed, sources)


def _in(thing: Thing) -> str:
    """The site in brackets, unless the label says it."""
    return f" ({thing.site})" if thing.site and thing.site not in thing.label.lower() else ""


def _change(thing: Thing, before: Thing) -> str:
    words = phrases()
    for name in words["leading"]:
        if name in thing.values and before.values.get(name):
            # Rounded, so that a change of exactly the limit is on the right side of it.
            percent = round(100 * (thing.values[name] / before.values[name] - 1), 6)
            if abs(percent) <= words["unchanged_percent"]:
                return "unchanged"
            return "larger" if percent > 0 else "smaller"
    return "first"


def _told(values: Mapping[str, float], before: Mapping[str, float] | None = None, day: date | None = None) -> str:
    parts: list[str] = []
    having = [row for row in phrases()["measurements"] if row["concept"] in values]
    for row in [row for row in having if row.get("line")] or having:
        value, earlier = values[row["concept"]], (before or {}).get(row["concept"])
        text = f"{row['title']} {shown(row, value)}"
        if earlier is not None:
            on = f" on {day_text(day)}" if day and not parts else ""
            text += f" (previously {shown(row, earlier)}{on}{_percent(value, earlier)})"
        parts.append(text)
    return "; ".join(parts)


def shown(row: Mapping[str, Any], value: float) -> str:
    """A value as a report tells it: rounded, with its unit."""
    number = f"{value:.{row['decimals']}f}".replace("-", "−")
    return f"{number} {row['unit']}".strip()


def _percent(value: float, earlier: float) -> str:
    # A no-break space: a lone percent sign on the next line is hard to read.
    return f", {signed(100 * (value / earlier - 1))}\u00a0%" if earlier else ""


def signed(value: float) -> str:
    """A change with its sign; "0" without one."""
    rounded = round(value)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def day_text(day: date | None) -> str:
    """A day as reports write it, for example "25 Aug 2026"."""
    return f"{day.day} {day:%b %Y}" if day else "an unknown day"


def table(current: Mapping[str, Thing], earlier: Earlier) -> MeasurementTable | None:
    """Lesions by row, measurements by column: now, before, change. None without measured lesions."""
    lesions = [thing for thing in ordered(current.values()) if thing.kind == "lesion" and thing.values]
    rows = [
        row
        for row in phrases()["measurements"]
        if row.get("table") and any(row["concept"] in thing.values for thing in lesions)
    ]
    if not lesions or not rows:
        return None
    columns = ("Lesion", *(f"{row['title']}, {row['unit']}" if row["unit"] else row["title"] for row in rows))
    cells = [(thing.label, *(_cell(row, thing, earlier) for row in rows)) for thing in lesions]
    note = f"In brackets: on {day_text(earlier.day)}, and the change." if earlier.things else ""
    return MeasurementTable(columns, tuple(cells), note)


def _cell(row: Mapping[str, Any], thing: Thing, earlier: Earlier) -> str:
    value = thing.values.get(row["concept"])
    if value is None:
        return "not measured"
    plain = {**row, "unit": ""}
    before = earlier.things[thing.key].values.get(row["concept"]) if thing.key in earlier.things else None
    if before is None:
        return shown(plain, value)
    return f"{shown(plain, value)} ({shown(plain, before)}{_percent(value, before)})"


def told(thing: Thing) -> str:
    """One thing with what was measured, in words."""
    return f"{thing.label}{_in(thing)} {_lower(_told(thing.values))}"


def _lower(text: str) -> str:
    """A title inside a sentence, unless it is a name such as SUVmax."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def longest(current: Mapping[str, Thing]) -> str:
    """The largest lesion in words, by the first leading measurement that any has; "" without one."""
    rows = {row["concept"]: row for row in phrases()["measurements"]}
    for name in phrases()["leading"]:
        having = [thing for thing in current.values() if thing.kind == "lesion" and name in thing.values]
        if having:
            top = max(having, key=lambda thing: (thing.values[name], thing.label))
            return f"{top.label}{_in(top)}, {_lower(rows[name]['title'])} {shown(rows[name], top.values[name])}"
    return ""
