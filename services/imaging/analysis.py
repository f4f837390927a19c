"""One study from stored instances to findings: quality, routing, regions, measurement, DICOM results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset

from services.clinical.dicom.series import inspect_series, load_series
from services.clinical.refusals import to_refusal
from services.clinical.suv import suv_scale
from services.clinical.volume import ImageVolume
from services.imaging import measure, quality, routing
from services.imaging.findings import MeasuredRegion, to_finding
from services.imaging.hippocampus import HippocampusSegmentation
from services.imaging.objects import MadeObject, make_key_images, make_objects
from services.imaging.regions import Filled, OutlinedRegion, RegionKind, fill, read_regions, regions_for
from services.platform.errors import RefusedError

#: Reads every stored instance of one series.
ReadSeries = Callable[[str], Sequence[Dataset]]
#: Outlines the hippocampus in a volume; raises RefusedError `hippocampus.*`.
Segmenter = Callable[[ImageVolume], HippocampusSegmentation]
#: Modalities whose instances hold regions.
REGION_MODALITIES = frozenset({"RTSTRUCT", "SEG"})
#: What broken attributes raise in the libraries; one such series must not cost the study its other findings.
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Analysis:
    """What one study gave. `findings.derived_objects` is empty: the objects are in `objects`, not yet stored."""

    findings: imaging_pb2.StudyFindings
    objects: tuple[MadeObject, ...]


@dataclass
class _Study:
    manifest: ingest_pb2.StudyManifest
    made_at: datetime
    result: imaging_pb2.StudyFindings
    regions: list[OutlinedRegion] = field(default_factory=list)
    objects: list[MadeObject] = field(default_factory=list)

    def refuse(self, error: RefusedError, subject: str) -> None:
        self.result.refusals.append(to_refusal(error, subject=subject))


def analyze_study(
    manifest: ingest_pb2.StudyManifest, read: ReadSeries, segment: Segmenter, made_at: datetime
) -> Analysis:
    """Analyses every series of a study. What cannot be done becomes a refusal in the result, never an exception.

    `made_at` (aware) is the time of the cause, so that the same cause gives the same result and the same objects.
    """
    study = _Study(
        manifest,
        made_at,
        imaging_pb2.StudyFindings(
            study_instance_uid=manifest.study_instance_uid,
            patient_key=manifest.patient_key,
            study_revision=manifest.revision,
        ),
    )
    if manifest.HasField("study_time"):
        study.result.study_time.CopyFrom(manifest.study_time)
    entries = sorted((s for s in manifest.series if not s.derived), key=lambda s: s.series_instance_uid)
    for entry in entries:
        if entry.modality in REGION_MODALITIES:
            _collect_regions(study, entry, read)
    for entry in entries:
        try:
            _analyze_series(study, entry, read, segment)
        except RefusedError as error:
            study.refuse(error, entry.series_instance_uid)
            _set_aside(study, entry, f"refused: {error.reason}")
        except _MALFORMED as error:
            study.refuse(_unreadable(error), entry.series_instance_uid)
            _set_aside(study, entry, "refused: imaging.unreadable_series")
    return Analysis(study.result, tuple(study.objects))


def _collect_regions(study: _Study, entry: ingest_pb2.SeriesEntry, read: ReadSeries) -> None:
    try:
        datasets = read(entry.series_instance_uid)
    except RefusedError as error:
        study.refuse(error, entry.series_instance_uid)
        return
    for dataset in datasets:
        try:
            study.regions.extend(read_regions(dataset))
        except RefusedError as error:
            study.refuse(error, entry.series_instance_uid)
        except _MALFORMED as error:
            study.refuse(_unreadable(error), entry.series_instance_uid)


def _set_aside(study: _Study, entry: ingest_pb2.SeriesEntry, reason: str) -> None:
    uid = entry.series_instance_uid
    if all(decision.series_instance_uid != uid for decision in study.result.routing):
        study.result.routing.append(imaging_pb2.RoutingDecision(series_instance_uid=uid, reason=reason))


def _unreadable(error: Exception) -> RefusedError:
    return RefusedError(
        "imaging.unreadable_series",
        f"the attributes of the series cannot be read as the standard has them ({type(error).__name__})",
        remedy="Send the original series again from the scanner or the archive.",
    )


def _analyze_series(study: _Study, entry: ingest_pb2.SeriesEntry, read: ReadSeries, segment: Segmenter) -> None:
    uid = entry.series_instance_uid
    reason = routing.set_aside(entry.modality)
    if reason:
        return _set_aside(study, entry, reason)
    datasets = read(uid)
    reason = routing.set_aside(entry.modality, datasets)
    if reason:
        return _set_aside(study, entry, reason)
    own = regions_for(study.regions, uid, entry.frame_of_reference_uid, entry.modality)
    facts = routing.facts_of(datasets, any(region.kind is RegionKind.LESION for region in own))
    judged = quality.assess(datasets)
    decision = routing.route(uid, facts, judged)
    volume = load_series(datasets) if decision.analyses else None
    judged = quality.assess(datasets, volume.array) if volume is not None else quality.assess_series(datasets)
    decision = routing.route(uid, facts, judged)
    _record(study, judged, decision)
    measured: list[MeasuredRegion] = []
    for analysis in decision.analyses:
        assert volume is not None
        try:
            measured += _run(study, analysis, volume, datasets, own, segment)
        except RefusedError as error:
            study.refuse(error, uid)
    if measured and volume is not None:
        _publish(study, entry, volume, datasets, measured)
    return None


def _record(study: _Study, judged: quality.Quality, decision: routing.Decision) -> None:
    study.result.quality.append(
        imaging_pb2.SeriesQuality(
            series_instance_uid=judged.series_instance_uid,
            verdict=f"QUALITY_VERDICT_{judged.verdict.name}",
            issues=[
                imaging_pb2.QualityIssue(code=issue.code, message=issue.message, remedy=issue.remedy)
                for issue in judged.issues
            ],
        )
    )
    study.result.routing.append(
        imaging_pb2.RoutingDecision(
            series_instance_uid=decision.series_instance_uid, analyses=decision.analyses, reason=decision.reason
        )
    )
    for issue in judged.issues:
        if issue.verdict is quality.Verdict.REJECT:
            error = RefusedError(f"quality.{issue.code}", issue.message, remedy=issue.remedy)
            study.refuse(error, judged.series_instance_uid)


def _run(
    study: _Study,
    analysis: str,
    volume: ImageVolume,
    datasets: Sequence[Dataset],
    own: Sequence[OutlinedRegion],
    segment: Segmenter,
) -> list[MeasuredRegion]:
    key = study.manifest.patient_key
    if analysis == routing.HIPPOCAMPUS:
        return measure.hippocampus_regions(segment(volume), key)
    if analysis == routing.LESION_SIZE:
        filled = _filled(study, [region for region in own if region.kind is RegionKind.LESION], volume)
        return [measure.outlined_on_anatomy(one, volume, key) for one in filled]
    scale = suv_scale(datasets)
    suv = volume.array * scale.body_weight
    filled = _filled(study, [region for region in own if region.kind is not RegionKind.OTHER], volume)
    regions = [measure.outlined_on_pet(one, suv, volume, scale, key) for one in filled]
    if not any(one.region.kind is RegionKind.LESION for one in filled):
        regions += measure.candidates_on_pet(suv, volume, scale, key)
    return regions


def _filled(study: _Study, regions: Sequence[OutlinedRegion], volume: ImageVolume) -> list[Filled]:
    filled = []
    for region in regions:
        try:
            filled.append(fill(region, volume))
        except RefusedError as error:
            study.refuse(error, region.source_sop_uid)
    return filled


def _publish(
    study: _Study,
    entry: ingest_pb2.SeriesEntry,
    volume: ImageVolume,
    datasets: Sequence[Dataset],
    measured: Sequence[MeasuredRegion],
) -> None:
    digest = series_sha256(entry)
    findings = [to_finding(region, volume, digest, study.made_at) for region in measured]
    stack, _ = inspect_series(datasets)
    made: tuple[MadeObject, ...] = ()
    lesions = [region for region in measured if region.kind == imaging_pb2.FINDING_KIND_LESION and region.mask.any()]
    try:
        made = make_objects(stack.frames, volume, measured, study.manifest.revision, study.made_at)
        if lesions:
            shown = make_key_images(stack.frames, volume, lesions, study.manifest.revision, study.made_at)
            made = (*made, shown)
    except RefusedError as error:
        study.refuse(error, entry.series_instance_uid)
    for number, finding in enumerate(findings, start=1):
        if made:
            finding.segment_number = number
            finding.segmentation_sop_instance_uid = made[0].sop_instance_uid
        study.result.findings.append(finding)
    study.objects.extend(made)


def series_sha256(entry: ingest_pb2.SeriesEntry) -> str:
    """One digest for all instances of a series, whatever their order."""
    parts = sorted(instance.content.sha256 or instance.sop_instance_uid for instance in entry.instances)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def derived_object(made: MadeObject, content: common_pb2.BlobRef) -> imaging_pb2.DerivedObject:
    """The contract's entry for a stored object."""
    return imaging_pb2.DerivedObject(
        sop_instance_uid=made.sop_instance_uid,
        sop_class_uid=made.sop_class_uid,
        study_instance_uid=made.study_instance_uid,
        series_instance_uid=made.series_instance_uid,
        modality=made.modality,
        content=content,
    )
