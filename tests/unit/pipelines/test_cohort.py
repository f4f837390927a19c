"""The demo patient is what its ground truth says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle

from pipelines.cohort import acquisition, chart, demo, dicom
from pipelines.cohort.anatomy import Pose


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    demo.write(folder)
    return folder


def test_pose_round_trip_maps_body_points_between_scanners() -> None:
    fixed, moving = Pose.of((1, 2, 3), (4, 5, 6)), Pose.of((-3, 5, 2), (9, -1, 4))
    body = np.array([12.0, -34.0, 56.0, 1.0])
    in_fixed = np.linalg.inv(fixed.to_body) @ body
    in_moving = np.linalg.inv(moving.to_body) @ body
    np.testing.assert_allclose(fixed.fixed_to_moving(moving) @ in_fixed, in_moving, atol=1e-9)


def test_rotation_of_ninety_degrees_about_z_turns_x_into_y() -> None:
    np.testing.assert_allclose(Pose.of((0, 0, 90), (0, 0, 0)).to_body @ [1, 0, 0, 1], [0, 1, 0, 1], atol=1e-12)


def test_lesion_core_has_its_declared_uptake() -> None:
    visit = demo.visits()[0]
    image = acquisition.pet(list(visit.lesions), visit.pose, seed=1)
    grid = acquisition.PET_GRID
    for lesion in visit.lesions:
        k = np.rint((np.asarray(lesion.centre_mm) - grid.origin_mm()) / grid.spacing_mm).astype(int)
        assert image[k[2], k[1], k[0]] == pytest.approx(lesion.suv, rel=0.12)


def test_stored_pixels_give_back_the_activity(cohort: Path) -> None:
    planes = [pydicom.dcmread(p) for p in sorted((cohort / "dicom/visit-1/PET").glob("*.dcm"))]
    stored = np.stack([p.pixel_array * float(p.RescaleSlope) for p in planes])
    visit = demo.visits()[0]
    expected = dicom.suv_to_bqml(acquisition.pet(list(visit.lesions), visit.pose, 101), demo.PERSON.weight_kg)
    np.testing.assert_allclose(stored, expected, atol=expected.max() / 30000)


def test_every_image_is_marked_synthetic(cohort: Path) -> None:
    for path in (cohort / "dicom").rglob("0000.dcm"):
        assert pydicom.dcmread(path).PatientComments == dicom.MARK


def test_chart_is_valid_fhir_and_tagged_as_test_data(cohort: Path) -> None:
    bundle = json.loads((cohort / "fhir/bundle.json").read_text(encoding="utf-8"))
    Bundle.model_validate(bundle)
    assert all(e["resource"]["meta"]["tag"] == [chart.HTEST] for e in bundle["entry"])


def test_same_cohort_same_bytes(cohort: Path, tmp_path: Path) -> None:
    demo.write(tmp_path)
    for path in ("dicom/visit-2/CT/0040.dcm", "fhir/bundle.json", "hl7/02.hl7", "truth.json"):
        assert (tmp_path / path).read_bytes() == (cohort / path).read_bytes()


def test_truth_tells_a_partial_response() -> None:
    response = demo.ground_truth()["response"]
    assert response["recist_sum_change_percent"] < -30
    assert response["hottest_lesion_suv_change_percent"] < -30
