"""The lesion table: each lesion over the visits, how each value was measured, how sure it is, and what a reader said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2

from services.board import charts
from services.board.findings_review import Review, reasons
from services.clinical import codes

# Measurements of the lesion table, in reading order.
_COLUMNS = (
    (codes.SUV_MAX, "SUVmax", "g/mL"),
    (codes.SUV_PEAK, "SUVpeak", "g/mL"),
    (codes.METABOLIC_VOLUME, "MTV", "mL"),
    (codes.TOTAL_LESION_GLYCOLYSIS, "TLG", "g"),
    (codes.VOLUME, "Volume", "mL"),
    (codes.LONG_AXIS, "Long axis", "mm"),
    (codes.SHORT_AXIS, "Short axis", "mm"),
)
_MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Cell:
    """One measurement over the visits: values oldest first (None where it was not measured) and the last change.

    `spread`: the interval of the last value, empty where none was estimated.
    """

    values: list[float | None]
    change_percent: float | None
    spark: str
    spread: str = ""

    @property
    def known(self) -> list[float]:
        """The measured values, oldest first."""
        return [v for v in self.values if v is not None]


@dataclass(frozen=True)
class Value:
    """One measured value, and how. `spread`: its interval, or why there is none. `before`: what a reader replaced."""

    finding_id: str
    code: str
    name: str
    unit: str
    value: float
    method: str
    spread: str
    before: str = ""


@dataclass(frozen=True)
class Sighting:
    """One lesion at one visit, and what a reader said of it. `verdict`: empty while nobody reviewed it.

    PET and CT may each have measured it: `finding_id` is the first of their findings, and a review counts for all.
    `network`: name of the network that outlined it; empty for a person's outline and for a rule's.
    """

    finding_id: str
    study_uid: str
    day: date
    verdict: str
    reviewed: str
    note: str
    method: str
    version: str
    values: list[Value]
    network: str = ""
    series_uid: str = ""


@dataclass(frozen=True)
class LesionRow:
    label: str
    site: str
    kind: str
    cells: list[Cell]
    cautions: list[str]
    sightings: list[Sighting]

    @property
    def latest(self) -> Sighting:
        return self.sightings[-1]

    @property
    def reviewable(self) -> bool:
        """A lesion, or whatever a network found: somebody has to look at these."""
        return self.kind == "lesion" or bool(self.latest.network)


@dataclass(frozen=True)
class LesionTable:
    """`to_review`: what a reader has to look at; `unreviewed`: how many of these nobody has, at their newest visit."""

    visits: list[date]
    columns: list[tuple[str, str]]
    rows: list[LesionRow]

    @property
    def lesions(self) -> list[LesionRow]:
        return [row for row in self.rows if row.kind == "lesion"]

    @property
    def to_review(self) -> list[LesionRow]:
        return [row for row in self.rows if row.reviewable]

    @property
    def unreviewed(self) -> int:
        return sum(1 for row in self.to_review if not row.latest.verdict)


def measured(finding: imaging_pb2.Finding, concept: codes.Concept) -> float | None:
    """The finding's value of a concept, volumes in mL; None where it has none."""
    for measurement in finding.measurements:
        if concept.matches(measurement.concept):
            value = measurement.value.value
            return value / _MM3_PER_ML if measurement.value.unit == codes.UNIT_MM3 else value
    return None


def lesion_table(
    entries: Iterable[fusion_pb2.TimelineEntry],
    reviews: Mapping[str, Review] | None = None,
    original: Mapping[str, imaging_pb2.Finding] | None = None,
) -> LesionTable | None:
    """Lesions and reference regions as rows, visits side by side; None when nothing was measured.

    `reviews`: the standing review of each finding. `original`: what imaging found, by finding id, so that rejected findings
    stay in sight.
    """
    reviews, original = reviews or {}, original or {}
    shown = {
        e.finding.finding_id: e.finding
        for e in entries
        if e.kind == fusion_pb2.ENTRY_KIND_FINDING and e.HasField("finding")
    }
    findings = {**{i: f for i, f in original.items() if i in reviews}, **shown}
    if not findings:
        return None
    days = sorted({_day(f) for f in findings.values()})
    tracks: dict[str, list[imaging_pb2.Finding]] = defaultdict(list)
    for finding in sorted(findings.values(), key=_day):
        tracks[finding.tracking_uid or finding.finding_id].append(finding)
    columns = [c for c in _COLUMNS if any(measured(f, c[0]) is not None for f in findings.values())]
    rows = [_lesion_row(track, days, [c[0] for c in columns], reviews, original) for track in tracks.values()]
    rows.sort(key=lambda row: (row.kind != "lesion", row.label))
    return LesionTable(days, [(name, unit) for _, name, unit in columns], rows)


def _day(finding: imaging_pb2.Finding) -> date:
    return finding.observed_at.ToDatetime(UTC).date()


def _lesion_row(
    track: list[imaging_pb2.Finding],
    days: list[date],
    concepts: list[codes.Concept],
    reviews: Mapping[str, Review],
    original: Mapping[str, imaging_pb2.Finding],
) -> LesionRow:
    first = track[0]
    kind = imaging_pb2.FindingKind.Name(first.kind).removeprefix("FINDING_KIND_").lower()
    counted = [f for f in track if (r := reviews.get(f.finding_id)) is None or r.verdict != "rejected"]
    return LesionRow(
        first.tracking_id or first.finding_type.display,
        first.site.display,
        kind,
        [_cell(counted, days, concept) for concept in concepts],
        list(dict.fromkeys(c for f in track for c in f.cautions)),
        _sightings(track, reviews, original),
    )


def _sightings(
    track: list[imaging_pb2.Finding], reviews: Mapping[str, Review], original: Mapping[str, imaging_pb2.Finding]
) -> list[Sighting]:
    by_study: dict[str, list[imaging_pb2.Finding]] = defaultdict(list)
    for finding in track:
        by_study[finding.study_instance_uid].append(finding)
    return [_sighting(found, reviews, original) for found in by_study.values()]


def _sighting(
    found: list[imaging_pb2.Finding], reviews: Mapping[str, Review], original: Mapping[str, imaging_pb2.Finding]
) -> Sighting:
    first = found[0]
    review = next((reviews[f.finding_id] for f in found if f.finding_id in reviews), None)
    said = f"{review.author}, {review.at:%d %b %Y %H:%M} UTC" if review else ""
    return Sighting(
        first.finding_id,
        first.study_instance_uid,
        _day(first),
        review.verdict if review else "",
        said,
        _review_words(review) if review else "",
        ", ".join(dict.fromkeys(f.provenance.method for f in found)),
        first.provenance.code_version,
        [_value(f, m, original.get(f.finding_id), reviews.get(f.finding_id)) for f in found for m in f.measurements],
        network_of(first),
        first.series_instance_uid,
    )


def network_of(finding: imaging_pb2.Finding) -> str:
    """Name of the network that found it; empty where none did."""
    learned = any(used.kind == "model-weights" for used in finding.provenance.inputs)
    return finding.provenance.method.partition("@")[0] if learned else ""


def _review_words(review: Review) -> str:
    words = reasons()[review.verdict].get(review.reason, review.reason)
    return f"{words}: {review.note}" if review.note else words


def _value(
    finding: imaging_pb2.Finding,
    measurement: imaging_pb2.Measurement,
    before: imaging_pb2.Finding | None,
    review: Review | None,
) -> Value:
    code, quantity = measurement.concept.code, measurement.value
    scale = 1 / _MM3_PER_ML if quantity.unit == codes.UNIT_MM3 else 1.0
    value = quantity.value
    if review and code in review.corrections:
        value = review.corrections[code]
    spread = quantity.uncertainty.not_estimated or "not estimated"
    if quantity.uncertainty.HasField("interval"):
        spread = _interval_words(quantity.uncertainty.interval, scale)
    was = ""
    if review and before is not None and code in review.corrections:
        old = next((m.value.value for m in before.measurements if m.concept.code == code), None)
        was = f"{scale * old:.4g}" if old is not None else ""
    unit = "mL" if quantity.unit == codes.UNIT_MM3 else quantity.unit
    name = next((n for c, n, _ in _COLUMNS if c.code == code), measurement.concept.display or code)
    return Value(
        finding.finding_id, code, name, "" if unit == "1" else unit, scale * value, measurement.method, spread, was
    )


def _cell(track: list[imaging_pb2.Finding], days: list[date], concept: codes.Concept) -> Cell:
    by_day: dict[date, float] = {}
    spread = ""
    for finding in track:
        value = measured(finding, concept)
        if value is not None:
            by_day[_day(finding)] = value
            spread = _interval(finding, concept)
    values = [by_day.get(day) for day in days]
    known = [v for v in values if v is not None]
    change = (known[-1] / known[0] - 1) * 100 if len(known) > 1 and known[0] > 0 else None
    return Cell(values, change, charts.sparkline(known, width=54, height=18), spread)


def _interval(finding: imaging_pb2.Finding, concept: codes.Concept) -> str:
    """`18.2 to 21 (90%)`, or nothing."""
    for measurement in finding.measurements:
        if concept.matches(measurement.concept) and measurement.value.uncertainty.HasField("interval"):
            scale = 1 / _MM3_PER_ML if measurement.value.unit == codes.UNIT_MM3 else 1.0
            return _interval_words(measurement.value.uncertainty.interval, scale)
    return ""


def _interval_words(span: common_pb2.Interval, scale: float) -> str:
    return f"{scale * span.lower:.3g} to {scale * span.upper:.3g} ({span.level:.0%})"
