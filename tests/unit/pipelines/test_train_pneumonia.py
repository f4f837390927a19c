"""The pneumonia pipeline on synthetic pictures: calibration known in closed form, folds, resuming, and a bundle that serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipelines.train.common import DataError, median_with_interval, rounded
from pipelines.train.pneumonia import evaluate
from pipelines.train.pneumonia.__main__ import app
from pipelines.train.pneumonia.calibrate import chances, cross_fitted, expected_calibration_error, fit_temperature
from pipelines.train.pneumonia.data import FILE, balanced_draw, load_part, stratified_folds, vary
from pipelines.train.pneumonia.evaluate import auc
from pipelines.train.pneumonia.gallery import furthest
from services.imaging.host.model import load
from services.imaging.host.package import read_package
from services.imaging.pneumonia import build, classify, model_of
from services.platform.errors import RefusedError


def write_set(folder: Path, counts: tuple[int, int] = (30, 60), part_names: tuple[str, ...] = ("train", "val")) -> None:
    """Pictures in which pneumonia is a bright lower half."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name in part_names:
        labels = np.repeat([0, 1], counts)
        images = rng.normal(110, 12, (len(labels), 28, 28))
        images[labels == 1, 14:] += 60
        arrays[f"{name}_images"] = np.clip(images, 0, 255).astype(np.uint8)
        arrays[f"{name}_labels"] = labels[:, None].astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / FILE, **arrays)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pneumonia")
    write_set(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    """The bootstrap is not what is tested here."""
    before, evaluate.RESAMPLES = evaluate.RESAMPLES, 20
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    evaluate.RESAMPLES = before
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained in two goes: fold 0 first, the others afterwards."""
    out, work = tmp_path_factory.mktemp("bundle") / "pneumonia", tmp_path_factory.mktemp("work")
    common = ["--data", str(data), "--out", str(out), "--work", str(work), "--epochs", "2", "--json", "--resume"]
    first = CliRunner().invoke(app, [*common, "--only", "0"])
    assert first.exit_code == 0, first.output
    assert {json.loads(line)["fold"] for line in first.stdout.splitlines()} == {0}
    assert not out.exists()
    rest = CliRunner().invoke(app, common)
    assert rest.exit_code == 0, rest.output
    lines = [json.loads(line) for line in rest.stdout.splitlines()]
    assert {line["fold"] for line in lines[:-1]} == {1, 2, 3, 4}
    assert lines[-1]["images"] == 90
    return out


def test_the_bundle_is_sealed_and_tells_pictures_apart(data: Path, bundle: Path) -> None:
    model = model_of(load(read_package(bundle)))
    assert len(model.members) == 5
    part = load_part(data, "val")
    stated = [classify(model, (part.images[i, 0].numpy() * 255)).log_likelihood_ratio for i in (0, 1, -2, -1)]
    assert max(stated[:2]) < min(stated[2:])


def test_serving_gives_the_figures_that_were_measured(data: Path, bundle: Path) -> None:
    """The picture that a room hands in and the array that training measured on take the same way."""
    part = load_part(data, "val")
    model = model_of(load(read_package(bundle)))
    served = np.array([classify(model, part.images[i, 0].numpy() * 255).probability for i in range(0, 90, 9)])
    chosen = part.pick(np.arange(0, 90, 9))
    logits = load(read_package(bundle)).network.forward(chosen.images).double().numpy().ravel()
    temperature = model.calibration.temperature
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-logits / temperature)), atol=1e-4)


def test_a_lower_prevalence_gives_a_lower_probability_by_bayes(bundle: Path) -> None:
    model = model_of(load(read_package(bundle)))
    picture = np.random.default_rng(1).normal(100, 20, (64, 48)).astype(np.float32)
    half, tenth = (classify(model, picture, share).probability for share in (0.5, 0.1))
    odds = half / (1 - half) / 9
    assert tenth == pytest.approx(odds / (1 + odds), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((20, 40), "not_a_picture"),
        ((3, 40, 40), "not_a_picture"),
        ((100, 300), "not_a_chest"),
        ((40, 40), "no_contrast"),
    ],
)
def test_what_is_no_chest_x_ray_is_refused_by_name(bundle: Path, shape: tuple[int, ...], reason: str) -> None:
    analysis = build(load(read_package(bundle)))
    with pytest.raises(RefusedError) as refusal:
        classify(analysis._model, np.zeros(shape, dtype=np.float32))
    assert refusal.value.reason == f"pneumonia.{reason}"


def test_a_prevalence_outside_its_range_is_refused(bundle: Path) -> None:
    model = model_of(load(read_package(bundle)))
    with pytest.raises(RefusedError, match="prevalence"):
        classify(model, np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32), 1.0)


def test_the_figures_come_out_the_same_when_measured_again(data: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.json"
    result = CliRunner().invoke(
        app, ["evaluate", "--data", str(data), "--bundle", str(bundle), "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text()) == json.loads((bundle / "docs" / "evaluation.json").read_text())


def test_work_of_another_recipe_is_not_taken_up(data: Path, bundle: Path, tmp_path: Path) -> None:
    common = [
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--work",
        str(tmp_path / "work"),
        "--json",
        "--resume",
    ]
    assert CliRunner().invoke(app, [*common, "--epochs", "1", "--only", "0,1,2,3,4"]).exit_code == 0
    result = CliRunner().invoke(app, [*common, "--epochs", "2"])
    assert result.exit_code != 0
    assert "another recipe" in result.output


def test_a_changed_weights_file_is_refused(data: Path, bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "pneumonia"
    shutil.copytree(bundle, copy)
    with (copy / "models" / "model.ts").open("ab") as file:
        file.write(b"x")
    result = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--bundle", str(copy)])
    assert result.exit_code != 0
    assert "SHA-256" in result.output


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_set(tmp_path, part_names=("train",))
    with pytest.raises(DataError, match="no part 'val'"):
        load_part(tmp_path, "val")
    with pytest.raises(DataError, match=FILE):
        load_part(tmp_path / "nowhere", "val")


def test_temperature_is_recovered_from_overconfident_logits() -> None:
    """Logits are three times too large and shifted by one half, in a set of 80 % cases: both are found."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 40_000)
    prior = np.log(0.8 / 0.2)
    labels = (rng.random(len(true)) < 1 / (1 + np.exp(-(true + prior)))).astype(float)
    # `true + prior` is calibrated at this set's own share only if the share of labels is that of the prior.
    observed = np.log(labels.mean() / (1 - labels.mean()))
    temperature, bias = fit_temperature(3 * true, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    assert bias + observed == pytest.approx(prior, abs=0.06)
    stated = chances(3 * true, temperature, bias, float(labels.mean()))
    assert expected_calibration_error(stated, labels) < 0.01


def test_calibration_error_of_known_tables() -> None:
    """Ten pictures at 0.9 of which seven are cases: |0.9 - 0.7|."""
    labels = np.array([1.0] * 7 + [0.0] * 3)
    assert expected_calibration_error(np.full(10, 0.9), labels) == pytest.approx(0.2)
    assert expected_calibration_error(labels, labels) == 0


def test_a_fold_is_calibrated_by_the_others_only() -> None:
    """Spoiling the labels of one fold leaves its own probabilities as they were, but for the share of the others."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 600)
    labels = (rng.random(600) < 1 / (1 + np.exp(-logits))).astype(float)
    folds = np.arange(600) % 3
    spoilt = np.where(folds == 0, 1 - labels, labels)
    first, second = (cross_fitted(logits, y, folds) for y in (labels, spoilt))
    np.testing.assert_array_equal(first[folds == 0], second[folds == 0])
    assert np.abs(first[folds != 0] - second[folds != 0]).max() > 0.01


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=4, max_size=40))
@settings(max_examples=60, deadline=None)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([float(s) for s, _ in rows]), np.array([float(y) for _, y in rows])
    if 0 < labels.sum() < len(labels):
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
        assert auc(scores, labels) == pytest.approx(np.mean(pairs))


def test_folds_share_out_each_class_and_draws_are_balanced() -> None:
    labels = torch.tensor([0.0] * 50 + [1.0] * 450)
    folds = stratified_folds(labels, 5, 0)
    assert [int((labels.numpy()[folds == f] == 0).sum()) for f in range(5)] == [10] * 5
    drawn = balanced_draw(labels, np.random.default_rng(0))
    assert len(drawn) == 200
    assert float(labels[torch.from_numpy(drawn)].mean()) == 0.5


def test_variation_is_repeatable_standardised_and_changes_the_picture() -> None:
    images = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    first, again = (vary(images, torch.Generator().manual_seed(3)) for _ in range(2))
    other = vary(images, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.isfinite(first).all()


def test_the_gallery_picks_what_is_furthest_from_its_label() -> None:
    stated, labels = np.array([0.1, 0.9, 0.2, 0.95, 0.4]), np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    assert furthest(stated, labels, 1).tolist() == [1, 2]


def test_intervals_and_rounding_of_the_card() -> None:
    assert median_with_interval([0.5] * 4) == {"median": 0.5, "ci95_low": 0.5, "ci95_high": 0.5}
    assert rounded({"a": [1.23456, float("nan")], "b": "x"}) == {"a": [1.2346, None], "b": "x"}
