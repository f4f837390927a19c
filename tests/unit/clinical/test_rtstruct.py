"""Contours to regions on an image grid."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from services.clinical.dicom.rtstruct import Roi, fill_roi, read_rtstruct
from services.clinical.dicom.series import load_series
from services.platform.errors import RefusedError
from tests.unit.imaging.dicom_samples import read_folder

FRAME = "1.2.3"


def circle(radius, z, centre=(0.0, 0.0), points=360, clockwise=False):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False) * (-1 if clockwise else 1)
    return np.stack(
        [centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(points, z)], axis=1
    )


def grid(spacing=(1.0, 1.0, 3.0), shape=(30, 80, 80)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape[::-1]) - 1) / 2
    return affine, shape


def roi_of(contours, frame=FRAME):
    return Roi(1, "GTV", frame, "GTV", tuple(contours))


HEIGHTS = np.arange(-13.5, 14, 3)


def test_cylinder_volume():
    affine, shape = grid()
    region = fill_roi(roi_of([circle(20, z) for z in HEIGHTS]), affine, shape, FRAME)
    truth = np.pi * 20**2 * 3 * len(HEIGHTS)
    assert region.volume_mm3 == pytest.approx(truth, rel=1e-3)
    assert region.coverage.sum() * 3 == pytest.approx(truth, rel=2e-3)
    assert region.mask.sum() * 3 == pytest.approx(truth, rel=0.01)
    assert region.outside_fraction < 1e-3


def test_hole_as_inner_contour_island_in_it_and_repeat():
    affine, shape = grid()
    truth = np.pi * (20**2 - 10**2 + 4**2) * 3
    contours = [c for z in HEIGHTS for c in (circle(10, z, clockwise=True), circle(4, z), circle(20, z), circle(20, z))]
    region = fill_roi(roi_of(contours), affine, shape, FRAME)
    assert region.volume_mm3 == pytest.approx(truth * len(HEIGHTS), rel=1e-3)
    assert region.coverage.sum() * 3 == pytest.approx(truth * len(HEIGHTS), rel=5e-3)
    assert region.mask[15, 39, 39]
    assert not region.mask[15, 39, 46]


def test_hole_as_keyhole():
    affine, shape = grid()
    keyholes = [
        np.concatenate([outer, outer[:1], inner, inner[:1]])
        for z in HEIGHTS
        for outer, inner in [(circle(20, z), circle(10, z, clockwise=True))]
    ]
    region = fill_roi(roi_of(keyholes), affine, shape, FRAME)
    truth = np.pi * (20**2 - 10**2) * 3 * len(HEIGHTS)
    assert region.volume_mm3 == pytest.approx(truth, rel=1e-3)
    assert region.coverage.sum() * 3 == pytest.approx(truth, rel=5e-3)


def test_separate_islands_add():
    affine, shape = grid()
    contours = [c for z in HEIGHTS for c in (circle(8, z, (-15, 0)), circle(6, z, (15, 0)))]
    region = fill_roi(roi_of(contours), affine, shape, FRAME)
    assert region.volume_mm3 == pytest.approx(np.pi * (64 + 36) * 3 * len(HEIGHTS), rel=1e-3)


def test_contours_of_a_fine_image_on_a_coarse_grid():
    """A sphere drawn every 1 mm, on a 4 x 4 x 3.27 mm PET-like grid that no contour plane meets."""
    heights = np.arange(-19.5, 20, 1)
    contours = [circle(np.sqrt(400 - z * z), z + 0.4) for z in heights]
    affine, shape = grid(spacing=(4.0, 4.0, 3.27), shape=(20, 20, 20))
    region = fill_roi(roi_of(contours), affine, shape, FRAME)
    truth = 4 / 3 * np.pi * 20**3
    voxel = 4 * 4 * 3.27
    assert region.volume_mm3 == pytest.approx(truth, rel=2e-3)
    assert region.coverage.sum() * voxel == pytest.approx(truth, rel=5e-3)
    assert region.mask.sum() * voxel == pytest.approx(truth, rel=0.03)


def test_contours_oblique_to_the_grid():
    """A sphere drawn on sagittal planes and filled on an axial grid, as for MR contours on PET."""
    heights = np.arange(-19, 20, 2.0)
    sagittal = [circle(np.sqrt(400 - z * z), z)[:, [2, 0, 1]] for z in heights]
    affine, shape = grid(spacing=(2.0, 2.0, 3.0), shape=(20, 30, 30))
    region = fill_roi(roi_of(sagittal), affine, shape, FRAME)
    truth = 4 / 3 * np.pi * 20**3
    assert region.volume_mm3 == pytest.approx(truth, rel=5e-3)
    assert region.coverage.sum() * 12 == pytest.approx(truth, rel=0.01)
    assert region.mask.sum() * 12 == pytest.approx(truth, rel=0.03)


def test_a_gap_between_contours_is_not_filled():
    affine, shape = grid()
    heights = [*HEIGHTS[:3], *HEIGHTS[5:]]
    region = fill_roi(roi_of([circle(20, z) for z in heights]), affine, shape, FRAME)
    assert region.volume_mm3 == pytest.approx(np.pi * 400 * 3 * len(heights), rel=1e-3)


def test_region_partly_off_the_image_says_how_much():
    affine, shape = grid()
    region = fill_roi(roi_of([circle(10, z, (39.5 + 0.5, 0)) for z in HEIGHTS]), affine, shape, FRAME)
    assert region.outside_fraction == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("roi", "reason"),
    [
        (roi_of([]), "rtstruct.no_closed_contour"),
        (roi_of([circle(5, 0)], frame="9.9"), "rtstruct.frame_of_reference"),
        (roi_of([circle(5, 500)]), "rtstruct.outside_image"),
    ],
)
def test_refusals(roi, reason):
    affine, shape = grid()
    with pytest.raises(RefusedError) as caught:
        fill_roi(roi, affine, shape, FRAME)
    assert caught.value.reason == reason
    assert caught.value.remedy


def structure_set(points, kind="CLOSED_PLANAR"):
    dataset, roi, outline, contour, observation = (Dataset() for _ in range(5))
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, "1.2"
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = 3, "Mass", FRAME
    contour.ContourGeometricType, contour.ContourData = kind, [float(v) for v in np.ravel(points)]
    outline.ReferencedROINumber, outline.ContourSequence = 3, [contour]
    observation.ReferencedROINumber, observation.RTROIInterpretedType = 3, "GTV"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [roi], [outline]
    dataset.RTROIObservationsSequence = [observation]
    return dataset


def test_reading_a_structure_set():
    (roi,) = read_rtstruct(structure_set(circle(5, 1, points=12))).rois
    assert (roi.number, roi.name, roi.interpreted_type, len(roi.contours)) == (3, "Mass", "GTV", 1)
    (marked,) = read_rtstruct(structure_set([[0, 0, 0]], kind="POINT")).rois
    assert (len(marked.contours), marked.skipped_contours) == (0, 1)
    with pytest.raises(RefusedError, match="fewer than three points"):
        read_rtstruct(structure_set([[0, 0, 0], [1, 1, 1]]))


@pytest.mark.parametrize("patient", ["STS_044", "STS_031"])
@pytest.mark.parametrize("modality", ["PET", "CT", "MR_T1"])
@pytest.mark.shared_data
def test_real_contours_agree_with_published_masks(shared_data, patient, modality):
    folder = shared_data / "sts-petctmr"
    volume = load_series(read_folder(folder / "dicom" / patient / modality / "image"))
    structures = read_rtstruct(pydicom.dcmread(folder / "dicom" / patient / modality / "mask" / "RS.dcm"))
    region = fill_roi(structures.rois[0], volume.affine_lps, volume.array.shape, volume.frame_of_reference_uid)
    published = nibabel.load(folder / "nifti" / patient / f"{modality}_mask.nii.gz").get_fdata().transpose(2, 1, 0) > 0
    truth = published.sum() * volume.voxel_volume_mm3
    assert region.volume_mm3 == pytest.approx(truth, rel=0.03)
    assert region.coverage.sum() * volume.voxel_volume_mm3 == pytest.approx(truth, rel=0.03)
    assert 2 * (published & region.mask).sum() / (published.sum() + region.mask.sum()) > 0.995
    if modality == "PET":
        suv = nibabel.load(folder / "nifti" / patient / "PET_image.nii.gz").get_fdata().transpose(2, 1, 0)
        assert volume.array[region.mask].max() == pytest.approx(suv[published].max(), rel=0.01)
