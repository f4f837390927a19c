"""Yes-or-no features from conditions, medications, allergies and coded answers.

False without entry ids means that a chart is there and no entry says so; it is not a statement that it is not so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from osler.fusion.v1.fusion_pb2 import Feature, TimelineEntry

from services.clinical.terminology import CodeSet, code_sets
from services.fusion.feature_view import View, missing, stand_on

_INACTIVE_CONDITION = frozenset(("inactive", "resolved", "remission"))
_TAKING = frozenset(("active", "in-progress", "unknown"))
# A drug given once is "taken" for this long: the interval of monthly depots.
_GIVEN_DAYS = 30


def holds(code_set: CodeSet, entry: TimelineEntry) -> bool:
    """Whether an entry's codes, drug or substance name, or mCODE profile are in a code set."""
    if any(code_set.holds_code(code.system, code.code) for code in entry.codes):
        return True
    if any(flag.startswith("profile:") and flag[8:] in code_set.profiles for flag in entry.flags):
        return True
    return code_set.holds_text(entry.title) or any(code_set.holds_text(code.display) for code in entry.codes)


def _absent(view: View, source: str) -> Feature:
    if view.has_chart(source):
        return Feature(flag=False)
    return missing("no chart received that would say so")


def _in_effect(entry: TimelineEntry, at: datetime) -> bool:
    return not entry.HasField("effective_end") or entry.effective_end.ToDatetime(UTC) >= at


def condition(view: View, row: Mapping[str, Any]) -> Feature:
    """A diagnosis in effect (or, with `past`, ever); procedures within a window and devices where declared."""
    code_set = code_sets()[row["code_set"]]
    found = [
        entry
        for entry in view.of("CONDITION")
        if holds(code_set, entry)
        and (row.get("past") or (_in_effect(entry, view.as_of) and entry.coded.code not in _INACTIVE_CONDITION))
    ]
    if "procedure_window" in row or row.get("procedures"):
        since = view.since(row.get("procedure_window"))
        found += [
            entry
            for entry in view.of("PROCEDURE")
            if holds(code_set, entry) and (since is None or _last_seen(entry) >= since)
        ]
    if row.get("devices"):
        found += [entry for entry in view.of("OTHER") if holds(code_set, entry)]
    return stand_on(Feature(flag=True), found) if found else _absent(view, "condition")


def _last_seen(entry: TimelineEntry) -> datetime:
    return (entry.effective_end if entry.HasField("effective_end") else entry.effective_at).ToDatetime(UTC)


def medication(view: View, row: Mapping[str, Any]) -> Feature:
    """A drug that is being taken: an active order or statement, or a dose given in the last 30 days."""
    code_set = code_sets()[row["code_set"]]
    found = [entry for entry in view.of("MEDICATION") if holds(code_set, entry) and _taken(entry, view.as_of)]
    return stand_on(Feature(flag=True), found) if found else _absent(view, "medication")


def _taken(entry: TimelineEntry, at: datetime) -> bool:
    if entry.coded.system.endswith("medicationadministration-status"):
        return _last_seen(entry) >= at - timedelta(days=_GIVEN_DAYS)
    return entry.coded.code in _TAKING and _in_effect(entry, at)


def allergy(view: View, row: Mapping[str, Any]) -> Feature:
    """An allergy that is not inactive or resolved; a condition coded as an allergy counts too."""
    code_set = code_sets()[row["code_set"]]
    found = [
        entry
        for entry in view.of("ALLERGY")
        if holds(code_set, entry) and entry.coded.code not in _INACTIVE_CONDITION and _in_effect(entry, view.as_of)
    ]
    found += [
        entry
        for entry in view.of("CONDITION")
        if any(code_set.holds_code(code.system, code.code) for code in entry.codes)
        and entry.coded.code not in _INACTIVE_CONDITION
    ]
    return stand_on(Feature(flag=True), found) if found else _absent(view, "allergy")


def _answers(view: View, row: Mapping[str, Any]) -> list[tuple[TimelineEntry, bool]]:
    question, yes, no = (code_sets()[row[name]] for name in ("question", "when_true", "when_false"))
    since = view.since(row.get("window"))
    found = []
    for entry in view.of("OBSERVATION"):
        if not any(question.holds_code(code.system, code.code) for code in entry.codes):
            continue
        if since is not None and entry.effective_at.ToDatetime(UTC) < since:
            continue
        if yes.holds_code(entry.coded.system, entry.coded.code):
            found.append((entry, True))
        elif no.holds_code(entry.coded.system, entry.coded.code):
            found.append((entry, False))
    return found


def answer(view: View, row: Mapping[str, Any]) -> Feature:
    """The latest answer to a question that is yes or no; other answers (unknown, not asked) count as none."""
    found = _answers(view, row)
    if not found:
        return missing("not asked, or not answered with yes or no")
    entry, said = found[-1]
    return stand_on(Feature(flag=said), [entry])


def pregnancy(view: View, row: Mapping[str, Any]) -> Feature:
    """Pregnant when the newest entry within the window that speaks of it says so."""
    since = view.since(row["window"])
    said: list[tuple[TimelineEntry, bool]] = _answers(view, row)
    for name, value in ((row["code_set"], True), (row["ended"], False)):
        code_set = code_sets()[name]
        said += [
            (entry, value and _in_effect(entry, view.as_of) and entry.coded.code not in _INACTIVE_CONDITION)
            for entry in _conditions_and_procedures(view)
            if holds(code_set, entry) and (since is None or entry.effective_at.ToDatetime(UTC) >= since)
        ]
    if not said:
        return _absent(view, "pregnancy")
    entry, value = max(said, key=lambda pair: (pair[0].effective_at.seconds, not pair[1], pair[0].entry_id))
    return stand_on(Feature(flag=value), [entry])


def _conditions_and_procedures(view: View) -> Sequence[TimelineEntry]:
    return [*view.of("CONDITION"), *view.of("PROCEDURE")]
