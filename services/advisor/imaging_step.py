"""The next imaging step: which examination, when, why, and why not another.

Follows the response, and inside the published range of intervals the twin's forecast. Data and sources in
`imaging_steps.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from osler.advisor.v1 import advisor_pb2
from osler.twin.v1 import twin_pb2

from services.advisor import treatments as treating
from services.advisor.facts import Facts
from services.advisor.follow_up import Interval, choose
from services.advisor.messages import URGENCY, missing, missing_words, order_code
from services.advisor.provenance import Source, provenance, recommendation_id
from services.advisor.tables import table
from services.advisor.visits import Visit
from services.clinical import codes
from services.clinical.provenance import timestamp

# Worst first: the step follows the criterion that asks for most.
SEVERITY: Sequence[tuple[advisor_pb2.ResponseCategory, str]] = (
    (advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE, "progressive"),
    (advisor_pb2.RESPONSE_CATEGORY_STABLE, "stable"),
    (advisor_pb2.RESPONSE_CATEGORY_PARTIAL, "partial"),
    (advisor_pb2.RESPONSE_CATEGORY_COMPLETE, "complete"),
    (advisor_pb2.RESPONSE_CATEGORY_NOT_EVALUABLE, "not_evaluable"),
)
_UNIT_OF_ORDER: Mapping[str, str] = {"PT": codes.UNIT_ML, "CT": codes.UNIT_MM, "MR": codes.UNIT_MM}
_TREATMENT = "treatment (drugs, start, radiotherapy)"
_FORECAST = "a tumour forecast (needs the same lesions at two visits)"


@dataclass(frozen=True)
class Step:
    """The recommendation, and whether its date has passed."""

    recommendation: advisor_pb2.Recommendation
    overdue: bool


def leading(
    responses: Sequence[advisor_pb2.ResponseAssessment],
) -> tuple[str, advisor_pb2.ResponseAssessment] | None:
    """The situation and the assessment that decide: the worst that could be judged, "not_evaluable" only when none could."""
    for category, situation in SEVERITY:
        for response in responses:
            if response.category == category:
                return situation, response
    return None


def next_step(
    visits: Sequence[Visit],
    responses: Sequence[advisor_pb2.ResponseAssessment],
    predictions: twin_pb2.PatientPredictions,
    safety: Sequence[advisor_pb2.Recommendation],
    facts: Facts,
    treatments: Sequence[treating.Treatment],
    source: Source,
    as_of: datetime,
) -> Step | None:
    """The next examination for a patient with lesions; None where no lesion was ever measured.

    `safety`: standing contrast recommendations, which decide how a contrast examination may be done. `treatments`: what the
    record says of the treatment of cancer.
    """
    with_lesions = [visit for visit in visits if visit.lesions]
    if not with_lesions:
        return None
    found = leading(responses)
    situation, response = found if found else ("first_visit", None)
    data = table("imaging_steps.yaml")
    step = data["steps"][situation]
    last = response.current_at.ToDatetime(UTC) if response else with_lesions[-1].at
    order = _order(response, with_lesions)
    forecast = _forecast(predictions, order)
    interval = choose(step["weeks"], forecast, last)
    weeks = interval.weeks
    due = last + timedelta(weeks=weeks)
    overdue = due < as_of
    words = {
        "criterion": response.criterion if response else "",
        "label": f"{response.label} ({situation.replace('_', ' ')})" if response else "",
        "title": data["orders"][order]["title"],
        "again": f"was due on {due:%Y-%m-%d}: schedule it" if overdue else f"again in {weeks} weeks ({due:%Y-%m-%d})",
        "due": f"{due:%Y-%m-%d}",
    }
    evidence = [*_evidence(responses, response, with_lesions[-1], forecast), *treating.evidence(treatments)]
    ids = [entry_id for item in evidence for entry_id in item.entry_ids]
    result = advisor_pb2.Recommendation(
        recommendation_id=recommendation_id(step["rule"], source.patient_key, ids),
        rule_id=step["rule"],
        summary=step["summary"].format(**words),
        detail=_detail(step["detail"], interval, order, safety, due, overdue, as_of),
        urgency=URGENCY["warning" if overdue else step["urgency"]],
        category="follow-up",
        proposed_order=order_code(order),
        due_at=timestamp(due),
        evidence=evidence,
        alternatives=_alternatives(_others(step, weeks), order, safety),
        not_found=[*_not_found(forecast, treatments), *missing_words(_unknown(order, facts))],
        missing=missing(_unknown(order, facts)),
        conflicts=_conflicts(order, safety),
        strength=step["strength"],
        rule_version=data["version"],
        provenance=provenance(
            source,
            method=f"{step['rule']}@{data['version']}",
            citations=[data["sources"][key] for key in step["sources"]],
            entry_ids=ids,
            parameters={"weeks": str(weeks), "situation": situation},
        ),
    )
    return Step(result, overdue)


def _order(response: advisor_pb2.ResponseAssessment | None, with_lesions: Sequence[Visit]) -> str:
    """The technique that was judged; without a judgement, that of the latest visit."""
    if response is None:
        return "PT" if with_lesions[-1].is_pet else _anatomical(with_lesions[-1])
    if not response.criterion.startswith("RECIST"):
        return "PT"
    return _anatomical(next(visit for visit in with_lesions if visit.study_uid == response.current_study_uid))


def _anatomical(visit: Visit) -> str:
    return "CT" if any(lesion.technique == "CT" for lesion in visit.lesions) else "MR"


def _forecast(predictions: twin_pb2.PatientPredictions, order: str) -> twin_pb2.TumourForecast | None:
    """The forecast of what the examination measures (volume for PET, diameters else), or another where there is none."""
    with_curve = [item for item in predictions.forecasts if item.curve]
    return next(
        (item for item in with_curve if item.unit == _UNIT_OF_ORDER[order]), with_curve[0] if with_curve else None
    )


def _evidence(
    responses: Sequence[advisor_pb2.ResponseAssessment],
    lead: advisor_pb2.ResponseAssessment | None,
    latest: Visit,
    forecast: twin_pb2.TumourForecast | None,
) -> list[advisor_pb2.Evidence]:
    """The assessment that leads, then the others (which may disagree), the latest visit, the forecast."""
    evidence = [
        advisor_pb2.Evidence(
            statement=f"{item.criterion} {item.label}: {item.explanation}", entry_ids=item.evidence_entry_ids
        )
        for item in sorted(responses, key=lambda item: item is not lead)
    ]
    ids = sorted(lesion.entry_id for lesion in latest.lesions)
    seen = f"{len(ids)} lesion measurement(s) at the latest visit ({latest.at:%Y-%m-%d})"
    evidence.append(advisor_pb2.Evidence(statement=seen, entry_ids=ids))
    if forecast is not None:
        horizon = forecast.horizon.ToDatetime(UTC)
        statement = (
            f"Forecast ({forecast.quantity.lower()}): probability of progression until {horizon:%Y-%m-%d} "
            f"{100 * forecast.probability_of_progression:.0f} %; lowest {_nadir(forecast)}"
        )
        ids = [entry_id for point in forecast.observed for entry_id in point.entry_ids]
        evidence.append(advisor_pb2.Evidence(statement=statement, entry_ids=ids))
    return evidence


def _nadir(forecast: twin_pb2.TumourForecast) -> str:
    nadir = forecast.time_to_nadir
    interval = nadir.uncertainty.interval
    return (
        f"about {nadir.value:.0f} days after the first measurement "
        f"({100 * interval.level:.0f} % interval {interval.lower:.0f} to {interval.upper:.0f})"
    )


def _limits(order: str, safety: Sequence[advisor_pb2.Recommendation]) -> list[advisor_pb2.Recommendation]:
    return [item for item in safety if item.rule_id.startswith(tuple(table("imaging_steps.yaml")["limits"][order]))]


def _detail(
    text: Any,
    interval: Interval,
    order: str,
    safety: Sequence[advisor_pb2.Recommendation],
    due: datetime,
    overdue: bool,
    as_of: datetime,
) -> str:
    parts = [str(text), f"Interval: {interval.weeks} weeks after the last visit, {interval.reason}."]
    if overdue:
        parts.append(f"That date passed {(as_of - due).days} days ago and no later visit is known: schedule it now.")
    parts += [f"Mind: {item.summary}." for item in _limits(order, safety)]
    return " ".join(parts)


def _others(step: Mapping[str, Any], weeks: int) -> list[Mapping[str, str]]:
    """The listed alternatives without the one that was chosen."""
    return [item for item in step["alternatives"] if step["weeks"].get(item.get("at")) != weeks]


def _alternatives(
    listed: Sequence[Mapping[str, str]], order: str, safety: Sequence[advisor_pb2.Recommendation]
) -> list[advisor_pb2.Alternative]:
    found = [advisor_pb2.Alternative(title=item["title"], reason=item["reason"]) for item in listed]
    seen = {item.title for item in found}
    for limit in _limits(order, safety):
        for alternative in limit.alternatives:
            if alternative.title not in seen:
                seen.add(alternative.title)
                found.append(alternative)
    return found


def _not_found(forecast: twin_pb2.TumourForecast | None, treatments: Sequence[treating.Treatment]) -> list[str]:
    return [*([] if treatments else [_TREATMENT]), *([] if forecast else [_FORECAST])]


def _unknown(order: str, facts: Facts) -> list[str]:
    """Facts that the examination needs and nobody has supplied."""
    names = ["egfr"] if order in ("CT", "MR") and "egfr" not in facts and "on_dialysis" not in _true(facts) else []
    status = facts.get("pregnancy_status")
    if order in ("CT", "PT") and status is not None and status.value == "unknown":
        names.append("pregnant")
    return names


def _true(facts: Facts) -> set[str]:
    return {name for name, fact in facts.items() if fact.value is True}


def _conflicts(order: str, safety: Sequence[advisor_pb2.Recommendation]) -> list[advisor_pb2.Conflict]:
    """Critical limits speak against the very examination that the step proposes."""
    return [
        advisor_pb2.Conflict(
            rule_id=item.rule_id,
            summary=item.summary,
            explanation="Follow-up asks for this examination, safety speaks against it as usually done; see the alternatives.",
        )
        for item in _limits(order, safety)
        if item.urgency == advisor_pb2.URGENCY_CRITICAL
    ]
