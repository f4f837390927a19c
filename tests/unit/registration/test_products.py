"""What a registration leaves behind: DICOM objects that say the same map, and regions and pixels carried over."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from dicom_series import slices
from phantoms import phantom

from services.clinical.dicom.derived import ObjectIdentity, to_bytes
from services.clinical.dicom.rtstruct import Roi, StructureSet
from services.clinical.dicom.series import load_series
from services.platform.errors import RefusedError
from services.registration.deformation import Deformation
from services.registration.geometry import inverse, rigid
from services.registration.products import (
    carried_contours,
    carried_mask,
    deformable_registration,
    derived_series,
    read_deformable,
    spatial_registration,
)
from services.registration.resample import resample

IDENTITY = ObjectIdentity("2.25.1", "2.25.2", 9800, 1, "test", datetime(2024, 1, 1, tzinfo=UTC))
SHEARED = np.array([[1.02, 0.03, 0, 4], [0, 0.98, 0, -2], [0, 0.01, 1.01, 3], [0, 0, 0, 1.0]])


def stored(volume, series: str):
    return [pydicom.dcmread(BytesIO(content)) for _, _, content in slices(volume, series, "1.2.1")]


@pytest.fixture(scope="module")
def sides():
    return stored(phantom("CT", frame="1.2.3"), "1.2.10"), stored(phantom("MR", frame="1.2.4"), "1.2.11")


def again(dataset):
    return pydicom.dcmread(BytesIO(to_bytes(dataset)))


def test_a_stretch_is_stored_as_an_affine_matrix_into_the_fixed_frame(sides) -> None:
    reg = again(spatial_registration(*sides, SHEARED, IDENTITY))
    step = reg.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    assert step.FrameOfReferenceTransformationMatrixType == "AFFINE"
    stored_matrix = np.reshape([float(v) for v in step.FrameOfReferenceTransformationMatrix], (4, 4))
    assert stored_matrix == pytest.approx(inverse(SHEARED), abs=1e-6)


def test_a_deformation_comes_back_from_its_object(sides) -> None:
    rng = np.random.default_rng(1)
    affine = rigid((0, 0, 20), (-80, -60, -50), (0, 0, 0)) @ np.diag([8.0, 9.0, 10.0, 1.0])
    bent = Deformation(SHEARED, rng.normal(size=(5, 6, 7, 3)).astype(np.float32), affine)
    read = read_deformable(again(deformable_registration(*sides, bent, IDENTITY)))
    points = rng.uniform(-60, 60, (50, 3))
    assert read.apply(points) == pytest.approx(bent.apply(points), abs=1e-3)
    reg = deformable_registration(*sides, bent, IDENTITY)
    assert reg.SOPClassUID == reg.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.3"
    assert reg.DeformableRegistrationSequence[0].SourceFrameOfReferenceUID == "1.2.4"
    assert reg.FrameOfReferenceUID == "1.2.3"
    del reg.DeformableRegistrationSequence
    with pytest.raises(RefusedError) as refused:
        read_deformable(reg)
    assert refused.value.reason == "reg.no_grid"


def test_the_derived_series_loads_as_the_resampled_volume(sides) -> None:
    fixed, moving = (load_series(side) for side in sides)
    volume = resample(moving, fixed, rigid((0, 0, 5), (3, 2, 1), (0, 0, 0)))
    made = [again(dataset) for dataset in derived_series(volume, *sides, IDENTITY)]
    loaded = load_series(made)
    assert loaded.array == pytest.approx(volume.array, abs=0.02)
    assert loaded.affine_lps == pytest.approx(fixed.affine_lps)
    assert (loaded.frame_of_reference_uid, loaded.modality) == ("1.2.3", "MR")
    assert made[0].ImageType[0] == "DERIVED"
    assert made[0].SourceImageSequence[0].ReferencedSOPInstanceUID.startswith("1.2.11")
    assert len({dataset.SOPInstanceUID for dataset in made}) == len(made)


def test_a_region_follows_the_body() -> None:
    truth = rigid((0, 0, 10), (12, -8, 4), (0, 0, 0))
    fixed, moving = phantom("CT"), phantom("CT", to_body=inverse(truth), seed=2)
    bone = (moving.array > 300), (fixed.array > 300)
    carried = carried_mask(bone[0], moving, fixed, truth)
    dice = 2 * (carried & bone[1]).sum() / (carried.sum() + bone[1].sum())
    unmoved = 2 * (bone[0] & bone[1]).sum() / (bone[0].sum() + bone[1].sum())
    assert dice > 0.85 > 0.6 > unmoved


def test_contours_land_where_the_fixed_body_has_them() -> None:
    truth = rigid((0, 0, 90), (10, 0, 0), (0, 0, 0))
    square = np.array([[0, 0, 5], [10, 0, 5], [10, 10, 5], [0, 10, 5]], dtype=float)
    drawn = StructureSet(
        "1", "2", "3", ("4",), (Roi(1, "GTV", "1.2.4", "GTV", (square @ truth[:3, :3].T + truth[:3, 3],)),)
    )
    (roi,) = carried_contours(drawn, truth, "1.2.3")
    assert roi.contours[0] == pytest.approx(square, abs=1e-9)
    assert (roi.frame_of_reference_uid, roi.name) == ("1.2.3", "GTV")


def test_a_padded_mask_value_is_not_air() -> None:
    """A region beyond the moving field of view is absent, not filled with the modality's outside value."""
    fixed = phantom("CT")
    moving = dataclasses.replace(fixed, array=fixed.array[:5])
    carried = carried_mask(np.ones_like(moving.array, dtype=bool), moving, fixed, np.eye(4))
    assert carried[:5].all()
    assert not carried[6:].any()
