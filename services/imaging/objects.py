"""The DICOM objects of one analysed series: segmentation, measurement report, parametric maps and key images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from osler.imaging.v1 import imaging_pb2
from pydicom.dataset import Dataset

from services.clinical import codes
from services.clinical.dicom.derived import ObjectIdentity, derived_uid, to_bytes
from services.clinical.dicom.geometry import Frame
from services.clinical.dicom.seg import Segment, build_segmentation
from services.clinical.dicom.sr import ReportedMeasurement, ReportedRegion, build_report
from services.clinical.volume import ImageVolume
from services.imaging.findings import Interval, MeasuredRegion
from services.imaging.results.key_images import build_key_images, key_slices
from services.imaging.results.parametric_map import ValueMap, build_map

#: Series numbers of results, out of the way of the scanner's own.
SERIES_NUMBERS = {"SEG": 9001, "SR": 9002, "PM": 9003, "KO": 9004}


@dataclass(frozen=True)
class MadeObject:
    """A DICOM object ready to be stored; `content` is the PS3.10 file."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    content: bytes


def make_objects(
    frames: Sequence[Frame],
    volume: ImageVolume,
    regions: Sequence[MeasuredRegion],
    revision: int,
    made_at: datetime,
) -> tuple[MadeObject, MadeObject]:
    """Segmentation (segment n is region n, counted from 1) and report. Raises RefusedError `seg.empty`."""
    segments = [_segment(region) for region in regions]
    segmentation = build_segmentation(frames, segments, _identity(volume, "SEG", revision, made_at))
    sources = [frame.dataset for frame in frames]
    reported = [_reported(number, region) for number, region in enumerate(regions, start=1)]
    report = build_report(sources, segmentation, reported, _identity(volume, "SR", revision, made_at))
    return _made(segmentation, volume), _made(report, volume)


def make_map(
    frames: Sequence[Frame], volume: ImageVolume, values: ValueMap, revision: int, made_at: datetime
) -> MadeObject:
    """A parametric map; maps of one series are told apart by their label. Raises RefusedError `map.*`."""
    identity = _identity(volume, "PM", revision, made_at, values.label)
    return _made(build_map(frames, values, identity), volume)


def make_key_images(
    frames: Sequence[Frame], volume: ImageVolume, regions: Sequence[MeasuredRegion], revision: int, made_at: datetime
) -> MadeObject:
    """The slices that show each region best, as a key object selection. Raises RefusedError `key_images.none`."""
    names = ", ".join(region.tracking_id for region in regions)
    identity = _identity(volume, "KO", revision, made_at)
    slices = key_slices([region.mask for region in regions])
    return _made(build_key_images(frames, slices, f"Slices that show best: {names}"[:1024], identity), volume)


def _identity(volume: ImageVolume, modality: str, revision: int, made_at: datetime, part: str = "") -> ObjectIdentity:
    series = derived_uid(modality, volume.study_instance_uid, volume.series_instance_uid, *filter(None, [part]))
    return ObjectIdentity(
        series_instance_uid=series,
        sop_instance_uid=derived_uid(series, str(revision)),
        series_number=SERIES_NUMBERS[modality],
        instance_number=revision,
        series_description=f"Osler {part or 'findings'} ({modality} on {volume.modality})",
        made_at=made_at,
    )


def _made(dataset: Dataset, volume: ImageVolume) -> MadeObject:
    return MadeObject(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        study_instance_uid=volume.study_instance_uid,
        series_instance_uid=str(dataset.SeriesInstanceUID),
        modality=str(dataset.Modality),
        content=to_bytes(dataset),
    )


def _segment(region: MeasuredRegion) -> Segment:
    lesion = region.kind == imaging_pb2.FINDING_KIND_LESION
    name, version = region.algorithm
    return Segment(
        label=region.tracking_id,
        mask=region.mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE if lesion else codes.ANATOMICAL_STRUCTURE,
        kind=region.finding_type,
        tracking_id=region.tracking_id,
        tracking_uid=region.tracking_uid,
        site=region.site,
        algorithm=name,
        algorithm_version=version,
        algorithm_family=codes.ARTIFICIAL_INTELLIGENCE if region.learned else codes.HISTOGRAM_ANALYSIS,
    )


def _reported(number: int, region: MeasuredRegion) -> ReportedRegion:
    name, version = region.algorithm
    return ReportedRegion(
        segment_number=number,
        tracking_id=region.tracking_id,
        tracking_uid=region.tracking_uid,
        finding_type=region.finding_type,
        site=region.site,
        algorithm=name,
        algorithm_version=version,
        measurements=tuple(
            ReportedMeasurement(
                value.concept,
                value.value,
                value.unit,
                (value.uncertainty.lower, value.uncertainty.upper) if isinstance(value.uncertainty, Interval) else None,
            )
            for value in region.values
        ),
    )
