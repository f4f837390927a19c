"""The PET lesion network and the grid that it reads, shared by training and inference.

A reader's box around a lesion spans the grid: the network sees every lesion at the same size and place, whatever its
extent, and is told the true extent by a channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

#: Voxels of the grid (z, y, x).
GRID_ZYX = (32, 24, 24)
#: Edge of the grid over edge of the box: what lies around a lesion tells where it ends.
REACH = 1.4
CHANNELS = 5
#: The first channels hold the picture; the others place and size.
PICTURES = 3
#: Standard deviations of the Gaussian means, in voxels of the grid.
WIDTHS = (0.8, 1.6, 3.2)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A box along the axes of a volume, (z, y, x) in voxels; voxel n reaches from n to n + 1."""

    start: Triple
    stop: Triple

    @property
    def centre(self) -> Triple:
        """Middle of the box, in voxels."""
        z, y, x = ((low + high) / 2 for low, high in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def edges(self) -> Triple:
        """Lengths of the edges, in voxels."""
        z, y, x = (high - low for low, high in zip(self.start, self.stop, strict=True))
        return z, y, x


def tight_box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around a mask (z, y, x) that is not empty."""
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    z, y, x = ((float(span[0]), float(span[-1] + 1)) for span in spans)
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


class VoxelNetwork(torch.nn.Module):
    """Decides voxel by voxel from the channels, their Gaussian means at three widths, and the place in the box.

    All that it sees is symmetric in the box's axes, so that a lesion and its mirror image get one outline. `hidden`: width of
    the two hidden layers.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        for number, width in enumerate(WIDTHS):
            self.register_buffer(f"kernel{number}", _gaussian(width))
        self.register_buffer("place", _place())
        self.place: torch.Tensor
        count = CHANNELS + 2 * PICTURES * len(WIDTHS) + self.place.shape[1]
        # Set from the fitted voxels, so that every feature has zero mean and unit spread.
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(count, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, 1),
        )

    def features(self, grids: torch.Tensor) -> torch.Tensor:
        """What each voxel is decided from: (n, z, y, x, feature)."""
        pictures = grids[:, :PICTURES]
        parts = [grids, self.place.expand(grids.shape[0], -1, -1, -1, -1)]
        for number in range(len(WIDTHS)):
            mean = _blurred(pictures, getattr(self, f"kernel{number}"))
            parts += [mean, pictures - mean]
        return torch.cat(parts, dim=1).movedim(1, -1)

    def decide(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (..., 1) from features (..., feature)."""
        found: torch.Tensor = self.layers((features - self.mean) / self.scale)
        return found

    def forward(self, grids: torch.Tensor) -> torch.Tensor:
        return self.decide(self.features(grids)).movedim(-1, 1)


def _gaussian(width: float) -> torch.Tensor:
    reach = round(3 * width)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / width) ** 2)
    return taps / taps.sum()


def _blurred(pictures: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Gaussian means along each axis, border values beyond the grid."""
    count, reach = pictures.shape[1], taps.shape[0] // 2
    for axis in range(3):
        shape, pads = [1, 1, 1], [0] * 6
        shape[axis] = taps.shape[0]
        pads[2 * (2 - axis)] = pads[2 * (2 - axis) + 1] = reach
        kernel = taps.view(1, 1, shape[0], shape[1], shape[2]).expand(count, 1, -1, -1, -1)
        pictures = functional.conv3d(functional.pad(pictures, pads, mode="replicate"), kernel, groups=count)
    return pictures


def _place() -> torch.Tensor:
    """Distances from the middle: along the long axis, within the plane, and to the nearest face; 1 at the box's faces."""
    z, y, x = (axis.abs() for axis in _axes())
    within = (y**2 + x**2).sqrt()
    return torch.stack([z, y + x, within, torch.maximum(torch.maximum(z, y), x), (z**2 + y**2 + x**2)])[None]


def _axes() -> list[torch.Tensor]:
    """The grid's coordinates along (z, y, x), each of the grid's shape; 1 at the box's faces."""
    axes = [((torch.arange(n, dtype=torch.float32) + 0.5) / n * 2 - 1) * REACH for n in GRID_ZYX]
    return list(torch.meshgrid(*axes, indexing="ij"))


def _unit_coordinates(sizes: tuple[int, ...], box: Box, reach: float) -> list[torch.Tensor]:
    """Along each axis, the voxel centres of a volume in units of the grid: -1 and 1 are its faces."""
    return [
        (torch.arange(n, dtype=torch.float32) + 0.5 - middle) / (edge / 2 * reach)
        for n, middle, edge in zip(sizes, box.centre, box.edges, strict=True)
    ]


def _lattice(axes: list[torch.Tensor]) -> torch.Tensor:
    """Points for `grid_sample`: (1, z, y, x, 3), last axis (x, y, z)."""
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)[None]


def to_grid(volume: torch.Tensor, box: Box) -> torch.Tensor:
    """A volume (z, y, x) on the grid of a box, linearly interpolated; the volume's border value beyond it."""
    axes = []
    for count, size, middle, edge in zip(GRID_ZYX, volume.shape, box.centre, box.edges, strict=True):
        unit = (torch.arange(count, dtype=torch.float32) + 0.5) / count * 2 - 1
        axes.append((middle + unit * edge / 2 * REACH) / size * 2 - 1)
    sampled = functional.grid_sample(volume[None, None], _lattice(axes), padding_mode="border", align_corners=False)
    return sampled[0, 0]


def from_grid(grid: torch.Tensor, box: Box, shape: tuple[int, ...]) -> torch.Tensor:
    """What `to_grid` maps, back on a volume of `shape`; zero outside the grid."""
    points = _lattice(_unit_coordinates(shape, box, REACH))
    inside = (points.abs() <= 1).all(dim=-1)[0]
    sampled = functional.grid_sample(grid[None, None], points, padding_mode="border", align_corners=False)
    return sampled[0, 0] * inside


def radius() -> torch.Tensor:
    """Distance of each point of the grid from its centre; 1 on the ellipsoid that touches the box's faces."""
    z, y, x = _axes()
    return (z**2 + y**2 + x**2).sqrt()


def channels(suv_grid: torch.Tensor, box_mm3: float) -> torch.Tensor:
    """What the network reads (5, z, y, x) from SUV (g/mL) on the grid of a box of `box_mm3`.

    SUV, SUV over the box's own high values, SUV over the surroundings, place in the box, size of the box.
    """
    suv = suv_grid.clamp(min=0)
    place = radius()
    high = torch.quantile(suv[place <= 1], 0.95).clamp(min=0.1)
    around = suv[place > 1.3].median()
    return torch.stack(
        [
            torch.log1p(suv) - 1,
            (suv / high).clamp(max=1.5) * 2 - 1,
            torch.log((suv + 0.3) / (around + 0.3)).clamp(-2, 3),
            place * 2 - 2,
            torch.full_like(suv, math.log10(max(box_mm3, 1.0)) - 5.5),
        ]
    )


def probabilities(network: torch.nn.Module, suv_grid: torch.Tensor, box_mm3: float) -> torch.Tensor:
    """Chance of lesion on the grid (z, y, x)."""
    with torch.inference_mode():
        chance: torch.Tensor = torch.sigmoid(network(channels(suv_grid, box_mm3)[None]))
    return chance[0, 0]


class Ensemble(torch.nn.Module):
    """The members' mean log-odds, as they are stored in a TorchScript file: (n, 5, *GRID_ZYX) to (n, 1, *GRID_ZYX)."""

    def __init__(self, members: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)

    def forward(self, grids: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(grids[:, :1])
        for member in self.members:
            total = total + member(grids)
        return total / len(self.members)


def members_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The members inside a loaded `Ensemble`."""
    (members,) = (child for name, child in network.named_children() if name == "members")
    return [module for _, module in sorted(members.named_children(), key=lambda pair: int(pair[0]))]
