"""State dict, TorchScript and ONNX of one network give one answer; files that reach further are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.imaging.host import manifest
from services.imaging.host.contract import Inputs
from services.imaging.host.formats import load_network
from services.imaging.host.model import PackagedModel, load
from services.imaging.host.package import Format, read_package
from services.platform.errors import RefusedError
from tests.unit.imaging.bundle_samples import BOX_MM3, bright_box, threshold_state, write_bundle

CPU = torch.device("cpu")


def network():
    made = torch.nn.Conv3d(1, 2, 1)
    made.load_state_dict(threshold_state())
    return made


def swap(folder, suffix, save):
    """Replaces the weights by a file of another format, and the network of the configuration by none."""
    (folder / "models" / "model.pt").unlink()
    save(folder / "models" / f"model{suffix}")
    manifest.write(folder)
    return read_package(folder)


def onnx_model(*, external=None):
    from onnx import TensorProto, helper, numpy_helper

    state = {name: tensor.numpy() for name, tensor in threshold_state().items()}
    shape_in, shape_out = ["n", 1, "x", "y", "z"], ["n", 2, "x", "y", "z"]
    weights = [numpy_helper.from_array(value, name) for name, value in state.items()]
    if external is not None:
        weights[0].ClearField("raw_data")
        weights[0].data_location = TensorProto.EXTERNAL
        weights[0].external_data.add(key="location", value=str(external))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["pred"])],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("pred", TensorProto.FLOAT, shape_out)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("form", list(Format))
def test_one_answer_from_each_format(tmp_path, form):
    folder = write_bundle(tmp_path / "bundle")
    if form is Format.TORCHSCRIPT:
        package = swap(folder, ".ts", lambda path: torch.jit.script(network()).save(str(path)))
    elif form is Format.ONNX:
        package = swap(folder, ".onnx", lambda path: path.write_bytes(onnx_model().SerializeToString()))
    else:
        package = read_package(folder)
    assert package.format is form
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 9, 8, 7)).astype(np.float32))
    with torch.inference_mode():
        torch.testing.assert_close(load_network(package, CPU).forward(noise), network()(noise), atol=1e-5, rtol=1e-5)
    result = PackagedModel(load(package)).run(Inputs({"image": bright_box()}))
    assert result.measurements[0].value.value == pytest.approx(BOX_MM3, rel=1e-5)


def refused(package):
    with pytest.raises(RefusedError) as caught:
        load_network(package, CPU)
    return caught.value


class _Saves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "/tmp/osler-should-not-be-there")
        return x


class _ReadsFile(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file("/etc/hostname", False, 1) + x


@pytest.mark.parametrize("program", [_Saves, _ReadsFile])
def test_torchscript_that_reaches_files_is_refused(tmp_path, program):
    scripted = torch.jit.script(program())
    package = swap(write_bundle(tmp_path / "bundle"), ".ts", lambda path: scripted.save(str(path)))
    assert refused(package).reason == "model.unsafe_weights"


def test_torchscript_that_is_none(tmp_path):
    package = swap(write_bundle(tmp_path / "a"), ".ts", lambda path: path.write_bytes(b"nothing"))
    assert refused(package).reason == "model.unreadable_weights"
    package = swap(write_bundle(tmp_path / "b"), ".ts", lambda path: torch.save(threshold_state(), path))
    assert refused(package).reason == "model.unreadable_weights"


def test_onnx_weights_outside_the_file_are_not_reached(tmp_path):
    outside = tmp_path / "weights.bin"
    outside.write_bytes(threshold_state()["weight"].numpy().tobytes())
    model = onnx_model(external=outside)
    package = swap(write_bundle(tmp_path / "bundle"), ".onnx", lambda path: path.write_bytes(model.SerializeToString()))
    assert refused(package).reason == "model.unreadable_weights"


def test_onnx_that_is_none_or_custom(tmp_path):
    package = swap(write_bundle(tmp_path / "a"), ".onnx", lambda path: path.write_bytes(b"nothing"))
    assert refused(package).reason == "model.unreadable_weights"
    custom = onnx_model()
    custom.graph.node[0].domain = "com.example"
    package = swap(write_bundle(tmp_path / "b"), ".onnx", lambda path: path.write_bytes(custom.SerializeToString()))
    assert refused(package).reason == "model.unreadable_weights"


def test_weights_kept_under_a_name_in_a_checkpoint(tmp_path):
    folder = write_bundle(tmp_path / "bundle", state={"model": threshold_state()})
    assert load_network(read_package(folder), CPU).size_bytes == 4 * 4
