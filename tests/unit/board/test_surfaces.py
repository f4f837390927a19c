"""Surfaces and projections: true size, true place, right way up."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
import trimesh
from osler.twin.v1 import twin_pb2

from pipelines.cohort.anatomy import Pose
from services.board import case as cases
from services.board import mip, surfaces, teaching
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from tests.unit.board.conftest import KEY, NAME, advice, finding, snapshot

# Array axes (k, j, i) to LPS: 2 mm in plane, 3 mm apart, and a table that is turned.
AFFINE = np.asarray(Pose.of((5, -3, 10), (12, -7, 4)).to_body) @ np.array(
    [[0, 0, 2, -40], [0, 2, 0, -30], [3, 0, 0, 100], [0, 0, 0, 1.0]]
)


def ellipsoid() -> np.ndarray:
    """Half axes 24, 20, 30 mm along array axes i, j, k."""
    k, j, i = np.mgrid[:30, :40, :40]
    return ((2 * (i - 20) / 24) ** 2 + (2 * (j - 20) / 20) ** 2 + (3 * (k - 15) / 30) ** 2) <= 1


def test_a_surface_has_the_volume_and_place_of_its_mask() -> None:
    made = surfaces.from_mask("Tumour", ellipsoid(), AFFINE)
    true_ml = 4 / 3 * np.pi * 24 * 20 * 30 / 1000
    assert made.volume_ml == pytest.approx(true_ml, rel=0.03)
    assert made.mask_ml == pytest.approx(true_ml, rel=0.03)
    assert made.mesh.is_watertight
    centre = (AFFINE @ [15, 20, 20, 1])[:3]
    np.testing.assert_allclose(made.mesh.center_mass, centre, atol=0.5)


def test_a_mirrored_grid_still_gives_outward_faces() -> None:
    mirrored = AFFINE @ np.diag([1, -1, 1, 1.0])
    assert surfaces.from_mask("Tumour", ellipsoid(), mirrored).mesh.volume > 0


def half_body() -> surfaces.Surface:
    """A block that reaches 60 mm up, 20 mm left and 40 mm to the back of the origin: LPS axes, 1 mm voxels."""
    return surfaces.from_mask(
        "Block", np.ones((60, 40, 20), bool), np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    )


def test_glb_is_in_metres_upright_and_faces_the_viewer() -> None:
    scene = trimesh.load(io.BytesIO(surfaces.export([half_body()], "glb")), file_type="glb")
    low, high = scene.bounds
    # x left, y up, z to the front: the block goes 20 mm to the left, 60 mm up, 40 mm to the back.
    np.testing.assert_allclose(high - low, [0.020, 0.060, 0.040], atol=0.0015)
    np.testing.assert_allclose((low + high) / 2, [0.0095, 0.0295, -0.0195], atol=0.001)
    assert list(scene.geometry) == ["Block"]


def test_stl_is_in_millimetres_as_the_patient_lies() -> None:
    mesh = trimesh.load(io.BytesIO(surfaces.export([half_body()], "stl")), file_type="stl")
    np.testing.assert_allclose(mesh.extents, [20, 40, 60], atol=1.5)
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), [9.5, 19.5, 29.5], atol=1)
    with pytest.raises(RefusedError):
        surfaces.export([surfaces.Surface("Body", half_body().mesh, 1.0, see_through=True)], "stl")


def test_large_surfaces_are_decimated_and_keep_their_volume() -> None:
    k, j, i = np.mgrid[:120, :120, :120]
    ball = ((i - 60) ** 2 + (j - 60) ** 2 + (k - 60) ** 2) <= 55**2
    made = surfaces.from_mask("Ball", ball, np.eye(4))
    assert len(made.mesh.faces) <= 20_500
    assert made.volume_ml == pytest.approx(4 / 3 * np.pi * 55**3 / 1000, rel=0.02)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(RefusedError, match="no voxel"):
        surfaces.from_mask("x", np.zeros((3, 3, 3), bool), np.eye(4))


def hot(x: int, y: int, z: int) -> ImageVolume:
    """One bright voxel; index x grows to patient left, y to the back, z to the head."""
    array = np.zeros((20, 16, 24), np.float32)
    array[z, y, x] = 10
    return ImageVolume(array, np.diag([2.0, 2.0, 2.0, 1.0]), "PT", "1.2", "1.1", "1.3")


def test_a_projection_shows_what_lies_where() -> None:
    front = mip.project(hot(20, 3, 17), 0)
    assert front.shape == (20, 24)
    # Head on top; patient left on the right of the picture.
    assert np.unravel_index(front.argmax(), front.shape) == (2, 20)
    side = mip.project(hot(20, 3, 17), 90)
    row, column = np.unravel_index(side.argmax(), side.shape)
    assert row == 2
    assert side.shape == (20, 16)
    assert column in (3, 12)
    assert side.max() == pytest.approx(10, rel=0.01)


def test_a_flipped_grid_projects_the_same() -> None:
    volume = hot(20, 3, 17)
    flipped = ImageVolume(
        np.ascontiguousarray(volume.array[::-1, :, ::-1]), np.diag([-2.0, 2.0, -2.0, 1.0]), "PT", "1.2", "1.1", "1.3"
    )
    np.testing.assert_array_equal(mip.project(flipped, 0), mip.project(volume, 0))


def test_a_teaching_file_names_nobody() -> None:
    findings = [finding(1, "1.2.1", 0, 40.0), finding(1, "1.2.2", 84, 22.0)]
    shot = snapshot(KEY, NAME, findings)
    shot.demographics.birth_date = "1930-02-14"
    noted = shot.entries.add(entry_id="n", kind=2, title="Seen by Dr Meier")
    noted.effective_at.FromDatetime(datetime(2026, 6, 3, tzinfo=UTC))
    view = cases.view(
        shot, twin_pb2.PatientPredictions(patient_key=KEY), advice(KEY), [], datetime(2026, 9, 1, tzinfo=UTC)
    )
    content = teaching.export(view, shot, {"a.png": b"x"})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        text = archive.read("case.json").decode()
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    for secret in ("Ada", "script", "MRN-778", "1930", "2026", KEY, "Meier", "1.2.1", "2.25"):
        assert secret not in text
    told = json.loads(text)
    assert told["age"] == "over 89"
    assert told["visits_day"] == [0, 84]
    assert told["lesions"][0]["measurements"]["Long axis (mm)"] == [40.0, 22.0]
    assert told["history"] == [{"what": "Malignant neoplasm of colon", "day": -30}]
