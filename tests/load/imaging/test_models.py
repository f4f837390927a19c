"""Figures of the shipped models on real data, printed; only what is right or wrong is held.

The whole head: the MNI template that nilearn ships, as it is and with its geometry changed in known ways.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipelines.train.pet_lesion.bundle import cross_validate, read_members
from pipelines.train.pet_lesion.data import load_patient, patient_ids
from pipelines.train.pneumonia.bundle import read_fitted
from pipelines.train.pneumonia.data import load_part
from pipelines.train.pneumonia.evaluate import summarise
from services.clinical.volume import ImageVolume
from services.imaging.hippocampus import load_bundle
from services.imaging.host.contract import Inputs
from services.imaging.host.hippocampus import build
from services.imaging.host.model import load
from services.imaging.host.package import read_package
from services.imaging.whole_head import WholeHeadResult, measure_hippocampi
from services.platform.errors import RefusedError

pytestmark = pytest.mark.slow
MODELS = Path(__file__).parents[3] / "models"
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def folder_of(shared_data: Path, *parts: str) -> Path:
    folder = shared_data.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"{'/'.join(parts)} is not among the real data")
    return folder


def test_pneumonia_figures_are_those_of_the_card(shared_data: Path) -> None:
    torch.set_num_threads(1)
    data = folder_of(shared_data, "pneumoniamnist")
    train = load_part(data, "train")
    model, recipe = read_fitted(MODELS / "pneumonia", train)
    found = summarise(model, train, load_part(data, "val"), recipe)
    stated = json.loads((MODELS / "pneumonia" / "docs" / "evaluation.json").read_text())
    print(f"\nvalidation AUC {found['auc']['value']:.4f}, ECE {found['calibration']['ece']['value']:.4f}")
    assert found["auc"]["value"] == pytest.approx(stated["auc"]["value"], abs=1e-3)
    assert found["calibration"]["ece"]["value"] == pytest.approx(stated["calibration"]["ece"]["value"], abs=2e-3)
    assert found["auc"]["value"] >= 0.99
    assert found["calibration"]["ece"]["value"] <= 0.03


def test_pet_lesion_figures_are_those_of_the_card(shared_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = folder_of(shared_data, "sts-petctmr", "nifti")
    patients = [load_patient(data, one) for one in patient_ids(data)]
    found = cross_validate(read_members(MODELS / "pet-lesion"), patients, tmp_path, lambda ones: ones)
    stated = json.loads((MODELS / "pet-lesion" / "docs" / "held_out.json").read_text())
    for part in ("model", "thresholds"):
        for way, one in found[part].items():
            print(f"\n{way}: median Dice {one['dice']['median']:.3f}, mean {one['dice_mean']['mean']:.3f}", end="")
            assert one["dice"]["median"] == pytest.approx(stated[part][way]["dice"]["median"], abs=5e-3)
    assert found["model"]["box"]["dice"]["median"] > found["thresholds"]["suv_2.5_in_box"]["dice"]["median"]


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray]:
    nilearn = pytest.importorskip("nilearn", reason='needs nilearn: pip install "osler[pipelines]"')
    pytest.importorskip("deepbet", reason='needs deepbet: pip install "osler[pipelines]"')
    file = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image = nib.load(file)
    return np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0), LPS_RAS @ image.affine


@pytest.fixture(scope="module")
def measured(head: tuple[np.ndarray, np.ndarray]) -> WholeHeadResult:
    torch.set_num_threads(1)
    started = time.monotonic()
    found = measure_hippocampi(load_bundle(MODELS / "hippocampus"), *head)
    print(
        f"\nleft {found.left.segmentation.total.volume_mm3:.0f} mm3, right {found.right.segmentation.total.volume_mm3:.0f} mm3, "
        f"asymmetry {found.asymmetry_percent:+.1f} %, brain {found.brain_mm3 / 1000:.0f} mL, {found.overlap:.3f} overlap, "
        f"{time.monotonic() - started:.0f} s"
    )
    return found


def test_the_symmetric_template_has_symmetric_hippocampi(measured: WholeHeadResult) -> None:
    """The template was made symmetric: what the two sides differ by is the pipeline's own error."""
    assert abs(measured.asymmetry_percent) < 3
    left, right = (np.array(side.segmentation.total.centroid_lps_mm) for side in (measured.left, measured.right))
    np.testing.assert_allclose(left * [-1, 1, 1], right, atol=1.5)
    assert left[0] > 20
    assert 0.15 < measured.left.percent_of_brain < 0.3
    assert "not estimated" in measured.percentile
    assert np.abs(left - [27, 22, -15]).max() < 1.5


def test_a_smaller_head_on_other_axes_has_the_same_shares(
    head: tuple[np.ndarray, np.ndarray], measured: WholeHeadResult
) -> None:
    """Nine tenths the size, stored sagittally from the other side: volumes fall by 0.729, left stays left."""
    array, affine = head
    turned = np.ascontiguousarray(array.transpose(2, 0, 1)[::-1])
    order = np.zeros((4, 4))
    # (i, j, k) of the turned array are (y, z, last - x) of the first.
    order[0, 2], order[0, 3] = -1, array.shape[2] - 1
    order[1, 0] = order[2, 1] = order[3, 3] = 1
    smaller = np.diag([0.9, 0.9, 0.9, 1.0]) @ affine @ order
    found = measure_hippocampi(load_bundle(MODELS / "hippocampus"), turned, smaller)
    for side in ("left", "right"):
        before, after = (getattr(one, side).segmentation.total.volume_mm3 for one in (measured, found))
        print(f"\n{side}: {after:.0f} mm3, {after / before:.3f} of the full size (expected 0.729)", end="")
        assert after / before == pytest.approx(0.729, rel=0.08)
    assert found.left.segmentation.total.centroid_lps_mm[0] > 0 > found.right.segmentation.total.centroid_lps_mm[0]


def test_thick_slices_are_refused_with_what_is_needed(shared_data: Path) -> None:
    """A 2D T1 of 3 mm slices cannot carry a hippocampal volume, by the model's own validation."""
    file = folder_of(shared_data, "open-ms", "patient01") / "study1_T1W.nii.gz"
    image = nib.load(file)
    array = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    volume = ImageVolume(array, LPS_RAS @ image.affine, "MR", "1.2.3", "1.2", "1.2.4")
    with pytest.raises(RefusedError) as refusal:
        build(load(read_package(MODELS / "hippocampus"))).run(Inputs({"image": volume}))
    assert refusal.value.reason == "hippocampus.spacing"
    assert "3D T1" in refusal.value.missing[0]
