"""RECIST 1.1 and mRECIST over all visits: roles at baseline, sums, new lesions, time point responses.

Sources: see `recist.yaml` and `mrecist.yaml`. iRECIST reads the same visits (`irecist.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from services.advisor.response import recist
from services.advisor.response.best import best_overall
from services.advisor.response.checks import check
from services.advisor.response.lesions import (
    READER,
    Assessment,
    Concern,
    Judged,
    Lesion,
    Options,
    TimePoint,
    resolve,
    short,
)
from services.advisor.response.recist import Data
from services.platform.errors import RefusedError


@dataclass(frozen=True)
class Baseline:
    """Who is who at baseline, and what that left to say."""

    at: date
    targets: tuple[Lesion, ...]
    others: tuple[Lesion, ...]
    concerns: tuple[Concern, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Followed:
    """One later visit: lesions with fragments and mergers resolved, the parts of the response, new lesions by uid.

    `new`: unequivocal new lesions seen at this visit, `fresh`: those of them not seen before. `stray`: lesions called
    target or non-target that the baseline does not have.
    """

    at: date
    lesions: Mapping[str, Lesion]
    facts: Mapping[str, float | str]
    target: recist.Target | None
    non_target: recist.NonTargetResponse
    new: tuple[str, ...]
    fresh: tuple[str, ...]
    notes: tuple[str, ...]
    concerns: tuple[Concern, ...]


def assess(visits: Sequence[TimePoint], options: Options, data: Data | None = None) -> Assessment:
    """The criterion of `data` (RECIST 1.1 without it) at each visit, and the best overall response.

    The first visit is the baseline. Where no lesion has a role there, targets are chosen by size. Raises RefusedError as
    `checks.check`, and `recist.too_many_targets`.
    """
    data = data or recist.rules()
    baseline, followed, overall_concerns = follow(visits, data)
    judged: list[Judged] = []
    for item in followed:
        judged.append(_judge(item, baseline, judged, data))
    best = best_overall(judged, baseline.at, options)
    return Assessment.by(
        data,
        baseline.at,
        judged,
        best.label,
        best.reason,
        best.progressed_at,
        baseline.notes,
        (*baseline.concerns, *overall_concerns, *best.concerns),
    )


def follow(visits: Sequence[TimePoint], data: Data) -> tuple[Baseline, list[Followed], tuple[Concern, ...]]:
    """Baseline and every later visit with the parts of its response; statements about the whole table."""
    checked = check(visits)
    baseline = _baseline(checked.visits[0], data)
    followed: list[Followed] = []
    for visit in checked.visits[1:]:
        followed.append(_follow(visit, baseline, followed, checked.by_visit[visit.at], data))
    return baseline, followed, checked.overall


def _baseline(visit: TimePoint, data: Data) -> Baseline:
    lesions, notes = resolve(visit.lesions)
    told = any(lesion.role in ("target", "non-target") for lesion in lesions.values())
    new = sorted(uid for uid, lesion in lesions.items() if lesion.role == "new")
    concerns = [_new_at_baseline(uid, visit.at) for uid in new]
    ordered = [lesions[uid] for uid in sorted(lesions) if lesions[uid].state != "absent"]
    if not told:
        targets = recist.select_targets(ordered, data)
    else:
        called = [lesion for lesion in ordered if lesion.role == "target"]
        _refuse_unmeasurable(called, data)
        _refuse_too_many(called, data)
        targets = called
    others = [lesion for lesion in ordered if lesion not in targets]
    return Baseline(visit.at, tuple(targets), tuple(others), tuple(concerns), notes)


def _new_at_baseline(uid: str, at: date) -> Concern:
    return Concern(
        "recist.new_at_baseline",
        f"lesion {uid} is called new on {at}, which is the baseline; it is taken as non-target disease",
        missing=(f"role of lesion {uid}",),
        who=READER,
        remedy="call it target or non-target, or add the visit that came before",
    )


def _refuse_unmeasurable(called: Sequence[Lesion], data: Data) -> None:
    """A target that is none contradicts the baseline: without it, or with it, every category could be another."""
    bad = [lesion for lesion in called if not recist.is_measurable(lesion, data)]
    if not bad:
        return
    limits = data["targets"]
    sizes = [recist.size(lesion, data) for lesion in bad]
    found = ", ".join(
        f"{lesion.uid} {'not measured' if mm is None else f'{mm:g} mm'}" for lesion, mm in zip(bad, sizes, strict=True)
    )
    raise RefusedError(
        "recist.target_not_measurable",
        f"called target at baseline and too small for it: {found}; {data['name']} needs "
        f"{limits['smallest_longest_diameter_mm']} mm, of a node {limits['smallest_node_short_axis_mm']} mm short axis",
        missing=[f"size of {lesion.uid} at baseline" for lesion in bad],
        remedy=f"{READER}: correct the measurement or its unit (cm or mm), or call the lesion non-target",
    )


def _refuse_too_many(targets: Sequence[Lesion], data: Data) -> None:
    limits = data["targets"]
    by_organ: dict[str, list[str]] = {}
    for lesion in targets:
        if recist.organ(lesion):
            by_organ.setdefault(recist.organ(lesion), []).append(lesion.uid)
    crowded = [name for name, uids in sorted(by_organ.items()) if len(uids) > limits["most_per_organ"]]
    if len(targets) > limits["most"] or crowded:
        where = f", more than {limits['most_per_organ']} in {', '.join(crowded)}" if crowded else ""
        raise RefusedError(
            "recist.too_many_targets",
            f"{len(targets)} lesions are called target at baseline{where}; {data['name']} allows {limits['most']} in all and "
            f"{limits['most_per_organ']} an organ",
            missing=["the choice of target lesions"],
            remedy=f"{READER}: choose the targets, call the rest non-target",
        )


def _follow(
    visit: TimePoint, baseline: Baseline, earlier: Sequence[Followed], concerns: Sequence[Concern], data: Data
) -> Followed:
    lesions, notes = resolve(visit.lesions)
    known = {lesion.uid for lesion in (*baseline.targets, *baseline.others)}
    stray = [uid for uid in sorted(lesions) if uid not in known and lesions[uid].role in ("target", "non-target")]
    outside = [uid for uid in sorted(lesions) if uid not in known and uid not in stray and not lesions[uid].is_gone]
    new = [uid for uid in outside if lesions[uid].state not in ("equivocal", "not evaluated")]
    doubtful = [uid for uid in outside if lesions[uid].state == "equivocal"]
    seen = {uid for item in earlier for uid in item.new}
    was_doubtful = {uid for item in earlier for uid, lesion in item.lesions.items() if lesion.state == "equivocal"}
    told = [*notes]
    if doubtful:
        told.append(f"Doubtful new lesion(s) {', '.join(doubtful)}: not counted until certain (section 4.3.5).")
    for uid in new:
        if uid in was_doubtful and uid not in seen:
            told.append(f"{uid} was doubtful before: progression dates from when it was first seen (section 4.3.5).")
    target = None
    if baseline.targets:
        past = [item.lesions for item in earlier]
        target = recist.target_response(baseline.targets, past, lesions, data)
    return Followed(
        visit.at,
        lesions,
        visit.facts,
        target,
        _non_target(baseline, lesions, visit, data),
        tuple(new),
        tuple(uid for uid in new if uid not in seen),
        tuple(told),
        (*concerns, *_unmeasured(baseline, target, visit.at), *(_stray(uid, visit.at) for uid in stray)),
    )


def _non_target(
    baseline: Baseline, lesions: Mapping[str, Lesion], visit: TimePoint, data: Data
) -> recist.NonTargetResponse:
    """Tumour markers that stay above normal exclude a complete response (section 4.3.3)."""
    answer = recist.non_target_response(baseline.others, lesions, data)
    if answer in ("CR", "none") and visit.word("tumour_markers") == "elevated":
        return "non-CR/non-PD"
    return answer


def _unmeasured(baseline: Baseline, target: recist.Target | None, at: date) -> list[Concern]:
    if target is None or not target.missing:
        return []
    return [
        Concern(
            "recist.target_not_measured",
            f"{len(target.missing)} of {len(baseline.targets)} target lesions have no measurement on {at}",
            missing=target.missing,
            who=READER,
            remedy="measure them on the images of that visit; enter 0 mm (absent) where a lesion is gone and 'too small' "
            "where it is seen but cannot be measured",
            stops=target.response == "NE",
        )
    ]


def _stray(uid: str, at: date) -> Concern:
    return Concern(
        "recist.not_at_baseline",
        f"lesion {uid} is called target or non-target on {at} and is not in the baseline",
        missing=(f"measurement of lesion {uid} at baseline",),
        who=READER,
        remedy="measure it on the baseline images, or call it new",
        stops=True,
    )


def _judge(item: Followed, baseline: Baseline, earlier: Sequence[Judged], data: Data) -> Judged:
    response = item.target.response if item.target else None
    label = recist.overall(response, item.non_target, bool(item.new), data)
    notes = list(item.notes)
    if label != "PD" and any(concern.reason == "recist.not_at_baseline" for concern in item.concerns):
        label = "NE"
    back = _came_back(item, baseline, earlier, data)
    if label != "PD" and back:
        label = "PD"
        notes.append(
            f"{', '.join(back)} came back after a complete response, which is progression (table 3, footnote a); if the "
            "lesion was never gone, correct that visit to PR."
        )
    before = next((past for past in earlier if past.label == "PD"), None)
    if before is not None and label != "PD":
        notes.append(f"Progression was established on {before.at}: this visit no longer counts for the best response.")
    judged = Judged(
        item.at,
        label,
        parts(item),
        arithmetic=arithmetic(item, baseline, label, data),
        notes=tuple(notes),
        concerns=item.concerns,
        unit="mm",
    )
    if item.target is None:
        return judged
    return replace(judged, baseline=item.target.baseline_mm, nadir=item.target.nadir_mm, current=item.target.current_mm)


def parts(item: Followed) -> dict[str, str]:
    """Target, non-target and new lesions in words."""
    return {
        "target": item.target.response if item.target else "none",
        "non-target": item.non_target,
        "new": ", ".join(item.new) if item.new else "no",
    }


def _came_back(item: Followed, baseline: Baseline, earlier: Sequence[Judged], data: Data) -> list[str]:
    """Lesions seen again after a complete response. A node that grows again counts by the sum alone (Schwartz 2016)."""
    if not any(past.label == "CR" for past in earlier):
        return []
    return [
        lesion.uid
        for lesion in (*baseline.targets, *baseline.others)
        if not lesion.is_node and (found := item.lesions.get(lesion.uid)) is not None and _is_seen(found, data)
    ]


def _is_seen(lesion: Lesion, data: Data) -> bool:
    if lesion.state in ("present", "increased", "progressed", "too small"):
        return True
    return lesion.state == "measured" and (recist.size(lesion, data) or 0.0) > 0


def arithmetic(item: Followed, baseline: Baseline, label: str, data: Data) -> tuple[str, ...]:
    """Every step from diameters to category, one line each."""
    lines = []
    target = item.target
    if target is None:
        lines.append("No measurable lesion at baseline, so no sum of diameters.")
    else:
        measure = "enhancing diameters" if data["measure"] == "enhancing" else "diameters"
        first = _added({lesion.uid: lesion for lesion in baseline.targets}, baseline, data)
        now = _added(item.lesions, baseline, data)
        lines.append(f"Sum of {measure} at baseline: {first} = {target.baseline_mm:.1f} mm.")
        added = "; those measured:" if target.missing else " ="
        lines.append(f"Sum of {measure} on {item.at}: {now}{added} {target.current_mm:.1f} mm.")
        lines.append(_from_baseline(target, data))
        lines.append(_from_nadir(target, data))
        lines.append(f"Target lesions: {target.response}.")
    lines.append(
        "No non-target disease at baseline." if item.non_target == "none" else f"Non-target disease: {item.non_target}."
    )
    called = [item.lesions[uid].called for uid in item.new]
    lines.append(f"New lesion(s): {', '.join(called)}." if called else "No new lesion.")
    lines.append(f"Together: {label} (table {'2' if target is None else '1'}).")
    return tuple(lines)


def _from_baseline(target: recist.Target, data: Data) -> str:
    if target.missing:
        return "From baseline: a decrease cannot be told, because not every target lesion was measured."
    return (
        f"From baseline: ({target.current_mm:.1f} - {target.baseline_mm:.1f}) / {target.baseline_mm:.1f} = "
        f"{target.from_baseline_percent:+.1f} %; PR needs {data['response']['partial_change_percent']} % or less."
    )


def _from_nadir(target: recist.Target, data: Data) -> str:
    limits = data["response"]
    increase = target.current_mm - target.nadir_mm
    if target.missing and increase < 0:
        return "From the smallest sum: what was measured does not exceed it."
    least = limits["progression_increase_mm"]
    also = f" and +{least} mm" if least else ""
    change = f" / {target.nadir_mm:.1f} = {target.from_nadir_percent:+.1f} %" if target.nadir_mm > 0 else ""
    return (
        f"From the smallest sum: ({target.current_mm:.1f} - {target.nadir_mm:.1f}){change}, {increase:+.1f} mm; PD needs "
        f"+{limits['progression_change_percent']} %{also} or more."
    )


def _added(lesions: Mapping[str, Lesion], baseline: Baseline, data: Data) -> str:
    words = []
    for target in sorted(baseline.targets, key=lambda lesion: (lesion.called, lesion.uid)):
        found = lesions.get(target.uid)
        mm = None if found is None else recist.size(found, data)
        note = " (too small to measure)" if found is not None and found.state == "too small" else ""
        axis = " short axis" if target.is_node else ""
        words.append(f"{target.called} not measured" if mm is None else f"{target.called} {short(mm)}{axis}{note}")
    return " + ".join(words)
