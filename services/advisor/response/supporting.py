"""Criteria that the chart calls for beside size and metabolism: iRECIST under checkpoint inhibitors, CA-125, PSA.

They are told and never lead the next step. When the chart calls for one stands in `supporting.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2

from services.advisor.provenance import Source, provenance
from services.advisor.response import criteria
from services.advisor.response.lesions import Assessment, Judged, TimePoint
from services.advisor.tables import table
from services.advisor.visits import Visit
from services.clinical import terminology
from services.clinical.provenance import timestamp
from services.clinical.refusals import to_refusal
from services.platform.errors import RefusedError

# An unconfirmed progression has no category of its own in the contract: its label says what it is.
_CATEGORY: Mapping[str, advisor_pb2.ResponseCategory] = {
    "iCR": advisor_pb2.RESPONSE_CATEGORY_COMPLETE,
    "iPR": advisor_pb2.RESPONSE_CATEGORY_PARTIAL,
    "iSD": advisor_pb2.RESPONSE_CATEGORY_STABLE,
    "non-iCR/non-iUPD": advisor_pb2.RESPONSE_CATEGORY_STABLE,
    "iCPD": advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE,
    "NE": advisor_pb2.RESPONSE_CATEGORY_NOT_EVALUABLE,
    "response": advisor_pb2.RESPONSE_CATEGORY_PARTIAL,
    "neither": advisor_pb2.RESPONSE_CATEGORY_STABLE,
    "progression": advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE,
}
_START = "The start of treatment is not known here: the first value in the chart stands for the one before treatment."


def rules() -> Mapping[str, Any]:
    """supporting.yaml."""
    return table("response/supporting.yaml")


def supporting(
    entries: Sequence[fusion_pb2.TimelineEntry],
    chain: Sequence[Visit],
    points: Sequence[TimePoint],
    source: Source,
) -> list[advisor_pb2.ResponseAssessment]:
    """The further criteria of this chart. `chain`, `points`: the visits of the size criterion, empty where there is none."""
    found = []
    drug = _checkpoint_inhibitor(entries, chain[-1].at) if len(points) > 1 else None
    if drug is not None:
        ids = [drug.entry_id, *sorted(lesion.entry_id for visit in (chain[0], chain[-1]) for lesion in visit.lesions)]
        times = {visit.at.date(): visit for visit in chain}
        found += _told("irecist", points, ids, source, times)
    for marker in rules()["markers"]:
        samples = _samples(entries, marker)
        if len(samples) > 1 and _has_disease(entries, marker):
            values = [TimePoint(at, facts={marker: value}) for at, (value, _) in samples.items()]
            found += _told(marker, values, [entry_id for _, entry_id in samples.values()], source, {})
    return found


def _told(
    name: str, points: Sequence[TimePoint], ids: Sequence[str], source: Source, times: Mapping[date, Visit]
) -> list[advisor_pb2.ResponseAssessment]:
    try:
        answer = criteria.assess(name, points)
    except RefusedError:
        # The same visits were refused with the same reason by the leading criterion.
        return []
    last = answer.judged[-1]
    result = advisor_pb2.ResponseAssessment(
        criterion=answer.criterion,
        category=_CATEGORY.get(last.label, advisor_pb2.RESPONSE_CATEGORY_UNSPECIFIED),
        label=last.label,
        baseline_at=timestamp(_moment(answer.baseline_at, times)),
        current_at=timestamp(_moment(last.at, times)),
        baseline_value=last.baseline or 0.0,
        current_value=last.current or 0.0,
        unit=last.unit,
        change_percent=last.change_percent or 0.0,
        explanation=" ".join([*last.arithmetic, *last.notes]),
        evidence_entry_ids=ids,
        best_overall=answer.best,
        notes=[*answer.notes, *(() if times else (_START,))],
        statements=[to_refusal(concern.error()) for concern in (*answer.concerns, *last.concerns)],
        provenance=provenance(
            source,
            method=f"{answer.criterion}@{answer.version}",
            citations=answer.citations,
            entry_ids=ids,
        ),
    )
    if times:
        result.baseline_study_uid = times[answer.baseline_at].study_uid
        result.current_study_uid = times[last.at].study_uid
    _tell_visits(result, answer, times)
    return [result]


def _tell_visits(result: advisor_pb2.ResponseAssessment, answer: Assessment, times: Mapping[date, Visit]) -> None:
    for item in answer.judged:
        category = _CATEGORY.get(item.label, advisor_pb2.RESPONSE_CATEGORY_UNSPECIFIED)
        tell_visit(result, item, category, _moment(item.at, times), times[item.at].study_uid if times else "")


def tell_visit(
    result: advisor_pb2.ResponseAssessment,
    item: Judged,
    category: advisor_pb2.ResponseCategory,
    at: datetime,
    study_uid: str,
) -> None:
    """Adds one visit's category with its arithmetic; `study_uid` is empty where no images stand behind it."""
    told = result.visits.add(
        study_instance_uid=study_uid,
        at=timestamp(at),
        label=item.label,
        category=category,
        unit=item.unit,
        arithmetic=item.arithmetic,
        notes=item.notes,
        statements=[to_refusal(concern.error()) for concern in item.concerns],
    )
    if item.current is not None:
        told.value = item.current


def _moment(at: date, times: Mapping[date, Visit]) -> datetime:
    return times[at].at if at in times else datetime(at.year, at.month, at.day, tzinfo=UTC)


def _stands(entry: fusion_pb2.TimelineEntry) -> bool:
    return entry.status != fusion_pb2.ENTRY_STATUS_RETRACTED


def _words(entry: fusion_pb2.TimelineEntry) -> str:
    return " ".join([entry.title, *(code.display for code in entry.codes)]).lower()


def _checkpoint_inhibitor(
    entries: Sequence[fusion_pb2.TimelineEntry], until: datetime
) -> fusion_pb2.TimelineEntry | None:
    """The first entry of such a drug that began before the visit."""
    names = rules()["checkpoint_inhibitors"]["words"]
    for entry in entries:
        began = entry.HasField("effective_at") and entry.effective_at.ToDatetime(UTC) <= until
        named = entry.kind == fusion_pb2.ENTRY_KIND_MEDICATION and any(name in _words(entry) for name in names)
        if named and began and _stands(entry):
            return entry
    return None


def _has_disease(entries: Sequence[fusion_pb2.TimelineEntry], marker: str) -> bool:
    return any(
        entry.kind == fusion_pb2.ENTRY_KIND_CONDITION and _stands(entry) and _names(entry, rules()["markers"][marker])
        for entry in entries
    )


def _names(entry: fusion_pb2.TimelineEntry, disease: Mapping[str, Any]) -> bool:
    codes = [code.code for code in entry.codes]
    by_code = any(code in disease["snomed"] or code.startswith(tuple(disease["icd10"])) for code in codes)
    return by_code or any(all(word in _words(entry) for word in words) for words in disease["words"])


def _samples(entries: Sequence[fusion_pb2.TimelineEntry], marker: str) -> dict[date, tuple[float, str]]:
    """Day -> value in the canonical unit and its entry, oldest first; the later entry of a day counts."""
    found: dict[date, tuple[datetime, float, str]] = {}
    for entry in entries:
        if entry.kind != fusion_pb2.ENTRY_KIND_OBSERVATION or not _stands(entry) or "implausible" in entry.flags:
            continue
        analyte = terminology.analyte_of((code.system, code.code) for code in entry.codes)
        if analyte is None or analyte.name != marker or entry.WhichOneof("value") != "quantity":
            continue
        if entry.quantity.unit != analyte.unit or not entry.HasField("effective_at") or entry.quantity.value < 0:
            continue
        at = entry.effective_at.ToDatetime(UTC)
        held = found.get(at.date())
        if held is None or (at, entry.entry_id) >= (held[0], held[2]):
            found[at.date()] = (at, entry.quantity.value, entry.entry_id)
    return {day: found[day][1:] for day in sorted(found)}
