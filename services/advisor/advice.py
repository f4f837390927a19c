"""All advice for one patient: responses, recommendations, and the place on the worklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2
from osler.twin.v1 import twin_pb2

from services.advisor import (
    duplicate_imaging,
    facts_chart,
    fleischner,
    hippocampus,
    imaging_step,
    lung_rads,
    mr_safety,
    nodules,
    radiation_dose,
    rule_conflicts,
    rules,
    treatments,
)
from services.advisor.facts import Facts, merge
from services.advisor.facts_derived import complete
from services.advisor.imaging_step import leading, next_step
from services.advisor.messages import recommendation
from services.advisor.orders import Record
from services.advisor.provenance import Source
from services.advisor.response.snapshot import respond
from services.advisor.tables import table
from services.advisor.visits import visits

# Files of standing rules: what limits how an examination may be done, and the rest.
_SAFETY = ("contrast.yaml", "pregnancy.yaml", "mr_safety.yaml")
_OTHER = ("radiation_dose.yaml", "care.yaml")


@dataclass(frozen=True)
class Case:
    """What is known of a patient for advice that waits for no order. `as_of`: aware UTC."""

    as_of: datetime
    facts: Facts
    record: Record = field(default_factory=Record)
    nodules: Sequence[nodules.Nodule] = ()


def case_of(snapshot: fusion_pb2.PatientSnapshot, predictions: twin_pb2.PatientPredictions, as_of: datetime) -> Case:
    """The case that a snapshot and its predictions tell."""
    facts = {
        **facts_chart.from_snapshot(snapshot.features),
        **facts_chart.from_timeline(snapshot.entries, as_of),
        **facts_chart.from_predictions(predictions),
        **hippocampus.facts(snapshot.entries),
    }
    return Case(as_of, facts, record_of(snapshot, as_of), nodules.from_findings(snapshot.entries))


def record_of(snapshot: fusion_pb2.PatientSnapshot, as_of: datetime) -> Record:
    """Earlier examinations and implants of a snapshot."""
    return Record(
        duplicate_imaging.from_timeline(snapshot.entries, as_of), mr_safety.from_timeline(snapshot.entries, as_of)
    )


def advise(
    snapshot: fusion_pb2.PatientSnapshot,
    predictions: twin_pb2.PatientPredictions,
    sha256: str,
    recorded_at: datetime,
    beside: Case | None = None,
    corrections: Mapping[str, str] | None = None,
) -> advisor_pb2.PatientAdvice:
    """Advice from one snapshot and the predictions made of it. Deterministic but for `recorded_at`.

    `beside`: what a caller knows beyond the snapshot. `corrections`: finding id -> lesion, where a person corrected a match.
    Raises RefusedError for a nodule of an impossible size in `beside`.
    """
    as_of = snapshot.as_of.ToDatetime(UTC) if snapshot.HasField("as_of") else recorded_at
    source = Source(snapshot.patient_key, snapshot.revision, sha256, recorded_at)
    case = joined(case_of(snapshot, predictions, as_of), beside) if beside else case_of(snapshot, predictions, as_of)
    facts = known(case)
    lesions = nodules.without_incidental(snapshot.entries, facts)
    answer = respond(lesions, source, corrections)
    responses = answer.leading
    safety = _standing(_SAFETY, case, facts, source)
    treated = treatments.from_timeline(snapshot.entries, as_of)
    step = next_step(visits(lesions), responses, predictions, safety, facts, treated, source, as_of)
    found = [*([step.recommendation] if step else []), *safety, *_beside_safety(case, facts, source)]
    made = _advice(snapshot, responses, _finish(found), predictions, step, as_of)
    made.supporting.extend(answer.supporting)
    made.lesions.extend(answer.lesions)
    return made


def standing(case: Case, source: Source) -> list[advisor_pb2.Recommendation]:
    """Advice that needs neither an order nor measured lesions, most urgent first."""
    facts = known(case)
    return _finish([*_standing(_SAFETY, case, facts, source), *_beside_safety(case, facts, source)])


def joined(case: Case, beside: Case) -> Case:
    """Both together: the fresher fact counts, examinations, implants and nodules add up."""
    record = Record(
        (*case.record.exams, *beside.record.exams),
        (*case.record.implants, *beside.record.implants),
    )
    return Case(case.as_of, merge(case.facts, beside.facts), record, (*case.nodules, *beside.nodules))


def known(case: Case) -> Facts:
    """The facts of a case with all that follows from them."""
    facts = mr_safety.with_cardiac_device(complete(case.facts, case.as_of), case.record.implants)
    return {**facts, **radiation_dose.facts(case.record.exams, case.as_of)}


def _beside_safety(case: Case, facts: Facts, source: Source) -> list[advisor_pb2.Recommendation]:
    return [*_of_nodules(case, facts, source), *_standing(_OTHER, case, facts, source)]


def _of_nodules(case: Case, facts: Facts, source: Source) -> list[advisor_pb2.Recommendation]:
    """Lung-RADS for a patient in screening, the Fleischner table for everybody else."""
    screened = facts.get("lung_screening")
    if screened is None or not screened.value:
        return fleischner.advise(case.nodules, facts, source)
    chest_cts = [exam for exam in case.record.exams if exam.modality == "CT" and exam.region == "chest"]
    if not case.nodules and not chest_cts:
        return []
    return lung_rads.advise(case.nodules, facts, source, max((exam.at for exam in chest_cts), default=case.as_of))


def _standing(names: Sequence[str], case: Case, facts: Facts, source: Source) -> list[advisor_pb2.Recommendation]:
    standing_rules = [rule for name in names for rule in rules.load(name) if rule.standing]
    implants = mr_safety.items(case.record.implants, case.as_of)
    return [recommendation(fired, source) for fired in rules.fire(standing_rules, facts, implants)]


def _finish(found: list[advisor_pb2.Recommendation]) -> list[advisor_pb2.Recommendation]:
    found.sort(key=lambda item: -item.urgency)
    rule_conflicts.mark(found)
    return found


def _advice(
    snapshot: fusion_pb2.PatientSnapshot,
    responses: Sequence[advisor_pb2.ResponseAssessment],
    found: Sequence[advisor_pb2.Recommendation],
    predictions: twin_pb2.PatientPredictions,
    step: imaging_step.Step | None,
    as_of: datetime,
) -> advisor_pb2.PatientAdvice:
    priority, reason = _priority(responses, found, predictions, step)
    result = advisor_pb2.PatientAdvice(
        patient_key=snapshot.patient_key,
        snapshot_revision=snapshot.revision,
        responses=responses,
        recommendations=found,
        priority=priority,
        priority_reason=reason,
    )
    result.as_of.FromDatetime(as_of)
    return result


def _priority(
    responses: Sequence[advisor_pb2.ResponseAssessment],
    found: Sequence[advisor_pb2.Recommendation],
    predictions: twin_pb2.PatientPredictions,
    step: imaging_step.Step | None,
) -> tuple[float, str]:
    """0..1 and the reasons, heaviest first."""
    weights = table("priority.yaml")
    reasons: list[tuple[float, str]] = []
    lead = leading(responses)
    if lead:
        reasons.append((weights["response"][lead[0]], f"{lead[1].criterion} {lead[1].label}"))
    for urgency, word in ((advisor_pb2.URGENCY_CRITICAL, "critical"), (advisor_pb2.URGENCY_WARNING, "warning")):
        count = sum(item.urgency == urgency for item in found)
        if count:
            reasons.append((weights["recommendation"][word], f"{count} {word} recommendation(s)"))
    chances = [item.probability_of_progression for item in predictions.forecasts if item.curve]
    if chances:
        chance = max(chances)
        reasons.append((weights["progression_probability"] * chance, f"forecast progression {100 * chance:.0f} %"))
    if step and step.overdue:
        reasons.append((weights["overdue_imaging"], "imaging overdue"))
    rest = 1.0 - weights["base"]
    for weight, _ in reasons:
        rest *= 1.0 - weight
    ordered = sorted(reasons, key=lambda item: (-item[0], item[1]))
    return round(1.0 - rest, 4), "; ".join(text for _, text in ordered) or "nothing asks for attention"
