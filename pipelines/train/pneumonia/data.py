"""PneumoniaMNIST on disk, and random variation for training.

The set (MedMNIST v2, Yang et al., Sci Data 10:41, 2023; source Kermany et al., Cell 172:1122, 2018): paediatric
anteroposterior chest X-rays of 28x28 pixels, uint8; label 0 normal, 1 pneumonia.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pipelines.train.common import DataError
from services.imaging.pneumonia_network import SIZE, standardise

FILE = "pneumoniamnist_train_val.npz"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """Images (n, 1, 28, 28) float32 from 0 to 1 and labels (n,) float32, 0 normal or 1 pneumonia."""

    images: torch.Tensor
    labels: torch.Tensor

    def pick(self, indices: NDArray[np.int_]) -> Part:
        """Some of the images."""
        chosen = torch.from_numpy(indices)
        return Part(self.images[chosen], self.labels[chosen])


def load_part(path: Path, part: str) -> Part:
    """Read one part; `path` is the .npz file or its folder.

    Raises:
        DataError: no such file or part, or arrays of another shape or other labels.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"no {FILE} in {path}")
    with np.load(file, allow_pickle=False) as content:
        if f"{part}_images" not in content:
            raise DataError(f"{file.name} holds no part {part!r}; it holds {', '.join(sorted(content.files))}")
        images, labels = content[f"{part}_images"], content[f"{part}_labels"].ravel()
    if images.shape[1:] != (SIZE, SIZE) or images.dtype != np.uint8 or len(images) != len(labels):
        raise DataError(f"{part}: expected uint8 images of {SIZE}x{SIZE} and a label each, found {images.shape}")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise DataError(f"{part}: expected labels 0 and 1, found {np.unique(labels).tolist()}")
    return Part(torch.from_numpy(images[:, None].astype(np.float32) / 255), torch.from_numpy(labels.astype(np.float32)))


def stratified_folds(labels: torch.Tensor, folds: int, seed: int) -> NDArray[np.int_]:
    """The fold (0 to `folds` - 1) of each image; each class is shared out evenly."""
    rng = np.random.default_rng(seed)
    assigned = np.zeros(len(labels), dtype=int)
    for value in (0, 1):
        members = rng.permutation(np.flatnonzero(labels.numpy() == value))
        assigned[members] = np.arange(len(members)) % folds
    return assigned


def balanced_draw(labels: torch.Tensor, rng: np.random.Generator) -> NDArray[np.int_]:
    """Indices of one epoch: every image of the rarer class twice, as many of the other, in random order."""
    classes = [np.flatnonzero(labels.numpy() == value) for value in (0, 1)]
    each = 2 * min(len(members) for members in classes)
    drawn = [rng.choice(members, each, replace=len(members) < each) for members in classes]
    return np.asarray(rng.permutation(np.concatenate(drawn)))


def vary(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random variation of a batch (n, 1, 28, 28) in [0, 1]; returns standardised images.

    Side, pose (15 degrees, 20 % size, 4 pixels), exposure (gamma, brightness gradient), blur, noise, and a hidden
    rectangle: what differs between X-ray rooms and is no sign of pneumonia. Half are mirrored left to right.
    """
    count = len(images)

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    posed = functional.grid_sample(
        images, _poses(count, between), mode="bilinear", padding_mode="border", align_corners=False
    )
    exposed = posed.clamp(1e-3, 1) ** torch.exp(between(-0.5, 0.5))
    axis = torch.linspace(-1, 1, SIZE)
    gradient = between(-0.15, 0.15) * axis.view(1, 1, 1, -1) + between(-0.15, 0.15) * axis.view(1, 1, -1, 1)
    shaded = exposed * (1 + gradient)
    blurred = functional.avg_pool2d(functional.pad(shaded, [1] * 4, mode="replicate"), 3, stride=1)
    share = between(-1, 0.8).clamp(min=0)
    noise = torch.randn(shaded.shape, generator=generator) * between(-0.03, 0.05).clamp(min=0)
    return _hide(standardise((1 - share) * shaded + share * blurred + noise), between)


def _poses(count: int, between: object) -> torch.Tensor:
    assert callable(between)
    angle, size = between(-0.26, 0.26).view(-1), between(0.82, 1.2).view(-1)
    side = torch.where(between(0, 1).view(-1) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = side * size * angle.cos(), -size * angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = side * size * angle.sin(), size * angle.cos()
    matrix[:, 0, 2], matrix[:, 1, 2] = between(-0.28, 0.28).view(-1), between(-0.28, 0.28).view(-1)
    return functional.affine_grid(matrix, [count, 1, SIZE, SIZE], align_corners=False)


def _hide(images: torch.Tensor, between: object) -> torch.Tensor:
    """Set a rectangle of up to 9x9 pixels to the mean, in half of the images."""
    assert callable(between)
    pixels = torch.arange(SIZE)
    row, column, edge = between(0, SIZE), between(0, SIZE), between(-9, 9).clamp(min=0) / 2
    hidden = ((pixels.view(1, 1, -1, 1) - row).abs() < edge) & ((pixels.view(1, 1, 1, -1) - column).abs() < edge)
    return images.masked_fill(hidden, 0.0)
