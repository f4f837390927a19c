"""A package run by the host gives the known answer, in the patient's geometry, whatever its format; or a refusal."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from services.clinical import codes
from services.imaging.host import manifest, warmup
from services.imaging.host.calls import Call, CallCancelledError, DeadlinePassedError
from services.imaging.host.contract import Inputs, TimeSeries
from services.imaging.host.explain import explain
from services.imaging.host.model import PackagedModel, load
from services.imaging.host.package import read_package
from services.platform.errors import RefusedError
from tests.unit.imaging.bundle_samples import (
    AFFINE,
    BOX_MM3,
    BOX_VOXELS,
    INFERENCE,
    METADATA,
    bright_box,
    threshold_state,
    write_bundle,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return PackagedModel(load(read_package(write_bundle(tmp_path_factory.mktemp("bundles") / "bright"))))


def model_of(folder):
    return PackagedModel(load(read_package(folder)))


def check_box(result):
    (mask,) = result.masks
    np.testing.assert_array_equal(mask.array, bright_box().array > 0.5)
    np.testing.assert_allclose(mask.affine_lps, AFFINE, atol=1e-5)
    (volume,) = result.measurements
    assert volume.value.value == pytest.approx(BOX_MM3, rel=1e-5)
    assert (volume.region, volume.value.concept, volume.value.unit) == ("bright", codes.VOLUME, "mm3")
    assert "not estimated" in volume.value.uncertainty


def test_the_known_answer_on_an_oblique_grid(model):
    result = model.run(Inputs({"image": bright_box()}))
    check_box(result)
    assert result.masks[0].concept == codes.LESION
    assert result.parameters["model"] == "bright@1.2.0"


def test_resampled_and_brought_back(tmp_path):
    inference = copy.deepcopy(INFERENCE)
    inference["preprocessing"]["transforms"].insert(
        1, {"_target_": "Spacingd", "keys": "image", "pixdim": [2, 2, 2], "mode": "bilinear"}
    )
    (mask,) = (
        model_of(write_bundle(tmp_path / "spaced", inference=inference)).run(Inputs({"image": bright_box()})).masks
    )
    truth = bright_box().array > 0.5
    assert mask.array.shape == truth.shape
    assert 2 * (mask.array & truth).sum() / (mask.array.sum() + BOX_VOXELS) > 0.9


def test_a_batch_gives_what_single_runs_give(model):
    volumes = [bright_box(seed=seed) for seed in range(3)] + [bright_box((12, 24, 28))]
    alone = [model.run(Inputs({"image": volume})) for volume in volumes]
    together = model.run_many([(Inputs({"image": volume}), Call().checkpoint) for volume in volumes])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.masks[0].array, other.masks[0].array)


def test_one_bad_input_of_a_batch_costs_only_itself(model):
    bad = dataclasses.replace(bright_box(), array=np.full((20, 24, 28), np.nan, np.float32))
    good, refused = model.run_many([(Inputs({"image": v}), Call().checkpoint) for v in (bright_box(), bad)])
    check_box(good)
    assert refused.reason == "model.input_not_finite"


def test_numbers_that_are_none_are_never_reported(tmp_path):
    state = threshold_state()
    state["bias"][1] = torch.nan
    broken = model_of(write_bundle(tmp_path / "nan", state=state))
    with pytest.raises(RefusedError) as caught:
        broken.run(Inputs({"image": bright_box()}))
    assert caught.value.reason == "model.not_finite"


def test_nan_for_one_of_a_batch_is_that_ones_refusal(tmp_path):
    """A logarithm of what is negative: the network itself breaks on one input only."""
    inference = {"network_def": {"_target_": "torch.nn.Sequential"}, "inferer": {"_target_": "SimpleInferer"}}
    folder = write_bundle(tmp_path / "root", inference=inference)
    scripted = torch.jit.script(_Root())
    (folder / "models" / "model.pt").unlink()
    scripted.save(str(folder / "models" / "model.ts"))
    manifest.write(folder)
    negative = dataclasses.replace(bright_box(), array=bright_box().array - 2)
    good, refused = model_of(folder).run_many(
        [(Inputs({"image": volume}), Call().checkpoint) for volume in (bright_box(), negative)]
    )
    assert good.masks
    assert refused.reason == "model.not_finite"


class _Root(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.sqrt(x), x], dim=1)


class TestInputs:
    def test_another_modality(self, model):
        with pytest.raises(RefusedError) as caught:
            model.run(Inputs({"image": bright_box(modality="MR")}))
        assert caught.value.reason == "model.wrong_modality"
        assert "CT" in caught.value.message

    def test_no_series(self, model):
        with pytest.raises(RefusedError) as caught:
            model.run(Inputs({}))
        assert caught.value.reason == "analysis.missing_input"

    def test_a_time_series_for_a_volume(self, model):
        series = TimeSeries((bright_box(), bright_box()), (0.0, 1.0))
        with pytest.raises(RefusedError) as caught:
            model.run(Inputs({"image": series}))
        assert caught.value.reason == "analysis.wrong_input"

    def test_times_that_do_not_rise(self):
        with pytest.raises(RefusedError) as caught:
            TimeSeries((bright_box(), bright_box()), (1.0, 1.0))
        assert caught.value.reason == "analysis.broken_time_series"

    def test_channels_are_roles_on_one_grid(self, tmp_path):
        metadata = copy.deepcopy(METADATA)
        metadata["network_data_format"]["inputs"]["image"] |= {
            "num_channels": 2,
            "channel_def": {"0": "T1 post", "1": "FLAIR"},
            "modality": "MR",
        }
        inference = {
            "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 2, "out_channels": 2, "kernel_size": 1}
        }
        weight = torch.zeros(2, 2, 1, 1, 1)
        weight[1, 1] = 20
        folder = write_bundle(
            tmp_path / "two",
            metadata=metadata,
            inference=inference,
            state={"weight": weight, "bias": threshold_state()["bias"]},
        )
        model = model_of(folder)
        assert [role.name for role in model.card.roles] == ["t1_post", "flair"]
        dark = dataclasses.replace(bright_box(modality="MR"), array=np.zeros((20, 24, 28), np.float32))
        check_box(model.run(Inputs({"t1_post": dark, "flair": bright_box(modality="MR")})))
        moved = dataclasses.replace(dark, affine_lps=AFFINE + _shift(1.0))
        with pytest.raises(RefusedError) as caught:
            model.run(Inputs({"t1_post": moved, "flair": bright_box(modality="MR")}))
        assert caught.value.reason == "model.grids_differ"


def _shift(mm):
    moved = np.zeros((4, 4))
    moved[0, 3] = mm
    return moved


class TestClassifier:
    """One picture in, class probabilities out: logits are the picture's mean, times a gain."""

    def build(self, tmp_path, **osler):
        metadata = copy.deepcopy(METADATA)
        metadata["network_data_format"]["inputs"]["image"] |= {"spatial_shape": [8, 8], "modality": "X-ray"}
        metadata["network_data_format"]["outputs"]["pred"] |= {
            "type": "logits",
            "format": "classes",
            "spatial_shape": [],
            "channel_def": {"0": "normal", "1": "pneumonia"},
        }
        metadata["osler"] = osler
        inference = {
            "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "EnsureTyped", "keys": "image"}]},
            "postprocessing": {"_target_": "Compose", "transforms": []},
            "inferer": {"_target_": "SimpleInferer"},
            "network_def": {"_target_": "monai.networks.blocks.Convolution"},
        }
        folder = write_bundle(tmp_path / "xray", metadata=metadata, inference=inference)
        network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2))
        with torch.no_grad():
            network[2].weight.copy_(torch.tensor([[0.0], [3.0]]))
            network[2].bias.zero_()
        torch.jit.script(network).save(str(folder / "models" / "model.ts"))
        (folder / "models" / "model.pt").unlink()
        manifest.write(folder)
        return model_of(folder)

    def picture(self, value=0.8, slices=1):
        return dataclasses.replace(bright_box(modality="DX"), array=np.full((slices, 8, 8), value, np.float32))

    def test_probabilities_are_softmax(self, tmp_path):
        found = self.build(tmp_path).run(Inputs({"image": self.picture()})).findings
        assert [item.concept.display for item in found] == ["normal", "pneumonia"]
        assert found[1].probability == pytest.approx(1 / (1 + np.exp(-2.4)), rel=1e-5)
        assert not found[1].calibrated
        assert found[1].not_estimated

    def test_a_temperature_calibrates(self, tmp_path):
        found = self.build(tmp_path, temperature=2.0).run(Inputs({"image": self.picture()})).findings
        assert found[1].probability == pytest.approx(1 / (1 + np.exp(-1.2)), rel=1e-5)
        assert found[1].calibrated

    def test_a_volume_is_no_picture(self, tmp_path):
        with pytest.raises(RefusedError) as caught:
            self.build(tmp_path).run(Inputs({"image": self.picture(slices=3)}))
        assert caught.value.reason == "model.not_a_picture"

    def test_saliency_is_complete(self, tmp_path):
        """The score is linear in the picture: attributions sum to its change, and every pixel counts alike."""
        found = explain(self.build(tmp_path), Inputs({"image": self.picture()}), 1, Call())
        assert found.score == pytest.approx(2.4, rel=1e-5)
        assert found.completeness_gap < 1e-3
        np.testing.assert_allclose(found.saliency.array, 1, atol=1e-5)
        with pytest.raises(RefusedError) as caught:
            explain(self.build(tmp_path), Inputs({"image": self.picture()}), 2, Call())
        assert caught.value.reason == "model.no_such_target"


class TestCalls:
    def test_progress_counts_windows(self, model):
        seen = []
        model.run(
            Inputs({"image": bright_box()}), Call(report=lambda done, total: seen.append((done, total))).checkpoint
        )
        totals = {total for done, total in seen[1:]}
        # 28 x 24 x 20 voxels in windows of 16 with a quarter's overlap: 2 x 2 x 2 windows, four at a time.
        assert totals == {2}
        assert [done for done, total in seen[1:]] == [0, 1]

    def test_a_passed_deadline_stops_between_windows(self, model):
        with pytest.raises(DeadlinePassedError):
            model.run(Inputs({"image": bright_box()}), Call(deadline=0.0).checkpoint)

    def test_a_caller_that_went_away_does_not_cost_the_others(self, model):
        steps = iter([False, False, True, True, True, True])
        gone = Call(cancelled=lambda: next(steps)).checkpoint
        requests = [(Inputs({"image": bright_box()}), gone), (Inputs({"image": bright_box()}), Call().checkpoint)]
        left, stayed = model.run_many(requests)
        assert left is not None
        check_box(stayed)
        with pytest.raises(CallCancelledError):
            model.run(Inputs({"image": bright_box()}), Call(cancelled=lambda: True).checkpoint)


class TestWarmUp:
    def test_it_holds_and_tells_when_the_network_changed(self, tmp_path):
        folder = write_bundle(tmp_path / "bundle")
        package = read_package(folder)
        declared = warmup.declare(package, load(package).network)
        assert declared.shape == (1, 1, 16, 16, 16)
        manifest.write(folder, "tests", declared)
        assert warmup.check(read_package(folder), load(read_package(folder)).network) == 0
        state = threshold_state()
        state["bias"][1] += 0.2
        torch.save(state, folder / "models" / "model.pt")
        manifest.write(folder, "tests", declared)
        with pytest.raises(RefusedError) as caught:
            warmup.check(read_package(folder), load(read_package(folder)).network)
        assert caught.value.reason == "model.warm_up_differs"
