"""Cases on disk, folds, and random variation for training.

The data are the Medical Segmentation Decathlon's Task04 crops (T1, 1 mm, axes Right-Anterior-Superior; Simpson et al.,
arXiv:1902.09063): `images/*.nii.gz` and `labels/*.nii.gz` with 0 background, 1 anterior, 2 posterior.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.transforms.compose import Compose, OneOf
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import (
    Rand3DElasticd,
    RandAffined,
    RandFlipd,
    RandSimulateLowResolutiond,
)
from numpy.typing import NDArray

from pipelines.train.common import DataError
from services.imaging.hippocampus_grid import normalise

__all__ = ["FOLDS", "Case", "DataError", "augmentation", "case_ids", "fold_of", "load_case", "training_batches"]

FOLDS = 5
#: Covers the crops (31-43 x 40-59 x 24-47 mm) but for a margin of background on the largest; divisible by 8.
PATCH_RAS = (40, 56, 40)
LABEL_COUNT = 3


@dataclass(frozen=True)
class Case:
    """One crop: `image` normalised float32 and `label` uint8, both (right, anterior, superior) at 1 mm."""

    case_id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]


def fold_of(case_id: str, folds: int = FOLDS) -> int:
    """The fold in which a case is held out, from its id alone.

    A hash, and not a shuffle, so that a case keeps its fold when cases are added or missing.

    >>> fold_of("hippocampus_001") == fold_of("hippocampus_001")
    True
    """
    return int(hashlib.sha256(f"osler-hippocampus:{case_id}".encode()).hexdigest(), 16) % folds


def case_ids(data: Path) -> list[str]:
    """The ids of every case with both an image and a label, sorted."""
    images = {p.name.removesuffix(".nii.gz") for p in (data / "images").glob("*.nii.gz")}
    labels = {p.name.removesuffix(".nii.gz") for p in (data / "labels").glob("*.nii.gz")}
    if not images & labels:
        raise DataError(f"no case in {data}: expected images/NAME.nii.gz with labels/NAME.nii.gz")
    if images ^ labels:
        raise DataError(f"image or label missing for: {', '.join(sorted(images ^ labels)[:5])}")
    return sorted(images)


def _read_ras(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)


def load_case(data: Path, case_id: str) -> Case:
    """Read one case; refuses a grid other than 1 mm or a label on another grid."""
    image, affine = _read_ras(data / "images" / f"{case_id}.nii.gz")
    label, label_affine = _read_ras(data / "labels" / f"{case_id}.nii.gz")
    if image.shape != label.shape or not np.allclose(affine, label_affine, atol=1e-3):
        raise DataError(f"{case_id}: label and image lie on different grids")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(spacing, 1.0, atol=0.05):
        raise DataError(f"{case_id}: spacing {spacing.round(3).tolist()} mm, expected 1 mm")
    return Case(case_id, normalise(image), label.astype(np.uint8))


def augmentation(seed: int) -> Compose:
    """Random variation of one training crop, cut or padded to `PATCH_RAS`.

    The set holds left and right hippocampi, mirror images of each other in the sagittal plane: mirroring along Right
    gives a real anatomy of the other side. Mirroring along Anterior or Superior would give none, so it is not done.
    """
    keys = ["image", "label"]
    modes = ("bilinear", "nearest")
    pose: dict[str, Any] = {
        "rotate_range": [0.26] * 3,
        "scale_range": [0.18] * 3,
        "translate_range": [4.0] * 3,
        "padding_mode": "zeros",
        "spatial_size": PATCH_RAS,
        "mode": modes,
    }
    variation = Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            OneOf(
                [
                    RandAffined(keys, prob=1.0, shear_range=[0.08] * 3, **pose),
                    Rand3DElasticd(keys, prob=1.0, sigma_range=(4, 6), magnitude_range=(20, 70), **pose),
                ],
                weights=[0.75, 0.25],
            ),
            RandBiasFieldd("image", prob=0.25, coeff_range=(0.0, 0.3)),
            RandAdjustContrastd("image", prob=0.35, gamma=(0.6, 1.6), retain_stats=True),
            RandScaleIntensityd("image", prob=0.3, factors=0.2),
            RandShiftIntensityd("image", prob=0.3, offsets=0.2),
            RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)),
            RandSimulateLowResolutiond("image", prob=0.15, zoom_range=(0.5, 1.0)),
            RandGaussianNoised("image", prob=0.3, std=0.15),
        ]
    )
    variation.set_random_state(seed=seed)
    return variation


def training_batches(
    cases: Sequence[Case], variation: Compose, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of images and labels (batch, 1, *PATCH_RAS): every case once in random order, less an odd last one."""
    order = rng.permutation(len(cases))
    for start in range(0, len(order) - batch_size + 1, batch_size):
        varied = [
            variation(
                {
                    "image": torch.from_numpy(cases[i].image)[None],
                    "label": torch.from_numpy(cases[i].label)[None].float(),
                }
            )
            for i in order[start : start + batch_size]
        ]
        # as_tensor strips MONAI's metadata, which costs more to carry through the network than it gives here.
        images = torch.stack([torch.Tensor(v["image"].as_tensor()) for v in varied])
        labels = torch.stack([torch.Tensor(v["label"].as_tensor()) for v in varied])
        yield images, labels
