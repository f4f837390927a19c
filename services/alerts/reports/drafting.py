"""Drafts a report of one study: critical results, what is known, what was done, what was found, what follows.

Plain functions of what the rooms announced. The same input gives the same draft.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.alerts import critical
from services.alerts.reports import chart_lines, measured
from services.alerts.reports.measured import day_text, phrases
from services.alerts.reports.model import Line, Report, Section
from services.clinical.provenance import code_version

_CATEGORY = {
    advisor_pb2.RESPONSE_CATEGORY_COMPLETE: "complete",
    advisor_pb2.RESPONSE_CATEGORY_PARTIAL: "partial",
    advisor_pb2.RESPONSE_CATEGORY_STABLE: "stable",
    advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE: "progressive",
    advisor_pb2.RESPONSE_CATEGORY_NOT_EVALUABLE: "not_evaluable",
}
_URGENCY = {advisor_pb2.URGENCY_CRITICAL: "Critical: ", advisor_pb2.URGENCY_WARNING: "", advisor_pb2.URGENCY_INFO: ""}
_LONGEST_SOURCE = 120
_NO_IMAGES = ("RTSTRUCT", "SEG", "SR", "PR", "KO", "REG")
# What follows from this study stands before what holds for any next examination.
_OF_THE_STUDY = ("follow-up", "response", "incidental-nodule", "screening", "imaging", "risk")


@dataclass(frozen=True)
class Visit:
    """One study: its manifest and what was found. `at` is None where the study names no time."""

    manifest: ingest_pb2.StudyManifest
    findings: imaging_pb2.StudyFindings
    at: datetime | None

    @property
    def day(self) -> date | None:
        return self.at.date() if self.at else None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Image modalities, in the order of the manifest."""
        return tuple(dict.fromkeys(s.modality for s in self.manifest.series if s.modality and not s.derived))


@dataclass(frozen=True)
class Case:
    """What a draft is made from. `earlier`: other visits before the study, newest first.

    `superseded`: a later study of the patient is known, so that the advice is not about this one.
    """

    study: Visit
    snapshot: fusion_pb2.PatientSnapshot
    advice: advisor_pb2.PatientAdvice | None = None
    earlier: Sequence[Visit] = ()
    superseded: bool = False


def draft(case: Case, on: date) -> Report:
    """The draft. `on`: the day for ages where the study names none."""
    study = case.study
    day = study.day or on
    uid = study.manifest.study_instance_uid
    entries = {e.entry_id for e in case.snapshot.entries if e.finding.study_instance_uid == uid}
    results = critical.find(study.findings.findings, case.advice, uid, entries)
    lesions = {found: item.key for item in (case.advice.lesions if case.advice else ()) for found in item.finding_ids}
    current = measured.things(study.findings.findings, lesions)
    before = measured.earlier_of([(visit.day, visit.findings.findings) for visit in case.earlier], lesions)
    sections = (
        Section("critical", tuple(_critical(results))),
        Section("clinical", tuple(chart_lines.lines(case.snapshot, day))),
        Section("technique", tuple(_technique(study))),
        Section("comparison", tuple(_comparison(case))),
        Section("findings", tuple(measured.lines(current, before)), measured.table(current, before)),
        Section("impression", tuple(_impression(case, results, current, before))),
        Section("recommendations", tuple(_recommendations(case.advice, superseded=case.superseded))),
        Section("limitations", tuple(_limitations(study))),
    )
    return Report(
        study.manifest.study_instance_uid,
        case.snapshot.patient_key,
        day.isoformat() if study.day else "",
        study.modalities,
        study.manifest.study_description,
        sections,
        tuple(results),
        case.snapshot.revision,
        study.findings.study_revision,
        case.advice.snapshot_revision if case.advice else 0,
        tuple(sorted({finding.provenance.method for finding in study.findings.findings})),
        code_version(),
    )


def _critical(results: Sequence[critical.CriticalResult]) -> list[Line]:
    words = phrases()["critical"]
    titles = {name: category.title for name, category in critical.categories().items()}
    found = [
        Line(words["item"].format(statement=result.statement, title=titles[result.category]), (result.source,))
        for result in results
    ]
    return found or [Line(words["none"])]


def _technique(study: Visit) -> list[Line]:
    what = _named(study)
    found = [Line(f"{what}{f' of {day_text(study.day)}' if study.day else ''}.")]
    for series in study.manifest.series:
        if series.derived or not series.modality:
            continue
        part = f" of the {series.body_part_examined.lower()}" if series.body_part_examined else ""
        count = len(series.instances)
        images = f", {count} image{'s' if count != 1 else ''}" if count and series.modality not in _NO_IMAGES else ""
        name = f": {series.series_description}" if series.series_description else ""
        found.append(Line(f"{series.modality}{part}{name}{images}.", (series.series_instance_uid,)))
    return found


def _named(visit: Visit) -> str:
    images = [m for m in visit.modalities if m not in _NO_IMAGES]
    return visit.manifest.study_description or "/".join(images) or "Study"


def _comparison(case: Case) -> list[Line]:
    words = phrases()["comparison"]
    found = []
    for visit in case.earlier[: phrases()["most"]["priors"]]:
        if visit.at is None or case.study.at is None:
            continue
        days = (case.study.at.date() - visit.at.date()).days
        text = words["earlier"].format(what=_named(visit), when=day_text(visit.day), days=days)
        found.append(Line(text, (visit.manifest.study_instance_uid,)))
    return found or [Line(words["none"])]


def _impression(
    case: Case,
    results: Sequence[critical.CriticalResult],
    current: dict[str, measured.Thing],
    before: measured.Earlier,
) -> list[Line]:
    """Critical results, response, the largest lesion, what was seen and not measured."""
    words = phrases()["impression"]
    found = [Line(f"{result.statement}.", (result.source,)) for result in results]
    found += _responses(case)
    lesions = [thing for thing in measured.ordered(current.values()) if thing.kind == "lesion"]
    sized = [thing for thing in lesions if thing.values]
    if sized:
        form = words["single" if len(sized) == 1 else "several"]
        sources = tuple(identity for thing in sized for identity in thing.finding_ids)
        found.append(
            Line(form.format(count=len(sized), longest=measured.longest(current) or "size not measured"), sources)
        )
    bare = [thing for thing in lesions if not thing.values]
    if bare:
        what = ", ".join(f"{thing.label}{f' ({thing.site})' if thing.site else ''}" for thing in bare)
        found.append(Line(words["bare"].format(what=what), tuple(i for thing in bare for i in thing.finding_ids)))
    organs = [thing for thing in measured.ordered(current.values()) if thing.kind == "organ" and thing.values]
    if organs and not lesions:
        what = "; ".join(measured.told(thing) for thing in organs)
        found.append(Line(words["organs"].format(what=what), tuple(i for thing in organs for i in thing.finding_ids)))
    elif not lesions:
        found.append(Line(words["nothing"]))
    elif not before.things:
        found.append(Line(words["baseline"]))
    return found


def _responses(case: Case) -> list[Line]:
    words, uid = phrases(), case.study.manifest.study_instance_uid
    return [
        Line(
            words["response"].format(
                criterion=r.criterion,
                label=r.label or "no category",
                category=words["categories"].get(_CATEGORY.get(r.category, ""), "no category"),
                explanation=(r.explanation or r.refusal.message).rstrip(".") + ".",
            ),
            tuple(r.evidence_entry_ids),
        )
        for r in (case.advice.responses if case.advice else ())
        if r.current_study_uid == uid
    ]


def _recommendations(advice: advisor_pb2.PatientAdvice | None, *, superseded: bool) -> list[Line]:
    """What the advisor says. Advice that follows from a later study is left out of an earlier one's report."""
    words = phrases()["recommendations"]
    if advice is None:
        return [Line(words["unknown"])]
    ranked = sorted(advice.recommendations, key=lambda r: (r.category not in _OF_THE_STUDY, -r.urgency))
    ranked = [item for item in ranked if not superseded or item.category not in _OF_THE_STUDY]
    found = [Line(words["superseded"])] if superseded else []
    found += [_recommendation(item) for item in ranked[: phrases()["most"]["recommendations"]]]
    missing = list(dict.fromkeys(what for item in ranked for what in item.not_found))
    if missing:
        found.append(Line(words["not_known"].format(what="; ".join(missing))))
    return found or [Line(words["none"])]


def _recommendation(item: advisor_pb2.Recommendation) -> Line:
    """The advice in its own words, how strong it is and where it comes from."""
    day = item.due_at.ToDatetime(UTC).date() if item.HasField("due_at") else None
    due = f" By {day_text(day)}." if day and day.isoformat() not in item.summary else ""
    source = _short(item.provenance.citations[0].rstrip(".") if item.provenance.citations else item.rule_id)
    strength = f"{item.strength.rstrip('.')}; " if item.strength else ""
    text = f"{_URGENCY.get(item.urgency, '')}{item.summary.rstrip('.')}.{due} [{strength}{source}]"
    return Line(text, (item.recommendation_id, item.rule_id))


def _short(source: str) -> str:
    return (
        source if len(source) <= _LONGEST_SOURCE else source[:_LONGEST_SOURCE].rsplit(" ", 1)[0].rstrip(" ,;:(") + " …"
    )


def _limitations(study: Visit) -> list[Line]:
    words = phrases()["limitations"]
    found = [Line(words["standing"])]
    found += _quality(study.findings.quality)
    names = {s.series_instance_uid: _series_name(s) for s in study.manifest.series}
    unread: dict[str, list[str]] = {}
    for row in study.findings.routing:
        if not row.analyses and row.series_instance_uid in names and not _is_annotation(study, row.series_instance_uid):
            unread.setdefault(row.reason, []).append(row.series_instance_uid)
    for refusal in study.findings.refusals:
        remedy = f"; {refusal.remedy}" if refusal.remedy else ""
        unread.setdefault(refusal.message + remedy, []).append(refusal.subject)
    for reason, uids in unread.items():
        what = ", ".join(dict.fromkeys(names.get(uid, "a series") for uid in uids))
        found.append(Line(words["not_read"].format(what=what, reason=reason), tuple(uids)))
    return found + _cautions(study.findings.findings)


def _series_name(series: ingest_pb2.SeriesEntry) -> str:
    return f"{series.modality} {series.series_description}".strip() or "a series"


def _is_annotation(study: Visit, uid: str) -> bool:
    return any(s.series_instance_uid == uid and (s.derived or s.modality in _NO_IMAGES) for s in study.manifest.series)


def _quality(rows: Iterable[imaging_pb2.SeriesQuality]) -> list[Line]:
    found = []
    for row in rows:
        for issue in row.issues:
            remedy = f" ({issue.remedy.rstrip('.')})" if issue.remedy else ""
            found.append(Line(f"{(issue.message or issue.code).rstrip('.')}{remedy}.", (row.series_instance_uid,)))
    return found


def _cautions(findings: Iterable[imaging_pb2.Finding]) -> list[Line]:
    """Each caution once, with the things it is about."""
    about: dict[str, list[imaging_pb2.Finding]] = {}
    for finding in findings:
        for caution in finding.cautions:
            about.setdefault(caution, []).append(finding)
    found = []
    for caution, having in about.items():
        labels = "; ".join(dict.fromkeys(f.tracking_id or f.finding_type.display for f in having))
        found.append(Line(f"{labels}: {caution.rstrip('.')}.", tuple(f.finding_id for f in having)))
    return found
