"""PERCIST 1.0 over all visits of a lesion table.

Source: see `percist.yaml`. Facts of a visit: `liver_sul_mean`, `liver_sul_sd`, `blood_pool_sul_mean`, `blood_pool_sul_sd`
(g/mL, lean body mass). The hottest lesion of each visit counts, not necessarily the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.advisor.response import percist
from services.advisor.response.best import best_until
from services.advisor.response.checks import check
from services.advisor.response.lesions import READER, Assessment, Concern, Judged, Lesion, Options, TimePoint
from services.advisor.response.percist import Reference, Scan
from services.platform.errors import RefusedError

_ORDER = ("CMR", "PMR", "SMD", "PMD", "NE")


def assess(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """PERCIST at each visit against the baseline.

    A visit that cannot be judged is NE with a statement. Raises RefusedError as `checks.check`.
    """
    data = percist.rules("percist")
    checked = check(visits)
    first = checked.visits[0]
    judged = []
    for visit in checked.visits[1:]:
        answer = _judge(first, visit)
        judged.append(replace(answer, concerns=(*checked.by_visit[visit.at], *answer.concerns)))
    best = best_until(judged, ("PMD",), _ORDER)
    return Assessment.by(
        data,
        first.at,
        judged,
        best.label,
        best.reason,
        best.progressed_at,
        (),
        checked.overall,
    )


def scan(visit: TimePoint, baseline: TimePoint | None = None) -> Scan:
    """The visit as PERCIST sees it; lesions that `baseline` does not have, and that take up FDG, are new."""
    seen = [lesion for lesion in visit.lesions.values() if lesion.sul_peak is not None and lesion.state != "absent"]
    new = [] if baseline is None else new_lesions(visit, baseline)
    glycolysis = [lesion.glycolysis_g for lesion in seen if lesion.glycolysis_g is not None]
    return Scan(
        hottest=max((lesion.sul_peak for lesion in seen if lesion.sul_peak is not None), default=None),
        liver=_reference(visit, "liver"),
        blood_pool=_reference(visit, "blood_pool"),
        glycolysis_g=sum(glycolysis) if glycolysis else None,
        new_lesion=bool(new),
    )


def new_lesions(visit: TimePoint, baseline: TimePoint) -> list[str]:
    """Lesions with uptake that the baseline lacks; doubtful ones do not count."""
    return [
        uid
        for uid, lesion in sorted(visit.lesions.items())
        if uid not in baseline.lesions and lesion.state not in ("absent", "equivocal", "not evaluated")
    ]


def _reference(visit: TimePoint, name: str) -> Reference | None:
    mean, sd = visit.number(f"{name}_sul_mean"), visit.number(f"{name}_sul_sd")
    return None if mean is None or sd is None else Reference(mean, sd)


def _hottest(visit: TimePoint) -> Lesion | None:
    hot = [lesion for lesion in visit.lesions.values() if lesion.sul_peak is not None]
    return max(hot, key=lambda lesion: (lesion.sul_peak or 0.0, lesion.uid), default=None)


def _judge(first: TimePoint, visit: TimePoint) -> Judged:
    try:
        _need_sul(visit)
        answer = percist.percist(scan(first), scan(visit, first))
        threshold = percist.measurable_from(scan(first))
    except RefusedError as refusal:
        concern = Concern(refusal.reason, refusal.message, refusal.missing, READER, refusal.remedy, True)
        return Judged(visit.at, "NE", arithmetic=(f"{refusal.message}.",), concerns=(concern,))
    before, now = _hottest(first), _hottest(visit)
    new = new_lesions(visit, first)
    names = (before.uid if before else "-", now.uid if now else "none")
    difference = answer.current - answer.baseline
    lines = (
        f"Measurable from SULpeak {threshold:.2f} at baseline; hottest lesion {names[0]} {answer.baseline:.2f}.",
        f"Hottest lesion on {visit.at}: {names[1]} {answer.current:.2f}; ({answer.current:.2f} - {answer.baseline:.2f}) / "
        f"{answer.baseline:.2f} = {answer.change_percent:+.1f} %, {difference:+.2f} g/mL; PMR needs -30 % and -0.8, PMD more "
        "than +30 % and +0.8.",
        f"New lesion(s): {', '.join(new)}." if new else "No new lesion.",
        f"Together: {answer.category}, {answer.reason}.",
    )
    return Judged(
        visit.at,
        answer.category,
        {"uptake": answer.reason, "new": ", ".join(new) or "no"},
        answer.baseline,
        answer.baseline,
        answer.current,
        "g/mL",
        lines,
    )


def _need_sul(visit: TimePoint) -> None:
    lesions = [lesion for lesion in visit.lesions.values() if lesion.state in ("measured", "present")]
    without = tuple(sorted(lesion.uid for lesion in lesions if lesion.sul_peak is None))
    unknown = [lesion.uid for lesion in visit.lesions.values() if lesion.state == "not evaluated"]
    if without or unknown:
        raise RefusedError(
            "percist.no_sul_peak",
            f"{len(without) + len(unknown)} lesion(s) on {visit.at} have no SULpeak, so the hottest is not known",
            missing=[f"SULpeak of {uid} on {visit.at}" for uid in (*without, *unknown)],
            remedy="measure SULpeak of every lesion (needs height, weight and sex); enter absent where uptake is gone",
        )
