"""Segmentations and measurement reports that other systems can read."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from io import BytesIO

import highdicom as hd
import numpy as np
import pydicom
import pytest

from services.clinical import codes
from services.clinical.dicom import derived
from services.clinical.dicom.seg import Segment, build_segmentation, read_segmentation
from services.clinical.dicom.series import inspect_series, load_series
from services.clinical.dicom.sr import ReportedMeasurement, ReportedRegion, build_report
from services.platform.errors import RefusedError
from tests.unit.imaging.dicom_samples import make_series

MADE = datetime(2024, 3, 1, 12, tzinfo=UTC)


def identity(kind):
    return derived.ObjectIdentity(
        derived.derived_uid(kind, "series"), derived.derived_uid(kind, "object"), 900, 1, f"Osler {kind}", MADE
    )


@pytest.fixture
def series():
    return make_series(np.arange(8 * 20 * 24, dtype=float).reshape(8, 20, 24), modality="PT", Units="GML")


@pytest.fixture
def masks():
    first, second = np.zeros((2, 8, 20, 24), bool)
    first[2:5, 4:9, 6:12] = True
    second[4:7, 8:12, 10:15] = True
    return first, second


def segment(label, mask, **changes):
    uid = derived.tracking_uid("key", label)
    return Segment(label, mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION, label, uid, **changes)


def make(series, masks):
    stack, _ = inspect_series(series[::-1])
    segments = [
        segment("Lesion 1", masks[0], site=codes.LIVER),
        segment("Lesion 2", masks[1], algorithm="fixed threshold", algorithm_version="1"),
    ]
    return build_segmentation(stack.frames, segments, identity("SEG"))


def report_on(series, seg):
    regions = [
        ReportedRegion(
            1,
            "Lesion 1",
            derived.tracking_uid("key", "Lesion 1"),
            codes.NEOPLASM,
            (
                ReportedMeasurement(codes.SUV_MAX, 7.25, codes.UNIT_SUV_BW, (5.5, 9.0)),
                ReportedMeasurement(codes.SUV_PEAK, 6.5, codes.UNIT_SUV_BW),
                ReportedMeasurement(codes.METABOLIC_VOLUME, 12.5, codes.UNIT_ML),
                ReportedMeasurement(codes.LONG_AXIS, 31.0, codes.UNIT_MM),
            ),
            site=codes.LIVER,
        ),
    ]
    return build_report(series, seg, regions, identity("SR"))


def test_overlapping_segments_come_back_as_they_were(series, masks):
    stored = pydicom.dcmread(BytesIO(derived.to_bytes(make(series, masks))))
    regions = read_segmentation(stored, load_series(series))
    assert [region.label for region in regions] == ["Lesion 1", "Lesion 2"]
    for region, mask in zip(regions, masks, strict=True):
        np.testing.assert_array_equal(region.mask, mask)


def test_segment_descriptions(series, masks):
    seg = hd.seg.Segmentation.from_dataset(pydicom.dcmread(BytesIO(derived.to_bytes(make(series, masks)))))
    first, second = (seg.get_segment_description(number) for number in (1, 2))
    assert first.segmented_property_type.value == "52988006"
    assert first.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.MANUAL
    assert second.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert first.tracking_uid == derived.tracking_uid("key", "Lesion 1")
    assert first.tracking_uid.startswith("2.25.")


def test_the_same_input_gives_the_same_bytes(series, masks):
    one, two = make(series, masks), make(series, masks)
    assert derived.to_bytes(one) == derived.to_bytes(two)
    assert derived.to_bytes(report_on(series, one)) == derived.to_bytes(report_on(series, two))


def test_segmentation_on_another_grid_of_the_frame_of_reference(series, masks):
    seg = make(series, masks)
    finer = load_series(
        make_series(np.zeros((16, 40, 48)), spacing=(0.5, 0.5, 1.0), origin=(-10.25, -20.25, 29.5), name="finer")
    )
    region = read_segmentation(seg, finer)[0]
    assert region.mask.sum() * finer.voxel_volume_mm3 == pytest.approx(masks[0].sum() * 2)


def test_another_frame_of_reference_is_refused(series, masks):
    seg = make(series, masks)
    other = load_series(make_series(np.zeros((3, 4, 4)), name="other", FrameOfReferenceUID="1.2.3"))
    with pytest.raises(RefusedError) as caught:
        read_segmentation(seg, other)
    assert caught.value.reason == "seg.frame_of_reference"


def test_empty_regions_are_refused(series, masks):
    with pytest.raises(RefusedError, match="no region holds a voxel"):
        make(series, (masks[0] * False, masks[1] * False))


def test_sources_without_patient_and_manufacturer_attributes(series, masks):
    for dataset in series:
        del dataset.PatientBirthDate, dataset.PatientSex, dataset.AccessionNumber, dataset.Manufacturer
    seg = make(series, masks)
    assert seg.PatientBirthDate is None or seg.PatientBirthDate == ""
    assert report_on(series, seg).PatientID == "TEST-1"


def test_report_says_what_was_measured(series, masks):
    report = report_on(series, make(series, masks))
    stored = hd.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(BytesIO(derived.to_bytes(report))))
    (group,) = stored.content.get_volumetric_roi_measurement_groups(
        tracking_uid=derived.tracking_uid("key", "Lesion 1")
    )
    assert group.finding_type.value == "108369006"
    found = {
        (item.name.value, item.derivation.value if item.derivation else None, item.unit.value): item.value
        for item in group.get_measurements()
    }
    assert found == {
        ("126401", "56851009", "g/ml{SUVbw}"): 7.25,
        ("126401", "126031", "g/ml{SUVbw}"): 6.5,
        ("126032", None, "mL"): 12.5,
        ("103339001", None, "mm"): 31.0,
    }
    assert group.referenced_segment.referenced_sop_instance_uid == identity("SEG").sop_instance_uid


@pytest.mark.dcmtk
def test_dcmtk_reads_the_report(series, masks, tmp_path):
    tool = shutil.which("dsrdump")
    if tool is None:
        pytest.skip("dcmtk is not installed: apt-get install dcmtk")
    path = tmp_path / "report.dcm"
    path.write_bytes(derived.to_bytes(report_on(series, make(series, masks))))
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Comprehensive 3D SR Document" in done.stdout
    assert '"7.25"' in done.stdout
    assert "W:" not in done.stderr
    assert "E:" not in done.stderr
