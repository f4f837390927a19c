"""Pixel data in every form that scanners and archives send: the same numbers, in the same place, or a refusal."""

from __future__ import annotations

import shutil
import subprocess
from copy import deepcopy

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from scipy import ndimage

from services.clinical.dicom import derived
from services.clinical.dicom.pixels import open_instance
from services.clinical.dicom.series import load_series
from services.platform.errors import RefusedError
from tests.peers import require_or_skip
from tests.unit.imaging.dicom_samples import make_series

SYNTAXES = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]


@pytest.fixture(scope="module")
def picture():
    """Smooth structure with noise, negative values among them."""
    noise = np.random.default_rng(4).normal(0, 1, (3, 40, 48))
    return np.rint(ndimage.gaussian_filter(noise, (0, 2, 2)) * 4000 + noise * 20 - 300)


def compressed(datasets, syntax, folder):
    if syntax != JPEGLosslessSV1:
        for dataset in datasets:
            dataset.compress(syntax, generate_instance_uid=False)
        return datasets
    if shutil.which("dcmcjpeg") is None:
        require_or_skip("no dcmcjpeg: apt-get install dcmtk")
    packed = []
    for number, dataset in enumerate(datasets):
        plain, jpeg = folder / f"plain{number}.dcm", folder / f"jpeg{number}.dcm"
        dataset.save_as(plain, enforce_file_format=True)
        subprocess.run(["dcmcjpeg", "+e1", "--uid-never", str(plain), str(jpeg)], check=True, capture_output=True)
        packed.append(pydicom.dcmread(jpeg))
    return packed


def unsigned(values):
    """The same values as unsigned 16-bit pixels with a rescale intercept."""
    datasets = make_series(values, intercept=-32768)
    for dataset in datasets:
        stored = np.frombuffer(dataset.PixelData, np.int16).astype(np.int32)
        dataset.PixelRepresentation = 0
        dataset.PixelData = (stored & 0xFFFF).astype(np.uint16).tobytes()
    return datasets


def refusal_of(datasets):
    with pytest.raises(RefusedError) as caught:
        load_series(datasets)
    assert caught.value.remedy
    return caught.value.reason


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("form", ["signed", "unsigned", "slope for each slice"])
def test_lossless_compression_changes_no_value(picture, syntax, form, tmp_path):
    def series():
        if form == "unsigned":
            return unsigned(picture)
        return make_series(picture, slopes=[0.5, 2, 0.25] if form != "signed" else 1.0, intercept=-24)

    plain = load_series(series())
    if form == "signed":
        np.testing.assert_array_equal(plain.array, picture)
        assert plain.array.min() < -1000
    packed = compressed(series(), syntax, tmp_path)
    assert packed[0].file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(load_series(packed).array, plain.array)


@pytest.mark.parametrize("syntax", [*SYNTAXES, None], ids=lambda uid: uid.name if uid else "native")
def test_pixel_data_cut_off_on_the_way_are_refused(picture, syntax, tmp_path):
    for share in (0.3, 0.97):
        datasets = make_series(picture)
        if syntax is None:
            datasets[1].PixelData = datasets[1].PixelData[: int(len(datasets[1].PixelData) * share)]
        else:
            datasets = compressed(datasets, syntax, tmp_path)
            (stream,) = generate_frames(datasets[1].PixelData, number_of_frames=1)
            datasets[1].PixelData = encapsulate([stream[: int(len(stream) * share)]])
        assert refusal_of(datasets) == "series.undecodable_pixel_data"


def test_unused_high_bits_are_no_part_of_a_signed_value():
    values = np.arange(-1000, -1000 + 3 * 8 * 8, dtype=float).reshape(3, 8, 8)
    datasets = make_series(values)
    for dataset in datasets:
        stored = np.frombuffer(dataset.PixelData, np.uint16) & 0x0FFF | 0x5000
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, stored.tobytes()
    np.testing.assert_array_equal(load_series(datasets).array, values)


def test_large_values_keep_all_their_digits():
    values = np.array([[[-32768.0, 32767.0], [0.0, 1.0]]] * 3)
    np.testing.assert_array_equal(load_series(make_series(values)).array, values)
    sloped = make_series(values, slopes=0.1)
    for dataset in sloped:
        dataset.PixelData = np.array([[-32768, 32767], [0, 1]], np.int16).tobytes()
    np.testing.assert_array_equal(load_series(sloped).array[0], np.float32([[-3276.8, 3276.7], [0, 0.1]]))


def enhanced(values, syntax=None):
    """One multi-frame instance of signed frames, each with a slope and intercept of its own, stored out of order."""
    slopes = [1.0 + k % 3 for k in range(len(values))]
    singles = make_series(values * np.array(slopes)[:, None, None], slopes=slopes)
    order = np.random.default_rng(2).permutation(len(values))
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
        transformation.RescaleSlope, transformation.RescaleIntercept = slopes[k], 0
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transformation]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = groups, len(order)
    dataset.PixelData = b"".join(singles[k].PixelData for k in order)
    if syntax is not None:
        dataset.compress(syntax, generate_instance_uid=False)
    return dataset, values * np.array(slopes)[:, None, None]


@pytest.mark.parametrize("syntax", [None, JPEGLSLossless, RLELossless], ids=lambda uid: uid.name if uid else "native")
def test_enhanced_multi_frame(picture, syntax):
    dataset, expected = enhanced(np.concatenate([picture, picture[::-1] + 7]), syntax)
    volume = load_series([dataset])
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.spacing_mm == pytest.approx((1, 1, 2))


def test_frames_without_a_place_are_refused_and_not_left_out(picture):
    dataset, _ = enhanced(picture)
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:2]
    assert refusal_of([dataset]) == "series.missing_geometry"
    single = make_series(picture[:1])[0]
    single.NumberOfFrames, single.PixelData = 2, single.PixelData * 2
    assert refusal_of([single]) == "series.missing_geometry"


def test_pixel_data_stay_in_their_file(picture, tmp_path):
    for number, dataset in enumerate(make_series(picture)):
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    opened = [open_instance(tmp_path / f"{number}.dcm") for number in range(3)]
    # 40 x 48 pixels lie below the limit; the same series again, above it.
    assert all(dataset.get_item("PixelData", keep_deferred=True).value is not None for dataset in opened)
    large = np.tile(picture, (1, 4, 4))
    for number, dataset in enumerate(make_series(large)):
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    opened = [open_instance(tmp_path / f"{number}.dcm") for number in range(3)]
    for _ in range(2):
        np.testing.assert_array_equal(load_series(opened).array, large)
        assert derived.headers(opened)[2].PatientID == "TEST-1"
        assert all(dataset.get_item("PixelData", keep_deferred=True).value is None for dataset in opened)


def turned(degrees_x, degrees_y, degrees_z):
    angles = np.radians([degrees_x, degrees_y, degrees_z])
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rotation = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    return [float(f"{v:.12f}") for v in (*rotation[:, 0], *rotation[:, 1])]


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), turned(11, -7, 23), turned(-35, 40, 8)],
    ids=["axial", "sagittal", "coronal", "oblique", "double oblique"],
)
def test_geometry_is_that_of_simpleitk(picture, orientation, tmp_path):
    """Every corner of the volume lies where SimpleITK has it, within 1e-4 mm; and the values are the same."""
    values = np.tile(picture, (5, 1, 1))
    datasets = make_series(
        values, orientation=orientation, spacing=(0.703125, 0.78125, 1.25), origin=(-180.3, 44.7, -611.25)
    )
    names = np.random.default_rng(1).permutation(len(datasets))
    for name, dataset in zip(names, datasets, strict=True):
        dataset.save_as(tmp_path / f"{name:03}.dcm", enforce_file_format=True)
    volume = load_series([open_instance(path) for path in sorted(tmp_path.glob("*.dcm"))])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    depth, rows, columns = volume.array.shape
    corners = np.array([[i, j, k, 1] for i in (0, columns - 1) for j in (0, rows - 1) for k in (0, depth - 1)]).T
    np.testing.assert_allclose(volume.affine_lps @ corners, affine @ corners, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
