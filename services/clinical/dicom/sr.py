"""Measurement reports: DICOM SR, Comprehensive 3D SR with template TID 1500.

Source: DICOM PS3.16 TID 1500 (Measurement Report), TID 1411 (Volumetric ROI Measurements), TID 1419 (ROI
Measurements); PS3.3 A.35.13 (Comprehensive 3D SR).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
from highdicom.seg import Segmentation
from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from services.clinical.codes import SR_FORM, UCUM, Concept
from services.clinical.dicom import derived
from services.clinical.dicom.seg import coded


@dataclass(frozen=True)
class ReportedMeasurement:
    """A value in a UCUM unit, with the interval it may lie in where one was estimated."""

    concept: Concept
    value: float
    unit: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ReportedRegion:
    """Measurements of one segment of the segmentation that the report refers to."""

    segment_number: int
    tracking_id: str
    tracking_uid: str
    finding_type: Concept
    measurements: tuple[ReportedMeasurement, ...]
    site: Concept | None = None
    algorithm: str = ""
    algorithm_version: str = ""


def build_report(
    sources: Sequence[Dataset],
    segmentation: Segmentation,
    regions: Sequence[ReportedRegion],
    identity: derived.ObjectIdentity,
) -> Comprehensive3DSR:
    """A measurement report on the regions of `segmentation`, which was made on `sources`."""
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=derived.derived_uid("device", derived.MODEL),
            name=derived.MODEL,
            manufacturer_name=derived.MANUFACTURER,
            model_name=derived.MODEL,
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[_group(region, segmentation) for region in regions],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = Comprehensive3DSR(
        evidence=[*_referenced(sources, segmentation), segmentation],
        content=content,
        series_instance_uid=identity.series_instance_uid,
        series_number=identity.series_number,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=identity.instance_number,
        manufacturer=derived.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    derived.pin(report, identity)
    return report


def _referenced(sources: Sequence[Dataset], segmentation: Segmentation) -> list[Dataset]:
    """The source images that the segmentation names, in order."""
    named = {
        str(item.ReferencedSOPInstanceUID)
        for series in segmentation.get("ReferencedSeriesSequence", [])
        for item in series.ReferencedInstanceSequence
    }
    unique = {str(dataset.SOPInstanceUID): dataset for dataset in sources}
    return derived.headers([dataset for uid, dataset in unique.items() if uid in named])


def _group(
    region: ReportedRegion, segmentation: Segmentation
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    algorithm = None
    if region.algorithm:
        algorithm = hd.sr.AlgorithmIdentification(name=region.algorithm, version=region.algorithm_version)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=region.tracking_uid, identifier=region.tracking_id),
        referenced_segment=_segment_reference(segmentation, region.segment_number),
        finding_type=coded(region.finding_type),
        finding_sites=[hd.sr.FindingSite(anatomic_location=coded(region.site))] if region.site else None,
        algorithm_id=algorithm,
        measurements=[_measurement(measurement) for measurement in region.measurements],
    )


def _segment_reference(segmentation: Segmentation, number: int) -> hd.sr.ReferencedSegment:
    series = str(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID)
    return hd.sr.ReferencedSegment(
        sop_class_uid=str(segmentation.SOPClassUID),
        sop_instance_uid=str(segmentation.SOPInstanceUID),
        segment_number=number,
        source_series=hd.sr.SourceSeriesForSegmentation(series),
    )


def _measurement(measurement: ReportedMeasurement) -> hd.sr.Measurement:
    name, derivation = SR_FORM.get(measurement.concept, (measurement.concept, None))
    properties = None
    if measurement.interval is not None:
        low, high = measurement.interval
        properties = hd.sr.MeasurementProperties(
            lower_measurement_uncertainty=measurement.value - low,
            upper_measurement_uncertainty=high - measurement.value,
        )
    return hd.sr.Measurement(
        name=coded(name),
        value=measurement.value,
        unit=coded(Concept(UCUM, measurement.unit, measurement.unit)),
        derivation=coded(derivation) if derivation else None,
        properties=properties,
    )
