"""Hippocampus segmentation: the bundle is what it says, the grid is respected, and wrong input is refused by name."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser

from services.imaging.hippocampus import (
    HippocampusModel,
    HippocampusSegmentation,
    ValidatedRange,
    VolumeCalibration,
    load_bundle,
    segment,
)
from services.imaging.hippocampus_grid import anatomical_axes, covering_grid, normalise
from services.imaging.hippocampus_network import build_network, probabilities
from services.platform.errors import ConfigurationError, RefusedError

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "models" / "hippocampus"
SHARED = Path(os.environ.get("OSLER_SHARED_DATA", ROOT.parent / "shared" / "data"))
CROPS = SHARED / "hippocampus"
DICOM_CROP = SHARED / "glioblastoma-mr" / "PGBM-003" / "11_HCropVolume"

needs_crops = pytest.mark.skipif(not CROPS.is_dir(), reason="needs the hippocampus crops (OSLER_SHARED_DATA)")
needs_dicom = pytest.mark.skipif(not DICOM_CROP.is_dir(), reason="needs the DICOM crop (OSLER_SHARED_DATA)")
pytestmark = pytest.mark.skipif(not BUNDLE.is_dir(), reason="needs the model bundle in models/hippocampus")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small volumes: several threads wait for each other longer than they work, most of all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


#: Index of a Right-Anterior-Superior crop, stored (z, y, x), to LPS millimetres.
RAS_CROP = np.diag([-1.0, -1.0, 1.0, 1.0])


class BrightHeadNetwork(torch.nn.Module):
    """Stands in for the trained network: bright is anterior, dark is posterior.

    Like the trained one it is sure of itself only where the head lies in front of and below the body.
    """

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        head, body = batch > 2.3, batch < -2.3
        centre_head, centre_body = head.nonzero().double().mean(0), body.nonzero().double().mean(0)
        upright = bool(centre_head[3] > centre_body[3] and centre_head[4] < centre_body[4])
        sureness = 20.0 if upright else 2.0
        return sureness * torch.cat([~(head | body), head, body], dim=1).float()


def phantom_model() -> HippocampusModel:
    validated = ValidatedRange(
        extent_ras_mm=((31, 43), (40, 59), (24, 47)),
        accepted_extent_ras_mm=((26, 64), (34, 80), (20, 64)),
        accepted_spacing_mm=(0.4, 1.5),
        volume_mm3={"anterior": (500, 3000), "posterior": (500, 3000), "total": (1000, 6000)},
        mean_entropy_nats=0.3,
        anterior_offset_mm=(13, 23),
        orientation_ratio=1.2,
    )
    calibration = VolumeCalibration(0.9, {"anterior": 0.1, "posterior": 0.2, "total": 0.1}, 30)
    return HippocampusModel(BrightHeadNetwork().eval(), "phantom", "0", "0" * 64, "none", validated, calibration)


def phantom(affine_lps: np.ndarray, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    """Head and body as ellipsoids, in front of and below each other around the middle of the given grid.

    Volumes are 4/3 pi a b c: head 7 x 8 x 6 mm, 1407 mm3; body 6 x 9 x 6 mm, 1357 mm3.
    """
    k, j, i = np.meshgrid(*[np.arange(n) for n in shape_zyx], indexing="ij")
    lps = np.stack([i, j, k], -1) @ affine_lps[:3, :3].T + affine_lps[:3, 3]
    middle = affine_lps[:3, :3] @ ((np.array(shape_zyx[::-1]) - 1) / 2) + affine_lps[:3, 3]
    ras = (lps - middle) * [-1, -1, 1]
    head = (((ras - [0, 9, -4]) / [7, 8, 6]) ** 2).sum(-1) < 1
    body = (((ras - [0, -9, 4]) / [6, 9, 6]) ** 2).sum(-1) < 1
    return (200 + 200 * head - 200 * body.astype(int)).astype(np.float32)


def parts(result: HippocampusSegmentation) -> tuple[float, float]:
    return result.anterior.volume_mm3, result.posterior.volume_mm3


def refusal(model: HippocampusModel, array: np.ndarray, affine: np.ndarray = RAS_CROP) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        segment(model, array, affine)
    return caught.value


class TestBundle:
    def test_the_shipped_bundle_loads_and_says_what_it_is(self) -> None:
        model = load_bundle(BUNDLE)
        assert (model.name, model.license) == ("hippocampus", "CC BY-SA 4.0")
        assert not model.network.training
        assert model.calibration.cases >= 30
        assert 0 < model.calibration.relative_half_width["total"] < 0.3

    def test_changed_weights_are_refused(self, tmp_path: Path) -> None:
        copy = shutil.copytree(BUNDLE, tmp_path / "bundle")
        weights = copy / "models" / "model.pt"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        with pytest.raises(ConfigurationError, match="SHA-256"):
            load_bundle(copy)

    def test_a_configuration_cannot_name_other_code(self) -> None:
        with pytest.raises(ValueError, match="expected DynUNet"):
            build_network({"_target_": "subprocess.run", "args": ["true"]})

    def test_a_missing_bundle_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"metadata\.json"):
            load_bundle(tmp_path)

    def test_figures_in_the_metadata_are_those_of_the_case_table(self) -> None:
        metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
        with (BUNDLE / "docs" / "held_out.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        for part in ("anterior", "posterior", "total"):
            mean = np.mean([float(row[f"dice_{part}"]) for row in rows])
            assert metadata["eval_metrics"][f"mean_dice_{part}"] == pytest.approx(mean, abs=1e-4)

    def test_it_runs_as_a_monai_bundle(self, tmp_path: Path) -> None:
        """The configuration alone gives the label map that the service's own functions give."""
        zyx = phantom(RAS_CROP, (36, 50, 34)) + np.random.default_rng(0).normal(0, 5, (36, 50, 34)).astype(np.float32)
        (tmp_path / "in").mkdir()
        nib.save(nib.Nifti1Image(zyx.transpose(2, 1, 0), np.eye(4)), tmp_path / "in" / "crop.nii.gz")
        parser = ConfigParser()
        parser.read_config(BUNDLE / "configs" / "inference.json")
        parser.update(
            {"bundle_root": str(BUNDLE), "dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
        )
        parser.get_parsed_content("initialize")
        parser.get_parsed_content("run")
        saved = nib.load(tmp_path / "out" / "crop_hippocampus.nii.gz")
        crop = torch.from_numpy(normalise(zyx.transpose(2, 1, 0)))
        expected = probabilities(load_bundle(BUNDLE).network, crop).mean(0).argmax(0).numpy()
        found = np.asarray(saved.dataobj)
        assert found.shape == expected.shape
        # Islands are dropped from the saved map; what is left must agree.
        assert (found[found > 0] == expected[found > 0]).all()


class TestGrid:
    def test_volumes_of_a_known_phantom(self) -> None:
        result = segment(phantom_model(), phantom(RAS_CROP, (36, 50, 34)), RAS_CROP)
        assert parts(result) == pytest.approx((1407, 1357), rel=0.03)
        assert result.total.volume_mm3 == sum(parts(result))
        assert result.anterior.interval_mm3 == pytest.approx(
            (0.9 * result.anterior.volume_mm3, 1.1 * result.anterior.volume_mm3)
        )
        assert result.anterior.interval_level == 0.9
        assert result.labels_zyx.shape == (36, 50, 34)
        assert result.anterior.mirror_difference_mm3 == 0
        assert result.cautions == ()

    def test_the_label_map_lies_where_the_phantom_does(self) -> None:
        array = phantom(RAS_CROP, (36, 50, 34))
        labels = segment(phantom_model(), array, RAS_CROP).labels_zyx
        np.testing.assert_array_equal(labels, np.select([array > 300, array < 100], [1, 2], 0))

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("flips", [(), (0, 2), (1,)])
    def test_the_same_volume_stored_another_way_gives_the_same_answer(
        self, order: tuple[int, ...], flips: tuple[int, ...]
    ) -> None:
        array = phantom(RAS_CROP, (36, 50, 34))
        reference = segment(phantom_model(), array, RAS_CROP)
        stored, affine = stored_as(array, RAS_CROP, order, flips)
        result = segment(phantom_model(), stored, affine)
        assert parts(result) == parts(reference)
        assert result.anterior.centroid_lps_mm == pytest.approx(reference.anterior.centroid_lps_mm, abs=1e-3)
        expected, _ = stored_as(reference.labels_zyx, RAS_CROP, order, flips)
        np.testing.assert_array_equal(result.labels_zyx, expected)

    @pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (0.5, 0.5, 1.0), (1.2, 1.2, 1.0), (1.0, 0.9, 1.4)])
    def test_spacing_changes_the_grid_and_not_the_volume(self, spacing: tuple[float, float, float]) -> None:
        affine = RAS_CROP @ np.diag([*spacing, 1.0])
        shape = tuple(round(mm / s) for mm, s in zip((36, 50, 34), spacing[::-1], strict=True))
        result = segment(phantom_model(), phantom(affine, shape), affine)
        assert result.labels_zyx.shape == shape
        assert parts(result) == pytest.approx((1407, 1357), rel=0.08)

    @pytest.mark.parametrize("degrees", [10.0, 30.0])
    def test_an_oblique_crop_gives_the_same_volumes(self, degrees: float) -> None:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
        affine = turn @ RAS_CROP
        result = segment(phantom_model(), phantom(affine, (40, 50, 34)), affine)
        assert result.tilt_degrees == pytest.approx(degrees)
        assert parts(result) == pytest.approx((1407, 1357), rel=0.08)

    def test_a_1_mm_crop_is_not_interpolated(self) -> None:
        affine = RAS_CROP.copy()
        affine[:3, 3] = [12.3, -45.6, 7.89]
        axes, tilt = anatomical_axes(affine)
        grid = covering_grid((36, 50, 34), affine, axes)
        assert tilt == 0
        assert grid.shape_ras == (34, 50, 36)
        np.testing.assert_allclose(grid.affine_lps, affine, atol=1e-9)


def stored_as(
    array_zyx: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its array axes permuted and reversed, and the affine that keeps it in place."""
    moved = np.flip(array_zyx.transpose(order), flips)
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new_axis, old_axis in enumerate(order):
        new_xyz, old_xyz = 2 - new_axis, 2 - old_axis
        flipped = new_axis in flips
        to_old[old_xyz, new_xyz] = -1 if flipped else 1
        to_old[old_xyz, 3] = moved.shape[new_axis] - 1 if flipped else 0
    return np.ascontiguousarray(moved), affine @ to_old


class TestRefusals:
    def test_a_whole_head_is_refused_and_the_crop_is_asked_for(self) -> None:
        head = np.random.default_rng(0).normal(100, 20, (180, 240, 240)).astype(np.float32)
        error = refusal(phantom_model(), head)
        assert error.reason == "hippocampus.not_a_crop"
        assert error.missing == ("a crop around one hippocampus",)
        assert "240x240x180 mm" in error.message

    def test_thick_slices_are_refused(self) -> None:
        affine = RAS_CROP @ np.diag([1.0, 1.0, 5.0, 1.0])
        assert refusal(phantom_model(), phantom(affine, (8, 50, 34)), affine).reason == "hippocampus.spacing"

    def test_a_crop_too_small_is_refused(self) -> None:
        assert refusal(phantom_model(), phantom(RAS_CROP, (20, 20, 20))).reason == "hippocampus.crop_too_small"

    def test_a_uniform_volume_is_refused(self) -> None:
        array = np.full((36, 50, 34), 7.0, dtype=np.float32)
        assert refusal(phantom_model(), array).reason == "hippocampus.no_contrast"

    def test_values_that_are_no_numbers_are_refused(self) -> None:
        array = phantom(RAS_CROP, (36, 50, 34))
        array[0, 0, 0] = np.nan
        assert refusal(phantom_model(), array).reason == "hippocampus.not_finite"

    def test_a_single_slice_is_refused(self) -> None:
        assert refusal(phantom_model(), np.ones((50, 34), dtype=np.float32)).reason == "hippocampus.not_a_volume"

    @pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan)])
    def test_missing_geometry_is_refused_naming_the_dicom_attributes(self, affine: np.ndarray) -> None:
        error = refusal(phantom_model(), phantom(RAS_CROP, (36, 50, 34)), affine)
        assert error.reason == "hippocampus.no_geometry"
        assert "(0020,0037) ImageOrientationPatient" in error.missing

    def test_a_sheared_stack_is_refused(self) -> None:
        affine = RAS_CROP.copy()
        affine[1, 2] = 0.2
        assert refusal(phantom_model(), phantom(RAS_CROP, (36, 50, 34)), affine).reason == "hippocampus.sheared_grid"

    @pytest.mark.parametrize("axis", ["y", "z"])
    def test_an_orientation_that_the_picture_contradicts_is_refused(self, axis: str) -> None:
        wrong = RAS_CROP @ np.diag([1.0, -1.0 if axis == "y" else 1.0, -1.0 if axis == "z" else 1.0, 1.0])
        error = refusal(phantom_model(), phantom(RAS_CROP, (36, 50, 34)), wrong)
        assert error.reason == "hippocampus.orientation_contradicted"

    def test_a_crop_without_hippocampus_is_refused(self) -> None:
        array = np.random.default_rng(1).uniform(0, 1, (36, 50, 34)).astype(np.float32)
        assert refusal(phantom_model(), array).reason in (
            "hippocampus.not_found",
            "hippocampus.orientation_contradicted",
        )


class TestCautions:
    def test_a_crop_larger_than_validated_says_so(self) -> None:
        result = segment(phantom_model(), phantom(RAS_CROP, (36, 70, 34)), RAS_CROP)
        assert [c.code for c in result.cautions] == ["field_of_view_outside_validated"]
        assert "40 to 59 mm" in result.cautions[0].message

    def test_a_volume_outside_the_data_says_so(self) -> None:
        model = phantom_model()
        narrow = dataclasses.replace(model.validated, volume_mm3={**model.validated.volume_mm3, "total": (3000, 4000)})
        result = segment(dataclasses.replace(model, validated=narrow), phantom(RAS_CROP, (36, 50, 34)), RAS_CROP)
        assert [c.code for c in result.cautions] == ["volume_outside_validated"]

    def test_a_hippocampus_cut_off_by_the_crop_says_so(self) -> None:
        array = phantom(RAS_CROP, (36, 50, 34))[:, :40, :]
        assert "touches_border" in [c.code for c in segment(phantom_model(), array, RAS_CROP).cautions]

    def test_an_island_is_dropped_and_counted(self) -> None:
        array = phantom(RAS_CROP, (36, 50, 34))
        array[30:34, 2:8, 2:8] = 0
        result = segment(phantom_model(), array, RAS_CROP)
        assert result.posterior.discarded_mm3 == 4 * 6 * 6
        assert "fragmented" in [c.code for c in result.cautions]


def held_out_cases(count: int) -> list[str]:
    with (BUNDLE / "docs" / "held_out.csv").open() as stream:
        return [row["case_id"] for row in csv.DictReader(stream)][:count]


def read_crop(case_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and label, (z, y, x), of a crop whose voxel axes are Right, Anterior, Superior at 1 mm."""
    image = np.asarray(nib.load(CROPS / "images" / f"{case_id}.nii.gz").dataobj, dtype=np.float32)
    label = np.asarray(nib.load(CROPS / "labels" / f"{case_id}.nii.gz").dataobj)
    return image.transpose(2, 1, 0), label.transpose(2, 1, 0)


@needs_crops
@pytest.mark.shared_data
class TestHeldOutCases:
    def test_dice_of_cases_that_the_weights_never_saw(self) -> None:
        model = load_bundle(BUNDLE)
        scores = []
        for case_id in held_out_cases(6):
            image, label = read_crop(case_id)
            found = segment(model, image, RAS_CROP).labels_zyx
            scores.append(
                [2 * ((found == v) & (label == v)).sum() / ((found == v).sum() + (label == v).sum()) for v in (1, 2)]
            )
        anterior, posterior = np.mean(scores, axis=0)
        assert anterior > 0.86
        assert posterior > 0.84

    def test_the_stored_orientation_does_not_change_the_outline(self) -> None:
        model = load_bundle(BUNDLE)
        image, _ = read_crop(held_out_cases(1)[0])
        reference = segment(model, image, RAS_CROP)
        for order, flips in [((1, 0, 2), (0,)), ((2, 0, 1), (1, 2))]:
            stored, affine = stored_as(image, RAS_CROP, order, flips)
            assert parts(segment(model, stored, affine)) == pytest.approx(parts(reference), rel=1e-3)

    def test_a_crop_turned_over_against_its_header_is_refused(self) -> None:
        model = load_bundle(BUNDLE)
        for case_id in held_out_cases(2):
            image, _ = read_crop(case_id)
            for axes in [(1,), (0,), (0, 1)]:
                error = refusal(model, np.ascontiguousarray(np.flip(image, axes)))
                assert error.reason == "hippocampus.orientation_contradicted"


@needs_dicom
@pytest.mark.shared_data
def test_a_dicom_crop_without_manufacturer_is_segmented_on_its_own_grid() -> None:
    """Rows run front to back and slices foot to head, as its header says: the reverse of the training data's rows."""
    slices = sorted(
        (pydicom.dcmread(path) for path in DICOM_CROP.glob("*.dcm")), key=lambda d: float(d.ImagePositionPatient[2])
    )
    array = np.stack([one.pixel_array for one in slices]).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = [float(v) for v in slices[0].ImagePositionPatient]
    result = segment(load_bundle(BUNDLE), array, affine)
    assert result.labels_zyx.shape == array.shape
    assert 2500 < result.total.volume_mm3 < 5000
    assert result.total.discarded_mm3 < 20
    assert result.anterior.centroid_lps_mm[1] < result.posterior.centroid_lps_mm[1]
    assert result.orientation.entropy_ratio > 1.2
