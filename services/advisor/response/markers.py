"""Markers as response criteria: CA-125 in ovarian cancer (GCIG), PSA in prostate cancer (PCWG3).

Sources: Rustin GJS et al., Int J Gynecol Cancer 2011;21:419-423; Scher HI et al., J Clin Oncol 2016;34:1402-1418. Data in
`markers.yaml`. CA-125 in U/mL, PSA in ng/mL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from services.advisor.response.lesions import (
    LABORATORY,
    Assessment,
    Concern,
    Judged,
    Options,
    TimePoint,
    clean,
    days,
    percent,
)
from services.advisor.tables import table
from services.platform.errors import RefusedError

Label = Literal["response", "response (unconfirmed)", "progression", "progression (unconfirmed)", "neither"]
RESPONSE: Label = "response"
RESPONSE_UNCONFIRMED: Label = "response (unconfirmed)"
PROGRESSION: Label = "progression"
PROGRESSION_UNCONFIRMED: Label = "progression (unconfirmed)"
NEITHER: Label = "neither"
_ORDER = (RESPONSE, RESPONSE_UNCONFIRMED, NEITHER, PROGRESSION_UNCONFIRMED, PROGRESSION)


@dataclass(frozen=True)
class Sample:
    """One value of the marker in its canonical unit."""

    at: date
    value: float


@dataclass(frozen=True)
class Verdict:
    """What a marker says at one sample, why, and the date that a progression counts from."""

    at: date
    label: Label
    why: str
    dated: date | None = None


def rules(marker: str) -> Mapping[str, Any]:
    """One part of markers.yaml: "ca125" or "psa"."""
    part: Mapping[str, Any] = table("response/markers.yaml")[marker]
    return part


def psa(samples: Sequence[Sample], started_at: date | None = None) -> list[Verdict]:
    """PSA at each sample after the first (the baseline), oldest first.

    Response: 50 % below baseline, confirmed 3 weeks later. Progression: 25 % and 2 ng/mL above the nadir, confirmed 3 weeks
    later; where PSA never fell, above baseline and after 12 weeks without confirmation. Rises in the first 12 weeks are
    ignored.
    """
    ordered = sorted(samples, key=lambda item: item.at)
    if not ordered:
        return []
    data, first = rules("psa"), ordered[0]
    start = started_at or first.at
    verdicts: list[Verdict] = []
    for index, sample in enumerate(ordered[1:], start=1):
        nadir = min(ordered[:index], key=lambda item: (item.value, item.at))
        fall, rise = percent(sample.value, first.value), percent(sample.value, nadir.value)
        limits = data["progression"]
        up = clean(sample.value - nadir.value)
        risen = up >= limits["rise"] and (rise is None or rise >= limits["rise_percent"])
        words = (
            f"PSA {sample.value:g}: {_signed(fall)} from baseline ({first.value:g}), {up:+.2f} ng/mL ({_signed(rise)}) from "
            f"the nadir ({nadir.value:g})"
        )
        if risen and days(start, sample.at) < limits["ignored_days"]:
            risen, words = False, f"{words}; rises in the first 12 weeks are ignored"
        if risen:
            fell = nadir.value < first.value
            verdicts.append(_risen(sample, words, verdicts, limits["confirmed_after_days"], needs_second=fell))
        elif fall is not None and -fall >= data["response"]["fall_percent"]:
            verdicts.append(_fallen(sample, words, verdicts, data["response"]["confirmed_after_days"]))
        else:
            verdicts.append(Verdict(sample.at, NEITHER, words))
    return verdicts


def _signed(change: float | None) -> str:
    return "-" if change is None else f"{change:+.1f} %"


def _risen(
    sample: Sample, words: str, verdicts: Sequence[Verdict], wait_days: int, *, needs_second: bool = True
) -> Verdict:
    """Progression, confirmed by an unbroken run of risen samples that began long enough ago."""
    run = _run(verdicts, (PROGRESSION, PROGRESSION_UNCONFIRMED))
    began = run[0].at if run else sample.at
    if not needs_second:
        return Verdict(sample.at, PROGRESSION, f"{words}; it never fell, so no second value is needed", began)
    if run and days(began, sample.at) >= wait_days:
        return Verdict(sample.at, PROGRESSION, f"{words}; confirms the rise of {began}", began)
    return Verdict(
        sample.at, PROGRESSION_UNCONFIRMED, f"{words}; a second value {wait_days} days later must confirm", began
    )


def _fallen(sample: Sample, words: str, verdicts: Sequence[Verdict], wait_days: int) -> Verdict:
    run = _run(verdicts, (RESPONSE, RESPONSE_UNCONFIRMED))
    began = run[0].at if run else sample.at
    if run and days(began, sample.at) >= wait_days:
        return Verdict(sample.at, RESPONSE, f"{words}; confirms the fall of {began}", began)
    return Verdict(
        sample.at, RESPONSE_UNCONFIRMED, f"{words}; a second value {wait_days} days later must confirm", began
    )


def _run(verdicts: Sequence[Verdict], labels: Sequence[Label]) -> list[Verdict]:
    """The unbroken run of these labels at the end."""
    run: list[Verdict] = []
    for verdict in reversed(verdicts):
        if verdict.label not in labels:
            break
        run.insert(0, verdict)
    return run


def ca125(samples: Sequence[Sample], upper_limit: float | None = None, started_at: date | None = None) -> list[Verdict]:
    """CA-125 at each sample after the first (the one before treatment), oldest first.

    Response: 50 % below the sample before treatment, which must be at least twice the upper limit and at most 14 days old
    at the start; held for 28 days, no sample more than 10 % above the one before unless both are normal. Progression:
    twice the upper limit (normal before, or normalised since), or twice the nadir (never normal), again 7 days later.
    """
    ordered = sorted(samples, key=lambda item: item.at)
    if not ordered:
        return []
    data, first = rules("ca125"), ordered[0]
    limit = upper_limit or float(data["upper_limit"])
    evaluable = not unevaluable_response(first, limit, started_at)
    verdicts: list[Verdict] = []
    for index, sample in enumerate(ordered[1:], start=1):
        before = ordered[:index]
        nadir = min(before, key=lambda item: (item.value, item.at)).value
        normalised = nadir <= limit
        bar = data["progression"]["times"] * (limit if normalised else nadir)
        fall = percent(sample.value, first.value)
        words = (
            f"CA-125 {sample.value:g}: {_signed(fall)} from {first.value:g} before treatment, nadir {nadir:g}; progression "
            f"from {bar:g} ({'twice the upper limit' if normalised else 'twice the nadir'})"
        )
        if sample.value >= bar:
            verdicts.append(_risen(sample, words, verdicts, data["progression"]["confirmed_after_days"]))
        elif evaluable and fall is not None and -fall >= data["response"]["fall_percent"]:
            held = _held(sample, before[-1], limit, data["response"]["assay_percent"])
            followed = verdicts if held else []
            verdicts.append(_fallen(sample, words, followed, data["response"]["confirmed_after_days"]))
        else:
            verdicts.append(Verdict(sample.at, NEITHER, words))
    return verdicts


def _held(sample: Sample, before: Sample, limit: float, assay_percent: float) -> bool:
    if sample.value <= limit and before.value <= limit:
        return True
    return clean(sample.value) <= clean(before.value * (1 + assay_percent / 100))


def unevaluable_response(first: Sample, limit: float, started_at: date | None) -> str:
    """Why response cannot be judged by CA-125 for this patient; empty when it can."""
    needs = rules("ca125")["response"]
    if first.value < needs["pretreatment_times_upper_limit"] * limit:
        return f"the sample before treatment ({first.value:g}) is below twice the upper limit ({limit:g})"
    if started_at is not None and not 0 <= days(first.at, started_at) <= needs["pretreatment_days"]:
        return f"the sample before treatment is not within {needs['pretreatment_days']} days before its start"
    return ""


def with_recist(target: str, non_target: str, new: bool, marker: str) -> str:
    """Best response of GCIG from RECIST and CA-125 ("normal", "PR", "stable", "PD")."""
    for row in rules("ca125")["with_recist"]:
        if all(
            wanted in ("any", found) for wanted, found in zip(row[:-1], (target, non_target, new, marker), strict=True)
        ):
            return str(row[-1])
    return "NE"


def assess_psa(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """PSA over visits that carry the fact `psa`. Raises RefusedError `markers.too_few`."""
    samples = _samples(visits, "psa")
    return _assessment("psa", samples, psa(samples, options.started_at), ())


def assess_ca125(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """CA-125 over visits that carry the fact `ca125` (and perhaps `ca125_upper_limit`). Raises RefusedError."""
    samples = _samples(visits, "ca125")
    limit = upper_limit(visits)
    why = unevaluable_response(samples[0], limit, options.started_at)
    concerns = (
        Concern(
            "ca125.response_not_evaluable",
            f"response cannot be judged by CA-125: {why}; progression can",
            ("a CA-125 of at least twice the upper limit within 14 days before treatment",),
            LABORATORY,
            "judge response by imaging, or supply the sample",
        ),
    )
    verdicts = ca125(samples, limit, options.started_at)
    return _assessment("ca125", samples, verdicts, concerns if why else ())


def upper_limit(visits: Sequence[TimePoint]) -> float:
    """The laboratory's upper limit of CA-125 where a visit tells it (the largest), else that of `markers.yaml`; U/mL."""
    told = [limit for visit in visits if (limit := visit.number("ca125_upper_limit")) is not None]
    return max(told, default=float(rules("ca125")["upper_limit"]))


def _samples(visits: Sequence[TimePoint], name: str) -> list[Sample]:
    ordered = sorted(visits, key=lambda visit: visit.at)
    found = [Sample(visit.at, value) for visit in ordered if (value := visit.number(name)) is not None]
    negative = next((item for item in found if item.value < 0), None)
    if len(found) < 2 or negative is not None:
        what = (
            f"a value of {name} on {negative.at} is negative"
            if negative
            else f"{name} was measured {len(found)} time(s)"
        )
        raise RefusedError(
            "markers.negative" if negative else "markers.too_few",
            f"{what}; a change needs two values",
            missing=[f"{name} before and under treatment"],
            remedy=f"{LABORATORY}: supply the values with their dates and units",
        )
    return found


def _assessment(
    marker: str, samples: Sequence[Sample], verdicts: Sequence[Verdict], concerns: tuple[Concern, ...]
) -> Assessment:
    data = rules(marker)
    judged = []
    for index, verdict in enumerate(verdicts, start=1):
        nadir = min(item.value for item in samples[:index])
        judged.append(
            Judged(
                verdict.at,
                verdict.label,
                {},
                samples[0].value,
                nadir,
                samples[index].value,
                data["unit"],
                (f"{verdict.why}.", f"Together: {verdict.label}."),
            )
        )
    progressed = next((item for item in verdicts if item.label == PROGRESSION), None)
    counted = [item.label for item in verdicts if progressed is None or item.at <= progressed.at]
    last = verdicts[-1]
    if last.label in (PROGRESSION_UNCONFIRMED, RESPONSE_UNCONFIRMED):
        word = "progression" if last.label == PROGRESSION_UNCONFIRMED else "response"
        wait = data[word]["confirmed_after_days"]
        concerns = (
            *concerns,
            Concern(
                f"{marker}.not_confirmed",
                f"the {word} of {last.dated} has no second value that confirms it",
                ("a confirming sample",),
                LABORATORY,
                f"measure again {wait} days or more after {last.dated}",
            ),
        )
    best = min(counted, key=_ORDER.index)
    why = "best of the samples up to progression"
    dated = progressed.dated if progressed else None
    return Assessment.by(data, samples[0].at, judged, best, why, dated, (), concerns)
