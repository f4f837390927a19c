"""PCWG3: bone scans by the 2+2 rule, soft tissue by RECIST 1.1, PSA beside them.

Source: Scher HI et al., J Clin Oncol 2016;34:1402-1418, doi:10.1200/JCO.2015.64.2702. Data in `pcwg3.yaml`. Lesions with
organ "bone" belong to the bone scan; the fact `bone_scan` ("done" or "not done") tells a scan without new lesions from
none. PSA never makes radiographic progression.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from services.advisor.response import diameters, markers
from services.advisor.response.checks import check
from services.advisor.response.lesions import CLINICIAN, READER, Assessment, Concern, Judged, Options, TimePoint, days
from services.advisor.tables import table
from services.platform.errors import RefusedError

BONE = "bone"


@dataclass(frozen=True)
class Scan:
    """One bone scan: when, and the lesions seen that the baseline scan did not have."""

    at: date
    new: frozenset[str]


@dataclass(frozen=True)
class BoneVerdict:
    """non-PD, PDu (waits to be confirmed) or PD, with the date that progression counts from."""

    at: date
    label: str
    why: str
    dated: date | None = None


def rules() -> Mapping[str, Any]:
    """pcwg3.yaml."""
    return table("response/pcwg3.yaml")


def bone(scans: Sequence[Scan], started_at: date) -> list[BoneVerdict]:
    """The 2+2 rule over the scans under treatment, oldest first.

    First scan within the flare window (12 weeks): two or more new lesions need two further new ones on a scan at least 6
    weeks later; progression then dates from the first scan. Otherwise the first scan becomes the reference. Later: two new
    lesions against the reference, still there on a scan at least 6 weeks later; progression dates from when they were seen.
    """
    ordered = sorted(scans, key=lambda item: item.at)
    limits = rules()["bone"]
    verdicts: list[BoneVerdict] = []
    reference: frozenset[str] = frozenset()
    pending: Scan | None = None
    flare = False
    for index, scan in enumerate(ordered):
        if index == 0 and days(started_at, scan.at) <= limits["flare_days"]:
            reference = scan.new
            flare = len(scan.new) >= limits["new_lesions"]
            pending = scan if flare else None
            verdicts.append(_first(scan, flare))
            continue
        against = scan.new - reference
        if pending is not None:
            verdict, pending, flare = _confirm(scan, pending, against, flare)
            if verdict is not None:
                verdicts.append(verdict)
                continue
        if len(against) >= limits["new_lesions"]:
            pending = Scan(scan.at, frozenset(against))
            verdicts.append(
                BoneVerdict(scan.at, "PDu", f"{len(against)} new lesions against the reference scan", scan.at)
            )
        else:
            verdicts.append(BoneVerdict(scan.at, "non-PD", f"{len(against)} new lesion(s) against the reference scan"))
    return verdicts


def _first(scan: Scan, flare: bool) -> BoneVerdict:
    if flare:
        why = f"{len(scan.new)} new lesions on the first scan: flare is possible, two more must follow"
        return BoneVerdict(scan.at, "PDu", why, scan.at)
    return BoneVerdict(scan.at, "non-PD", f"{len(scan.new)} new lesion(s) on the first scan, the reference from now on")


def _confirm(
    scan: Scan, pending: Scan, against: Collection[str], flare: bool
) -> tuple[BoneVerdict | None, Scan | None, bool]:
    """The verdict where this scan decides (or is too early), what still waits, and whether flare is still possible."""
    limits = rules()["bone"]
    since = days(pending.at, scan.at)
    if since < limits["confirmed_after_days"]:
        why = f"{since} days after {pending.at}: too early to confirm (from {limits['confirmed_after_days']} days)"
        return BoneVerdict(scan.at, "PDu", why, pending.at), pending, flare
    if flare:
        if len(against) >= limits["more_lesions"]:
            why = f"{len(against)} more new lesions confirm the progression of {pending.at} (2+2)"
            return BoneVerdict(scan.at, "PD", why, pending.at), pending, flare
        why = f"{len(against)} more new lesion(s): flare; the first scan is the reference"
        return BoneVerdict(scan.at, "non-PD", why), None, False
    still = pending.new & scan.new
    if len(still) >= limits["new_lesions"]:
        why = f"{len(still)} new lesions of {pending.at} are still there"
        return BoneVerdict(scan.at, "PD", why, pending.at), pending, flare
    return None, None, False


def combined(soft: str, bone_label: str) -> str:
    """Both parts together; "none" where the patient has no such disease."""
    for one, other, answer in rules()["combined"]:
        if one in ("any", soft) and other in ("any", bone_label):
            return str(answer)
    return "NE"


def assess(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """PCWG3 at each visit after the baseline. Raises RefusedError as `checks.check`."""
    data = rules()
    checked = check(visits)
    first = checked.visits[0]
    soft = _soft_tissue(checked.visits, options)
    scans = [item for visit in checked.visits[1:] if (item := _scan(visit, first)) is not None]
    started = options.started_at or first.at
    by_scan = {item.at: item for item in bone(scans, started)}
    psa = _psa(checked.visits, options)
    judged = []
    for visit in checked.visits[1:]:
        soft_answer = next((item for item in soft.judged if item.at == visit.at), None) if soft else None
        judged.append(_judge(visit, first, soft_answer, by_scan.get(visit.at), psa.get(visit.at)))
    progressed = _progressed_at(judged, by_scan)
    counted = [item.label for item in judged if progressed is None or item.label != "PD"]
    order = ("CR", "PR", "SD", "non-CR/non-PD", "non-PD", "PDu", "PD", "NE")
    concerns = [*checked.overall, *(soft.concerns if soft else ()), *_open(by_scan)]
    return Assessment.by(
        data,
        first.at,
        [replace(item, concerns=tuple(dict.fromkeys((*checked.by_visit[item.at], *item.concerns)))) for item in judged],
        min(counted or ["PD"], key=order.index),
        "best of the visits before progression; soft tissue and bone are told apart in each",
        progressed,
        (),
        tuple(dict.fromkeys(concerns)),
    )


def _soft_tissue(visits: Sequence[TimePoint], options: Options) -> Assessment | None:
    apart = [
        replace(visit, lesions={uid: item for uid, item in visit.lesions.items() if item.organ != BONE})
        for visit in visits
    ]
    if not any(visit.lesions for visit in apart):
        return None
    return diameters.assess(apart, options)


def _scan(visit: TimePoint, first: TimePoint) -> Scan | None:
    lesions = {uid: item for uid, item in visit.lesions.items() if item.organ == BONE}
    if visit.word("bone_scan") == "not done" or (not lesions and visit.word("bone_scan") != "done"):
        return None
    new = [
        uid
        for uid, item in lesions.items()
        if uid not in first.lesions and item.state not in ("absent", "equivocal", "not evaluated")
    ]
    return Scan(visit.at, frozenset(new))


def _psa(visits: Sequence[TimePoint], options: Options) -> dict[date, Judged]:
    try:
        return {item.at: item for item in markers.assess_psa(visits, options).judged}
    except RefusedError:
        return {}


def _judge(
    visit: TimePoint, first: TimePoint, soft: Judged | None, scan: BoneVerdict | None, psa: Judged | None
) -> Judged:
    soft_label = soft.label if soft else "none"
    had_bone = any(item.organ == BONE for item in first.lesions.values()) or first.word("bone_scan") == "done"
    bone_label = scan.label if scan else ("NE" if had_bone else "none")
    label = combined(soft_label, bone_label)
    lines = [f"Soft tissue (RECIST 1.1): {soft_label}."]
    if soft:
        lines += [f"  {line}" for line in soft.arithmetic[:-1]]
    lines.append(f"Bone: {bone_label}" + (f", {scan.why}." if scan else "; no bone scan at this visit."))
    if psa:
        lines += [f"PSA (never radiographic progression): {psa.arithmetic[0]}"]
    lines.append(f"Together: {label}.")
    concerns = list(soft.concerns) if soft else []
    if scan is None and had_bone:
        concerns.append(_no_bone_scan(visit.at))
    parts = {"soft tissue": soft_label, "bone": bone_label, "PSA": psa.label if psa else "not measured"}
    values = (soft.baseline, soft.nadir, soft.current, "mm") if soft else (None, None, None, "")
    notes = soft.notes if soft else ()
    return Judged(visit.at, label, parts, *values, tuple(lines), notes, tuple(concerns))


def _no_bone_scan(at: date) -> Concern:
    return Concern(
        "pcwg3.no_bone_scan",
        f"no bone scan on {at}, and bone was scanned at baseline",
        (f"bone scan of {at}",),
        READER,
        "enter the scan's new lesions, or bone_scan = done when there were none",
        True,
    )


def _progressed_at(judged: Sequence[Judged], by_scan: Mapping[date, BoneVerdict]) -> date | None:
    soft = [item.at for item in judged if item.parts["soft tissue"] == "PD"]
    in_bone = [item.dated for item in by_scan.values() if item.label == "PD" and item.dated is not None]
    return min([*soft, *in_bone], default=None)


def _open(by_scan: Mapping[date, BoneVerdict]) -> list[Concern]:
    last = max(by_scan.values(), key=lambda item: item.at, default=None)
    if last is None or last.label != "PDu":
        return []
    wait = rules()["bone"]["confirmed_after_days"]
    return [
        Concern(
            "pcwg3.not_confirmed",
            f"new bone lesions of {last.dated} are not confirmed",
            ("a confirming bone scan",),
            CLINICIAN,
            f"repeat the bone scan {wait} days or more after {last.dated}",
        )
    ]
