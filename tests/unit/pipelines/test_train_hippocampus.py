"""The training pipeline on synthetic crops: it writes a bundle that serves, and its figures can be measured again."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines.train.common import mean_with_interval
from pipelines.train.hippocampus.__main__ import app
from pipelines.train.hippocampus.data import DataError, augmentation, case_ids, fold_of, load_case, training_batches
from pipelines.train.hippocampus.evaluate import (
    CaseFigures,
    conformal_half_width,
    dice,
    hausdorff95,
    left_out_coverage,
)
from pipelines.train.hippocampus.fit import NETWORK_DEF, Progress, Recipe, balance_volume
from pipelines.train.hippocampus.run import Work, _fitted, parse_folds, split
from services.imaging.hippocampus import load_bundle
from services.imaging.hippocampus_network import build_network, probabilities

SHAPE = (30, 42, 28)


def write_case(folder: Path, case_id: str, seed: int, spacing: float = 1.0) -> None:
    """A noisy crop with two bright boxes as labels."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[11:19, 22:32, 8:16] = 1
    label[11:19, 10:22, 12:20] = 2
    image = rng.normal(100, 5, SHAPE) + 60 * label
    affine = np.diag([spacing, spacing, spacing, 1.0])
    for kind, data in (("images", image.astype(np.float32)), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine), folder / kind / f"{case_id}.nii.gz")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases to fit on and two that fold 0 holds out."""
    folder = tmp_path_factory.mktemp("crops")
    names = [f"case_{n:03d}" for n in range(60)]
    chosen = [n for n in names if fold_of(n) != 0][:4] + [n for n in names if fold_of(n) == 0][:2]
    for seed, name in enumerate(chosen):
        write_case(folder, name, seed)
    return folder


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "hippocampus"
    work = str(tmp_path_factory.mktemp("work"))
    result = CliRunner().invoke(
        app, ["--data", str(data), "--out", str(out), "--work", work, "--epochs", "2", "--json"]
    )
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["epoch"] for line in lines[:-1]] == [1, 2]
    assert lines[-1]["cases"] == 2
    return out


def test_training_writes_a_bundle_that_loads(bundle: Path) -> None:
    model = load_bundle(bundle)
    assert model.name == "hippocampus"
    assert model.calibration.cases == 2
    assert model.validated.volume_mm3["anterior"] == (640.0, 640.0)


def test_the_card_is_filled_in_and_names_the_split(bundle: Path) -> None:
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "$" not in card
    assert "4 cases outside fold 0" in card
    assert load_bundle(bundle).weights_sha256 in card


def test_the_figures_come_out_the_same_when_measured_again(data: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--data", str(data), "--bundle", str(bundle), "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for name in ("held_out.json", "held_out.csv"):
        assert (tmp_path / name).read_text() == (bundle / "docs" / name).read_text()


def test_measuring_refuses_weights_other_than_those_recorded(data: Path, bundle: Path, tmp_path: Path) -> None:
    metadata_file = bundle / "configs" / "metadata.json"
    original = metadata_file.read_text()
    metadata = json.loads(original)
    metadata["osler"]["evaluated"][0]["sha256"] = "0" * 64
    metadata_file.write_text(json.dumps(metadata))
    try:
        result = CliRunner().invoke(
            app, ["evaluate", "--data", str(data), "--bundle", str(bundle), "--out", str(tmp_path)]
        )
    finally:
        metadata_file.write_text(original)
    assert result.exit_code != 0
    assert "SHA-256" in result.output


def test_a_stopped_run_goes_on_with_the_next_epoch(data: Path, tmp_path: Path) -> None:
    """Stopped in its second epoch: the first is kept, taken up, and not run again; then the finished fold is kept."""
    cases = [load_case(data, one) for one in case_ids(data)]
    recipe, work = Recipe(epochs=3), Work(tmp_path, resume=True)
    seen: list[int] = []

    def stopping(progress: Progress, network: torch.nn.Module) -> None:
        seen.append(progress.epoch)
        if seen == [1]:
            raise KeyboardInterrupt

    arguments = ("fold 0", recipe, cases[:2], ())
    with pytest.raises(KeyboardInterrupt):
        _fitted(work, *arguments, stopping)
    assert (tmp_path / "fold-0.begun").is_file()
    network = _fitted(work, *arguments, stopping)
    assert seen == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["fold-0.pt"]
    again = _fitted(work, *arguments, stopping)
    assert seen == [1, 2, 3]
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), again.state_dict()[name].numpy())
    with pytest.raises(DataError, match="another recipe"):
        _fitted(work, "fold 0", Recipe(epochs=4), cases[:2], (), stopping)


def test_no_case_is_both_fitted_and_held_out(data: Path) -> None:
    cases = [load_case(data, one) for one in case_ids(data)]
    part = split(cases, 0)
    fitted, held_out = {c.case_id for c in part.train}, {c.case_id for c in part.held_out}
    assert not fitted & held_out
    assert fitted | held_out == set(case_ids(data))


def test_the_folds_share_the_cases_out_evenly() -> None:
    counts = np.bincount([fold_of(f"hippocampus_{n:03d}") for n in range(1, 395)], minlength=5)
    assert counts.min() > 55
    assert counts.max() < 105


def test_augmentation_keeps_labels_whole_and_is_repeatable(data: Path) -> None:
    cases = [load_case(data, one) for one in case_ids(data)]

    def epoch() -> list[np.ndarray]:
        batches = training_batches(cases, augmentation(3), 2, np.random.default_rng(3))
        return [np.concatenate([i.numpy(), lab.numpy()]) for i, lab in batches]

    first, second = epoch(), epoch()
    assert len(first) == 3
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, again)
        assert set(np.unique(one[2:])) <= {0.0, 1.0, 2.0}
        assert (one[2:] > 0).any()


def test_balancing_makes_outlines_as_large_as_the_experts(data: Path) -> None:
    """An untrained network outlines far too much; after the shift its mean volume is the experts'."""
    torch.manual_seed(0)
    cases = [load_case(data, one) for one in case_ids(data)][:2]
    network = build_network(NETWORK_DEF).eval()
    with torch.no_grad():
        network.output_block.conv.conv.bias[0] += 2.0

    def mean_ratio() -> float:
        outlines = [(probabilities(network, torch.from_numpy(c.image)).mean(0).argmax(0) > 0).sum() for c in cases]
        return float(np.mean([float(n) / (c.label > 0).sum() for n, c in zip(outlines, cases, strict=True)]))

    before = mean_ratio()
    balance_volume(network, cases)
    assert abs(mean_ratio() - 1) < 0.1 < abs(before - 1)


def test_a_grid_other_than_1_mm_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path, "coarse", 0, spacing=2.0)
    with pytest.raises(DataError, match="expected 1 mm"):
        load_case(tmp_path, "coarse")


def test_a_folder_without_cases_is_refused_by_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert "no case in" in result.output


@pytest.mark.parametrize("text", ["5", "0,0", "first", "", "-1"])
def test_folds_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_folds(text)


def test_dice_and_surface_distance_of_known_masks() -> None:
    a = np.zeros((20, 20, 20), dtype=bool)
    b = a.copy()
    a[5:10, 5:10, 5:10] = True
    b[7:12, 5:10, 5:10] = True
    assert dice(a, b) == pytest.approx(2 * 75 / 250)
    assert hausdorff95(a, a) == 0
    assert hausdorff95(a, b) == pytest.approx(2.0)


def test_bootstrap_interval_of_a_constant_is_that_constant() -> None:
    assert mean_with_interval([0.9] * 5) == pytest.approx({"mean": 0.9, "ci95_low": 0.9, "ci95_high": 0.9})


def figures_with_error(relative_error: float, name: str) -> CaseFigures:
    volumes = {f"volume_{p}_mm3": 1000.0 for p in ("anterior", "posterior", "total")}
    real = {f"true_{p}_mm3": 1000.0 * (1 + relative_error) for p in ("anterior", "posterior", "total")}
    scores = {f"dice_{p}": 0.9 for p in ("anterior", "posterior", "total")}
    return CaseFigures(
        case_id=name,
        fold=0,
        hd95_total_mm=1.0,
        mean_entropy_nats=0.1,
        anterior_offset_mm=18.0,
        orientation_ratio=2.0,
        cautions="",
        **volumes,
        **real,
        **scores,
    )


def test_the_conformal_interval_is_the_ranked_error() -> None:
    """Of 19 errors 1 % .. 19 %, the (19 + 1) 0.9 = 18th."""
    figures = [figures_with_error(n / 100, f"c{n}") for n in range(1, 20)]
    assert conformal_half_width(figures, "total") == pytest.approx(0.18)
    assert left_out_coverage(figures, "total") == pytest.approx(18 / 19)
