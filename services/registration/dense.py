"""What deformable registration computes on grids: warping, the exponential of a velocity, and local similarity (PyTorch).

All grids of a run span the same box from corner point to corner point; displacements are in steps of their own grid,
components in the order x, y, z, tensors (1, 3, z, y, x).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

_SMALL = 1e-5


def at(image: Tensor, displacement: Tensor) -> Tensor:
    """The image (1, c, z, y, x) at each point of its grid displaced; linear, the edge's value outside.

    A displacement on another grid of the same box is brought to the image's grid first.
    """
    size = image.shape[2:]
    spans = torch.tensor([max(1.0, n - 1.0) for n in displacement.shape[:1:-1]], device=image.device)
    steps = displacement * (2.0 / spans).view(1, 3, 1, 1, 1)
    if displacement.shape[2:] != size:
        steps = functional.interpolate(steps, size=size, mode="trilinear", align_corners=True)
    axes = [torch.linspace(-1, 1, n, device=image.device) for n in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y, z], dim=-1)[None] + steps.movedim(1, -1)
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def exponential(velocity: Tensor, squarings: int) -> Tensor:
    """Displacement after unit time along a velocity constant in time (scaling and squaring)."""
    moved = velocity / 2**squarings
    for _ in range(squarings):
        moved = moved + at(moved, moved)
    return moved


def spread(control: Tensor, bases: list[Tensor]) -> Tensor:
    """Spline control points (3, c, b, a) to a field (1, 3, z, y, x); `bases`: points by control points, for x, y, z."""
    along_x, along_y, along_z = bases
    made = torch.einsum("dcba,xa->dcbx", control, along_x)
    made = torch.einsum("dcbx,yb->dcyx", made, along_y)
    return torch.einsum("dcyx,zc->dzyx", made, along_z)[None]


class Similarity(Protocol):
    """How well two images fit when each is displaced: 0 at best."""

    def loss(self, moving: Tensor, fixed: Tensor | None) -> Tensor:
        """With the moving image at its points displaced by `moving`, and the fixed one by `fixed`."""
        ...


class Correlation:
    """One minus the squared correlation in windows of 8 voxels, every other voxel, where the fixed body is.

    Source: Avants BB et al. Med Image Anal 2008;12:26.
    """

    def __init__(self, fixed: Tensor, moving: Tensor, near: Tensor) -> None:
        self._fixed, self._moving = fixed, moving
        self._weight = _windows(near)

    def loss(self, moving: Tensor, fixed: Tensor | None) -> Tensor:
        """As in `Similarity`; 0..1."""
        first = self._fixed if fixed is None else at(self._fixed, fixed)
        second = at(self._moving, moving)
        joined = torch.cat([first, second, first * first, second * second, first * second], dim=1)
        a, b, aa, bb, ab = _windows(joined).split(1, dim=1)
        spread_a, spread_b = (aa - a * a).clamp_min(0) + _SMALL, (bb - b * b).clamp_min(0) + _SMALL
        share = (ab - a * b) ** 2 / (spread_a * spread_b)
        return 1 - (share * self._weight).sum() / self._weight.sum().clamp_min(_SMALL)


class Descriptors:
    """Mean difference of MIND descriptors with the six-neighbourhood, where the fixed body is; for two modalities.

    Source: Heinrich MP et al. Med Image Anal 2012;16:1423. Descriptors are made once, and displaced with the image: their
    neighbourhood turns with a deformation, which for the small turns of one is negligible.
    """

    def __init__(self, fixed: Tensor, moving: Tensor, near: Tensor) -> None:
        self._fixed, self._moving, self._weight = descriptors(fixed), descriptors(moving), near

    def loss(self, moving: Tensor, fixed: Tensor | None) -> Tensor:
        """As in `Similarity`; 0..1."""
        first = self._fixed if fixed is None else at(self._fixed, fixed)
        gap = ((first - at(self._moving, moving)) ** 2).mean(dim=1, keepdim=True)
        return (gap * self._weight).sum() / self._weight.sum().clamp_min(_SMALL)


def descriptors(image: Tensor) -> Tensor:
    """MIND of an image (1, 1, z, y, x): (1, 6, z, y, x) in 0..1, 1 towards the most alike neighbour."""
    padded = functional.pad(image, (1,) * 6, mode="replicate")
    depth, height, width = image.shape[2:]
    gaps = []
    for shift in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        z, y, x = shift
        gap = (padded[:, :, z : z + depth, y : y + height, x : x + width] - image) ** 2
        gaps.append(functional.avg_pool3d(gap, 3, stride=1, padding=1, count_include_pad=False))
    distance = torch.cat(gaps, dim=1)
    distance = distance - distance.min(dim=1, keepdim=True).values
    noise = distance.mean(dim=1, keepdim=True)
    return torch.exp(-distance / noise.clamp(min=1e-4 * float(noise.mean()) + 1e-9))


def _windows(image: Tensor) -> Tensor:
    """Means over windows of 8 voxels at every other voxel: pairs first, which costs an eighth."""
    pairs = functional.avg_pool3d(image, 2, ceil_mode=True)
    return functional.avg_pool3d(pairs, 4 if min(pairs.shape[2:]) >= 4 else 1, stride=1)
