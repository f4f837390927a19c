"""Known displacements of an analytic body are found again, in the stated direction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from phantoms import phantom

from services.platform.errors import RefusedError
from services.registration.align import Method, align
from services.registration.descent import AffineMotion, RigidMotion, _Metric
from services.registration.geometry import IDENTITY, apply, distances, inverse, mean, rigid, rotation_deg
from services.registration.plan import Purpose
from services.registration.prepare import level, prepare
from services.registration.quality import Verdict
from services.registration.similarity import sample, target

# Where a point of the fixed space lies in the moving space.
TRUTH = rigid((4, -6, 9), (14, -9, 11), (0, 0, 0))
PROBE = np.array([[x, y, z] for x in (-50, 0, 50) for y in (-35, 35) for z in (-50, 0, 50)], dtype=float)


@pytest.fixture(scope="module")
def ct_to_mr():
    # The moving scan sees the body moved by TRUTH: its grid points reach the body through the inverse.
    displaced = phantom("MR", to_body=inverse(TRUTH), spacing=(4, 4, 5), seed=2, frame="1.2.4")
    return displaced, align(phantom("CT"), displaced, purpose=Purpose.HYBRID)


def test_maps_fixed_points_to_moving_points(ct_to_mr) -> None:
    _, result = ct_to_mr
    assert distances(result.matrix, TRUTH, PROBE).max() < 1.0
    assert result.judgement.verdict is Verdict.GOOD, result.judgement
    # The inverse convention would be tens of millimetres away.
    assert distances(inverse(result.matrix), TRUTH, PROBE).mean() > 20


def test_the_lesion_of_the_fixed_scan_lands_on_the_lesion_of_the_moving_scan(ct_to_mr) -> None:
    lesion = np.array([[-28.0, 10.0, -22.0]])
    assert np.linalg.norm(apply(ct_to_mr[1].matrix, lesion) - apply(TRUTH, lesion)) < 1.0


@pytest.mark.parametrize(("fixed", "moving", "tolerance_mm"), [("CT", "PT", 1.5), ("MR", "MR", 0.5)])
def test_other_modalities_reach_the_same_place(fixed: str, moving: str, tolerance_mm: float) -> None:
    displaced = phantom(moving, to_body=inverse(TRUTH), spacing=(4, 4, 5), seed=2, frame="1.2.4")
    result = align(phantom(fixed), displaced, purpose=Purpose.HYBRID)
    assert distances(result.matrix, TRUTH, PROBE).max() < tolerance_mm
    assert result.judgement.verdict is Verdict.GOOD, result.judgement


def test_a_small_field_of_view_is_found_in_a_larger_one() -> None:
    part = phantom("MR", to_body=inverse(TRUTH), low=(-75, -65, -25), high=(70, 65, 60), seed=2, frame="1.2.4")
    result = align(phantom("CT"), part, purpose=Purpose.HYBRID)
    assert distances(result.matrix, TRUTH, PROBE).mean() < 1.5


def test_a_quarter_turn_and_a_large_offset_are_found() -> None:
    truth = rigid((0, 0, 90), (60, 20, -30), (0, 0, 0))
    displaced = phantom("CT", to_body=inverse(truth), low=(-30, -70, -90), high=(140, 110, 40), seed=2, frame="1.2.4")
    result = align(phantom("CT"), displaced, purpose=Purpose.FOLLOW_UP)
    assert distances(result.matrix, truth, PROBE).mean() < 1.5
    assert result.judgement.verdict is Verdict.REVIEW
    assert any("turned" in reason for reason in result.judgement.reasons)


def test_same_seed_same_result_on_any_number_of_threads(ct_to_mr) -> None:
    displaced, one = ct_to_mr
    two = align(phantom("CT"), displaced, purpose=Purpose.HYBRID, threads=2)
    assert np.array_equal(one.matrix, two.matrix)
    assert one.judgement == two.judgement


def test_padding_beside_the_scan_changes_nothing(ct_to_mr) -> None:
    displaced, plain = ct_to_mr
    scan = phantom("CT")
    padded = dataclasses.replace(scan, array=np.where(scan.array < -900, np.float32(-3024), scan.array))
    result = align(padded, displaced, purpose=Purpose.HYBRID)
    assert distances(result.matrix, plain.matrix, PROBE).max() < 0.5


@pytest.mark.parametrize("motion", [RigidMotion, AffineMotion])
def test_the_gradient_is_the_slope_of_the_metric(motion) -> None:
    fixed, moving = prepare(phantom("CT")), prepare(phantom("MR", to_body=inverse(TRUTH), seed=2))
    points = sample(level(fixed, 4.0), 4000, 3)
    metric = _Metric(points, target(level(moving, 4.0)), rigid((0, 20, 0), (3, 4, 5), (0, 0, 0)), fixed.centre, motion)
    at = np.resize([3.0, -2.0, 1.0, 2.0, -1.0, 4.0], motion.parameters)
    steps = np.eye(motion.parameters) * 1e-5
    slope = [(metric.cost(at + step)[0] - metric.cost(at - step)[0]) / 2e-5 for step in steps]
    assert metric.cost(at)[1] == pytest.approx(slope, rel=1e-3, abs=2e-6)


def test_mean_of_transforms_lies_between_them() -> None:
    first, second = rigid((0, 0, 10), (4, 0, 0), (0, 0, 0)), rigid((0, 0, -10), (-4, 0, 0), (0, 0, 0))
    assert distances(mean([first, second], PROBE), IDENTITY, PROBE).max() < 1e-6
    assert rotation_deg(first) == pytest.approx(10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: np.full_like(a, 40.0), "registration.uniform_image"),
        (lambda a: np.where(a > 600, np.nan, a), "registration.not_finite"),
        (lambda a: a[:1], "registration.too_few_slices"),
        (lambda a: a[:3], "registration.too_few_slices"),
        (
            lambda a: np.where(a > -400, -1000, a) + np.linspace(0, 400, a.shape[2], dtype=np.float32),
            "registration.no_body",
        ),
    ],
)
def test_input_that_cannot_be_registered_is_refused_with_its_reason(change, reason: str) -> None:
    good = phantom("CT")
    bad = dataclasses.replace(good, array=np.asarray(change(good.array), dtype=np.float32))
    with pytest.raises(RefusedError) as refused:
        align(bad, phantom("MR"), purpose=Purpose.HYBRID)
    assert refused.value.reason == reason
    assert refused.value.remedy


def test_voxels_of_one_by_one_by_eight_millimetres_are_refused() -> None:
    coarse = phantom("CT", spacing=(2.0, 2.0, 8.0))
    with pytest.raises(RefusedError) as refused:
        align(coarse, phantom("MR"), purpose=Purpose.HYBRID)
    assert refused.value.reason == "registration.anisotropic"
    assert "2 x 2 x 8 mm" in refused.value.message


def test_a_series_without_a_frame_of_reference_is_refused_before_any_work() -> None:
    with pytest.raises(RefusedError) as refused:
        align(phantom("CT"), phantom("MR", frame=""), purpose=Purpose.HYBRID)
    assert refused.value.reason == "registration.missing_frame_of_reference"
    assert refused.value.missing == ("(0020,0052) FrameOfReferenceUID",)


def test_an_inverted_image_keeps_its_body() -> None:
    plain = phantom("MR")
    inverted = prepare(dataclasses.replace(plain, array=1000 - plain.array))
    share = len(inverted.body_points) / len(prepare(plain).body_points)
    assert share == pytest.approx(1, abs=0.1)


def test_stretch_and_shear_are_found_when_asked_for() -> None:
    strain = np.array([[1.05, 0.02, 0, 3], [0, 0.97, 0.03, -4], [0.01, 0, 1.03, 2], [0, 0, 0, 1.0]])
    stretched = phantom("CT", to_body=inverse(strain), seed=2, frame="1.2.4")
    result = align(phantom("CT"), stretched, purpose=Purpose.HYBRID, method=Method.AFFINE)
    assert distances(result.matrix, strain, PROBE).mean() < 0.6
    assert result.method is Method.AFFINE


def test_a_tilted_grid_is_refused() -> None:
    good = phantom("CT")
    sheared = good.affine_lps.copy()
    sheared[1, 2] = 1.2
    with pytest.raises(RefusedError, match="tilt"):
        align(dataclasses.replace(good, affine_lps=sheared), phantom("MR"), purpose=Purpose.HYBRID)
