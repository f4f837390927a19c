"""The hippocampus network and its forward passes, shared by training and inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets.dynunet import DynUNet
from torch.nn import functional

#: The only network class that a bundle may name: its configuration is data, not a way to run any code.
NETWORK_CLASS = "DynUNet"
#: The product of the network's strides: each size of its input is a multiple of this.
STRIDE = 8
#: Axis of Right in (batch, channel, right, anterior, superior).
RIGHT_AXIS = 2


def build_network(definition: Mapping[str, Any]) -> DynUNet:
    """The network that a bundle's `network_def` describes, with random weights.

    Raises:
        ValueError: `definition` names a class other than `NETWORK_CLASS`.
    """
    target = str(definition.get("_target_", "")).rsplit(".", 1)[-1]
    if target != NETWORK_CLASS:
        raise ValueError(f"network_def names {target or 'no class'}, expected {NETWORK_CLASS}")
    return DynUNet(**{key: value for key, value in definition.items() if not key.startswith("_")})


def pad_to_stride(batch: torch.Tensor) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Zero-pad (batch, channel, r, a, s) evenly to multiples of `STRIDE`; also the slices that take the padding off."""
    pads: list[int] = []
    inner: list[slice] = []
    for size in batch.shape[2:]:
        missing = -size % STRIDE
        before = missing // 2
        pads = [before, missing - before, *pads]
        inner.append(slice(before, before + size))
    return functional.pad(batch, pads), (slice(None), slice(None), *inner)


def probabilities(network: torch.nn.Module, crop: torch.Tensor) -> torch.Tensor:
    """Label probabilities of a normalised crop, once as it is and once mirrored left to right.

    Args:
        network: returns logits.
        crop: (r, a, s), from `hippocampus_grid.normalise`.

    Returns:
        (2, 3, r, a, s): pass, label, and the crop's axes; both passes in the crop's own orientation.
    """
    batch, inner = pad_to_stride(crop[None, None].float())
    with torch.inference_mode():
        direct = torch.softmax(network(batch), 1)
        mirrored = torch.softmax(network(batch.flip(RIGHT_AXIS)), 1).flip(RIGHT_AXIS)
    return torch.cat([direct[inner], mirrored[inner]])
