"""What the images gave: studies, findings and registrations as facts."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from google.protobuf.message import Message
from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2

from services.clinical.codes import DCM
from services.fusion.chart_events import study_identity
from services.fusion.facts import Fact, Reading, Standing, digest, make_code, make_fact

_VERDICTS = {
    registration_pb2.VERDICT_GOOD: "good",
    registration_pb2.VERDICT_REVIEW: "review",
    registration_pb2.VERDICT_FAILED: "failed",
}


def study_facts(manifest: ingest_pb2.StudyManifest, *, known_at: datetime, event_id: str) -> Reading:
    """A stored study. Series that Osler made itself do not count as modalities of the study."""
    uid = manifest.study_instance_uid
    series = [row for row in manifest.series if not row.derived]
    modalities = sorted({row.modality for row in series if row.modality})
    entry = fusion_pb2.TimelineEntry(
        kind=fusion_pb2.ENTRY_KIND_IMAGING_STUDY,
        codes=[make_code(DCM, modality) for modality in modalities],
        title=manifest.study_description or " ".join(["Imaging study", *modalities]),
        text=uid,
        body_site=next((row.body_part_examined for row in series if row.body_part_examined), ""),
        sources=[fusion_pb2.SourceRef(system="dicom", reference=f"study/{uid}", event_id=event_id)],
    )
    if manifest.HasField("study_time"):
        entry.effective_at.CopyFrom(manifest.study_time)
    fact = make_fact(
        entry,
        origin=f"dicom:study/{uid}",
        identity=study_identity(uid),
        standing=Standing.FINAL,
        known_at=known_at,
        recorded_at=known_at,
        revision=manifest.revision,
    )
    return Reading((fact,), accounted={"study": 1})


def finding_facts(study: imaging_pb2.StudyFindings, *, known_at: datetime, event_id: str) -> Reading:
    """The findings of one analysis of a study, and one report entry for the analysis itself.

    A later revision of the study, or a later analysis, replaces all findings of the earlier one: what it does not find
    again is retracted, even when it finds nothing.
    """
    facts = [_analysis(study, known_at, event_id)]
    for finding in study.findings:
        entry = fusion_pb2.TimelineEntry(
            kind=fusion_pb2.ENTRY_KIND_FINDING,
            codes=[finding.finding_type] if finding.HasField("finding_type") else [],
            title=_title(finding),
            body_site=finding.site.display,
            finding=finding,
            sources=[
                fusion_pb2.SourceRef(
                    system="osler-imaging", reference=f"finding/{finding.finding_id}", event_id=event_id
                )
            ],
        )
        if finding.HasField("observed_at"):
            entry.effective_at.CopyFrom(finding.observed_at)
        elif study.HasField("study_time"):
            entry.effective_at.CopyFrom(study.study_time)
        bare = imaging_pb2.Finding()
        bare.CopyFrom(finding)
        bare.ClearField("provenance")
        identity = digest("finding", finding.study_instance_uid, finding.finding_id, _content(bare))
        facts.append(_of_study(entry, study, identity, known_at))
    return Reading(tuple(facts), refusals=tuple(study.refusals), accounted={"finding": len(study.findings)})


def registration_facts(registration: registration_pb2.Registration, *, known_at: datetime, event_id: str) -> Reading:
    """One registration, refused ones included; a later one of the same pair of series replaces it."""
    fixed, moving = registration.pair.fixed, registration.pair.moving
    verdict = _VERDICTS.get(registration.quality.verdict, "refused")
    entry = fusion_pb2.TimelineEntry(
        kind=fusion_pb2.ENTRY_KIND_REGISTRATION,
        title=f"Registration {moving.modality or 'series'} to {fixed.modality or 'series'}: {verdict}",
        text=registration.refusal.message,
        registration=registration,
        sources=[
            fusion_pb2.SourceRef(
                system="osler-registration",
                reference=f"registration/{registration.registration_id}",
                event_id=event_id,
            )
        ],
    )
    times = [t for t in ("fixed_time", "moving_time") if registration.HasField(t)]
    if times:
        entry.effective_at.CopyFrom(max((getattr(registration, t) for t in times), key=lambda t: (t.seconds, t.nanos)))
    bare = registration_pb2.Registration()
    bare.CopyFrom(registration)
    bare.ClearField("provenance")
    bare.ClearField("duration_s")
    fact = make_fact(
        entry,
        origin=f"registration:{fixed.series_instance_uid}:{moving.series_instance_uid}",
        identity=digest("registration", registration.registration_id, _content(bare)),
        standing=Standing.FINAL,
        known_at=known_at,
        recorded_at=known_at,
    )
    refusals = (registration.refusal,) if registration.HasField("refusal") else ()
    return Reading((fact,), refusals=refusals, accounted={"registration": 1})


def _analysis(study: imaging_pb2.StudyFindings, known_at: datetime, event_id: str) -> Fact:
    kinds = Counter(imaging_pb2.FindingKind.Name(f.kind).removeprefix("FINDING_KIND_").lower() for f in study.findings)
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no findings"
    uid = study.study_instance_uid
    entry = fusion_pb2.TimelineEntry(
        kind=fusion_pb2.ENTRY_KIND_REPORT,
        codes=[
            common_pb2.Code(system="urn:osler:analysis", code=name)
            for name in sorted({analysis for row in study.routing for analysis in row.analyses})
        ],
        title="Image analysis",
        text=f"{found}; {len(study.refusals)} refused",
        sources=[fusion_pb2.SourceRef(system="osler-imaging", reference=f"study/{uid}", event_id=event_id)],
    )
    if study.HasField("study_time"):
        entry.effective_at.CopyFrom(study.study_time)
    return _of_study(entry, study, digest("analysis", uid), known_at)


def _of_study(
    entry: fusion_pb2.TimelineEntry, study: imaging_pb2.StudyFindings, identity: str, known_at: datetime
) -> Fact:
    return make_fact(
        entry,
        origin=f"osler-imaging:study/{study.study_instance_uid}",
        identity=identity,
        standing=Standing.FINAL,
        known_at=known_at,
        recorded_at=known_at,
        revision=study.study_revision,
    )


def _title(finding: imaging_pb2.Finding) -> str:
    what = (
        finding.finding_type.display or imaging_pb2.FindingKind.Name(finding.kind).removeprefix("FINDING_KIND_").title()
    )
    side = finding.laterality.display
    return " ".join(filter(None, (finding.tracking_id or what, side if not finding.tracking_id else "")))


def _content(message: Message) -> str:
    return message.SerializeToString(deterministic=True).hex()
