"""RANO 2.0: response of gliomas, enhancing and non-enhancing, with steroids and clinical status.

Source: Wen PY et al., J Clin Oncol 2023;41:5187-5199, doi:10.1200/JCO.23.01059. Data in `rano.yaml`. Sums of products of
perpendicular diameters in mm2, or of volumes in mL. Facts of a visit: `steroid_dose_mg` (dexamethasone equivalent a day)
and `clinical_status` ("stable", "improved", "worse").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from services.advisor.response.best import best_sustained
from services.advisor.response.checks import check
from services.advisor.response.lesions import (
    CLINICIAN,
    READER,
    Assessment,
    Concern,
    Judged,
    Lesion,
    Options,
    TimePoint,
    clean,
    days,
    percent,
    resolve,
)
from services.advisor.tables import table
from services.platform.errors import RefusedError

COMPONENTS = ("enhancing", "non-enhancing")
PRELIMINARY = "PD (preliminary)"
_UNITS = {"product": "mm2", "volume": "mL"}


@dataclass(frozen=True)
class Burden:
    """One component at one visit: response, sums, and what was not measured."""

    component: str
    response: str
    baseline: float
    nadir: float
    current: float
    missing: tuple[str, ...] = ()


def rules() -> Mapping[str, Any]:
    """rano.yaml."""
    return table("response/rano.yaml")


def imaging_response(component: str, measure: str, baseline: float, nadir: float, current: float, gone: bool) -> str:
    """CR, PR, MR, SD or PD of one component by its sums; thresholds are met at exactly their value."""
    limits = rules()["thresholds"][measure]
    rise = percent(current, nadir)
    if (rise is not None and rise >= limits["progression_percent"]) or (nadir == 0 and current > 0):
        return "PD"
    if gone:
        return "CR"
    fall = percent(current, baseline)
    if fall is not None and fall <= limits["partial_percent"]:
        return "PR"
    if fall is not None and fall <= limits["minor_percent"] and component in rules()["minor_response"]:
        return "MR"
    return "SD"


def combined(responses: Sequence[str]) -> str:
    """Both components together (the published rule for mixed tumours), or the only one."""
    if len(responses) == 1:
        return responses[0]
    for one, other, answer in rules()["mixed"]:
        for first, second in (tuple(responses), tuple(reversed(responses))):
            if first == one and other in ("any", second):
                return str(answer)
    return "NE"


def overall(imaging: str, *, worse: bool, clinical: str, steroids: str) -> str:
    """The overall response of a visit.

    `imaging`: both components together. `worse`: a new measurable lesion or unequivocal progression of non-measurable
    disease. `clinical`: "stable", "improved", "worse" or "" (unknown). `steroids`, against baseline: "none" (at most
    physiological), "less", "same", "more" or "" (unknown). A rise of steroids alone is no progression, and no response or
    stable disease either.
    """
    if worse or clinical == "worse" or imaging == "PD":
        return "PD"
    if imaging == "NE" or not clinical or steroids in ("", "more"):
        return "NE"
    return "PR" if imaging == "CR" and steroids != "none" else imaging


def assess(visits: Sequence[TimePoint], options: Options) -> Assessment:
    """RANO 2.0 at each visit after the baseline.

    After radiotherapy (`options.radiotherapy_ended_at`) the baseline is the first visit after its end. Raises RefusedError
    as `checks.check`, `rano.no_baseline_after_radiotherapy` and `rano.no_measurable_disease`.
    """
    data = rules()
    ordered, baseline_concerns = _after_radiotherapy(sorted(visits, key=lambda visit: visit.at), options)
    checked = check(ordered)
    first = checked.visits[0]
    targets, measure = _targets(first)
    judged: list[Judged] = []
    past: list[Mapping[str, Lesion]] = []
    course = _Course(options, first.at)
    for visit in checked.visits[1:]:
        lesions, notes = resolve(visit.lesions)
        burdens = [_burden(name, measure, members, past, lesions) for name, members in targets.items() if members]
        answer = _judge(replace(visit, lesions=lesions), first, targets, burdens, measure)
        answer = replace(
            answer, notes=(*notes, *answer.notes), concerns=(*checked.by_visit[visit.at], *answer.concerns)
        )
        judged.append(course.confirm(answer))
        past.append(lesions)
    best = best_sustained(judged, ("CR", "PR", "MR"), data["confirmation"]["days"])
    return Assessment.by(
        data,
        first.at,
        judged,
        best.label,
        best.reason,
        course.progressed_at,
        (),
        (*baseline_concerns, *checked.overall, *course.open_concern(), *best.concerns),
    )


def _after_radiotherapy(ordered: Sequence[TimePoint], options: Options) -> tuple[list[TimePoint], tuple[Concern, ...]]:
    ended = options.radiotherapy_ended_at
    if ended is None:
        return list(ordered), ()
    after = [visit for visit in ordered if visit.at > ended]
    if not after:
        raise RefusedError(
            "rano.no_baseline_after_radiotherapy",
            f"radiotherapy ended on {ended} and no visit is later; the baseline is the first MRI after radiotherapy",
            missing=["an MRI after radiotherapy"],
            remedy=f"{CLINICIAN}: order the baseline MRI 3 to 5 weeks after the end of radiotherapy",
        )
    soonest, latest = rules()["baseline"]["after_radiotherapy_days"]
    since = days(ended, after[0].at)
    if soonest <= since <= latest:
        return after, ()
    concern = Concern(
        "rano.baseline_time",
        f"the baseline of {after[0].at} is {since} days after radiotherapy; {soonest} to {latest} days are recommended",
        who=CLINICIAN,
        remedy="read early changes with care",
    )
    return after, (concern,)


def _targets(first: TimePoint) -> tuple[dict[str, list[Lesion]], str]:
    """Measurable lesions by component, as the reader called them or the largest; and what was measured of all of them."""
    lesions = list(resolve(first.lesions)[0].values())
    told = any(lesion.role == "target" for lesion in lesions)
    candidates = [lesion for lesion in lesions if (lesion.role == "target" or not told)]
    measure = "product" if any(lesion.product_mm2 is not None for lesion in candidates) else "volume"
    fitting = [lesion for lesion in candidates if _measurable(lesion, measure)]
    if not fitting:
        raise RefusedError(
            "rano.no_measurable_disease",
            "no lesion at baseline has both diameters of 10 mm or more",
            missing=["longest diameter and its perpendicular, of enhancing or non-enhancing tumour"],
            remedy=f"{READER}: measure both diameters, or judge by non-measurable disease alone",
        )
    ordered = sorted(fitting, key=lambda lesion: (-(amount(lesion, measure) or 0.0), lesion.uid))
    most = len(ordered) if told else rules()["most_targets"]
    found = {
        name: [lesion for lesion in ordered if (lesion.component or "enhancing") == name][:most] for name in COMPONENTS
    }
    return found, measure


def _measurable(lesion: Lesion, measure: str) -> bool:
    limits = rules()["measurable"]
    if lesion.state != "measured":
        return False
    if measure == "volume":
        return lesion.volume_ml is not None and lesion.volume_ml >= limits["volume_ml"]
    smallest = limits["both_diameters_mm"]
    return all(mm is not None and mm >= smallest for mm in (lesion.longest_mm, lesion.short_axis_mm))


def amount(lesion: Lesion, measure: str) -> float | None:
    """Product in mm2 or volume in mL; None when it was not measured."""
    if measure == "product":
        return lesion.product_mm2
    return 0.0 if lesion.is_gone else lesion.volume_ml


def _burden(
    component: str,
    measure: str,
    targets: Sequence[Lesion],
    past: Sequence[Mapping[str, Lesion]],
    lesions: Mapping[str, Lesion],
) -> Burden:
    uids = [lesion.uid for lesion in targets]
    baseline = _sum(targets, measure)
    known = [visit for visit in past if not _missing(uids, visit, measure)]
    nadir = min([baseline, *(_sum([visit[uid] for uid in uids], measure) for visit in known)])
    missing = _missing(uids, lesions, measure)
    seen = [lesions[uid] for uid in uids if uid not in missing]
    current = _sum(seen, measure)
    gone = all(amount(lesion, measure) == 0 for lesion in seen)
    response = imaging_response(component, measure, baseline, nadir, current, gone)
    if missing and response != "PD":
        response = "NE"
    return Burden(component, response, baseline, nadir, current, tuple(missing))


def _missing(uids: Sequence[str], lesions: Mapping[str, Lesion], measure: str) -> list[str]:
    return [uid for uid in uids if uid not in lesions or amount(lesions[uid], measure) is None]


def _sum(lesions: Sequence[Lesion], measure: str) -> float:
    return clean(sum(amount(lesion, measure) or 0.0 for lesion in lesions))


def _judge(
    visit: TimePoint,
    first: TimePoint,
    targets: Mapping[str, Sequence[Lesion]],
    burdens: Sequence[Burden],
    measure: str,
) -> Judged:
    chosen = {lesion.uid for members in targets.values() for lesion in members}
    others = [uid for uid in resolve(first.lesions)[0] if uid not in chosen]
    new = [uid for uid in sorted(visit.lesions) if uid not in first.lesions and _counts_as_new(visit.lesions[uid])]
    grown = [uid for uid in others if uid in visit.lesions and visit.lesions[uid].state == "progressed"]
    remaining = [uid for uid in others if uid not in visit.lesions or not visit.lesions[uid].is_gone]
    imaging = combined([item.response for item in burdens])
    if imaging == "CR" and remaining:
        imaging = "PR"
    steroids = _steroids(visit, first)
    clinical = visit.word("clinical_status")
    label = overall(imaging, worse=bool(new or grown), clinical=clinical, steroids=steroids)
    main = next((item for item in burdens if item.response == "PD"), burdens[0])
    return Judged(
        visit.at,
        label,
        {
            **{item.component: item.response for item in burdens},
            "imaging": imaging,
            "new": ", ".join(new) or "no",
            "clinical": clinical or "unknown",
            "steroids": steroids or "unknown",
        },
        main.baseline,
        main.nadir,
        main.current,
        _UNITS[measure],
        tuple(_words(burdens, measure, imaging, label, new, grown)),
        tuple(_notes(imaging, label, steroids, remaining)),
        tuple(_concerns(visit, first, burdens, label)),
    )


def _counts_as_new(lesion: Lesion) -> bool:
    """Measurable, or certain by the reader's word."""
    if lesion.state in ("present", "increased", "progressed"):
        return True
    return _measurable(lesion, "product") or _measurable(lesion, "volume")


def _steroids(visit: TimePoint, first: TimePoint) -> str:
    now, before = visit.number("steroid_dose_mg"), first.number("steroid_dose_mg")
    if now is None:
        return ""
    if now <= rules()["steroids"]["physiological_mg"]:
        return "none"
    if before is None:
        return ""
    return "same" if now == before else ("more" if now > before else "less")


def _words(
    burdens: Sequence[Burden], measure: str, imaging: str, label: str, new: Sequence[str], grown: Sequence[str]
) -> list[str]:
    unit = _UNITS[measure]
    lines = []
    for item in burdens:
        fall, rise = percent(item.current, item.baseline), percent(item.current, item.nadir)
        lines.append(
            f"{item.component.capitalize()} tumour, sum of {measure}s: {item.baseline:g} {unit} at baseline, {item.nadir:g} "
            f"smallest, {item.current:g} now"
            + (f" ({fall:+.1f} % from baseline" if fall is not None else "")
            + (f", {rise:+.1f} % from the smallest)" if rise is not None else ")" if fall is not None else "")
            + f": {item.response}."
        )
    lines.append(f"New measurable lesion(s): {', '.join(new)}." if new else "No new measurable lesion.")
    if grown:
        lines.append(f"Non-measurable disease progressed: {', '.join(grown)}.")
    return [*lines, f"Together: imaging {imaging}, overall {label}."]


def _notes(imaging: str, label: str, steroids: str, remaining: Sequence[str]) -> list[str]:
    notes = []
    if steroids == "more" and label == "NE":
        notes.append(
            "Steroids were raised: neither response nor stable disease, and no progression without clinical decline. Observe; "
            "judge again when the dose is back."
        )
    if imaging == "CR" and label == "PR":
        notes.append("Imaging is complete, but CR needs a patient without steroids beyond replacement.")
    if imaging == "PR" and remaining and label == "PR":
        notes.append(f"Not CR while other disease remains: {', '.join(remaining)}.")
    return notes


def _concerns(visit: TimePoint, first: TimePoint, burdens: Sequence[Burden], label: str) -> list[Concern]:
    found = []
    missing = tuple(uid for item in burdens for uid in item.missing)
    if missing:
        found.append(
            Concern(
                "rano.target_not_measured",
                f"{len(missing)} target lesion(s) have no measurement on {visit.at}",
                missing,
                READER,
                "measure both diameters; enter absent where a lesion is gone",
                label == "NE",
            )
        )
    if label == "PD":
        return found
    if not visit.word("clinical_status"):
        found.append(_unknown("clinical_status", visit.at, "say whether the patient is stable, improved or worse"))
    without_dose = [item.at for item in (first, visit) if item.number("steroid_dose_mg") is None]
    if without_dose and not _steroids(visit, first):
        found += [
            _unknown("steroid_dose_mg", at, "give the daily dose, dexamethasone equivalent") for at in without_dose
        ]
    return found


def _unknown(name: str, at: date, remedy: str) -> Concern:
    return Concern(
        f"rano.no_{name}",
        f"{name} of {at} is not known; without it only progression can be stated",
        (f"{name} on {at}",),
        CLINICIAN,
        remedy,
        True,
    )


class _Course:
    """Follows preliminary progression soon after radiotherapy until a later visit confirms or refutes it."""

    def __init__(self, options: Options, baseline_at: date) -> None:
        self._ended = options.radiotherapy_ended_at
        self._baseline_at = baseline_at
        self._waiting: Judged | None = None
        self._reference: float | None = None
        self.progressed_at: date | None = None

    def confirm(self, answer: Judged) -> Judged:
        if self._waiting is not None:
            return self._against_waiting(self._waiting, answer)
        if answer.label != "PD":
            return answer
        if self._only_by_size(answer) and self._within_reference(answer):
            return replace(answer, label="SD", notes=(*answer.notes, "Below the unconfirmed progression: SD."))
        if (
            self._ended is not None
            and days(self._ended, answer.at) <= rules()["confirmation"]["after_radiotherapy_days"]
        ):
            self._waiting = answer
            note = f"{days(self._ended, answer.at)} days after radiotherapy: preliminary until confirmed 4 weeks later."
            return replace(answer, label=PRELIMINARY, notes=(*answer.notes, note))
        self.progressed_at = self.progressed_at or answer.at
        return answer

    def _against_waiting(self, waiting: Judged, answer: Judged) -> Judged:
        since = days(waiting.at, answer.at)
        if since < rules()["confirmation"]["days"]:
            note = f"{since} days after the preliminary progression: too early to confirm it."
            return replace(answer, label=PRELIMINARY, notes=(*answer.notes, note))
        if answer.label == "NE":
            return answer
        more = percent(answer.current, waiting.current)
        limit = rules()["thresholds"]["volume" if answer.unit == "mL" else "product"]["progression_percent"]
        clinical = answer.parts["clinical"] == "worse"
        fresh = answer.parts["new"] != waiting.parts["new"] and answer.parts["new"] != "no"
        if answer.label == "PD" and (clinical or fresh or (more is not None and more >= limit)):
            self.progressed_at = waiting.at
            grown = "" if more is None else f" ({more:+.1f} % since)"
            note = f"Confirms the progression of {waiting.at}{grown}, which is its date."
            self._waiting = None
            return replace(answer, notes=(*answer.notes, note))
        self._waiting, self._reference = None, waiting.current
        note = f"The preliminary progression of {waiting.at} was not confirmed: change after treatment is likely."
        return replace(answer, label="SD" if answer.label == "PD" else answer.label, notes=(*answer.notes, note))

    def _only_by_size(self, answer: Judged) -> bool:
        return answer.parts["new"] == "no" and answer.parts["clinical"] != "worse"

    def _within_reference(self, answer: Judged) -> bool:
        rise = percent(answer.current, self._reference)
        limit = rules()["thresholds"]["volume" if answer.unit == "mL" else "product"]["progression_percent"]
        return rise is not None and rise < limit

    def open_concern(self) -> tuple[Concern, ...]:
        if self._waiting is None:
            return ()
        wait = rules()["confirmation"]["days"]
        return (
            Concern(
                "rano.not_confirmed",
                f"the preliminary progression of {self._waiting.at} is neither confirmed nor refuted",
                ("a confirming MRI",),
                CLINICIAN,
                f"repeat the MRI {wait} days or more after {self._waiting.at}",
            ),
        )
