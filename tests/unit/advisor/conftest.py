"""Snapshots to advise on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2

from services.clinical import codes

BASELINE = datetime(2024, 3, 1, 9, 0, tzinfo=UTC)
UNITS = {
    codes.LONG_AXIS: codes.UNIT_MM,
    codes.SHORT_AXIS: codes.UNIT_MM,
    codes.VOLUME: codes.UNIT_MM3,
    codes.METABOLIC_VOLUME: codes.UNIT_ML,
    codes.TOTAL_LESION_GLYCOLYSIS: codes.UNIT_G,
    codes.SUL_PEAK: codes.UNIT_SUV_LBM,
    codes.SUL_MEAN: codes.UNIT_SUV_LBM,
    codes.SUL_SD: codes.UNIT_SUV_LBM,
    codes.MEAN_ATTENUATION: codes.UNIT_HU,
}
CT = {codes.MEAN_ATTENUATION: 45.0}


def make_finding(study, day, key, measured, *, kind=imaging_pb2.FINDING_KIND_LESION, site=None, method="RTSTRUCT"):
    series = "ct" if codes.LONG_AXIS in measured else "pt"
    finding = imaging_pb2.Finding(
        finding_id=f"{study}/{series}/{key}",
        study_instance_uid=study,
        series_instance_uid=f"{study}.{series}",
        kind=kind,
        tracking_id=key,
        tracking_uid=f"uid-{key}",
        site=site.proto if site else None,
        measurements=[
            imaging_pb2.Measurement(
                concept=concept.proto,
                value=common_pb2.Quantity(value=value, unit=UNITS.get(concept, codes.UNIT_SUV_BW)),
                method=method,
            )
            for concept, value in measured.items()
        ],
    )
    finding.observed_at.FromDatetime(BASELINE + timedelta(days=day))
    return fusion_pb2.TimelineEntry(
        entry_id=f"entry-{study}-{series}-{key}",
        kind=fusion_pb2.ENTRY_KIND_FINDING,
        status=fusion_pb2.ENTRY_STATUS_ACTIVE,
        finding=finding,
    )


@pytest.fixture
def finding():
    return make_finding


@pytest.fixture
def on_ct():
    """(study, day, {lesion: longest diameter in mm}) -> entries."""

    def make(study, day, diameters):
        return [make_finding(study, day, key, {codes.LONG_AXIS: mm, **CT}) for key, mm in diameters.items()]

    return make


@pytest.fixture
def on_pet():
    """(study, day, {lesion: SULpeak}, liver and blood references, with_sul) -> entries."""

    def make(study, day, uptakes, *, liver=2.0, with_sul=True, method="RTSTRUCT"):
        entries = []
        for key, uptake in uptakes.items():
            measured = {codes.SUV_MAX: 1.6 * uptake, codes.TOTAL_LESION_GLYCOLYSIS: 20.0 * uptake}
            if with_sul:
                measured[codes.SUL_PEAK] = uptake
            entries.append(make_finding(study, day, key, measured, method=method))
        if liver:
            for site, mean in ((codes.LIVER, liver), (codes.AORTA, 0.7 * liver)):
                measured = {codes.SUV_MEAN: 1.3 * mean, codes.SUL_MEAN: mean, codes.SUL_SD: 0.2}
                kind = imaging_pb2.FINDING_KIND_REFERENCE
                entries.append(make_finding(study, day, site.display, measured, kind=kind, site=site))
        return entries

    return make


@pytest.fixture
def snapshot():
    """(entries, as-of day, **features) -> snapshot."""

    def make(entries=(), as_of_day=70, **features):
        result = fusion_pb2.PatientSnapshot(patient_key="key-1", revision=3, entries=entries)
        result.as_of.FromDatetime(BASELINE + timedelta(days=as_of_day))
        for name, value in features.items():
            feature = result.features.features.add(name=name, unit="1", entry_ids=[f"entry-{name}"])
            feature.observed_at.FromDatetime(BASELINE + timedelta(days=as_of_day - 1))
            if isinstance(value, bool):
                feature.flag = value
            else:
                feature.number = value
        return result

    return make
