"""Checks that what the images are called agrees with how they were made: contrast phase, weighting, projection."""

from __future__ import annotations

import re
from typing import Any

from services.imaging.quality.verdict import Evidence, Issue, issue, rules

_DESCRIPTIONS = ("SeriesDescription", "ProtocolName")


def _mentions(text: str, words: list[str]) -> str:
    """The first of `words` (whole words, spaces as in the text) that the text mentions, or ""."""
    return next((word for word in words if re.search(rf"(?<![A-Z0-9]){re.escape(word)}(?![A-Z0-9])", text)), "")


def contrast_phase(evidence: Evidence) -> list[Issue]:
    """A CT called enhanced without a contrast agent on record, or called native with one."""
    if evidence.modality != "CT":
        return []
    words = rules()["protocol"]["contrast"]
    text = evidence.text("SeriesDescription")
    agent = bool(str(evidence.first.get("ContrastBolusAgent", "") or "").strip())
    agent = agent or bool(evidence.first.get("ContrastBolusAgentSequence"))
    native, enhanced = _mentions(text, words["native"]), _mentions(text, words["enhanced"])
    if native and agent:
        return [issue("wrong_phase", f'the series is called "{native.lower()}", but a contrast agent is on record')]
    if enhanced and not native and not agent:
        return [issue("wrong_phase", f'the series is called "{enhanced.lower()}", but no contrast agent is on record')]
    return []


def mr_weighting(evidence: Evidence) -> list[Issue]:
    """An MR called T1, T2 or FLAIR whose echo, repetition or inversion time says otherwise."""
    if evidence.modality != "MR":
        return []
    text = evidence.text(*_DESCRIPTIONS)
    named = [name for name, rule in rules()["protocol"]["weighting"].items() if _mentions(text, rule["words"])]
    if len(named) != 1:
        return []
    rule = rules()["protocol"]["weighting"][named[0]]
    for keyword, (low, high) in rule["times_ms"].items():
        value = _number(evidence.first.get(keyword))
        if value is not None and not low <= value <= high:
            message = (
                f"the series is called {named[0]}, but its {keyword} is {value:g} ms ({low:g} to {high:g} are usual)"
            )
            return [issue("wrong_protocol", message)]
    return []


def projection(evidence: Evidence) -> list[Issue]:
    """An X-ray whose view position contradicts its description."""
    if evidence.modality not in rules()["protocol"]["projection"]["modalities"]:
        return []
    views = rules()["protocol"]["projection"]["views"]
    recorded = str(evidence.first.get("ViewPosition", "") or "").upper()
    text = evidence.text(*_DESCRIPTIONS)
    told = [view for view, words in views.items() if _mentions(text, words)]
    if recorded not in views or len(told) != 1 or told[0] == recorded:
        return []
    return [issue("wrong_protocol", f"(0018,5101) ViewPosition is {recorded}, the description says {told[0]}")]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
