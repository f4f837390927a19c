"""How a lesion is pointed out when figures are taken: boxes as drawn, boxes drawn loosely, clicks, and nothing; and the
thresholds that a department would use instead, with the same help."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.train.pet_lesion.data import Patient, moved_box
from services.imaging.pet_lesion import PetLesionModel, outline_at_click, outline_automatically, outline_in_box
from services.imaging.pet_lesion_network import Box, tight_box
from services.platform.errors import RefusedError

BoolArray = NDArray[np.bool_]
Outline = Callable[[PetLesionModel, Patient], BoolArray]
#: Standard deviation of each face of a loosely drawn box.
LOOSE_MM = 5.0
FIXED_SUV, RELATIVE = 2.5, 0.41


def generator(patient: Patient, purpose: str) -> np.random.Generator:
    """Random numbers of one patient and purpose: the same whichever others are measured."""
    digest = hashlib.sha256(f"{purpose}:{patient.patient_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def loose_box(patient: Patient) -> Box:
    """The tight box with each face moved by a normal error of 5 mm."""
    return moved_box(tight_box(patient.mask), patient.spacing_mm, LOOSE_MM, generator(patient, "box"))


def click(patient: Patient) -> tuple[int, int, int]:
    """A voxel of the outline, among the tenth with the most uptake: where a reader would click."""
    voxels = np.argwhere(patient.mask)
    uptake = patient.suv[patient.mask]
    hot = voxels[uptake >= np.quantile(uptake, 0.9)]
    z, y, x = (int(v) for v in hot[generator(patient, "click").integers(len(hot))])
    return z, y, x


def in_box(model: PetLesionModel, patient: Patient) -> BoolArray:
    """In the box of the expert's outline."""
    return outline_in_box(model, patient.suv, patient.spacing_mm, tight_box(patient.mask)).mask_zyx


def in_loose_box(model: PetLesionModel, patient: Patient) -> BoolArray:
    """In a box drawn loosely."""
    return outline_in_box(model, patient.suv, patient.spacing_mm, loose_box(patient)).mask_zyx


def at_click(model: PetLesionModel, patient: Patient) -> BoolArray:
    """From one click."""
    return outline_at_click(model, patient.suv, patient.spacing_mm, click(patient)).mask_zyx


def automatic(model: PetLesionModel, patient: Patient) -> BoolArray:
    """From nothing; a refusal outlines nothing."""
    try:
        return outline_automatically(model, patient.suv, patient.spacing_mm).mask_zyx
    except RefusedError:
        return np.zeros(patient.mask.shape, dtype=bool)


OUTLINES: dict[str, Outline] = {"box": in_box, "loose_box": in_loose_box, "click": at_click, "automatic": automatic}
#: Which of the product's modes a way of pointing belongs to; the interval of "box" comes from boxes drawn loosely.
MODE_OF = {"box": "loose_box", "click": "click", "automatic": "automatic"}


def _in(box: Box, shape: tuple[int, ...]) -> BoolArray:
    axes = [
        (np.arange(n) + 0.5 > a) & (np.arange(n) + 0.5 < b) for n, a, b in zip(shape, box.start, box.stop, strict=True)
    ]
    return np.asarray(axes[0][:, None, None] & axes[1][None, :, None] & axes[2][None, None, :])


def ellipsoid(patient: Patient) -> BoolArray:
    """The ellipsoid that fills the box: what the box alone gives away."""
    box = tight_box(patient.mask)
    axes = [
        ((np.arange(n) + 0.5 - m) / (e / 2)) ** 2
        for n, m, e in zip(patient.mask.shape, box.centre, box.edges, strict=True)
    ]
    return np.asarray(axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] <= 1)


def _largest(mask: BoolArray) -> BoolArray:
    labels, count = ndimage.label(mask)
    return (
        np.asarray(labels == 1 + int(np.argmax(ndimage.sum_labels(mask, labels, range(1, count + 1)))))
        if count
        else mask
    )


def fixed_in_box(patient: Patient) -> BoolArray:
    """SUV 2.5 and above inside the box."""
    return _in(tight_box(patient.mask), patient.mask.shape) & (patient.suv >= FIXED_SUV)


def relative_in_box(patient: Patient) -> BoolArray:
    """41 % of the box's highest SUV and above inside the box."""
    inside = _in(tight_box(patient.mask), patient.mask.shape)
    return inside & (patient.suv >= RELATIVE * float(patient.suv[inside].max()))


def fixed_alone(patient: Patient) -> BoolArray:
    """The largest region at SUV 2.5 and above."""
    return _largest(patient.suv >= FIXED_SUV)


def relative_alone(patient: Patient) -> BoolArray:
    """The largest region at 41 % of the highest SUV and above."""
    return _largest(patient.suv >= RELATIVE * float(patient.suv.max()))


BASELINES: dict[str, Callable[[Patient], BoolArray]] = {
    "ellipsoid_in_box": ellipsoid,
    "suv_2.5_in_box": fixed_in_box,
    "41_percent_in_box": relative_in_box,
    "suv_2.5_alone": fixed_alone,
    "41_percent_alone": relative_alone,
}
