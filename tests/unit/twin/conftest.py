"""Snapshots to predict from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2

from services.clinical import codes

BASELINE = datetime(2024, 3, 1, 9, 0, tzinfo=UTC)

#: The published PREVENT example; creatinine 0.79 mg/dL gives this woman an eGFR of 91.
CHART = {
    "age_years": 50.6,
    "sex_female": True,
    "total_cholesterol_mg_dl": 200.0,
    "hdl_mg_dl": 45.0,
    "systolic_bp_mmhg": 160.0,
    "antihypertensive_treatment": True,
    "diabetes": True,
    "current_smoker": False,
    "statin_treatment": False,
    "creatinine_mg_dl": 0.79,
    "bmi": 35.0,
}


def make_feature(name, value):
    feature = fusion_pb2.Feature(name=name, unit="1" if isinstance(value, bool) else "u", entry_ids=[f"entry-{name}"])
    feature.observed_at.FromDatetime(BASELINE)
    if isinstance(value, bool):
        feature.flag = value
    elif isinstance(value, str):
        feature.missing_reason = value
    else:
        feature.number = value
    return feature


def make_finding(study, day, uid, measurements, kind=imaging_pb2.FINDING_KIND_LESION):
    finding = imaging_pb2.Finding(
        finding_id=f"{study}/{uid}",
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        kind=kind,
        tracking_uid=uid,
        measurements=[
            imaging_pb2.Measurement(concept=concept.proto, value=common_pb2.Quantity(value=value, unit=unit))
            for concept, value, unit in measurements
        ],
    )
    finding.observed_at.FromDatetime(BASELINE + timedelta(days=day))
    return fusion_pb2.TimelineEntry(
        entry_id=f"entry-{study}-{uid}",
        kind=fusion_pb2.ENTRY_KIND_FINDING,
        status=fusion_pb2.ENTRY_STATUS_ACTIVE,
        finding=finding,
    )


@pytest.fixture
def lesion():
    """(study, day, tracking uid, mm, mL) -> timeline entry."""

    def make(study, day, uid, diameter_mm=None, volume_ml=None):
        measurements = []
        if diameter_mm is not None:
            measurements.append((codes.LONG_AXIS, diameter_mm, codes.UNIT_MM))
        if volume_ml is not None:
            measurements.append((codes.METABOLIC_VOLUME, volume_ml, codes.UNIT_ML))
        return make_finding(study, day, uid, measurements)

    return make


@pytest.fixture
def liver():
    """(study, day) -> a PET reference region of the liver."""

    def make(study, day):
        measurements = [(codes.SUV_MEAN, 2.1, codes.UNIT_SUV_BW)]
        return make_finding(study, day, "liver", measurements, imaging_pb2.FINDING_KIND_REFERENCE)

    return make


@pytest.fixture
def snapshot():
    """(entries, **features that differ from the published PREVENT example; None leaves one out) -> snapshot."""

    def make(entries=(), **changes):
        chart = {name: value for name, value in {**CHART, **changes}.items() if value is not None}
        result = fusion_pb2.PatientSnapshot(patient_key="key-1", revision=3, entries=entries)
        result.as_of.FromDatetime(BASELINE + timedelta(days=200))
        result.features.features.extend(make_feature(name, value) for name, value in chart.items())
        return result

    return make
