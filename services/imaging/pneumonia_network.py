"""The pneumonia networks and their forward passes, shared by training and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet
from numpy.typing import NDArray
from torch.nn import functional

#: The only network class that a recipe may name.
NETWORK_CLASS = "ResNet"
#: Edge of the square that the networks read, in pixels.
SIZE = 28
#: Images that pass a network together.
AT_ONCE = 256


def build_member(definition: Mapping[str, Any]) -> ResNet:
    """One member of the ensemble, with random weights.

    Raises:
        ValueError: `definition` names a class other than `NETWORK_CLASS`.
    """
    target = str(definition.get("_target_", "")).rsplit(".", 1)[-1]
    if target != NETWORK_CLASS:
        raise ValueError(f"network_def names {target or 'no class'}, expected {NETWORK_CLASS}")
    return ResNet(**{key: value for key, value in definition.items() if not key.startswith("_")})


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Each image (n, 1, h, w) to zero mean and unit standard deviation: exposure is no sign of pneumonia."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    spread = images.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-4)
    return (images - mean) / spread


class Ensemble(torch.nn.Module):
    """The members' mean log-odds, as they are stored in a TorchScript file.

    `forward`: images (n, 1, 28, 28) in [0, 1], rows downwards, to logits (n, 1); divided by the package's temperature they
    are the log-odds of pneumonia at the prevalence that the package states. `offset` carries bias and prevalence.
    """

    def __init__(self, members: Sequence[torch.nn.Module], offset: float) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self.register_buffer("offset", torch.tensor(offset))
        self.offset: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        standard = standardise(images)
        total = torch.zeros(images.shape[0], 1, device=images.device)
        for member in self.members:
            total = total + (member(standard) + member(standard.flip(3))) / 2
        return total / len(self.members) + self.offset


def member_logits(member: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """One member's log-odds (n,) at equal prevalence: images in [0, 1] as they are and mirrored, averaged."""
    with torch.inference_mode():
        batches = (standardise(part) for part in images.split(AT_ONCE))
        return torch.cat([((member(batch) + member(batch.flip(3))) / 2).flatten() for batch in batches])


def members_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The members inside a loaded `Ensemble`."""
    (members,) = (child for name, child in network.named_children() if name == "members")
    return [module for _, module in sorted(members.named_children(), key=lambda pair: int(pair[0]))]


def to_square(picture: NDArray[np.float32]) -> torch.Tensor:
    """A picture (rows, columns), dense tissue bright, as (1, 1, 28, 28) in [0, 1].

    The middle square of the shorter edge, as MedMNIST made its images (Yang et al., 2023), averaged down. A picture of
    28x28 pixels is only scaled.
    """
    rows, columns = picture.shape
    edge = min(rows, columns)
    top, left = (rows - edge) // 2, (columns - edge) // 2
    square = np.ascontiguousarray(picture[top : top + edge, left : left + edge], dtype=np.float32)
    low, high = float(square.min()), float(square.max())
    scaled = torch.from_numpy((square - low) / max(high - low, 1e-6))[None, None]
    return functional.interpolate(scaled, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
