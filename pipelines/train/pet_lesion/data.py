"""Patients on disk, folds, and random variation for training.

The set (TCIA Soft-tissue-Sarcoma, Vallieres et al., Phys Med Biol 60:5471, 2015; NIfTI form by A. Zwanenburg for the IBSI,
CC BY 3.0): a folder for each patient with `PET_image.nii.gz` (SUV by body weight, g/mL) and `PET_mask.nii.gz` (the gross
tumour volume, outlined on MR and carried to the PET). Each image was cut 5 cm around the outline, so that its own centre
gives the tumour away: nothing here may use the place of the image's border.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.train.common import DataError
from services.imaging.pet_lesion_network import GRID_ZYX, Box, channels, tight_box, to_grid

FOLDS = 5


@dataclass(frozen=True)
class Patient:
    """`suv` float32 (g/mL) and `mask` bool, both (z, y, x); `spacing_mm` (z, y, x)."""

    patient_id: str
    suv: NDArray[np.float32]
    mask: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm))


def patient_ids(data: Path) -> list[str]:
    """Every folder with an image and a mask, sorted."""
    found = sorted(p.parent.name for p in data.glob("*/PET_image.nii.gz") if (p.parent / "PET_mask.nii.gz").is_file())
    if not found:
        raise DataError(f"no patient in {data}: expected NAME/PET_image.nii.gz with NAME/PET_mask.nii.gz")
    return found


def load_patient(data: Path, patient_id: str) -> Patient:
    """Read one patient; refuses a mask that is empty or on another grid."""
    image: Any = nib.load(data / patient_id / "PET_image.nii.gz")  # type: ignore[attr-defined]
    mask: Any = nib.load(data / patient_id / "PET_mask.nii.gz")  # type: ignore[attr-defined]
    if image.shape != mask.shape or not np.allclose(image.affine, mask.affine, atol=1e-3):
        raise DataError(f"{patient_id}: mask and image lie on different grids")
    outline = np.asarray(mask.dataobj) > 0
    if not outline.any():
        raise DataError(f"{patient_id}: the mask is empty")
    x, y, z = (float(edge) for edge in image.header.get_zooms()[:3])
    suv = np.asarray(image.dataobj, dtype=np.float32)
    return Patient(
        patient_id,
        np.ascontiguousarray(suv.transpose(2, 1, 0)),
        np.ascontiguousarray(outline.transpose(2, 1, 0)),
        (z, y, x),
    )


def fold_of(patients: list[Patient], folds: int = FOLDS) -> dict[str, int]:
    """The fold in which each patient is held out: dealt in order of tumour volume, so that folds are alike in size."""
    ordered = sorted(patients, key=lambda p: (float(p.mask.sum()) * p.voxel_mm3, p.patient_id))
    return {patient.patient_id: rank % folds for rank, patient in enumerate(ordered)}


def moved_box(box: Box, spacing_mm: tuple[float, float, float], sd_mm: float, rng: np.random.Generator) -> Box:
    """Each face moved by its own normal error, as a reader's hand would; at most by a quarter of the edge."""
    start, stop = [], []
    for low, high, spacing in zip(box.start, box.stop, spacing_mm, strict=True):
        most = (high - low) / 4
        first, second = np.clip(rng.normal(0, sd_mm / spacing, 2), -most, most)
        start.append(low + float(first))
        stop.append(high + float(second))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def box_mm3(box: Box, spacing_mm: tuple[float, float, float]) -> float:
    """Volume of a box."""
    return float(np.prod(box.edges) * np.prod(spacing_mm))


def training_pair(patient: Patient, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Channels (5, *GRID_ZYX) and outline (1, *GRID_ZYX) of one patient, varied at random.

    Box (faces by 0 to 8 mm), calibration of the scanner (20 %), contrast (gamma), noise. Mirror images add nothing: the
    network gives them one outline.
    """
    box = moved_box(tight_box(patient.mask), patient.spacing_mm, float(rng.choice([0.0, 2.0, 4.0, 8.0])), rng)
    suv = to_grid(torch.from_numpy(patient.suv), box).clamp(min=0)
    outline = to_grid(torch.from_numpy(patient.mask.astype(np.float32)), box)
    suv = suv * float(np.exp(rng.normal(0, 0.2)))
    middle = float(suv.median()) + 0.1
    suv = middle * (suv / middle) ** float(np.exp(rng.normal(0, 0.15)))
    noise = torch.from_numpy(rng.normal(0, 1, GRID_ZYX).astype(np.float32))
    suv = suv * (1 + float(rng.uniform(0, 0.1)) * noise)
    return channels(suv, box_mm3(box, patient.spacing_mm)), outline[None]
