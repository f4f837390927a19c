"""A first run on a declared synthetic input: the network answers, with finite numbers, and as it did when it was sealed."""

from __future__ import annotations

import re

import numpy as np
import torch

from services.imaging.host.formats import Network
from services.imaging.host.manifest import WarmUp
from services.imaging.host.package import Package
from services.imaging.host.policy import build
from services.imaging.host.refusals import refused

_SAMPLES = 16
#: Space for "*" and for n in "16*n" when the package states no size.
_ANY_SIZE = 32
_LARGEST = 96


def declare(package: Package, network: Network, seed: int = 0) -> WarmUp:
    """What the network gives now on the synthetic input of its declared shape."""
    shape = declared_shape(package)
    return WarmUp(seed, shape, _summary(network, seed, shape))


def check(package: Package, network: Network) -> float:
    """Runs the warm-up; returns the largest deviation, as a fraction of the largest expected magnitude.

    Raises RefusedError `model.warm_up_differs`, `model.not_finite`, or `model.warm_up_failed`.
    """
    manifest = package.manifest
    warm = manifest.warm_up if manifest else None
    if warm is None:
        _summary(network, 0, declared_shape(package))
        return 0.0
    found = _summary(network, warm.seed, warm.shape)
    scale = max((abs(value) for name, value in warm.expected.items() if name != "size"), default=1.0) or 1.0
    if set(found) != set(warm.expected) or found["size"] != warm.expected["size"]:
        raise refused(
            "warm_up_differs", f"{package.name} bundle: the warm-up gives another shape of output than recorded"
        )
    worst = max(abs(found[name] - value) for name, value in warm.expected.items()) / scale
    if worst > warm.tolerance:
        raise refused(
            "warm_up_differs",
            f"{package.name} bundle: the warm-up differs from the recorded one by {worst:.2g}, tolerance {warm.tolerance:g}",
            "The weights or a library changed what the model computes: do not use it before it was evaluated anew.",
            package.name,
        )
    return worst


def declared_shape(package: Package) -> tuple[int, ...]:
    """(batch, channel, space) of the synthetic input: a patch of the inferer's size, else the declared shape."""
    image = package.metadata.image
    roi = package.inference.get("inferer", {}).get("roi_size")
    if isinstance(roi, list) and all(isinstance(size, int) and size > 0 for size in roi):
        space = tuple(min(size, _LARGEST) for size in roi)
    else:
        space = tuple(_size(size) for size in image.spatial_shape) or (_ANY_SIZE,) * 3
    return (1, image.num_channels, *space)


def _size(declared: int | str) -> int:
    """A size that fulfils "*", 96, "16*n" or "2**p*n"."""
    if isinstance(declared, int) or str(declared).isdigit():
        return int(declared)
    factor = re.match(r"^(\d+)\s*\*\s*n$", str(declared).strip())
    if factor is None:
        return _ANY_SIZE
    step = int(factor.group(1))
    return step * max(1, _ANY_SIZE // step)


def _summary(network: Network, seed: int, shape: tuple[int, ...]) -> dict[str, float]:
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    try:
        with torch.inference_mode():
            output = network.forward(torch.from_numpy(noise).to(network.device)).cpu().numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise refused(
            "warm_up_failed", f"the network does not take an input of shape {shape} ({type(error).__name__})"
        ) from error
    if not np.isfinite(output).all():
        raise refused("not_finite", "the network gives values that are no numbers on its warm-up input")
    flat = output.reshape(-1).astype(np.float64)
    places = np.linspace(0, flat.size - 1, _SAMPLES).astype(int)
    summary = {f"value[{place}]": float(flat[place]) for place in dict.fromkeys(places.tolist())}
    whole = {"size": float(flat.size), "mean": float(flat.mean()), "standard deviation": float(flat.std())}
    return whole | summary


def builds(package: Package) -> None:
    """Builds every section of the configuration once. Raises RefusedError `model.unsafe_config` or `invalid_config`."""
    from services.imaging.host.formats import known_values
    from services.imaging.host.policy import rules

    for section in rules()["sections"]:
        build(package.inference, section, known_values(torch.device("cpu")))
