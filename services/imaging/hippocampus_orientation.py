"""Does the picture agree with the orientation that its header records?

The network knows the hippocampus in one orientation. Turned over front to back or head to foot it finds something like
it, but is much less sure. So the crop is also read turned over: a header that is right gives the reading with the least
entropy. Left and right cannot be told this way, for each side is the other's mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from services.imaging.hippocampus_network import pad_to_stride

#: Axes of (right, anterior, superior) that are turned over in each alternative.
ALTERNATIVES = {
    "front to back": (1,),
    "head to foot": (2,),
    "front to back and head to foot": (1, 2),
}


@dataclass(frozen=True)
class OrientationReading:
    """How the recorded orientation compares with the best alternative.

    Attributes:
        entropy_ratio: the alternative's mean entropy over the hippocampus, over that of the recorded orientation.
            Above 1 the header is borne out; below 1 the picture contradicts it.
        alternative: the best alternative, a key of `ALTERNATIVES`.
    """

    entropy_ratio: float
    alternative: str


def _foreground_entropy(network: torch.nn.Module, crop: torch.Tensor) -> float:
    """Mean entropy in nats over the voxels called hippocampus; ln 3, the most there is, where none are."""
    batch, inner = pad_to_stride(crop[None, None].float())
    with torch.inference_mode():
        chance = torch.softmax(network(batch), 1)[inner][0]
    foreground = (chance[1:] > chance[0]).any(0)
    if not foreground.any():
        return float(torch.log(torch.tensor(3.0)))
    return float(torch.special.entr(chance).sum(0)[foreground].mean())


def read_orientation(network: torch.nn.Module, crop: torch.Tensor) -> OrientationReading:
    """Compare a normalised crop (right, anterior, superior) with itself turned over."""
    recorded = _foreground_entropy(network, crop)
    turned = {name: _foreground_entropy(network, crop.flip(axes)) for name, axes in ALTERNATIVES.items()}
    best = min(turned, key=lambda name: turned[name])
    return OrientationReading(turned[best] / max(recorded, 1e-6), best)
