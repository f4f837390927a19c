"""Weights to a network: state dict, TorchScript and ONNX, from the very bytes whose SHA-256 was checked.

- State dict: `torch.load(weights_only=True)` into the network that inference.json describes; nothing pickled but tensors,
  and the network is a class of MONAI or torch (policy.py).
- TorchScript: `torch.jit.load`; the file holds no Python, and operators that reach files, or custom ones, are refused first.
- ONNX: onnxruntime on the CPU, from bytes; a fixed set of operators, and weights outside the file cannot be reached.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from services.imaging.host import policy
from services.imaging.host.manifest import check_bytes
from services.imaging.host.package import Format, Package
from services.imaging.host.refusals import refused

_CUSTOM = re.compile(r"\bops\.(\w+)\.")
#: Names under which checkpoints keep the state dict.
_NESTED = ("state_dict", "model", "net", "network", "model_state_dict")


@dataclass(frozen=True)
class Network:
    """A network ready to be called: `forward` takes and gives float32 (batch, channel, space) on `device`.

    `module`: for saliency, where gradients can be had; None for ONNX. `size_bytes`: of the weights.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device
    size_bytes: int
    module: torch.nn.Module | None


def load_network(package: Package, device: torch.device) -> Network:
    """Raises RefusedError `model.*` for weights that are absent, changed, unsafe or of another network."""
    name = package.weights.relative_to(package.folder).as_posix()
    content = package.weights.read_bytes()
    check_bytes(package.name, name, hashlib.sha256(content).hexdigest(), package.weights_sha256)
    if package.format is Format.ONNX:
        return _onnx(package.name, content)
    if package.format is Format.TORCHSCRIPT:
        module = _torchscript(package.name, content, device)
    else:
        module = _described(package, content, device)
    module = module.to(device).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Network(_plain(module, device), device, _size(module), module)


def _plain(module: torch.nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        if device.type == "cuda":
            with torch.autocast("cuda", dtype=torch.bfloat16):
                return _first(module(batch)).float()
        return _first(module(batch)).float()

    return forward


def _first(output: Any) -> torch.Tensor:
    """The prediction: networks with deep supervision give it first, or stacked along axis 1 (MONAI's DynUNet)."""
    while isinstance(output, (list, tuple)):
        output = output[0]
    if not isinstance(output, torch.Tensor):
        raise refused("wrong_output", f"the network gives {type(output).__name__}, not a tensor")
    return output


def _size(module: torch.nn.Module) -> int:
    return sum(part.numel() * part.element_size() for part in (*module.parameters(), *module.buffers()))


def _described(package: Package, content: bytes, device: torch.device) -> torch.nn.Module:
    section = "network_def" if "network_def" in package.inference else "network"
    network = policy.build(package.inference, section, known_values(device))
    if not isinstance(network, torch.nn.Module):
        raise refused("no_network", f"{package.name} bundle: inference.json describes no network_def")
    try:
        network.load_state_dict(state_dict(package.name, content))
    except RuntimeError as error:
        raise refused(
            "weights_do_not_fit", f"{package.name} bundle: metadata, network and weights do not fit: {_short(error)}"
        ) from error
    return network


def known_values(device: torch.device) -> dict[str, Any]:
    """What the host says, whatever a configuration says of it."""
    return {"device": device, "sw_device": device, "bundle_root": ".", "output_dir": ".", "dataset_dir": "."}


def state_dict(package: str, content: bytes) -> Mapping[str, torch.Tensor]:
    """Tensors by name. Raises RefusedError `model.unsafe_weights` for a pickle that holds anything else."""
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refused(
            "unsafe_weights",
            f"{package} bundle: the weights file holds more than tensors, and nothing of it was run",
            "Ask the makers for a plain state dict: torch.save(network.state_dict(), path).",
        ) from error
    except Exception as error:  # a damaged file raises whatever the reader met
        raise refused(
            "unreadable_weights", f"{package} bundle: the weights cannot be read ({type(error).__name__})"
        ) from error
    for name in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise refused("unreadable_weights", f"{package} bundle: the weights file holds no state dict")
    return loaded


def _torchscript(package: str, content: bytes, device: torch.device) -> torch.nn.Module:
    rules = policy.rules()["torchscript"]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            code = [
                archive.read(name).decode("utf-8", "replace") for name in archive.namelist() if name.endswith(".py")
            ]
    except (zipfile.BadZipFile, EOFError) as error:
        raise refused("unreadable_weights", f"{package} bundle: the TorchScript file cannot be read") from error
    for text in code:
        found = [word for word in rules["refused"] if word in text]
        found += [f"ops.{space}" for space in _CUSTOM.findall(text) if space not in rules["namespaces"]]
        if found:
            raise refused("unsafe_weights", f"{package} bundle: the TorchScript program uses {found[0].rstrip('(')}")
    try:
        module: torch.nn.Module = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise refused("unreadable_weights", f"{package} bundle: the TorchScript file cannot be loaded") from error
    return module


def _onnx(package: str, content: bytes) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base beside it
        raise refused(
            "unreadable_weights", f"{package} bundle: the ONNX file cannot be loaded: {_short(error)}"
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise refused("wrong_input", f"{package} bundle: the ONNX network takes {len(inputs)} inputs, not one")

    def forward(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {inputs[0].name: batch.contiguous().numpy()})[0]).float()

    return Network(forward, torch.device("cpu"), len(content), None)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
