"""Outlines on PET: grids and boxes with known answers, where a click leads, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.clinical.volume import ImageVolume
from services.imaging.host.contract import Card, Inputs, Kind
from services.imaging.pet_lesion import (
    PetLesionModel,
    box_at_click,
    box_of_most_uptake,
    outline_at_click,
    outline_automatically,
    outline_in_box,
)
from services.imaging.pet_lesion_analysis import PetLesionAnalysis, box_from_lps, voxel_from_lps
from services.imaging.pet_lesion_network import (
    GRID_ZYX,
    REACH,
    Box,
    Ensemble,
    VoxelNetwork,
    channels,
    from_grid,
    members_of,
    radius,
    tight_box,
    to_grid,
)
from services.platform.errors import RefusedError

SPACING = (3.0, 4.0, 4.0)
SHAPE = (40, 36, 36)


class HotterThanSurroundings(torch.nn.Module):
    """Stands in for the fitted network: lesion is what stands far above the surroundings, about the box's ellipsoid."""

    def forward(self, grids: torch.Tensor) -> torch.Tensor:
        return 20 * torch.minimum(grids[:, 2:3] - 1.2, 0.5 - grids[:, 3:4])


def model(network: torch.nn.Module | None = None) -> PetLesionModel:
    widths = {"box": 0.2, "click": 0.4, "automatic": 1.0}
    return PetLesionModel(network or HotterThanSurroundings(), widths, 0.9, (5_000.0, 500_000.0), 10.0)


def ball(centre: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    axes = np.indices(SHAPE).astype(float)
    steps = [(axis - c) * s for axis, c, s in zip(axes, centre, SPACING, strict=True)]
    return np.asarray(steps[0] ** 2 + steps[1] ** 2 + steps[2] ** 2 <= radius_mm**2)


@pytest.fixture
def suv() -> np.ndarray:
    """Background 1, a lesion of SUV 8 and radius 24 mm, and a smaller one of SUV 15."""
    values = np.ones(SHAPE, dtype=np.float32)
    values[ball((20, 18, 14), 24)] = 8
    values[ball((20, 18, 31), 8)] = 15
    return values


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_an_outline_in_a_box_measures_what_the_box_surrounds(suv: np.ndarray) -> None:
    truth = ball((20, 18, 14), 24)
    found = outline_in_box(model(), suv, SPACING, tight_box(truth))
    assert dice(found.mask_zyx, truth) > 0.93
    assert found.volume_mm3 == pytest.approx(float(found.mask_zyx.sum()) * 48)
    assert found.interval_mm3 == pytest.approx((0.8 * found.volume_mm3, 1.2 * found.volume_mm3))
    assert found.cautions == ()


def test_a_click_and_no_help_lead_to_different_lesions(suv: np.ndarray) -> None:
    clicked = outline_at_click(model(), suv, SPACING, (20, 18, 31))
    alone = outline_automatically(model(), suv, SPACING)
    assert dice(clicked.mask_zyx, ball((20, 18, 31), 8)) > 0.75
    assert dice(alone.mask_zyx, ball((20, 18, 14), 24)) > 0.93
    assert "no reader gave the extent" in alone.cautions[-1]
    assert alone.interval_mm3[0] == 0


def test_the_box_of_most_uptake_weighs_volume_and_suv(suv: np.ndarray) -> None:
    assert box_of_most_uptake(suv, SPACING) == tight_box(ball((20, 18, 14), 24))


def test_a_click_beside_the_lesion_finds_the_nearest_uptake(suv: np.ndarray) -> None:
    assert box_at_click(suv, SPACING, (20, 18, 34)) == tight_box(ball((20, 18, 31), 8))


def test_holes_belong_to_the_lesion(suv: np.ndarray) -> None:
    suv[ball((20, 18, 14), 9)] = 1
    truth = ball((20, 18, 14), 24)
    found = outline_in_box(model(), suv, SPACING, tight_box(truth))
    assert found.mask_zyx[20, 18, 14]


def test_low_uptake_is_said(suv: np.ndarray) -> None:
    found = outline_in_box(model(), suv / 5, SPACING, tight_box(ball((20, 18, 14), 24)))
    assert any("uptake is low" in caution for caution in found.cautions)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box((10, 10, 10), (11, 20, 20)), "box_size"),
        (Box((10, 10, 10), (200, 20, 20)), "box_size"),
        (Box((60, 10, 10), (70, 20, 20)), "box_outside"),
        (Box((10, 10, 10), (10, 20, 20)), "box_size"),
    ],
)
def test_boxes_that_surround_nothing_are_refused(suv: np.ndarray, box: Box, reason: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        outline_in_box(model(), suv, SPACING, box)
    assert refusal.value.reason == f"pet_lesion.{reason}"


def test_counts_and_cold_images_are_refused(suv: np.ndarray) -> None:
    for values, reason in ((suv * 5000, "not_suv"), (suv * 0.01, "no_uptake"), (suv * np.nan, "not_finite")):
        with pytest.raises(RefusedError) as refusal:
            outline_automatically(model(), values, SPACING)
        assert refusal.value.reason == f"pet_lesion.{reason}"
    with pytest.raises(RefusedError) as refusal:
        outline_automatically(model(), np.minimum(suv, 2), SPACING)
    assert refusal.value.reason == "pet_lesion.nothing_found"


@given(
    start=st.tuples(*[st.floats(2, 12)] * 3),
    edges=st.tuples(*[st.floats(6, 16)] * 3),
)
@settings(max_examples=10, deadline=None)
def test_a_plane_survives_the_way_to_the_grid_and_back(
    start: tuple[float, float, float], edges: tuple[float, float, float]
) -> None:
    """Linear values are kept exactly by linear interpolation, away from borders of volume and grid."""
    box = Box(start, tuple(a + e for a, e in zip(start, edges, strict=True)))  # type: ignore[arg-type]
    z, y, x = torch.meshgrid(*[torch.arange(36, dtype=torch.float32)] * 3, indexing="ij")
    plane = 2 * z - y + 0.5 * x
    back = from_grid(to_grid(plane, box), box, (36, 36, 36))
    inside = [slice(int(np.ceil(a + 0.5)), int(b - 0.5)) for a, b in zip(box.start, box.stop, strict=True)]
    np.testing.assert_allclose(back[tuple(inside)].numpy(), plane[tuple(inside)].numpy(), atol=2e-3)


def test_nothing_is_outlined_beyond_the_grid() -> None:
    box = Box((10.0, 10.0, 10.0), (20.0, 20.0, 20.0))
    back = from_grid(torch.ones(GRID_ZYX), box, (40, 40, 40))
    reached = np.argwhere(back.numpy() > 0)
    assert reached.min() == 8
    assert reached.max() == 21
    assert reached.max() - reached.min() + 1 == REACH * 10


def test_the_network_gives_mirror_images_one_outline() -> None:
    torch.manual_seed(0)
    network = VoxelNetwork(8).eval()
    grid = torch.rand(GRID_ZYX) * 5
    with torch.inference_mode():
        first = network(channels(grid, 1e5)[None])
        for axes in ((0,), (1,), (0, 1, 2)):
            mirrored = network(channels(grid.flip(axes), 1e5)[None])
            np.testing.assert_allclose(mirrored.flip([a + 2 for a in axes]).numpy(), first.numpy(), atol=1e-4)


def test_gaussian_means_keep_a_constant_and_place_is_one_at_the_faces() -> None:
    network = VoxelNetwork(4)
    features = network.features(torch.full((1, 5, *GRID_ZYX), 3.0))
    means = features[0, 5, 7, 9]
    assert int((means - 3).abs().lt(1e-4).sum()) >= 8
    assert float(radius().min()) < 0.1


def test_an_ensemble_is_the_mean_of_its_members_and_gives_them_back(tmp_path: object) -> None:
    torch.manual_seed(1)
    members = [VoxelNetwork(4).eval() for _ in range(3)]
    grids = torch.rand(1, 5, *GRID_ZYX)
    traced = [torch.jit.trace(one, grids) for one in members]
    path = f"{tmp_path}/model.ts"
    torch.jit.save(torch.jit.script(Ensemble(traced)), path)
    loaded = torch.jit.load(path)
    mean = torch.stack([one(grids) for one in members]).mean(0)
    np.testing.assert_allclose(loaded(grids).detach().numpy(), mean.detach().numpy(), atol=1e-5)
    again, own = members_of(loaded)[2](grids), members[2](grids)
    np.testing.assert_allclose(again.detach().numpy(), own.detach().numpy(), atol=1e-5)


def volume(suv: np.ndarray, unit: str) -> ImageVolume:
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [-70.0, -60.0, 10.0]
    return ImageVolume(suv, affine, "PT", "1.2.3", "1.2", "1.2.4", unit=unit)


def analysis() -> PetLesionAnalysis:
    return PetLesionAnalysis(Card("pet-lesion", "1.0.0", Kind.LEARNED, "t", "u", (), (), "CC BY 3.0", ()), model())


def test_a_box_in_patient_space_is_a_box_of_voxels(suv: np.ndarray) -> None:
    truth = ball((20, 18, 14), 24)
    pet = volume(suv, "g/ml{SUVbw}")
    tight = tight_box(truth)
    faces = []
    for axis in (2, 1, 0):
        spacing, origin = pet.affine_lps[2 - axis, 2 - axis], pet.affine_lps[2 - axis, 3]
        faces += [origin + (edge - 0.5) * spacing for edge in (tight.start[axis], tight.stop[axis])]
    assert box_from_lps(faces, pet.affine_lps) == tight
    result = analysis().run(Inputs({"image": pet}, {"box": ",".join(f"{face}" for face in faces)}))
    assert dice(result.masks[0].array, truth) > 0.93
    assert result.parameters["mode"] == "box"


def test_stored_units_other_than_suv_need_a_factor(suv: np.ndarray) -> None:
    pet = volume(suv * 4000, "Bq/ml")
    with pytest.raises(RefusedError) as refusal:
        analysis().run(Inputs({"image": pet}))
    assert "suv_per_unit" in refusal.value.missing[0]
    x, y, z = pet.affine_lps[:3, :3] @ [14, 18, 20] + pet.affine_lps[:3, 3]
    assert voxel_from_lps([x, y, z], pet.affine_lps) == (20, 18, 14)
    result = analysis().run(Inputs({"image": pet}, {"suv_per_unit": 1 / 4000, "click": f"{x},{y},{z}"}))
    assert dice(result.masks[0].array, ball((20, 18, 14), 24)) > 0.9


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d,e,f", "nan,1,2,3,4,5", ""])
def test_boxes_that_are_no_six_numbers_are_refused(suv: np.ndarray, box: str) -> None:
    with pytest.raises(RefusedError, match="6 numbers"):
        analysis().run(Inputs({"image": volume(suv, "g/ml{SUVbw}")}, {"box": box}))
