"""Which response criteria apply between the visits of a patient, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2

from services.advisor.provenance import Source, provenance
from services.advisor.response import criteria, percist, recist
from services.advisor.response.lesions import Assessment, TimePoint
from services.advisor.response.matching import Frames, Matched, match, registrations_of
from services.advisor.response.occasions import Followed, follow
from services.advisor.response.supporting import supporting, tell_visit
from services.advisor.visits import LesionFinding, Visit, chains, visits
from services.clinical import codes
from services.clinical.provenance import timestamp
from services.clinical.refusals import to_refusal
from services.platform.errors import RefusedError

# Matches by place that are told one by one; the rest is counted.
_MOST_MATCHES = 5
_UNCONFIRMED = "response.lesions_unconfirmed"
_CATEGORY: Mapping[str, advisor_pb2.ResponseCategory] = {
    "CR": advisor_pb2.RESPONSE_CATEGORY_COMPLETE,
    "PR": advisor_pb2.RESPONSE_CATEGORY_PARTIAL,
    "SD": advisor_pb2.RESPONSE_CATEGORY_STABLE,
    "non-CR/non-PD": advisor_pb2.RESPONSE_CATEGORY_STABLE,
    "PD": advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE,
    "NE": advisor_pb2.RESPONSE_CATEGORY_NOT_EVALUABLE,
    "CMR": advisor_pb2.RESPONSE_CATEGORY_COMPLETE,
    "PMR": advisor_pb2.RESPONSE_CATEGORY_PARTIAL,
    "SMD": advisor_pb2.RESPONSE_CATEGORY_STABLE,
    "PMD": advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE,
}


@dataclass(frozen=True)
class Responses:
    """`leading`: what the next step follows; `supporting`: criteria that the chart calls for beside them; `lesions`: which
    findings were taken as one lesion."""

    leading: tuple[advisor_pb2.ResponseAssessment, ...]
    supporting: tuple[advisor_pb2.ResponseAssessment, ...]
    lesions: tuple[advisor_pb2.Lesion, ...] = ()


@dataclass(frozen=True)
class _Sized:
    """RECIST 1.1, and the visits that it was read from."""

    result: advisor_pb2.ResponseAssessment
    chain: tuple[Visit, ...]
    points: tuple[TimePoint, ...]


def assess(
    entries: Iterable[fusion_pb2.TimelineEntry], source: Source, corrections: Mapping[str, str] | None = None
) -> list[advisor_pb2.ResponseAssessment]:
    """Every criterion that two visits allow, metabolic first. Empty while lesions were measured at fewer than two visits.

    PERCIST where its measurements are there; where they are not, that is said and the EORTC change of SUVmax stands in.
    `corrections`: finding id -> lesion, a person's word on which lesion a finding is.
    """
    return list(respond(entries, source, corrections).leading)


def respond(
    entries: Iterable[fusion_pb2.TimelineEntry], source: Source, corrections: Mapping[str, str] | None = None
) -> Responses:
    """As `assess`, with iRECIST under checkpoint inhibitors, and CA-125 or PSA where the chart has the disease."""
    held = list(entries)
    frames = Frames(registrations_of(held))
    matched = match(visits(held), frames, corrections)
    found = matched.visits
    pet = [visit for visit in found if visit.is_pet]
    first = next((index for index, visit in enumerate(pet) if visit.lesions), len(pet))
    sized = _anatomical(found, matched, frames, source)
    leading = [*_metabolic(pet[first:], source), *([sized.result] if sized else [])]
    chain, points = (sized.chain, sized.points) if sized else ((), ())
    return Responses(tuple(leading), tuple(supporting(held, chain, points, source)), tuple(_lesions(found)))


def _lesions(found: Sequence[Visit]) -> list[advisor_pb2.Lesion]:
    by_key: dict[str, list[str]] = {}
    for visit in found:
        for lesion in visit.lesions:
            if lesion.key:
                by_key.setdefault(lesion.key, []).append(lesion.finding_id)
    return [advisor_pb2.Lesion(key=key, finding_ids=ids) for key, ids in by_key.items() if len(ids) > 1]


def _outline(
    criterion: str, baseline: Visit, current: Visit, version: str, citations: Sequence[str], source: Source
) -> advisor_pb2.ResponseAssessment:
    ids = sorted({lesion.entry_id for visit in (baseline, current) for lesion in visit.lesions})
    ids += sorted({*baseline.reference_ids, *current.reference_ids} - set(ids))
    return advisor_pb2.ResponseAssessment(
        criterion=criterion,
        baseline_study_uid=baseline.study_uid,
        current_study_uid=current.study_uid,
        baseline_at=timestamp(baseline.at),
        current_at=timestamp(current.at),
        evidence_entry_ids=ids,
        provenance=provenance(source, method=f"{criterion}@{version}", citations=citations, entry_ids=ids),
    )


def _refuse(result: advisor_pb2.ResponseAssessment, refusal: RefusedError) -> advisor_pb2.ResponseAssessment:
    result.category = advisor_pb2.RESPONSE_CATEGORY_NOT_EVALUABLE
    result.label = "NE"
    result.explanation = refusal.message
    result.refusal.CopyFrom(to_refusal(refusal))
    return result


def _decide(
    result: advisor_pb2.ResponseAssessment, label: str, before: float, now: float, change: float, unit: str, why: str
) -> advisor_pb2.ResponseAssessment:
    result.category, result.label = _CATEGORY[label], label
    result.baseline_value, result.current_value, result.unit = before, now, unit
    result.change_percent = change
    result.explanation = why
    return result


def _metabolic(pet: Sequence[Visit], source: Source) -> list[advisor_pb2.ResponseAssessment]:
    if len(pet) < 2:
        return []
    baseline, current = pet[0], pet[-1]
    new, remarks = _new_lesions(pet)
    rules = percist.rules("percist")
    result = _outline(rules["name"], baseline, current, rules["version"], rules["citations"], source)
    result.visits.extend(_metabolic_visits(pet))
    try:
        answer = _percist(baseline, current, bool(new))
    except RefusedError as refusal:
        refused = _refuse(result, refusal)
        if refusal.reason == _UNCONFIRMED:
            return [refused]
        return [refused, *_fallback(baseline, current, new, remarks, source)]
    why = " ".join([f"{answer.reason[:1].upper()}{answer.reason[1:]}.", *remarks])
    values = (answer.baseline, answer.current, answer.change_percent)
    return [_decide(result, answer.category, *values, codes.UNIT_SUV_LBM, why)]


def _percist(baseline: Visit, current: Visit, new: bool) -> percist.Metabolic:
    _need_outlines(baseline, current)
    for visit in (baseline, current):
        _need_sul(visit)
    return percist.percist(_scan(baseline, "sul_peak"), _scan(current, "sul_peak", new))


def _metabolic_visits(pet: Sequence[Visit]) -> list[advisor_pb2.VisitResponse]:
    """Every PET after the baseline, oldest first."""
    told = []
    for index, visit in enumerate(pet[1:], start=1):
        item = advisor_pb2.VisitResponse(study_instance_uid=visit.study_uid, at=timestamp(visit.at))
        try:
            answer = _percist(pet[0], visit, bool(_new_lesions(pet[: index + 1])[0]))
        except RefusedError as refusal:
            item.label, item.category = "NE", _CATEGORY["NE"]
            item.statements.append(to_refusal(refusal))
        else:
            item.label, item.category = answer.category, _CATEGORY[answer.category]
            item.value, item.unit = answer.current, codes.UNIT_SUV_LBM
            item.arithmetic.append(
                f"Hottest lesion: ({answer.current:.2f} - {answer.baseline:.2f}) / {answer.baseline:.2f} = "
                f"{answer.change_percent:+.1f} %; {answer.reason}."
            )
        told.append(item)
    return told


def _fallback(
    baseline: Visit, current: Visit, new: Sequence[LesionFinding], remarks: Sequence[str], source: Source
) -> list[advisor_pb2.ResponseAssessment]:
    rules = percist.rules("eortc")
    result = _outline(rules["name"], baseline, current, rules["version"], rules["citations"], source)
    try:
        answer = percist.eortc(_scan(baseline, "suv_max"), _scan(current, "suv_max", bool(new)))
    except RefusedError as refusal:
        return [_refuse(result, refusal)]
    lead = f"PERCIST could not be applied; by the SUVmax thresholds of EORTC 1999: {answer.reason}."
    values = (answer.baseline, answer.current, answer.change_percent)
    return [_decide(result, answer.category, *values, codes.UNIT_SUV_BW, " ".join([lead, *remarks]))]


def _need_outlines(baseline: Visit, current: Visit) -> None:
    for name, visit in (("baseline", baseline), ("current", current)):
        if visit.lesions and not any(lesion.confirmed for lesion in visit.lesions):
            raise RefusedError(
                _UNCONFIRMED,
                f"the lesions of the {name} visit were found by a threshold alone; physiological uptake is not excluded",
                missing=["lesion outlines (RTSTRUCT or SEG)"],
                remedy="outline the lesions, or confirm the candidates, and send the outlines",
                subject=visit.study_uid,
            )


def _need_sul(visit: Visit) -> None:
    if visit.lesions and all(lesion.sul_peak is None for lesion in visit.lesions):
        raise RefusedError(
            "percist.no_sul_peak",
            "PERCIST needs SULpeak (uptake by lean body mass); only body-weight SUV was measured",
            missing=["patient height, weight and sex in the PET series"],
            remedy="supply height, weight and sex, and measure again",
        )


def _scan(visit: Visit, measure: str, new_lesion: bool = False) -> percist.Scan:
    lesions = [lesion for lesion in visit.lesions if lesion.confirmed]
    uptakes = [uptake for lesion in lesions if (uptake := getattr(lesion, measure)) is not None]
    glycolysis = [lesion.glycolysis_g for lesion in lesions if lesion.glycolysis_g is not None]
    return percist.Scan(
        hottest=max(uptakes, default=None),
        liver=visit.liver,
        blood_pool=visit.blood_pool,
        glycolysis_g=sum(glycolysis) if glycolysis else None,
        new_lesion=new_lesion,
    )


def _new_lesions(followed: Sequence[Visit]) -> tuple[list[LesionFinding], list[str]]:
    """Lesions of the last visit that no earlier one had, and remarks on what could not be told."""
    current = followed[-1]
    earlier = set().union(*(visit.keys for visit in followed[:-1]))
    fresh = [lesion for lesion in current.lesions if lesion.key not in earlier]
    if not fresh:
        return [], []
    if not earlier & current.keys:
        return [], ["Lesions could not be matched between the visits, so new lesions cannot be told from old ones."]
    certain = [lesion for lesion in fresh if lesion.confirmed and lesion.key]
    doubtful = len(fresh) - len(certain)
    remark = (
        f"{doubtful} region(s) without a counterpart at the earlier visit were found by threshold only: check them."
    )
    return certain, [remark] if doubtful else []


def _anatomical(found: Sequence[Visit], matched: Matched, frames: Frames, source: Source) -> _Sized | None:
    followed = follow(found, frames, matched.moved)
    if followed is None:
        return None
    rules = recist.rules()
    joined = [chain for chain in chains(followed.visits) if len(chain) > 1]
    if not joined:
        ends = (followed.visits[0], followed.visits[-1])
        result = _outline(rules["name"], *ends, rules["version"], rules["citations"], source)
        return _Sized(_refuse(result, _not_matched()), (), ())
    chain = max(joined, key=lambda members: (members[-1].at, len(members[0].lesions)))
    result = _outline(rules["name"], chain[0], chain[-1], rules["version"], rules["citations"], source)
    uids = {visit.study_uid for visit in chain}
    points = [point for visit, point in zip(followed.visits, followed.points, strict=True) if visit.study_uid in uids]
    try:
        answer = criteria.assess("recist1.1", points)
    except RefusedError as refusal:
        return _Sized(_refuse(result, refusal), tuple(chain), tuple(points))
    _tell(result, answer, chain)
    result.explanation = " ".join([_sentence(answer, points), *_remarks(chain, points, followed)])
    concerns = [*answer.judged[-1].concerns, *followed.concerns]
    result.statements.extend(to_refusal(concern.error()) for concern in [*answer.concerns, *concerns])
    stopped = next((concern for concern in concerns if concern.stops), None)
    if stopped is not None:
        result.refusal.CopyFrom(to_refusal(stopped.error()))
    result.notes.extend(_match_words(matched))
    return _Sized(result, tuple(chain), tuple(points))


def _tell(result: advisor_pb2.ResponseAssessment, answer: Assessment, chain: Sequence[Visit]) -> None:
    """The last visit's category and values, and every visit's."""
    last = answer.judged[-1]
    result.category, result.label = _CATEGORY[last.label], last.label
    result.baseline_value, result.current_value = last.baseline or 0.0, last.current or 0.0
    result.unit, result.change_percent = last.unit, last.change_percent or 0.0
    result.best_overall = answer.best
    result.notes.extend([*last.notes, *answer.notes])
    by_date = {visit.at.date(): visit for visit in chain}
    for item in answer.judged:
        visit = by_date[item.at]
        tell_visit(result, item, _CATEGORY[item.label], visit.at, visit.study_uid)


def _sentence(answer: Assessment, points: Sequence[TimePoint]) -> str:
    """The last visit in a few sentences."""
    last = answer.judged[-1]
    non_target, new = last.parts["non-target"], last.parts["new"]
    if last.baseline is None or last.current is None or last.nadir is None:
        return f"No measurable lesion at baseline; non-target disease {non_target}."
    count = len(recist.select_targets(list(points[0].lesions.values())))
    fresh = len(new.split(", ")) if new != "no" else 0
    parts = [
        f"Sum of {count} target lesion(s) {last.baseline:.1f} mm at baseline, {last.nadir:.1f} mm at nadir, "
        f"{last.current:.1f} mm now ({last.change_percent or 0.0:+.1f} % from baseline, "
        f"{last.from_nadir_percent or 0.0:+.1f} % from nadir): {last.parts['target']}.",
        f"Non-target disease: {non_target}." if non_target != "none" else "No non-target disease at baseline.",
        f"{fresh} new lesion(s)." if fresh else "No new lesion.",
    ]
    return " ".join([*parts, *(f"{concern.message[:1].upper()}{concern.message[1:]}." for concern in last.concerns)])


def _remarks(chain: Sequence[Visit], points: Sequence[TimePoint], followed: Followed) -> list[str]:
    remarks = list(_new_lesions(chain)[1])
    targets = recist.select_targets(list(points[0].lesions.values()))
    if any(not lesion.organ for lesion in targets) and len(targets) > recist.rules()["targets"]["most_per_organ"]:
        remarks.append("Sites are unknown, so two lesions an organ could not be applied.")
    return [*remarks, *followed.remarks]


def _match_words(matched: Matched) -> list[str]:
    pairs = [item for item in matched.by_place if item.first != item.second]
    words = [
        f"{item.first!r} and {item.second!r} lie {item.distance_mm:.1f} mm apart after registration and count as one lesion; "
        "correct the match if they are two."
        for item in pairs[:_MOST_MATCHES]
    ]
    if len(pairs) > _MOST_MATCHES:
        words.append(f"{len(pairs) - _MOST_MATCHES} more pairs of findings were matched by place.")
    if matched.corrected:
        words.append(f"{matched.corrected} finding(s) were assigned to their lesion by a person.")
    return words


def _not_matched() -> RefusedError:
    return RefusedError(
        "response.lesions_not_matched",
        "no lesion carries the same tracking UID at two visits, and none could be matched by place, so sizes cannot be "
        "compared",
        missing=["tracking UID shared by both visits, or a good registration between them"],
        remedy="link the lesions of both visits (same tracking UID or contour name, or a corrected match) and measure again",
    )
