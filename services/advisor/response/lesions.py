"""Lesions and visits as response criteria see them, and what a criterion answers.

Diameters in mm, volumes in mL, SUL and SUV in g/mL. One convention for all criteria: a lesion that is gone has the state
"absent" (or measures 0), one that is seen but too small to measure has the state "too small" and counts 5 mm
(RECIST 1.1, section 4.3.2; Lugano 2014 uses 5 mm x 5 mm), one that was not imaged is left out or "not evaluated".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from services.platform.errors import RefusedError

State = Literal["measured", "too small", "absent", "present", "increased", "progressed", "equivocal", "not evaluated"]
Role = Literal["", "target", "non-target", "new"]

STATES: tuple[State, ...] = (
    "measured",
    "too small",
    "absent",
    "present",
    "increased",
    "progressed",
    "equivocal",
    "not evaluated",
)
#: What a lesion counts that is seen but too small to measure, mm.
TOO_SMALL_MM = 5.0


@dataclass(frozen=True)
class Lesion:
    """One lesion at one visit.

    `uid` follows it over visits; `organ` and `side` are empty when unknown. `short_axis_mm` is the largest diameter
    perpendicular to the longest. `enhancing_mm`: longest diameter of the arterially enhancing part (mRECIST).
    `component`: "enhancing" or "non-enhancing" tumour (RANO). `part_of`: the lesion that this is a fragment of;
    `merged_into`: the lesion whose measurement now covers this one too. State of non-target and new disease as the reader
    saw it: "present" (not changed beyond doubt), "increased" (more than last time), "progressed" (unequivocally),
    "equivocal" (a new lesion that may be none). `entry_id`: the timeline entry that the measurements came from.
    `fragments_mm2`: sum of products of the fragments of a lesion that split, which its own diameters no longer give. `name`:
    for people, where `uid` is none.
    """

    uid: str
    organ: str = ""
    longest_mm: float | None = None
    short_axis_mm: float | None = None
    is_node: bool = False
    entry_id: str = ""
    side: str = ""
    role: Role = ""
    state: State = "measured"
    enhancing_mm: float | None = None
    component: str = ""
    volume_ml: float | None = None
    viable_ml: float | None = None
    suv_max: float | None = None
    sul_peak: float | None = None
    glycolysis_g: float | None = None
    deauville: int | None = None
    part_of: str = ""
    merged_into: str = ""
    fragments_mm2: float | None = None
    name: str = ""

    @property
    def called(self) -> str:
        """What people call it: its name, else its uid."""
        return self.name or self.uid

    @property
    def diameter_mm(self) -> float | None:
        """What enters a sum of diameters: the short axis of a node, the longest diameter of anything else."""
        measured = self.short_axis_mm if self.is_node else self.longest_mm
        return self._by_state(measured)

    @property
    def product_mm2(self) -> float | None:
        """Longest diameter times its perpendicular; 25 mm2 when too small to measure, 0 when gone."""
        if self.fragments_mm2 is not None:
            return self.fragments_mm2
        if self.longest_mm is None or self.short_axis_mm is None:
            default = self._by_state(None)
            return None if default is None else default * default
        if self.state in ("absent", "not evaluated"):
            return 0.0 if self.state == "absent" else None
        return self.longest_mm * self.short_axis_mm

    @property
    def is_gone(self) -> bool:
        """No longer seen; a node counts as gone only by its size, which the criterion judges."""
        return self.state == "absent" or (self.state == "measured" and self.longest_mm == 0)

    def _by_state(self, measured: float | None) -> float | None:
        if self.state == "absent":
            return 0.0
        if self.state == "not evaluated":
            return None
        if self.state == "too small":
            return TOO_SMALL_MM if measured is None else measured
        return measured


@dataclass(frozen=True)
class TimePoint:
    """One visit: lesions by uid, and what else a criterion asks for (markers, steroids, reference uptake) by name."""

    at: date
    lesions: Mapping[str, Lesion] = field(default_factory=dict)
    facts: Mapping[str, float | str] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A fact that is a number; None when it is absent."""
        found = self.facts.get(name)
        return float(found) if isinstance(found, int | float) else None

    def word(self, name: str) -> str:
        """A fact in words; empty when it is absent."""
        found = self.facts.get(name)
        return found if isinstance(found, str) else ""


@dataclass(frozen=True)
class Concern:
    """Something that is missing or contradicts itself: what, where, and who can put it right.

    `stops`: the category of its visit (or of the whole table) could not be given because of it.
    """

    reason: str
    message: str
    missing: tuple[str, ...] = ()
    who: str = ""
    remedy: str = ""
    stops: bool = False

    def error(self) -> RefusedError:
        """The same as a refusal; who acts is the start of the remedy."""
        remedy = f"{self.who}: {self.remedy}" if self.who and self.remedy else self.remedy or self.who
        return RefusedError(self.reason, self.message, missing=self.missing, remedy=remedy)


READER = "radiologist or nuclear medicine physician who read the images"
CLINICIAN = "treating physician"
LABORATORY = "treating physician or laboratory"
TRIAL_OFFICE = "whoever keeps the lesion table"


@dataclass(frozen=True)
class Judged:
    """The category at one visit, with its arithmetic in words.

    `label` is the category in the criterion's own words. `parts` are the answers that it was combined from (for example
    target, non-target, new lesions). Values are what the criterion compares, in `unit`; None where it compares nothing.
    """

    at: date
    label: str
    parts: Mapping[str, str] = field(default_factory=dict)
    baseline: float | None = None
    nadir: float | None = None
    current: float | None = None
    unit: str = ""
    arithmetic: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    concerns: tuple[Concern, ...] = ()

    @property
    def change_percent(self) -> float | None:
        """From baseline; None for a visit that cannot be judged, whose sum may lack lesions."""
        return None if self.label == "NE" else percent(self.current, self.baseline)

    @property
    def from_nadir_percent(self) -> float | None:
        return None if self.label == "NE" else percent(self.current, self.nadir)


@dataclass(frozen=True)
class Assessment:
    """One criterion over all visits. `judged` has one answer for each visit after the baseline, oldest first."""

    criterion: str
    version: str
    citations: tuple[str, ...]
    baseline_at: date
    judged: tuple[Judged, ...]
    best: str = ""
    best_reason: str = ""
    progressed_at: date | None = None
    notes: tuple[str, ...] = ()
    concerns: tuple[Concern, ...] = ()

    @classmethod
    def by(
        cls,
        data: Mapping[str, Any],
        baseline_at: date,
        judged: Sequence[Judged],
        best: str,
        best_reason: str,
        progressed_at: date | None,
        notes: tuple[str, ...] = (),
        concerns: tuple[Concern, ...] = (),
    ) -> Assessment:
        """By the criterion that a data file describes: its `name`, `version` and `citations`."""
        return cls(
            data["name"],
            data["version"],
            tuple(data["citations"]),
            baseline_at,
            tuple(judged),
            best,
            best_reason,
            progressed_at,
            notes,
            concerns,
        )


@dataclass(frozen=True)
class Options:
    """How a criterion is applied.

    `confirm`: CR and PR must be confirmed for the best overall response (needed where response is the primary endpoint
    of a non-randomised trial; RECIST 1.1, section 4.6). `confirmation_days`, `minimum_stable_days`: as the protocol
    says; RECIST names 4 weeks and "in general not less than 6-8 weeks". `started_at`: start of treatment, where it is
    not the date of the baseline. `radiotherapy_ended_at`: for RANO.
    """

    confirm: bool = True
    confirmation_days: int = 28
    minimum_stable_days: int = 42
    started_at: date | None = None
    radiotherapy_ended_at: date | None = None


def percent(now: float | None, before: float | None) -> float | None:
    """Change in per cent; None when either is unknown or `before` is 0."""
    if now is None or before is None or before == 0:
        return None
    return clean(100 * (now - before) / before)


def short(value: float) -> str:
    """A size for people: at most one decimal, none where it is whole."""
    return f"{value:.1f}".removesuffix(".0")


def clean(value: float) -> float:
    """Drops float noise, so that a change of exactly the threshold counts as such."""
    return round(value, 9)


def days(earlier: date, later: date) -> int:
    """Whole days between two visits."""
    return (later - earlier).days


def resolve(lesions: Mapping[str, Lesion]) -> tuple[dict[str, Lesion], tuple[str, ...]]:
    """Fragments joined to the lesion they came from, merged lesions counted once; and what was done, in words.

    RECIST 1.1, section 4.3.2: the longest diameters of the fragments are added; of truly coalesced lesions the maximal
    longest diameter of the coalesced lesion counts, so the lesion that was taken in adds nothing.
    """
    kept = {uid: lesion for uid, lesion in lesions.items() if not lesion.part_of and not lesion.merged_into}
    notes = []
    parents = sorted({lesion.part_of for lesion in lesions.values() if lesion.part_of})
    for parent in parents:
        fragments = sorted((item for item in lesions.values() if item.part_of == parent), key=lambda item: item.uid)
        whole = [kept[parent]] if parent in kept and kept[parent].diameter_mm is not None else []
        pieces = [*whole, *fragments]
        sums = [item.diameter_mm for item in pieces if item.diameter_mm is not None]
        kept[parent] = _joined(kept.get(parent, replace(fragments[0], uid=parent)), pieces)
        notes.append(f"{parent} split into {len(pieces)}: {' + '.join(f'{mm:g}' for mm in sums)} = {sum(sums):g} mm.")
    for lesion in sorted(lesions.values(), key=lambda item: item.uid):
        if lesion.merged_into:
            if lesion.merged_into not in lesions:
                continue
            kept[lesion.uid] = replace(lesion, longest_mm=0.0, short_axis_mm=0.0, enhancing_mm=0.0, state="measured")
            notes.append(
                f"{lesion.uid} has merged with {lesion.merged_into}: the longest diameter of both counts once."
            )
    return kept, tuple(notes)


def _joined(parent: Lesion, pieces: Sequence[Lesion]) -> Lesion:
    state: State = "absent" if all(item.is_gone for item in pieces) else "measured"
    return replace(
        parent,
        state=state,
        longest_mm=_total(item.longest_mm if item.is_node else item.diameter_mm for item in pieces),
        short_axis_mm=_total(item.diameter_mm if item.is_node else item.short_axis_mm for item in pieces),
        enhancing_mm=_total(item.enhancing_mm for item in pieces),
        volume_ml=_total(item.volume_ml for item in pieces),
        viable_ml=_total(item.viable_ml for item in pieces),
        fragments_mm2=_total(item.product_mm2 for item in pieces),
        part_of="",
    )


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return clean(sum(known)) if known else None
