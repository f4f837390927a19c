"""Whether an input is like those that a network was made for: Mahalanobis distance of its inner features.

Source: Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018
(arXiv:1807.03888), here with one class, features from several layers pooled to mean and standard deviation, and a
covariance shrunk after Ledoit and Wolf, J Multivar Anal 2004;88:365.

    reference = read("models/hippocampus/trust/familiarity.npz", weights_sha256)
    judged = judge(reference, features(network, batch, reference.layers)[0])
    judged.outside, judged.distance, judged.limit
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from services.platform.errors import ConfigurationError, RefusedError

Floats = NDArray[np.float64]
FORMAT = 1


@dataclass(frozen=True)
class Reference:
    """What known inputs look like from inside the network.

    Attributes:
        layers: names of the network's submodules, in the order of their features.
        mean, scale: (d,) of each feature among known inputs.
        precision: (d, d) inverse covariance of the scaled features.
        limit: distance that `level` of known inputs, kept out of the fit, stay below.
        fitted, held_out: how many inputs the fit and the limit rest on.
        weights_sha256: of the network; features of other weights mean nothing.
    """

    layers: tuple[str, ...]
    mean: Floats
    scale: Floats
    precision: Floats
    limit: float
    level: float
    fitted: int
    held_out: int
    weights_sha256: str


@dataclass(frozen=True)
class Familiarity:
    """`distance`: root mean square of the features' deviations, about 1 for known inputs; `outside`: above the limit."""

    distance: float
    limit: float

    @property
    def outside(self) -> bool:
        return not self.distance <= self.limit


class _AllSeen(Exception):  # noqa: N818 - ends a pass, and tells of no error
    """Every layer asked for has been computed."""


def features(network: torch.nn.Module, batch: torch.Tensor, layers: Sequence[str]) -> Floats:
    """(n, d): spatial mean and standard deviation of each channel of each layer, for `batch` (n, channel, space).

    The pass ends where the last of `layers` has been computed. Raises ConfigurationError for a
    layer that the network does not have.
    """
    modules = dict(network.named_modules())
    missing = [name for name in layers if name not in modules]
    if missing:
        raise ConfigurationError(f"the network has no layer {', '.join(missing)}: fit its familiarity reference again")
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, output: torch.Tensor) -> None:
        seen[name] = output
        if len(seen) == len(layers):
            raise _AllSeen

    hooks = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name in layers
    ]
    try:
        with torch.inference_mode(), suppress(_AllSeen):
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    parts = []
    for name in layers:
        flat = seen[name].detach().flatten(2).double()
        parts += [flat.mean(dim=2), flat.std(dim=2)]
    return np.asarray(torch.cat(parts, dim=1).cpu().numpy(), dtype=np.float64)


def distances(reference: Reference, found: Floats) -> Floats:
    """(n,) distances of features (n, d)."""
    scaled = (found - reference.mean) / reference.scale
    squared = np.einsum("ij,jk,ik->i", scaled, reference.precision, scaled) / scaled.shape[1]
    return np.sqrt(np.clip(squared, 0, None))


def judge(reference: Reference, found: Floats) -> Familiarity:
    """How familiar one input's features (d,) are. Raises RefusedError `familiarity.wrong_features`."""
    if found.shape != reference.mean.shape:
        raise RefusedError(
            "familiarity.wrong_features",
            f"{found.size} features, but the reference was made of {reference.mean.size}",
            remedy="Fit the reference again for this network.",
        )
    return Familiarity(float(distances(reference, found[None])[0]), reference.limit)


def write(path: Path, reference: Reference) -> None:
    """Writes a reference as data: numbers and names, no code."""
    words = {"format": FORMAT, "layers": reference.layers, "limit": reference.limit, "level": reference.level,
             "fitted": reference.fitted, "held_out": reference.held_out, "weights_sha256": reference.weights_sha256}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        words=np.frombuffer(json.dumps(words).encode(), np.uint8),
        mean=reference.mean.astype(np.float32),
        scale=reference.scale.astype(np.float32),
        precision=reference.precision.astype(np.float32),
    )


def read(path: Path, weights_sha256: str) -> Reference:
    """A written reference for a network of these weights.

    Raises ConfigurationError when the file cannot be read, or belongs to other weights.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            words = json.loads(stored["words"].tobytes().decode())
            reference = Reference(
                layers=tuple(str(name) for name in words["layers"]),
                mean=stored["mean"].astype(np.float64),
                scale=stored["scale"].astype(np.float64),
                precision=stored["precision"].astype(np.float64),
                limit=float(words["limit"]),
                level=float(words["level"]),
                fitted=int(words["fitted"]),
                held_out=int(words["held_out"]),
                weights_sha256=str(words["weights_sha256"]),
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path.name}: the familiarity reference cannot be read ({error})") from error
    if reference.weights_sha256 != weights_sha256:
        raise ConfigurationError(f"{path.name}: made for other weights; fit it again with python -m pipelines.trust")
    return reference
