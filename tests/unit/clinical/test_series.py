"""Loading a DICOM series: order, units, geometry and refusals."""

from __future__ import annotations

import hashlib
import random
from copy import deepcopy
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from osler.common.v1 import common_pb2
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from services.clinical.dicom.series import dicom_datetime, load_series, open_manifest_series
from services.platform.errors import RefusedError
from tests.unit.imaging.dicom_samples import make_series, read_folder


@pytest.fixture
def ramp():
    return np.arange(6 * 4 * 5, dtype=float).reshape(6, 4, 5)


def refusal_of(datasets, **options) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        load_series(datasets, **options)
    assert caught.value.remedy
    return caught.value


def test_values_units_and_geometry(ramp):
    volume = load_series(make_series(ramp - 1000, intercept=-1000, spacing=(0.5, 0.75, 2.0)))
    np.testing.assert_array_equal(volume.array, ramp - 1000)
    assert (volume.unit, volume.modality) == ("[hnsf'U]", "CT")
    assert volume.spacing_mm == pytest.approx((0.5, 0.75, 2.0))
    np.testing.assert_allclose(volume.affine_lps @ [1, 2, 3, 1], [-9.5, -18.5, 36, 1])
    assert volume.acquired_at == datetime(2024, 3, 1, 10, 15, tzinfo=UTC)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_order_of_arrival_and_instance_number_do_not_matter(seed):
    values = np.arange(5 * 3 * 3, dtype=float).reshape(5, 3, 3)
    datasets = make_series(values)
    generator = random.Random(seed)
    generator.shuffle(datasets)
    for number, dataset in enumerate(datasets):
        dataset.InstanceNumber = number
    np.testing.assert_array_equal(load_series(datasets).array, values)


def test_slope_differs_between_pet_slices(ramp):
    volume = load_series(make_series(ramp * 10, modality="PT", slopes=[0.1, 0.2, 0.5, 1, 2, 5], Units="BQML"))
    np.testing.assert_allclose(volume.array, ramp * 10, rtol=0, atol=2.5)
    np.testing.assert_allclose(volume.array[0], ramp[0] * 10, atol=0.05)
    assert volume.unit == "Bq/mL"


def test_oblique_series_sorts_along_its_normal(ramp):
    angle = np.radians(30)
    orientation = (0, np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle))
    datasets = make_series(ramp, orientation=orientation)
    volume = load_series(datasets[::-1])
    np.testing.assert_array_equal(volume.array, ramp)
    assert np.linalg.det(volume.affine_lps[:3, :3]) == pytest.approx(volume.voxel_volume_mm3)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_pixel_data(ramp, syntax):
    datasets = make_series(np.tile(ramp, (1, 8, 8)))
    expected = load_series(datasets).array
    for dataset in datasets:
        dataset.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(load_series(datasets).array, expected)


def enhanced(ramp) -> Dataset:
    """The same frames as one enhanced multi-frame instance, stored out of order."""
    singles = make_series(ramp, slopes=[1, 2, 1, 2, 1, 2])
    order = [3, 0, 5, 1, 4, 2]
    dataset = deepcopy(singles[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 2
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k in order:
        group, position, transformation = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = singles[k].ImagePositionPatient
        transformation.RescaleSlope, transformation.RescaleIntercept = singles[k].RescaleSlope, 0
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transformation]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = b"".join(singles[k].PixelData for k in order)
    return dataset


def test_enhanced_multi_frame(ramp):
    volume = load_series([enhanced(ramp * 2)])
    np.testing.assert_array_equal(volume.array, ramp * 2)
    np.testing.assert_allclose(volume.affine_lps[:3, 3], [-10, -20, 30])
    assert len(volume.sop_instance_uids) == 6


def test_an_instance_sent_twice_counts_once(ramp):
    datasets = make_series(ramp)
    np.testing.assert_array_equal(load_series([*datasets, datasets[2]]).array, ramp)


def test_missing_slice_is_named_and_can_be_allowed(ramp):
    datasets = make_series(ramp)
    del datasets[2]
    error = refusal_of(datasets)
    assert error.reason == "series.missing_slices"
    assert "1 slice(s) of 2 mm are missing, between slices 2 and 3" in error.message
    assert load_series(datasets, require_uniform=False).array.shape == (5, 4, 5)


def test_second_phase_at_the_same_positions_is_refused(ramp):
    datasets = make_series(ramp) + make_series(ramp)
    for number, dataset in enumerate(datasets):
        dataset.SOPInstanceUID = f"1.2.3.{number}"
    assert refusal_of(datasets).reason == "series.duplicate_slices"


def test_localizer_among_the_slices_is_refused(ramp):
    datasets = make_series(ramp)
    datasets[3].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    assert refusal_of(datasets).reason == "series.mixed_orientation"


def test_uneven_spacing_is_refused_but_rounding_is_not(ramp):
    rounded = make_series(ramp, spacing=(1, 1, 3.27))
    for dataset in rounded:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, round(float(z), 1)]
    assert load_series(rounded).spacing_mm[2] == pytest.approx(3.27, abs=0.02)
    uneven = make_series(ramp)
    x, y, z = uneven[3].ImagePositionPatient
    uneven[3].ImagePositionPatient = [x, y, z + 0.6]
    assert refusal_of(uneven).reason == "series.inconsistent_spacing"


def test_gantry_tilt_is_refused(ramp):
    datasets = make_series(ramp)
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + k * 2 * np.tan(np.radians(15)), z]
    error = refusal_of(datasets, require_uniform=False)
    assert error.reason == "series.gantry_tilt"
    assert "15.0 degrees" in error.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.__delattr__("PixelData"), "series.no_pixel_data"),
        (lambda d: setattr(d, "SamplesPerPixel", 3), "series.colour"),
        (lambda d: d.__delattr__("ImagePositionPatient"), "series.missing_geometry"),
        (lambda d: setattr(d, "PixelSpacing", [0.0, 0.0]), "series.missing_geometry"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "series.undecodable_pixel_data"),
        (lambda d: setattr(d, "SeriesInstanceUID", "1.2.3"), "series.mixed_series"),
        (lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"), "series.mixed_frame_of_reference"),
        (lambda d: setattr(d, "PixelSpacing", [2.0, 2.0]), "series.mixed_spacing"),
    ],
)
def test_other_refusals(ramp, change, reason):
    datasets = make_series(ramp)
    change(datasets[1])
    assert refusal_of(datasets).reason == reason


def test_no_instances_is_refused():
    assert refusal_of([]).reason == "series.no_instances"


def test_one_slice_takes_its_thickness(ramp):
    assert load_series(make_series(ramp)[:1]).spacing_mm == pytest.approx((1, 1, 2))


@pytest.mark.parametrize(
    ("date", "time", "zone", "expected"),
    [
        ("20240229", "235959.5", None, datetime(2024, 2, 29, 23, 59, 59, 500_000, tzinfo=UTC)),
        ("20240229", "10", None, datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ("20240301", "003000", "+0200", datetime(2024, 2, 29, 22, 30, tzinfo=UTC)),
        ("20240230", "101010", None, None),
        ("20240301", "", None, None),
    ],
)
def test_dicom_datetime(date, time, zone, expected):
    dataset = Dataset()
    dataset.SeriesDate, dataset.SeriesTime = date, time
    if zone:
        dataset.TimezoneOffsetFromUTC = zone
    assert dicom_datetime(dataset, "SeriesDate", "SeriesTime") == expected


class Blobs:
    """A content-addressed store in memory: `get` gives back what `put` took."""

    def __init__(self):
        self.kept = {}

    def put(self, data):
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return common_pb2.BlobRef(uri=f"memory://{digest}", sha256=digest, size_bytes=len(data))

    def get(self, ref):
        return self.kept[ref.sha256]


def test_series_from_a_manifest(ramp):
    blobs, series = Blobs(), ingest_pb2.SeriesEntry(series_instance_uid="1.2")
    for dataset in make_series(ramp):
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        series.instances.add(sop_instance_uid=dataset.SOPInstanceUID, content=blobs.put(buffer.getvalue()))
    manifest = ingest_pb2.StudyManifest(study_instance_uid="1", series=[series])
    np.testing.assert_array_equal(open_manifest_series(manifest, "1.2", blobs).array, ramp)
    with pytest.raises(RefusedError, match="does not list"):
        open_manifest_series(manifest, "9.9", blobs)


@pytest.mark.parametrize(
    "folder",
    [
        *(f"sts-petctmr/dicom/{p}/{m}/image" for p in ("STS_044", "STS_031") for m in ("PET", "CT", "MR_T1")),
        "glioblastoma-mr/PGBM-003/11-T1post-18670",
        "glioblastoma-mr/PGBM-003/11_HCropVolume",
    ],
)
@pytest.mark.shared_data
def test_geometry_and_values_agree_with_simpleitk(shared_data, folder):
    path = shared_data / folder
    volume = load_series(read_folder(path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    depth, rows, columns = volume.array.shape
    corners = np.array([[i, j, k, 1] for i in (0, columns - 1) for j in (0, rows - 1) for k in (0, depth - 1)]).T
    np.testing.assert_allclose(volume.affine_lps @ corners, affine @ corners, atol=1e-4)
    np.testing.assert_allclose(volume.array, sitk.GetArrayFromImage(image), rtol=1e-6, atol=1e-6)
