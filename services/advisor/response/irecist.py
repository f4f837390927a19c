"""iRECIST: progression under immunotherapy is unconfirmed until a later visit confirms it.

Source: Seymour L et al., Lancet Oncol 2017;18:e143-e152, doi:10.1016/S1470-2045(17)30074-8, tables 2 and 3. Data in
`irecist.yaml`. Sums, targets and thresholds are those of RECIST 1.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from services.advisor.response import diameters, recist
from services.advisor.response.diameters import Baseline, Followed
from services.advisor.response.lesions import Assessment, Concern, Judged, Lesion, Options, TimePoint, clean, days
from services.advisor.tables import table

_TARGET = {"CR": "iCR", "PR": "iPR", "SD": "iSD", "PD": "iUPD", "NE": "NE", None: "none"}
_NON_TARGET = {"CR": "iCR", "non-CR/non-PD": "non-iCR/non-iUPD", "PD": "iUPD", "NE": "NE", "none": "none"}


@dataclass(frozen=True)
class Open:
    """A progression that waits to be confirmed: since when, in which categories, and what was measured then."""

    since: date
    categories: frozenset[str]
    sum_mm: float
    new_sum_mm: float


@dataclass(frozen=True)
class Settled:
    """New lesions that stayed through a visit without progression: which, and their smallest sum since, mm."""

    known: frozenset[str] = frozenset()
    lowest_mm: float = 0.0


def rules() -> Mapping[str, Any]:
    """irecist.yaml."""
    return table("response/irecist.yaml")


def time_point(target: str, non_target: str, new: bool, *, after_iupd: bool, further: Collection[str] = ()) -> str:
    """One row of table 2. Classes: iCR, iPR, iSD, iUPD, NE, none; non-target also non-iCR/non-iUPD.

    `after_iupd`: an earlier iUPD is open. `further`: categories ("target", "non-target", "new") that increased further since
    then, or that progress now and did not before.
    """
    for row in rules()["time_points"]:
        if target in row["target"] and non_target in row["non_target"] and new == row["new"]:
            if not after_iupd:
                return str(row["first"])
            return "iCPD" if set(further) & set(row.get("confirms", ())) else str(row["again"])
    return "NE"


def best_overall(labels: Sequence[str]) -> str:
    """Table 3: the best response before iCPD; iCPD when there was none; iUPD when nothing followed it."""
    counted = list(labels[: labels.index("iCPD") + 1] if "iCPD" in labels else labels)
    order = rules()["order"]
    return str(min(counted, key=order.index)) if counted else "NE"


def assess(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """iRECIST at each visit after the baseline. Raises RefusedError as `diameters.assess`."""
    data = rules()
    baseline, followed, overall_concerns = diameters.follow(visits, recist.rules())
    judged: list[Judged] = []
    waiting: Open | None = None
    settled = Settled()
    for item in followed:
        answer, waiting = _judge(item, baseline, waiting, settled)
        settled = _settle(answer.label, item, settled)
        judged.append(answer)
    labels = [item.label for item in judged]
    concerns = (*baseline.concerns, *overall_concerns, *_unconfirmed(waiting, labels))
    confirmed = next((item.at for item in judged if item.label == "iCPD"), None)
    progressed = _progressed_at(judged) if confirmed else None
    best = best_overall(labels)
    reason = f"best of {', '.join(labels)} (table 3; nothing after iCPD counts)"
    return Assessment.by(
        data,
        baseline.at,
        judged,
        best,
        reason,
        progressed,
        baseline.notes,
        concerns,
    )


def _progressed_at(judged: Sequence[Judged]) -> date:
    """The date of the iUPD that was confirmed: the first of the unbroken run before iCPD."""
    index = next(place for place, item in enumerate(judged) if item.label == "iCPD")
    first = index
    while first > 0 and judged[first - 1].label in ("iUPD", "NE"):
        first -= 1
    run = [item for item in judged[first : index + 1] if item.label != "NE"]
    return run[0].at


def _judge(item: Followed, baseline: Baseline, waiting: Open | None, settled: Settled) -> tuple[Judged, Open | None]:
    target = _TARGET[item.target.response if item.target else None]
    non_target = "iUPD" if _grew_on(item, baseline, waiting) else _NON_TARGET[item.non_target]
    new = _new_counts(item, target, waiting, settled)
    found, why = _further(item, baseline, waiting)
    notes = [*item.notes, *why]
    if waiting is not None and found:
        found, said = _in_window(found, waiting, item.at)
        notes += said
    label = time_point(target, non_target, new, after_iupd=waiting is not None, further=found)
    if label == "iCR" and item.new:
        label = "iPR"
        notes.append(f"Not iCR while {', '.join(item.new)} is still there.")
    lines = diameters.arithmetic(item, baseline, label, recist.rules())[:-1]
    judged = Judged(
        item.at,
        label,
        {"target": target, "non-target": non_target, "new": diameters.parts(item)["new"]},
        unit="mm",
        arithmetic=(*lines, _together(label, waiting, found)),
        notes=tuple(notes),
        concerns=item.concerns,
    )
    if item.target is not None:
        sums = item.target
        judged = replace(judged, baseline=sums.baseline_mm, nadir=sums.nadir_mm, current=sums.current_mm)
    return judged, _next_open(label, item, target, non_target, new, waiting)


def _new_counts(item: Followed, target: str, waiting: Open | None, settled: Settled) -> bool:
    """Whether new lesions count at this visit (EORTC answers).

    While an iUPD is open, known ones that did not grow do not keep a further shrinkage from being iPR. After a visit without
    progression they count again when they meet the thresholds of RECIST 1.1 from their smallest sum, progress beyond doubt,
    or others appear.
    """
    if not item.new:
        return False
    if waiting is not None:
        grown = _new_sum(item) > waiting.new_sum_mm or _increased(item, item.new)
        return bool(item.fresh) or grown or target not in ("iPR", "iCR")
    if not settled.known or set(item.new) - settled.known:
        return True
    limits = recist.rules()["response"]
    more = clean(_new_sum(item) - settled.lowest_mm)
    enough = clean(100 * more) >= limits["progression_change_percent"] * settled.lowest_mm
    progressed = any(item.lesions[uid].state == "progressed" for uid in item.new)
    return progressed or (more >= limits["progression_increase_mm"] and enough)


def _settle(label: str, item: Followed, settled: Settled) -> Settled:
    if label in ("iUPD", "iCPD", "NE") or not item.new:
        return settled
    lowest = min(settled.lowest_mm, _new_sum(item)) if settled.known else _new_sum(item)
    return Settled(settled.known | set(item.new), lowest)


def _grew_on(item: Followed, baseline: Baseline, waiting: Open | None) -> bool:
    """Non-target disease of an open iUPD increased again, beyond doubt or not."""
    named = waiting is not None and "non-target" in waiting.categories
    return named and _increased(item, [lesion.uid for lesion in baseline.others])


def _further(item: Followed, baseline: Baseline, waiting: Open | None) -> tuple[set[str], list[str]]:
    """Categories in which disease increased since the open iUPD, with the arithmetic."""
    if waiting is None:
        return set(), []
    least = rules()["confirmation"]["increase_mm"]
    found, why = set(), []
    target = item.target
    if target is not None and target.response == "PD":
        more = clean(target.current_mm - waiting.sum_mm)
        if "target" not in waiting.categories:
            found.add("target")
            why.append("Target lesions progress now and did not at the iUPD.")
        elif more >= least:
            found.add("target")
            why.append(f"Sum rose further by {more:.1f} mm since the iUPD of {waiting.since} (needs {least} mm).")
        else:
            why.append(f"Sum changed by {more:+.1f} mm since the iUPD of {waiting.since}; iCPD needs +{least} mm.")
    newly = item.non_target == "PD" and "non-target" not in waiting.categories
    if newly or _grew_on(item, baseline, waiting):
        found.add("non-target")
        why.append("Non-target disease increased further.")
    if item.fresh:
        found.add("new")
        why.append(f"New lesion(s) since the iUPD: {', '.join(item.fresh)}.")
    elif item.new:
        more = clean(_new_sum(item) - waiting.new_sum_mm)
        if more >= least or _increased(item, item.new):
            found.add("new")
            why.append(f"New lesions grew ({more:+.1f} mm in their sum).")
    return found, why


def _increased(item: Followed, uids: Collection[str]) -> bool:
    return any(item.lesions[uid].state == "increased" for uid in uids if uid in item.lesions)


def _new_sum(item: Followed) -> float:
    """Sum of the new lesions that are large enough to be followed as targets, at most five, two an organ."""
    lesions: list[Lesion] = [item.lesions[uid] for uid in item.new]
    return clean(sum(recist.size(lesion) or 0.0 for lesion in recist.select_targets(lesions)))


def _in_window(found: set[str], waiting: Open, at: date) -> tuple[set[str], list[str]]:
    window = rules()["confirmation"]
    since = days(waiting.since, at)
    if since < window["from_days"]:
        return set(), [
            f"{since} days after the iUPD of {waiting.since}: too early to confirm (from {window['from_days']} days)."
        ]
    if since > window["to_days"]:
        return found, [f"Confirmed {since} days after the iUPD; the published window ends at {window['to_days']} days."]
    return found, []


def _together(label: str, waiting: Open | None, found: set[str]) -> str:
    if label == "iCPD" and waiting:
        return f"Together: iCPD, the iUPD of {waiting.since} is confirmed by {' and '.join(sorted(found))} (table 2)."
    if waiting and label not in ("iUPD", "NE"):
        return f"Together: {label}; the iUPD of {waiting.since} was not confirmed and the bar is reset (table 2)."
    return f"Together: {label} (table 2)."


def _next_open(
    label: str, item: Followed, target: str, non_target: str, new: bool, waiting: Open | None
) -> Open | None:
    """The open iUPD after this visit: kept while unconfirmed, gone when disease responded again or was confirmed."""
    if label == "NE":
        return waiting
    if label != "iUPD":
        return None
    if waiting is not None:
        return waiting
    named = (("target", target == "iUPD"), ("non-target", non_target == "iUPD"), ("new", new))
    categories = frozenset(name for name, holds in named if holds)
    return Open(item.at, categories, item.target.current_mm if item.target else 0.0, _new_sum(item))


def _unconfirmed(waiting: Open | None, labels: Sequence[str]) -> list[Concern]:
    if waiting is None or not labels or "iCPD" in labels:
        return []
    window = rules()["confirmation"]
    return [
        Concern(
            "irecist.not_confirmed",
            f"the iUPD of {waiting.since} is neither confirmed nor reset",
            missing=("a confirming examination",),
            who="treating physician",
            remedy=f"image again {window['from_days']} to {window['to_days']} days after {waiting.since}, if the patient is "
            "clinically stable",
        )
    ]
