"""Findings as data: what was measured of one region, before it becomes events, DICOM objects or FHIR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2

from services.clinical.codes import Concept
from services.clinical.dicom.derived import derived_uid
from services.clinical.provenance import input_ref, provenance, timestamp
from services.clinical.volume import ImageVolume

AGENT = "imaging"


@dataclass(frozen=True)
class Interval:
    """Where the true value lies with probability `level`."""

    lower: float
    upper: float
    level: float


@dataclass(frozen=True)
class Value:
    """One measurement in a UCUM unit. `uncertainty`: an interval, or why there is none; `method`: how, for a reader."""

    concept: Concept
    value: float
    unit: str
    method: str
    uncertainty: Interval | str


@dataclass(frozen=True)
class MeasuredRegion:
    """One region of a series with its measurements. `mask` (z, y, x) on the series' grid.

    `algorithm`: name and version of what outlined it; empty for a person's outline.
    """

    mask: NDArray[np.bool_]
    kind: imaging_pb2.FindingKind
    finding_type: Concept
    tracking_id: str
    tracking_uid: str
    values: tuple[Value, ...]
    method: str
    site: Concept | None = None
    algorithm: tuple[str, str] = ("", "")
    learned: bool = False
    cautions: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str, str], ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    citations: tuple[str, ...] = ()


def to_finding(
    region: MeasuredRegion, volume: ImageVolume, series_sha256: str, recorded_at: datetime
) -> imaging_pb2.Finding:
    """The contract's message, without a reference to a segmentation."""
    finding = imaging_pb2.Finding(
        finding_id=derived_uid(
            "finding", volume.study_instance_uid, volume.series_instance_uid, region.tracking_id, region.method
        ),
        study_instance_uid=volume.study_instance_uid,
        series_instance_uid=volume.series_instance_uid,
        kind=region.kind,
        finding_type=region.finding_type.proto,
        site=region.site.proto if region.site else None,
        tracking_id=region.tracking_id,
        tracking_uid=region.tracking_uid,
        measurements=[measurement_message(value) for value in region.values],
        centroid_lps_mm=centroid_lps_mm(region.mask, volume),
        frame_of_reference_uid=volume.frame_of_reference_uid,
        provenance=provenance(
            agent=AGENT,
            method=region.method,
            inputs=[
                input_ref("dicom-series", volume.series_instance_uid, series_sha256),
                *(input_ref(*part) for part in region.inputs),
            ],
            recorded_at=recorded_at,
            parameters=region.parameters,
            citations=region.citations,
        ),
        cautions=region.cautions,
    )
    if volume.acquired_at is not None:
        finding.observed_at.CopyFrom(timestamp(volume.acquired_at))
    return finding


def measurement_message(value: Value) -> imaging_pb2.Measurement:
    """The contract's message for one value."""
    uncertainty = common_pb2.Uncertainty()
    if isinstance(value.uncertainty, Interval):
        interval = value.uncertainty
        uncertainty.interval.CopyFrom(
            common_pb2.Interval(lower=interval.lower, upper=interval.upper, level=interval.level)
        )
    else:
        uncertainty.not_estimated = value.uncertainty
    quantity = common_pb2.Quantity(value=value.value, unit=value.unit, uncertainty=uncertainty)
    return imaging_pb2.Measurement(concept=value.concept.proto, value=quantity, method=value.method)


def centroid_lps_mm(mask: NDArray[np.bool_], volume: ImageVolume) -> list[float]:
    """Mean position of the region's voxel centres."""
    index = np.argwhere(mask).mean(axis=0)[::-1]
    return [float(v) for v in volume.affine_lps[:3, :3] @ index + volume.affine_lps[:3, 3]]
