"""The PET lesion pipeline on synthetic patients: it writes a bundle that serves, and its figures can be measured again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines.train.common import DataError
from pipelines.train.pet_lesion.__main__ import app
from pipelines.train.pet_lesion.data import FOLDS, Patient, fold_of, load_patient, moved_box, patient_ids
from pipelines.train.pet_lesion.evaluate import PatientFigures, dice, half_width
from pipelines.train.pet_lesion.fit import Recipe, sample
from pipelines.train.pet_lesion.modes import BASELINES, MODE_OF, OUTLINES, click, ellipsoid, loose_box
from services.imaging.host.model import load
from services.imaging.host.package import read_package
from services.imaging.pet_lesion import outline_in_box
from services.imaging.pet_lesion_analysis import model_of
from services.imaging.pet_lesion_network import Box, tight_box


def write_patient(folder: Path, name: str, seed: int) -> None:
    """A noisy background with an ellipsoid of uptake, off the middle."""
    rng = np.random.default_rng(seed)
    axes = np.indices((26, 24, 28)).astype(float)
    middle, radii = rng.uniform(10, 14, 3), rng.uniform(5, 8, 3)
    mask = sum(((axis - m) / r) ** 2 for axis, m, r in zip(axes, middle, radii, strict=True)) <= 1
    suv = rng.normal(1, 0.1, mask.shape) + mask * rng.uniform(4, 8)
    (folder / name).mkdir(parents=True)
    affine = np.diag([-4.0, -4.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(suv.astype(np.float32), affine), folder / name / "PET_image.nii.gz")
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / name / "PET_mask.nii.gz")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    for seed in range(6):
        write_patient(folder, f"P{seed}", seed)
    return folder


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained in two goes: fold 4 first, the others afterwards."""
    out, work = tmp_path_factory.mktemp("bundle") / "pet-lesion", tmp_path_factory.mktemp("work")
    common = ["--data", str(data), "--out", str(out), "--work", str(work), "--epochs", "2", "--json", "--resume"]
    first = CliRunner().invoke(app, [*common, "--only", "4"])
    assert first.exit_code == 0, first.output
    assert {json.loads(line)["fold"] for line in first.stdout.splitlines()} == {4}
    rest = CliRunner().invoke(app, common)
    assert rest.exit_code == 0, rest.output
    lines = [json.loads(line) for line in rest.stdout.splitlines()]
    assert {line["fold"] for line in lines[:-1]} == {0, 1, 2, 3}
    assert lines[-1]["patients"] == 6
    return out


def test_the_bundle_outlines_what_a_box_surrounds(data: Path, bundle: Path) -> None:
    model = model_of(load(read_package(bundle)))
    patient = load_patient(data, "P1")
    found = outline_in_box(model, patient.suv, patient.spacing_mm, tight_box(patient.mask))
    assert dice(found.mask_zyx, patient.mask) > 0.9
    assert found.interval_level == 0.9


def test_the_card_is_filled_in_and_names_the_leak(bundle: Path) -> None:
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "$" not in card
    assert "their own border gives the tumour's box away" in card
    assert read_package(bundle).weights_sha256 in card


def test_the_figures_come_out_the_same_when_measured_again(data: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--data", str(data), "--bundle", str(bundle), "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for name in ("held_out.json", "held_out.csv"):
        assert (tmp_path / name).read_text() == (bundle / "docs" / name).read_text()


def test_each_patient_is_held_out_once_and_folds_are_alike_in_size(data: Path) -> None:
    patients = [load_patient(data, one) for one in patient_ids(data)]
    folds = fold_of(patients)
    assert sorted(np.bincount(list(folds.values()), minlength=FOLDS).tolist()) == [1, 1, 1, 1, 2]
    assert fold_of(patients[::-1]) == folds


def test_the_place_of_the_image_border_changes_nothing_that_is_fitted(data: Path) -> None:
    """The images of the set were cut around the tumour: a wider image must give the same voxels to fit on."""
    patient = load_patient(data, "P0")
    recipe = Recipe(variants=2, voxels=200)
    wide = [(9, 3), (2, 11), (6, 8)]
    suv = np.pad(patient.suv, wide, mode="edge")
    mask = np.pad(patient.mask, wide)
    first = sample(patient, recipe)
    second = sample(Patient("P0", suv, mask, patient.spacing_mm), recipe)
    np.testing.assert_allclose(first.features.numpy(), second.features.numpy(), atol=2e-3)


def test_a_moved_box_keeps_half_of_each_edge_at_least() -> None:
    rng = np.random.default_rng(0)
    boxes = [moved_box(Box((0, 0, 0), (4, 8, 16)), (3, 4, 4), 50, rng) for _ in range(50)]
    edges = np.array([box.edges for box in boxes])
    assert (edges >= [2, 4, 8]).all()
    assert (edges <= [6, 12, 24]).all()


def test_the_ways_of_pointing_are_repeatable_and_in_the_lesion(data: Path) -> None:
    patient = load_patient(data, "P2")
    assert patient.mask[click(patient)]
    assert click(patient) == click(patient)
    assert loose_box(patient) == loose_box(patient)
    assert loose_box(patient) != tight_box(patient.mask)
    assert dice(ellipsoid(patient), patient.mask) > 0.85
    assert set(MODE_OF.values()) < set(OUTLINES)
    assert dice(BASELINES["suv_2.5_in_box"](patient), patient.mask) > 0.95


def figures(error: float) -> PatientFigures:
    scores = dict.fromkeys((*OUTLINES, *BASELINES), 0.9)
    return PatientFigures("p", 0, 1000 * (1 + error), 5, 3, 0.1, scores, dict.fromkeys(scores, 1000.0))


def test_the_conformal_interval_is_the_ranked_error() -> None:
    """Of 19 errors 1 % .. 19 %, the (19 + 1) 0.9 = 18th."""
    assert half_width([figures(n / 100) for n in range(1, 20)], "box") == pytest.approx(0.18)


def test_what_is_missing_or_on_another_grid_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"PET_image\.nii\.gz"):
        patient_ids(tmp_path)
    write_patient(tmp_path, "Q", 1)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "Q" / "PET_mask.nii.gz")
    with pytest.raises(DataError, match="Q: mask and image lie on different grids"):
        load_patient(tmp_path, "Q")
