"""Lugano 2014: lymphoma by PET (Deauville score) and by CT.

Source: Cheson BD et al., J Clin Oncol 2014;32:3059-3068, doi:10.1200/JCO.2013.54.8800, table 3. Data in `lugano.yaml`.
Diameters in mm, products in mm2. Where a visit has PET, the metabolic response counts; CT is told beside it. Facts of a
visit: `deauville` (1 to 5) or `lesion_suv_max` with `mediastinum_suv_max` and `liver_suv_max`; `uptake_change` ("reduced",
"unchanged", "increased", as the reader judges against baseline); `spleen_length_mm`; `bone_marrow` ("normal", "involved",
"new").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.advisor.response.best import best_until
from services.advisor.response.checks import check
from services.advisor.response.lesions import (
    READER,
    Assessment,
    Concern,
    Judged,
    Lesion,
    Options,
    TimePoint,
    clean,
    percent,
    resolve,
)
from services.advisor.tables import table

_ORDER = ("CMR", "CR", "PMR", "PR", "NMR", "SD", "PMD", "PD", "NE")
_PROGRESSIVE = ("PMD", "PD")


@dataclass(frozen=True)
class Sums:
    """Sums of products at baseline, smallest and now, mm2; which lesion progressed, and which was not measured."""

    baseline: float
    nadir: float
    current: float
    grown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def rules() -> Mapping[str, Any]:
    """lugano.yaml."""
    return table("response/lugano.yaml")


def deauville(lesion: float | None, mediastinum: float, liver: float) -> int:
    """The five-point score from SUVmax: 1 no uptake above background, 2 not above the mediastinum, 3 not above the liver,
    4 moderately and 5 markedly above it. `lesion` is None without uptake. New sites are score 5 by the reader."""
    if lesion is None:
        return 1
    if lesion <= mediastinum:
        return 2
    if lesion <= liver:
        return 3
    return 5 if lesion >= rules()["deauville"]["markedly_times_liver"] * liver else 4


def metabolic_response(score: int, uptake: str, new: bool) -> str:
    """CMR, PMR, NMR or PMD; NE when the score needs a comparison of uptake that is not known ("")."""
    for scores, wanted, is_new, answer in rules()["metabolic"]:
        if (scores == "any" or score in scores) and wanted in ("any", uptake) and is_new == new:
            return str(answer)
    return "NE"


def lesion_progressed(lesion: Lesion, nadir_product: float, nadir_longest: float, nadir_short: float) -> bool:
    """An abnormal lesion (longest over 15 mm) whose product rose by half from its smallest and whose longest or shortest
    diameter rose by 5 mm (up to 20 mm before) or 10 mm (larger)."""
    limits = rules()["ct"]["progression"]
    product, longest, short = lesion.product_mm2, lesion.longest_mm, lesion.short_axis_mm
    if product is None or longest is None or short is None or longest <= limits["longest_over_mm"]:
        return False
    step = limits["small_increase_mm" if nadir_longest <= limits["small_up_to_mm"] else "large_increase_mm"]
    grown = nadir_product == 0 or clean(100 * (product - nadir_product) / nadir_product) >= limits["product_percent"]
    return grown and (clean(longest - nadir_longest) >= step or clean(short - nadir_short) >= step)


def spleen_response(baseline_mm: float | None, current_mm: float | None) -> str:
    """Spleen: "normal", "regressed" (more than half of the excess is gone), "enlarged" or "progressed"; "" when not measured."""
    limits = rules()["ct"]["spleen"]
    if current_mm is None:
        return ""
    excess = max((baseline_mm or 0.0) - limits["normal_mm"], 0.0)
    if baseline_mm is not None and excess > 0:
        if current_mm > baseline_mm + limits["progression_of_excess"] * excess:
            return "progressed"
        if current_mm <= limits["normal_mm"]:
            return "normal"
        regressed = current_mm < baseline_mm - limits["partial_of_excess"] * excess
        return "regressed" if regressed else "enlarged"
    grown = baseline_mm is not None and current_mm - baseline_mm >= limits["progression_without_mm"]
    if grown or (baseline_mm is None and current_mm > limits["normal_mm"]):
        return "progressed" if grown else "enlarged"
    return "normal"


def assess(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """Lugano at each visit after the baseline. Raises RefusedError as `checks.check`."""
    data = rules()
    checked = check(visits)
    first = checked.visits[0]
    lesions = resolve(first.lesions)[0]
    targets = select_targets(list(lesions.values()))
    judged: list[Judged] = []
    past: list[Mapping[str, Lesion]] = [lesions]
    for visit in checked.visits[1:]:
        now, notes = resolve(visit.lesions)
        answer = _judge(replace(visit, lesions=now), first, targets, past)
        judged.append(
            replace(answer, notes=(*notes, *answer.notes), concerns=(*checked.by_visit[visit.at], *answer.concerns))
        )
        past.append(now)
    best = best_until(judged, _PROGRESSIVE, _ORDER)
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


def select_targets(lesions: Sequence[Lesion]) -> list[Lesion]:
    """Up to six of the largest measurable nodes and extranodal lesions; those that the reader called target, if any."""
    called = [lesion for lesion in lesions if lesion.role == "target"]
    candidates = [lesion for lesion in called or lesions if is_measurable(lesion)]
    ordered = sorted(candidates, key=lambda lesion: (-(lesion.product_mm2 or 0.0), lesion.uid))
    return ordered[: rules()["ct"]["most_targets"]]


def is_measurable(lesion: Lesion) -> bool:
    """A node longer than 15 mm, anything else longer than 10 mm, with both diameters."""
    limits = rules()["ct"]
    over = limits["node_longest_mm" if lesion.is_node else "extranodal_longest_mm"]
    return lesion.product_mm2 is not None and (lesion.longest_mm or 0.0) > over


def _judge(
    visit: TimePoint, first: TimePoint, targets: Sequence[Lesion], past: Sequence[Mapping[str, Lesion]]
) -> Judged:
    new = [uid for uid in sorted(visit.lesions) if uid not in first.lesions and _counts_as_new(visit.lesions[uid])]
    sums = _sums(targets, past, visit.lesions)
    ct, spleen = _ct_response(visit, first, targets, sums, new)
    score = _score(visit)
    marrow = visit.word("bone_marrow")
    pet = "" if score is None else metabolic_response(score, visit.word("uptake_change"), bool(new) or marrow == "new")
    label = pet or ct
    lines = []
    if targets:
        change = percent(sums.current, sums.baseline)
        lines.append(
            f"Sum of products of {len(targets)} lesion(s): {sums.baseline:g} mm2 at baseline, {sums.nadir:g} smallest, "
            f"{sums.current:g} now"
            + ("" if change is None else f" ({change:+.1f} % from baseline; PR needs -50 %)")
            + "."
        )
    lines += [f"{uid} grew by more than the limits for one lesion." for uid in sums.grown]
    if spleen:
        lines.append(f"Spleen {visit.number('spleen_length_mm'):g} mm: {spleen}.")
    lines.append(f"New lesion(s): {', '.join(new)}." if new else "No new lesion.")
    lines.append(f"By CT: {ct}.")
    if score is not None:
        lines.append(
            f"Deauville {score}, uptake {visit.word('uptake_change') or 'not compared'}: {pet} (PET counts before CT)."
        )
    lines.append(f"Together: {label}.")
    concerns = _concerns(visit, sums, score, label)
    parts = {"PET": pet or "no PET", "CT": ct, "new": ", ".join(new) or "no", "spleen": spleen or "not measured"}
    return Judged(
        visit.at, label, parts, sums.baseline, sums.nadir, sums.current, "mm2", tuple(lines), (), tuple(concerns)
    )


def _score(visit: TimePoint) -> int | None:
    told = visit.number("deauville")
    scores = [lesion.deauville for lesion in visit.lesions.values() if lesion.deauville is not None]
    if told is not None or scores:
        return int(max([*scores, *([told] if told is not None else [])]))
    mediastinum, liver = visit.number("mediastinum_suv_max"), visit.number("liver_suv_max")
    if mediastinum is None or liver is None:
        return None
    uptakes = [lesion.suv_max for lesion in visit.lesions.values() if lesion.suv_max is not None]
    return deauville(max(uptakes, default=visit.number("lesion_suv_max")), mediastinum, liver)


def _counts_as_new(lesion: Lesion) -> bool:
    """A new node over 15 mm or extranodal lesion over 10 mm in any axis; a smaller one by the reader's word."""
    if lesion.state in ("present", "increased", "progressed"):
        return True
    limits = rules()["ct"]
    over = limits["node_longest_mm" if lesion.is_node else "extranodal_longest_mm"]
    return lesion.state == "measured" and (lesion.longest_mm or 0.0) > over


def _sums(targets: Sequence[Lesion], past: Sequence[Mapping[str, Lesion]], now: Mapping[str, Lesion]) -> Sums:
    uids = [lesion.uid for lesion in targets]
    baseline = _total(targets)
    complete = [visit for visit in past if all(uid in visit and visit[uid].product_mm2 is not None for uid in uids)]
    missing = tuple(uid for uid in uids if uid not in now or now[uid].product_mm2 is None)
    grown = []
    for uid, lesion in sorted(now.items()):
        before = [visit[uid] for visit in past if uid in visit and visit[uid].product_mm2 is not None]
        if before and lesion_progressed(
            lesion,
            min(item.product_mm2 or 0.0 for item in before),
            min(item.longest_mm or 0.0 for item in before),
            min(item.short_axis_mm or 0.0 for item in before),
        ):
            grown.append(uid)
    nadir = min([baseline, *(_total([visit[uid] for uid in uids]) for visit in complete)])
    current = _total([now[uid] for uid in uids if uid not in missing])
    return Sums(baseline, nadir, current, tuple(grown), missing)


def _total(lesions: Sequence[Lesion]) -> float:
    return clean(sum(lesion.product_mm2 or 0.0 for lesion in lesions))


def _ct_response(
    visit: TimePoint, first: TimePoint, targets: Sequence[Lesion], sums: Sums, new: Sequence[str]
) -> tuple[str, str]:
    spleen = spleen_response(first.number("spleen_length_mm"), visit.number("spleen_length_mm"))
    others = [uid for uid in first.lesions if uid not in {lesion.uid for lesion in targets}]
    progressed = [uid for uid in others if uid in visit.lesions and visit.lesions[uid].state == "progressed"]
    marrow = visit.word("bone_marrow")
    if sums.grown or new or progressed or spleen == "progressed" or marrow == "new":
        return "PD", spleen
    if sums.missing or (not targets and not others):
        return "NE", spleen
    remaining = [uid for uid in others if uid not in visit.lesions or not _is_normal(visit.lesions[uid])]
    normal = all(_is_normal(visit.lesions[lesion.uid]) for lesion in targets)
    if normal and not remaining and spleen in ("", "normal") and marrow != "involved":
        return "CR", spleen
    change = percent(sums.current, sums.baseline)
    if change is not None and change <= rules()["ct"]["partial_percent"] and spleen != "enlarged":
        return "PR", spleen
    return "SD", spleen


def _is_normal(lesion: Lesion) -> bool:
    """Gone, or a node of at most 15 mm."""
    if lesion.is_gone or (lesion.is_node and lesion.state == "too small"):
        return True
    longest = lesion.longest_mm
    small = longest is not None and longest <= rules()["ct"]["node_longest_mm"]
    return lesion.is_node and lesion.state == "measured" and small


def _concerns(visit: TimePoint, sums: Sums, score: int | None, label: str) -> list[Concern]:
    found = []
    if sums.missing:
        found.append(
            Concern(
                "lugano.target_not_measured",
                f"{len(sums.missing)} target lesion(s) have no two diameters on {visit.at}",
                sums.missing,
                READER,
                "measure both diameters; 'too small' counts 5 x 5 mm, absent 0",
                label == "NE",
            )
        )
    if score is not None and label == "NE":
        found.append(
            Concern(
                "lugano.no_uptake_change",
                f"Deauville {score} on {visit.at} needs the uptake against baseline",
                (f"uptake_change on {visit.at}",),
                READER,
                "say whether uptake is reduced, unchanged or increased against baseline",
                True,
            )
        )
    return found
