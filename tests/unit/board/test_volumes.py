"""Volumes for the viewer lie where registration says, with the values of the series."""

from __future__ import annotations

import gzip
from io import BytesIO

import nibabel
import numpy as np
from osler.registration.v1 import registration_pb2

from pipelines.cohort.anatomy import Pose
from services.board import volumes
from services.clinical.volume import ImageVolume


def registration(fixed: str, moving: str, matrix: np.ndarray | None) -> registration_pb2.Registration:
    made = registration_pb2.Registration()
    made.pair.fixed.series_instance_uid, made.pair.moving.series_instance_uid = fixed, moving
    if matrix is not None:
        made.transform.matrix.extend(matrix.ravel())
    return made


def load(content: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_stream(BytesIO(gzip.decompress(content)))


T = Pose.of((5, -3, 10), (12, -7, 4)).to_body
U = Pose.of((-2, 8, 1), (3, 30, -9)).to_body


def test_a_transform_is_followed_backwards_from_moving_to_fixed() -> None:
    found = volumes.moving_to_fixed("ct", "mr", [registration("ct", "mr", T)])
    np.testing.assert_allclose(found @ T, np.eye(4), atol=1e-12)


def test_two_transforms_are_chained_through_the_common_series() -> None:
    links = [registration("ct", "mr", T), registration("ct", "pt", U)]
    np.testing.assert_allclose(volumes.moving_to_fixed("mr", "pt", links), T @ np.linalg.inv(U), atol=1e-12)


def test_a_refused_registration_links_nothing() -> None:
    assert volumes.moving_to_fixed("ct", "mr", [registration("ct", "mr", None)]) is None


def test_nifti_keeps_values_and_places_voxels_in_ras() -> None:
    rng = np.random.default_rng(1)
    array = rng.normal(100, 900, (7, 6, 5)).astype(np.float32)
    affine = np.array([[2, 0, 0, -10], [0, 3, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    volume = ImageVolume(array, affine, "CT", "1.2", "1.1", "1.3")
    image = load(volumes.to_nifti(volume, np.eye(4), scale=2.0))
    span = float(array.max() - array.min()) * 2
    np.testing.assert_allclose(np.transpose(image.get_fdata(), (2, 1, 0)), 2 * array, atol=span / 60000)
    np.testing.assert_allclose(image.affine @ [1, 2, 3, 1], [-(2 - 10), -(6 + 20), 12 - 30, 1], atol=1e-4)


def test_placement_moves_the_volume_not_the_voxels() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    volume = ImageVolume(array, np.eye(4), "MR", "1.2", "1.1", "1.3")
    moved = load(volumes.to_nifti(volume, T))
    lps = T @ [3, 2, 1, 1]
    np.testing.assert_allclose(moved.affine @ [3, 2, 1, 1], volumes.LPS_TO_RAS @ lps, atol=1e-3)
