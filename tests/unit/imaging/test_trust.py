"""Familiarity, test-time augmentation and overlays, on networks and answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.trust.fit import LEVEL, caught, false_alarms, fit
from services.clinical.dicom.series import inspect_series, load_series
from services.imaging.objects import make_map
from services.imaging.trust import familiarity
from services.imaging.trust.augmentation import shaken
from services.imaging.trust.overlay import onto, saliency_overlay, uncertainty_overlay
from services.platform.errors import ConfigurationError, RefusedError
from tests.unit.imaging.dicom_samples import make_series
from tests.unit.imaging.test_results import MADE

LAYERS = ("0", "2")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 2, 1)
    ).eval()


def pictures(count, seed, *, noise=0.3):
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 16)
    made = [
        np.outer(ramp, ramp) * generator.uniform(0.8, 1.2) + generator.normal(0, noise, (16, 16)) for _ in range(count)
    ]
    return torch.tensor(np.array(made)[:, None], dtype=torch.float32)


def test_features_are_means_and_deviations_of_each_channel(network):
    batch = pictures(3, 0)
    found = familiarity.features(network, batch, LAYERS)
    with torch.inference_mode():
        first = network[0](batch)
        second = network[2](network[1](first))
    expected = torch.cat([first.mean((2, 3)), first.std((2, 3)), second.mean((2, 3)), second.std((2, 3))], dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert not network[0]._forward_hooks
    with pytest.raises(ConfigurationError, match="no layer nine"):
        familiarity.features(network, batch, ["nine"])


def test_features_need_no_more_of_the_network_than_their_layers(network):
    broken = torch.nn.Sequential(network[0], network[1], network[2], torch.nn.Conv2d(99, 1, 1))
    assert familiarity.features(broken, pictures(2, 0), LAYERS).shape == (2, 20)


def test_distance_of_a_normal_distribution_is_that_of_mahalanobis():
    """Features drawn from a known distribution: mean distance 1, and the limit at its own quantile."""
    generator = np.random.default_rng(3)
    mixing = np.eye(5) + 0.2 * generator.normal(size=(5, 5))
    known = generator.normal(size=(4000, 5)) @ mixing + 7
    reference = fit(known, ["layer"], "0" * 64)
    far = familiarity.distances(reference, known)
    assert np.mean(far**2) == pytest.approx(1, rel=0.05)
    assert (far > reference.limit).mean() == pytest.approx(1 - LEVEL, abs=0.01)
    centre = familiarity.judge(reference, known.mean(axis=0))
    assert centre.distance < 0.1
    assert not centre.outside
    away = familiarity.judge(reference, known.mean(axis=0) + 10 * mixing[0])
    assert away.distance == pytest.approx(10 / np.sqrt(5), rel=0.05)
    assert away.outside


def test_not_a_number_is_outside():
    assert familiarity.Familiarity(float("nan"), 1.0).outside


def test_strange_pictures_are_told_from_known_ones(network):
    known = familiarity.features(network, pictures(300, 1), LAYERS)
    reference = fit(known, LAYERS, "0" * 64)
    fresh = familiarity.features(network, pictures(200, 2), LAYERS)
    turned = familiarity.features(network, -pictures(50, 4), LAYERS)
    noisy = familiarity.features(network, pictures(50, 5, noise=1.0), LAYERS)
    assert (familiarity.distances(reference, fresh) > reference.limit).mean() < 0.08
    assert false_alarms(known, LAYERS, repeats=4) < 0.1
    rows = caught(reference, {"turned": turned, "noisy": noisy})
    assert (rows["turned"]["caught"], rows["noisy"]["caught"]) == (1.0, 1.0)


def test_a_reference_is_kept_as_data_and_bound_to_its_weights(tmp_path):
    known = np.random.default_rng(0).normal(size=(60, 4))
    reference = fit(known, LAYERS, "a" * 64)
    path = tmp_path / "trust" / "familiarity.npz"
    familiarity.write(path, reference)
    again = familiarity.read(path, "a" * 64)
    np.testing.assert_allclose(familiarity.distances(again, known), familiarity.distances(reference, known), rtol=1e-5)
    with pytest.raises(ConfigurationError, match="other weights"):
        familiarity.read(path, "b" * 64)
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        familiarity.read(path, "a" * 64)
    with pytest.raises(RefusedError, match="4"):
        familiarity.judge(reference, known[0, :3])


def image():
    generator = np.random.default_rng(0)
    return generator.normal(size=(1, 6, 8, 10)).astype(np.float32)


def test_a_model_that_ignores_what_is_varied_is_sure():
    found = shaken(lambda _: np.array([0.25, 0.75]), image(), mirror_axes=(3,), repeats=3)
    assert found.variants == 5
    np.testing.assert_allclose(found.mean, [0.25, 0.75])
    assert found.deviation.max() == 0
    assert float(found.entropy_nats) == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert float(found.disagreement_nats) == pytest.approx(0, abs=1e-9)


def test_a_model_that_answers_the_mirror_image_otherwise_disagrees_with_itself():
    """It says "yes" for one side and "no" for the other: mean 1/2, deviation 1/2, mutual information ln 2."""
    picture = np.zeros((1, 4, 4, 4), np.float32)
    picture[..., :2] = 1

    def left(given):
        side = float(given[..., :2].mean() > given[..., 2:].mean())
        return np.array([side, 1 - side])

    found = shaken(left, picture, mirror_axes=(3,), repeats=0)
    np.testing.assert_allclose(found.mean, [0.5, 0.5])
    np.testing.assert_allclose(found.deviation, [0.5, 0.5])
    assert float(found.disagreement_nats) == pytest.approx(np.log(2))


def test_maps_are_mirrored_back():
    def threshold(given):
        inside = 1 / (1 + np.exp(-4 * given[0]))
        return np.stack([1 - inside, inside])

    picture = image()
    found = shaken(threshold, picture, mirror_axes=(1, 2, 3), repeats=0)
    np.testing.assert_allclose(found.mean, threshold(picture), rtol=1e-6)
    assert found.deviation.max() < 1e-6


def test_noise_moves_what_lies_near_the_decision():
    def threshold(given):
        inside = 1 / (1 + np.exp(-20 * given[0]))
        return np.stack([1 - inside, inside])

    picture = image()
    found = shaken(threshold, picture, noise=0.05, repeats=12)
    near, far = np.abs(picture[0]) < 0.05, np.abs(picture[0]) > 1.0
    assert found.disagreement_nats[near].mean() > 20 * found.disagreement_nats[far].mean()
    again = shaken(threshold, picture, noise=0.05, repeats=12)
    np.testing.assert_array_equal(found.mean, again.mean)


@pytest.mark.parametrize("answer", [np.array([0.5, np.nan]), np.array([-3.0, 4.0])])
def test_answers_that_are_no_probabilities_are_refused(answer):
    with pytest.raises(RefusedError, match="no probabilities"):
        shaken(lambda _: answer, image())


@pytest.fixture(scope="module")
def series():
    return make_series(np.zeros((6, 12, 14)), spacing=(1.0, 1.0, 2.0), orientation=(0.96, 0.28, 0, -0.28, 0.96, 0))


def test_an_overlay_lies_where_its_map_lies(series):
    """A map that is linear in space reads the same from both grids, and nothing is known beyond it."""
    volume = load_series(series)
    affine = volume.affine_lps @ np.array([[0.5, 0, 0, 2], [0, 0.5, 0, 3], [0, 0, 0.5, 1], [0, 0, 0, 1.0]])
    k, j, i = np.indices((7, 9, 11))
    points = affine @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)])
    field = np.array([0.01, 0.02, -0.015, 0.3])
    array = (field @ points).reshape(7, 9, 11).astype(np.float32)
    made = saliency_overlay(array, affine, volume)
    for index in ((2, 4, 4), (3, 6, 5), (4, 7, 7)):
        place = volume.affine_lps @ [index[2], index[1], index[0], 1]
        assert made.values[index] == pytest.approx(field @ place, abs=1e-5)
    assert np.isnan(made.values[0]).all()
    assert np.isnan(made.values[3, 0, 0])
    stored = make_map(inspect_series(series)[0].frames, volume, made, 1, MADE)
    assert stored.modality in ("OT", "PM", volume.modality)
    assert uncertainty_overlay(array, affine, volume).unit == "{nat}"


def test_a_map_from_elsewhere_is_refused(series):
    volume = load_series(series)
    away = np.eye(4)
    away[:3, 3] = 5000
    with pytest.raises(RefusedError, match="different places"):
        onto(np.zeros((2, 2, 2), np.float32), away, volume)


@pytest.mark.shared_data
def test_the_shipped_reference_tells_a_hippocampus_crop_from_its_negative(shared_data, repository_root):
    from pipelines.trust import hippocampus as cases
    from services.imaging.hippocampus import familiarity_features, load_bundle, network_input

    model = load_bundle(repository_root / "models" / "hippocampus")
    array, affine = cases.foreign(shared_data)
    judged = [
        familiarity.judge(
            model.familiar, familiarity_features(model.network, network_input(part, affine), model.familiar.layers)
        )
        for part in (array, array.max() - array)
    ]
    assert [found.outside for found in judged] == [False, True]
