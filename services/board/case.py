"""One patient's case as the page shows it: plain values in the order people read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.registration.v1 import registration_pb2
from osler.twin.v1 import twin_pb2

from services.board import charts
from services.board.findings_review import Review
from services.board.lesions import LesionTable, lesion_table, measured
from services.clinical import codes, terminology

_LANES = {
    fusion_pb2.ENTRY_KIND_CONDITION: "Diagnoses",
    fusion_pb2.ENTRY_KIND_MEDICATION: "Medication",
    fusion_pb2.ENTRY_KIND_PROCEDURE: "Procedures",
    fusion_pb2.ENTRY_KIND_OBSERVATION: "Laboratory",
    fusion_pb2.ENTRY_KIND_GENOMIC: "Genomics",
    fusion_pb2.ENTRY_KIND_IMAGING_STUDY: "Imaging",
    fusion_pb2.ENTRY_KIND_REPORT: "Reports",
    fusion_pb2.ENTRY_KIND_ENCOUNTER: "Encounters",
}


@dataclass(frozen=True)
class Summary:
    name: str
    age: int | None
    sex: str
    synthetic: bool
    conditions: list[str]


@dataclass(frozen=True)
class LabRow:
    title: str
    unit: str
    latest: float
    at: date
    low: float | None
    high: float | None
    flagged: bool
    spark: str
    count: int


@dataclass(frozen=True)
class Risk:
    title: str
    value: str
    interval: str
    note: str
    refused: bool
    citations: list[str]


@dataclass(frozen=True)
class Forecast:
    quantity: str
    unit: str
    chart: charts.ForecastChart | None
    probability_percent: int | None
    horizon: date | None
    cautions: list[str]
    refusal: str
    citations: list[str]


@dataclass(frozen=True)
class Alignment:
    pair: str
    verdict: str
    error_mm: float | None
    note: str


@dataclass(frozen=True)
class News:
    """Something that the last weeks brought."""

    at: date
    what: str
    words: str
    flagged: bool
    unit: str = ""


@dataclass(frozen=True)
class CaseView:
    patient_key: str
    summary: Summary
    lesions: LesionTable | None
    labs: list[LabRow]
    timeline: charts.TimelineChart | None
    risks: list[Risk]
    forecasts: list[Forecast]
    responses: Sequence[advisor_pb2.ResponseAssessment]
    recommendations: list[advisor_pb2.Recommendation]
    supporting: Sequence[advisor_pb2.ResponseAssessment]
    alignments: list[Alignment]
    refusals: list[str]
    news: list[News]
    has_pathology: bool
    evidence: dict[str, str] = field(default_factory=dict)


def _when(entry: fusion_pb2.TimelineEntry) -> datetime | None:
    return entry.effective_at.ToDatetime(UTC) if entry.HasField("effective_at") else None


def _standing(snapshot: fusion_pb2.PatientSnapshot) -> list[fusion_pb2.TimelineEntry]:
    return [e for e in snapshot.entries if e.status != fusion_pb2.ENTRY_STATUS_RETRACTED]


def age_on(birth_date: str, day: date) -> int | None:
    """Completed years; None for a birth date that is not a full ISO date."""
    try:
        born = date.fromisoformat(birth_date)
    except ValueError:
        return None
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def summarise(snapshot: fusion_pb2.PatientSnapshot, today: date) -> Summary:
    """Who this is, for the strip at the top."""
    who = snapshot.demographics
    names = [n for n in (who.given_name, who.family_name) if n]
    conditions = [e for e in _standing(snapshot) if e.kind == fusion_pb2.ENTRY_KIND_CONDITION]
    newest = sorted(conditions, key=lambda e: e.effective_at.ToNanoseconds(), reverse=True)
    titles = list(dict.fromkeys(e.title for e in newest if e.title))
    return Summary(" ".join(names) or "Name not known", age_on(who.birth_date, today), who.sex, who.synthetic, titles)


def lab_rows(entries: Iterable[fusion_pb2.TimelineEntry]) -> list[LabRow]:
    """Latest value of each numeric observation with its trend, by title."""
    series: dict[tuple[str, str], list[fusion_pb2.TimelineEntry]] = defaultdict(list)
    for entry in entries:
        if entry.kind == fusion_pb2.ENTRY_KIND_OBSERVATION and entry.HasField("quantity") and _when(entry):
            # The laboratory and the chart word one test differently: the analyte is what they share.
            analyte = terminology.analyte_of((c.system, c.code) for c in entry.codes)
            series[(analyte.title if analyte else entry.title, entry.quantity.unit)].append(entry)
    rows = []
    for (title, unit), group in sorted(series.items()):
        group.sort(key=lambda e: e.effective_at.ToNanoseconds())
        last = group[-1]
        interval = last.reference_range if last.HasField("reference_range") else None
        value = last.quantity.value
        outside = interval is not None and not interval.lower <= value <= interval.upper
        at = last.effective_at.ToDatetime(UTC).date()
        rows.append(
            LabRow(
                title, "" if unit == "1" else unit, value, at,
                interval.lower if interval else None, interval.upper if interval else None,
                outside or bool(last.flags), charts.sparkline([e.quantity.value for e in group]), len(group),
            )
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class Place:
    """Where a lesion is, RAS mm in its frame of reference, as the viewer counts."""

    label: str
    ras_mm: list[float]
    frame_of_reference_uid: str


def places(snapshot: fusion_pb2.PatientSnapshot, study_uid: str) -> list[Place]:
    """Lesions of one study for the viewer to go to, hottest (else largest) first."""
    lesions = [
        e.finding
        for e in _standing(snapshot)
        if e.HasField("finding")
        and e.finding.study_instance_uid == study_uid
        and e.finding.kind == imaging_pb2.FINDING_KIND_LESION
        and len(e.finding.centroid_lps_mm) == 3
    ]

    def rank(finding: imaging_pb2.Finding) -> tuple[float, float]:
        return (measured(finding, codes.SUV_MAX) or 0.0, measured(finding, codes.LONG_AXIS) or 0.0)

    return [
        Place(
            f.tracking_id,
            [-f.centroid_lps_mm[0], -f.centroid_lps_mm[1], f.centroid_lps_mm[2]],
            f.frame_of_reference_uid,
        )
        for f in sorted(lesions, key=rank, reverse=True)
    ]


def happenings(entries: Iterable[fusion_pb2.TimelineEntry]) -> list[charts.Happening]:
    """Timeline entries that have a date and a lane."""
    found = []
    for entry in entries:
        lane, at = _LANES.get(entry.kind), _when(entry)
        if lane is None or at is None:
            continue
        end = entry.effective_end.ToDatetime(UTC) if entry.HasField("effective_end") else None
        value = f": {entry.quantity.value:g} {entry.quantity.unit}" if entry.HasField("quantity") else ""
        found.append(charts.Happening(lane, at, end, f"{at:%d %b %Y} · {entry.title}{value}", bool(entry.flags)))
    return found


def _risk(risk: twin_pb2.RiskEstimate) -> Risk:
    unit, value = risk.value.unit, risk.value.value
    is_probability = unit == "1"
    text = f"{100 * value:.1f} %" if is_probability else f"{value:.0f} {unit.replace('{1.73_m2}', '1.73 m²')}"
    interval = ""
    if risk.value.uncertainty.HasField("interval"):
        span = risk.value.uncertainty.interval
        scale = 100 if is_probability else 1
        interval = f"{scale * span.lower:.3g} to {scale * span.upper:.3g} ({span.level:.0%})"
    note = (
        risk.refusal.message
        if risk.HasField("refusal")
        else " ".join(c if c.endswith(".") else f"{c}." for c in risk.cautions)
    )
    return Risk(
        risk.title or risk.name, text, interval, note, risk.HasField("refusal"), list(risk.provenance.citations)
    )


def _forecast(forecast: twin_pb2.TumourForecast, now: datetime) -> Forecast:
    refused = forecast.HasField("refusal")
    return Forecast(
        forecast.quantity,
        forecast.unit,
        charts.forecast(forecast, now),
        None if refused else round(100 * forecast.probability_of_progression),
        None if refused else forecast.horizon.ToDatetime(UTC).date(),
        list(forecast.cautions),
        forecast.refusal.message if refused else "",
        list(forecast.provenance.citations),
    )


def alignment(registration: registration_pb2.Registration) -> Alignment:
    """One registration in words."""
    pair = registration.pair
    days = [t.ToDatetime(UTC).date() for t in (registration.fixed_time, registration.moving_time)]
    when = f"{days[0]:%d %b %Y}" if days[0] == days[1] else f"{days[0]:%d %b %Y} on {days[1]:%d %b %Y}"
    title = f"{pair.moving.modality} to {pair.fixed.modality}, {when}"
    if registration.HasField("refusal"):
        return Alignment(title, "refused", None, registration.refusal.message)
    verdict = registration_pb2.Verdict.Name(registration.quality.verdict).removeprefix("VERDICT_").lower()
    quality = registration.quality
    return Alignment(title, verdict, quality.predicted_tre_mm, "; ".join(quality.reasons))


_NEWS_KINDS = {
    fusion_pb2.ENTRY_KIND_IMAGING_STUDY: "Imaging",
    fusion_pb2.ENTRY_KIND_GENOMIC: "Genomics",
    fusion_pb2.ENTRY_KIND_CONDITION: "Diagnosis",
    fusion_pb2.ENTRY_KIND_PROCEDURE: "Procedure",
    fusion_pb2.ENTRY_KIND_MEDICATION: "Medication",
}


def news(entries: Iterable[fusion_pb2.TimelineEntry], most: int = 6) -> list[News]:
    """The newest imaging, genomics, diagnoses and treatment, and laboratory values that are out of range; newest first.

    One line for each title: what repeats is told once, as of its last time.
    """
    found: dict[tuple[str, str], News] = {}
    dated = [(at, e) for e in entries if (at := _when(e)) is not None]
    for at, entry in sorted(dated, key=lambda pair: pair[0]):
        flagged = bool(entry.flags) or _outside(entry)
        kind = _NEWS_KINDS.get(entry.kind, "")
        if entry.kind == fusion_pb2.ENTRY_KIND_OBSERVATION and flagged:
            kind = "Laboratory"
        if not kind or not entry.title:
            continue
        value = f" {entry.quantity.value:.4g}" if entry.HasField("quantity") else ""
        found.pop((kind, entry.title), None)
        found[kind, entry.title] = News(at.date(), kind, f"{entry.title}{value}", flagged, entry.quantity.unit)
    return list(reversed(found.values()))[:most]


def _has_pathology(entries: Iterable[fusion_pb2.TimelineEntry]) -> bool:
    """A genomic result, or a report that names pathology, histology or cytology."""
    words = ("patholog", "histolog", "cytolog", "biops")
    return any(
        e.kind == fusion_pb2.ENTRY_KIND_GENOMIC
        or (e.kind == fusion_pb2.ENTRY_KIND_REPORT and any(word in e.title.lower() for word in words))
        for e in entries
    )


def _outside(entry: fusion_pb2.TimelineEntry) -> bool:
    if not (entry.HasField("quantity") and entry.HasField("reference_range")):
        return False
    return not entry.reference_range.lower <= entry.quantity.value <= entry.reference_range.upper


def view(
    snapshot: fusion_pb2.PatientSnapshot,
    predictions: twin_pb2.PatientPredictions,
    advice: advisor_pb2.PatientAdvice,
    registrations: Sequence[registration_pb2.Registration],
    now: datetime,
    reviews: Mapping[str, Review] | None = None,
    original: Mapping[str, imaging_pb2.Finding] | None = None,
) -> CaseView:
    """Everything that the case page shows."""
    entries = _standing(snapshot)
    refusals = [r.message for r in snapshot.refusals]
    return CaseView(
        snapshot.patient_key,
        summarise(snapshot, now.date()),
        lesion_table(entries, reviews, original),
        lab_rows(entries),
        charts.timeline(happenings(entries), list(_LANES.values())),
        [_risk(r) for r in predictions.risks],
        [_forecast(f, now) for f in predictions.forecasts],
        advice.responses,
        sorted(advice.recommendations, key=lambda r: -r.urgency),
        advice.supporting,
        [alignment(r) for r in registrations],
        refusals,
        news(entries),
        _has_pathology(entries),
        {e.entry_id: e.title for e in entries},
    )
