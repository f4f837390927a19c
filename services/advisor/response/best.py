"""Best overall response over all visits, and whether it was confirmed.

Source: RECIST 1.1 (Eisenhauer 2009), section 4.4 to 4.6 and table 3, appendix III; data in `recist.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from services.advisor.response import recist
from services.advisor.response.lesions import Concern, Judged, Options, days

_RANK = {"CR": 0, "PR": 1, "SD": 2, "non-CR/non-PD": 2, "PD": 3, "NE": 4}
_RESPONSES = ("CR", "PR")
_STABLE = ("CR", "PR", "SD", "non-CR/non-PD")


@dataclass(frozen=True)
class Best:
    """The best overall response, why, the date of progression, and what a confirmation still lacks."""

    label: str
    reason: str
    progressed_at: date | None = None
    concerns: tuple[Concern, ...] = ()


def best_of_two(first: str, second: str, stable_long_enough: bool) -> str:
    """One row of table 3. Raises KeyError for a pair that the table does not have."""
    for row in recist.rules()["best_overall"]:
        if row[:2] == [first, second]:
            return str(row[2] if stable_long_enough else row[3])
    raise KeyError((first, second))


def best_overall(judged: Sequence[Judged], baseline_at: date, options: Options) -> Best:
    """From the time point responses (CR, PR, SD, PD, NE, non-CR/non-PD), oldest first.

    What follows progression does not count (section 4.4). Stable disease counts when a visit without progression lies at
    least `options.minimum_stable_days` after the baseline or the start of treatment. With `options.confirm`, CR and PR
    count when they are met again `options.confirmation_days` later, with at most one visit in between that falls short
    (appendix III); otherwise table 3 says what remains.
    """
    progressed = next((index for index, item in enumerate(judged) if item.label == "PD"), None)
    followed = judged if progressed is None else judged[: progressed + 1]
    at = None if progressed is None else judged[progressed].at
    start = options.started_at or baseline_at
    stable = any(item.label in _STABLE and days(start, item.at) >= options.minimum_stable_days for item in followed)
    if not options.confirm:
        return _unconfirmed(followed, stable, at, options)
    for wanted in _RESPONSES:
        pair = _confirmed(followed, wanted, options)
        if pair:
            reason = (
                f"{wanted} on {pair[0].at} was met again on {pair[1].at}, {days(pair[0].at, pair[1].at)} days later"
            )
            return Best(wanted, reason, at)
    first = next((item for item in followed if item.label in _RESPONSES), None)
    if first is None:
        return _unconfirmed(followed, stable, at, options)
    return _by_table_3(followed, first, stable, at, options)


def _confirmed(followed: Sequence[Judged], wanted: str, options: Options) -> tuple[Judged, Judged] | None:
    enough = ("CR",) if wanted == "CR" else _RESPONSES
    most = recist.rules()["confirmation"]["most_visits_between"]
    for index, first in enumerate(followed):
        if first.label != wanted:
            continue
        short = 0
        for later in followed[index + 1 :]:
            if later.label in enough and days(first.at, later.at) >= options.confirmation_days:
                return first, later
            short += later.label not in enough
            if later.label == "PD" or short > most:
                break
    return None


def _by_table_3(followed: Sequence[Judged], first: Judged, stable: bool, at: date | None, options: Options) -> Best:
    after = followed[list(followed).index(first) + 1 :]
    second = next((item for item in after if days(first.at, item.at) >= options.confirmation_days), None)
    following = second or next(iter(after), None)
    said = following.label if following else "NE"
    pair = (first.label, "SD" if said == "non-CR/non-PD" else said)
    # The same response again, but too soon to confirm it, is no more than not having looked.
    if following is not None and second is None and pair[1] in _RESPONSES:
        pair = (first.label, "NE")
    label = best_of_two(*pair, stable)
    held = "was" if stable else "was not"
    reason = (
        f"{first.label} on {first.at} was not confirmed (next: {said}); stable disease for at least "
        f"{options.minimum_stable_days} days {held} met (table 3)"
    )
    concerns = () if at else (_no_confirmation(first, options),)
    return Best(label, reason, at, concerns)


def _no_confirmation(first: Judged, options: Options) -> Concern:
    return Concern(
        "response.not_confirmed",
        f"the {first.label} of {first.at} has no visit at least {options.confirmation_days} days later that confirms it",
        missing=("a confirming examination",),
        who="treating physician",
        remedy=f"image again with the same technique, {options.confirmation_days} days or more after {first.at}",
    )


def _unconfirmed(followed: Sequence[Judged], stable: bool, at: date | None, options: Options) -> Best:
    """The best time point response as it stands; SD only when it lasted."""
    labels = [item.label for item in followed]
    usable = [label for label in labels if label in _RESPONSES or (label in _STABLE and stable) or label == "PD"]
    if not usable:
        why = f"no visit at least {options.minimum_stable_days} days after the start shows stable disease or better"
        return Best("NE", why if any(label in _STABLE for label in labels) else "no visit could be judged", at)
    label = min(usable, key=_RANK.__getitem__)
    where = next(item for item in followed if item.label == label)
    if label in ("SD", "non-CR/non-PD"):
        return Best(label, f"no better response, and no progression, {options.minimum_stable_days} days or more in", at)
    return Best(label, f"{label} on {where.at}", at)


def best_until(judged: Sequence[Judged], progressive: Sequence[str], order: Sequence[str]) -> Best:
    """Best label of the visits up to the first with one of `progressive`, that one included; `order`: best first."""
    at = next((item.at for item in judged if item.label in progressive), None)
    counted = [item.label for item in judged if at is None or item.at <= at]
    return Best(min(counted, key=order.index), "best of the visits up to progression", at)


def best_sustained(judged: Sequence[Judged], responses: Sequence[str], sustained_days: int) -> Best:
    """Best response that lasted: met again `sustained_days` later with nothing worse between (RANO 2.0).

    `responses`: labels that must last, best first. SD needs no confirmation; progression ends the count.
    """
    progressed = next((index for index, item in enumerate(judged) if item.label == "PD"), None)
    followed = judged if progressed is None else judged[:progressed]
    at = None if progressed is None else judged[progressed].at
    for place, wanted in enumerate(responses):
        enough = responses[: place + 1]
        first: Judged | None = None
        for item in followed:
            first = None if item.label not in enough else first or item
            if first is not None and days(first.at, item.at) >= sustained_days:
                return Best(wanted, f"{wanted} from {first.at} lasted to {item.at}", at)
    labels = [item.label for item in followed]
    unlasting = next((item for item in followed if item.label in responses), None)
    if unlasting is not None or "SD" in labels:
        held = f"; {unlasting.label} of {unlasting.at} did not last {sustained_days} days" if unlasting else ""
        return Best("SD", f"no response that lasted{held}", at)
    return Best("PD" if at else "NE", f"PD on {at}" if at else "no visit could be judged", at)
