"""Reasons for a place on the worklist: from what was found, from the advice, and from the record."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2

from services.alerts import critical
from services.alerts.worklist.priority import Reason, table
from services.clinical.terminology import code_sets

_OF_A_CHART = (
    fusion_pb2.ENTRY_KIND_CONDITION,
    fusion_pb2.ENTRY_KIND_MEDICATION,
    fusion_pb2.ENTRY_KIND_OBSERVATION,
)


def of_study(
    findings: imaging_pb2.StudyFindings | None, advice: advisor_pb2.PatientAdvice | None, study_uid: str
) -> list[Reason]:
    """What this study's findings, and the advice made with them, say about its urgency."""
    rows = table()
    found = [
        Reason(result.statement, rows["critical"][result.category])
        for result in critical.find(findings.findings if findings else (), advice, study_uid)
    ]
    if findings:
        found += _of_quality(findings.quality)
    return found + (_of_advice(advice, study_uid) if advice else [])


def _of_quality(quality: Iterable[imaging_pb2.SeriesQuality]) -> list[Reason]:
    weights = table()["quality"]
    worst = max((row.verdict for row in quality), default=imaging_pb2.QUALITY_VERDICT_UNSPECIFIED)
    if worst == imaging_pb2.QUALITY_VERDICT_REJECT:
        return [Reason("images of a series cannot be used: a repeat may be needed", weights["reject"])]
    if worst == imaging_pb2.QUALITY_VERDICT_WARN:
        return [Reason("a series has limited quality", weights["warn"])]
    return []


def _of_advice(advice: advisor_pb2.PatientAdvice, study_uid: str) -> list[Reason]:
    """Critical results of this study count by themselves; an earlier progression makes the next study matter more."""
    weights, found = table()["recommendation"], []
    earlier = [
        r
        for r in advice.responses
        if r.category == advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE and r.current_study_uid != study_uid
    ]
    if earlier:
        text = f"{earlier[0].criterion} {earlier[0].label} at an earlier visit"
        found.append(Reason(text, table()["response"]["progressive"]))
    for urgency, word in ((advisor_pb2.URGENCY_CRITICAL, "critical"), (advisor_pb2.URGENCY_WARNING, "warning")):
        count = sum(item.urgency == urgency for item in advice.recommendations)
        if count:
            plural = "s" if count > 1 else ""
            found.append(Reason(f"{count} {word} recommendation{plural} for the patient", weights[word]))
    return found


def of_history(snapshot: fusion_pb2.PatientSnapshot, now: datetime) -> list[Reason]:
    """What the record says: diagnoses and drugs by code set, and where the patient is at `now`."""
    rows = table()
    standing = [e for e in snapshot.entries if e.status != fusion_pb2.ENTRY_STATUS_RETRACTED]
    chart = [e for e in standing if e.kind in _OF_A_CHART and not _over(e, now)]
    found = [
        Reason(row["text"], row["weight"])
        for name, row in rows["history"].items()
        if any(_in_set(name, entry) for entry in chart)
    ]
    here = {
        code.code.upper()
        for entry in standing
        if entry.kind == fusion_pb2.ENTRY_KIND_ENCOUNTER and _lasting(entry, now)
        for code in entry.codes
    }
    for row in rows["setting"].values():
        if here.intersection(row["codes"]):
            found.append(Reason(row["text"], row["weight"]))
            break
    return found


def _in_set(name: str, entry: fusion_pb2.TimelineEntry) -> bool:
    known = code_sets()[name]
    return any(known.holds_code(code.system, code.code) for code in entry.codes) or known.holds_text(entry.title)


def _over(entry: fusion_pb2.TimelineEntry, now: datetime) -> bool:
    return entry.HasField("effective_end") and entry.effective_end.ToDatetime(UTC) < now


def _lasting(entry: fusion_pb2.TimelineEntry, now: datetime) -> bool:
    if not entry.HasField("effective_at") or _over(entry, now):
        return False
    began = entry.effective_at.ToDatetime(UTC)
    return began <= now and (entry.HasField("effective_end") or now - began <= timedelta(days=table()["setting_days"]))
