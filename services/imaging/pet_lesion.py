"""Outline of one lesion on an FDG PET: in a reader's box, from a click, or without either.

The network reads a box (see `pet_lesion_network`). Trained on soft-tissue sarcomas, whose experts outlined the tumour on MR: the
outline includes the parts without uptake, unlike a threshold's. Without a box, the box comes from a threshold and then from the
outline itself, a few times over: a lesion without uptake is then not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.pet_lesion_network import Box, from_grid, probabilities, tight_box, to_grid
from services.platform.errors import RefusedError

Triple = tuple[float, float, float]
BoolArray = NDArray[np.bool_]
#: Between these chances a voxel is neither lesion nor not.
UNSURE = (0.2, 0.8)
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class PetLesionModel:
    """A loaded network and what it was measured on.

    Attributes:
        half_width: relative half-width of the volume's interval for each `mode`, split-conformal; at most 1.
        level: coverage aimed at.
        volume_mm3: least and greatest volume in the training set.
        unsure: `LesionOutline.unsure_share` that 97.5 % of held-out patients stay below.
    """

    network: torch.nn.Module
    half_width: Mapping[str, float]
    level: float
    volume_mm3: tuple[float, float]
    unsure: float


@dataclass(frozen=True)
class LesionOutline:
    """One outlined lesion.

    Attributes:
        mask_zyx: bool, the volume's shape.
        probability_zyx: float32, chance of lesion; zero away from the box.
        box: what the last outline was made in, (z, y, x) voxels.
        mode: "box", "click" or "automatic".
        interval_mm3: for the volume of an expert's outline; `interval_level`: coverage that it aims at.
        unsure_share: volume where the chance lies between 0.2 and 0.8, over the outlined volume.
    """

    mask_zyx: BoolArray
    probability_zyx: FloatArray
    box: Box
    mode: str
    volume_mm3: float
    interval_mm3: tuple[float, float]
    interval_level: float
    unsure_share: float
    cautions: tuple[str, ...]


@cache
def rules() -> dict[str, Any]:
    """Contents of pet_lesion.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("pet_lesion.yaml").read_text(encoding="utf-8"))
    return content


def outline_in_box(model: PetLesionModel, suv_zyx: FloatArray, spacing_mm: Triple, box: Box) -> LesionOutline:
    """Outline the lesion that a box surrounds closely.

    Args:
        suv_zyx: SUV by body weight (g/mL), (z, y, x).
        spacing_mm: voxel edges (z, y, x).
        box: faces as close to the lesion as a reader sees it; (z, y, x) in voxels, voxel n reaching from n to n + 1.

    Raises:
        RefusedError: `pet_lesion.*`.
    """
    _check_suv(suv_zyx)
    _check_box(suv_zyx, spacing_mm, box)
    return _outline(model, suv_zyx, spacing_mm, box, "box")


def outline_at_click(
    model: PetLesionModel, suv_zyx: FloatArray, spacing_mm: Triple, voxel_zyx: tuple[int, int, int]
) -> LesionOutline:
    """Outline the lesion with uptake that a reader clicked on. Raises RefusedError `pet_lesion.*`."""
    _check_suv(suv_zyx)
    return _refined(model, suv_zyx, spacing_mm, box_at_click(suv_zyx, spacing_mm, voxel_zyx), "click")


def outline_automatically(model: PetLesionModel, suv_zyx: FloatArray, spacing_mm: Triple) -> LesionOutline:
    """Outline the region with the most uptake in a field of view around one lesion.

    In a whole body this is the brain, the bladder or the heart: give a box or a click there.

    Raises:
        RefusedError: `pet_lesion.*`; `pet_lesion.nothing_found` where nothing reaches the threshold.
    """
    _check_suv(suv_zyx)
    return _refined(model, suv_zyx, spacing_mm, box_of_most_uptake(suv_zyx, spacing_mm), "automatic")


def box_of_most_uptake(suv_zyx: FloatArray, spacing_mm: Triple) -> Box:
    """Box of the connected region at or above SUV 2.5 with the greatest volume times mean SUV."""
    rule = rules()["find"]
    labels, count = ndimage.label(suv_zyx >= rule["fixed_suv"])
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * float(np.prod(spacing_mm))
    large = numbers[sizes >= rule["smallest_mm3"]]
    if not len(large):
        raise RefusedError(
            "pet_lesion.nothing_found",
            f"no region of {rule['smallest_mm3'] / 1000:g} mL reaches SUV {rule['fixed_suv']:g}",
            missing=["a box around the lesion"],
            remedy="Draw a box around the lesion on the CT or MR and give it as `box`.",
        )
    uptake = ndimage.sum_labels(suv_zyx, labels, large)
    return tight_box(labels == large[int(np.argmax(uptake))])


def box_at_click(suv_zyx: FloatArray, spacing_mm: Triple, voxel_zyx: tuple[int, int, int]) -> Box:
    """Box of the connected region around a click that reaches 41 % of the highest SUV near it."""
    rule = rules()["find"]
    if not all(0 <= index < size for index, size in zip(voxel_zyx, suv_zyx.shape, strict=True)):
        raise RefusedError("pet_lesion.click_outside", "the click lies outside the volume", missing=["a point in it"])
    offsets = [(np.arange(n) - at) * edge for n, at, edge in zip(suv_zyx.shape, voxel_zyx, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*offsets, indexing="ij", sparse=True)
    near = z**2 + y**2 + x**2 <= rule["click_reach_mm"] ** 2
    hot = suv_zyx >= rule["relative"] * float(suv_zyx[near].max())
    labels, _ = ndimage.label(hot)
    here = int(labels[voxel_zyx])
    if not here:
        candidates = np.where(near & hot, suv_zyx, -np.inf)
        here = int(labels[np.unravel_index(int(candidates.argmax()), suv_zyx.shape)])
    return tight_box(labels == here)


def _refined(model: PetLesionModel, suv: FloatArray, spacing_mm: Triple, box: Box, mode: str) -> LesionOutline:
    """Outlines in a box, then in the box of what was outlined."""
    low, high = rules()["limits"]["box_mm"]
    found = _outline(model, suv, spacing_mm, _clipped(box, spacing_mm, low, high), mode)
    for _ in range(rules()["find"]["rounds"] - 1):
        found = _outline(model, suv, spacing_mm, _clipped(tight_box(found.mask_zyx), spacing_mm, low, high), mode)
    return found


def _clipped(box: Box, spacing_mm: Triple, low: float, high: float) -> Box:
    """The same middle, edges within the accepted lengths."""
    halves = [float(np.clip(edge * s, low, high)) / s / 2 for edge, s in zip(box.edges, spacing_mm, strict=True)]
    z, y, x = box.centre
    return Box((z - halves[0], y - halves[1], x - halves[2]), (z + halves[0], y + halves[1], x + halves[2]))


def _outline(model: PetLesionModel, suv: FloatArray, spacing_mm: Triple, box: Box, mode: str) -> LesionOutline:
    voxel = float(np.prod(spacing_mm))
    box_mm3 = float(np.prod(box.edges)) * voxel
    grid = probabilities(model.network, to_grid(torch.from_numpy(np.ascontiguousarray(suv)), box), box_mm3)
    chance = from_grid(grid, box, suv.shape).numpy()
    mask = _one_piece(chance >= rules()["threshold"])
    if not mask.any():
        raise RefusedError(
            "pet_lesion.not_found",
            "the network finds no lesion in the box",
            missing=["a box that surrounds a lesion"],
            remedy="Draw the box closer around the lesion, or outline it by hand.",
        )
    volume = float(mask.sum()) * voxel
    unsure = float(((chance > UNSURE[0]) & (chance < UNSURE[1])).sum()) / float(mask.sum())
    half = model.half_width[mode] * volume
    return LesionOutline(
        mask_zyx=mask,
        probability_zyx=chance,
        box=box,
        mode=mode,
        volume_mm3=volume,
        interval_mm3=(max(0.0, volume - half), volume + half),
        interval_level=model.level,
        unsure_share=unsure,
        cautions=_cautions(model, suv, mask, volume, unsure, mode),
    )


def _one_piece(mask: BoolArray) -> BoolArray:
    """The largest connected piece, its holes filled: necrosis belongs to the tumour."""
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = labels == sizes.argmax()
    return np.asarray(ndimage.binary_fill_holes(mask))


def _cautions(
    model: PetLesionModel, suv: FloatArray, mask: BoolArray, volume: float, unsure: float, mode: str
) -> tuple[str, ...]:
    cautions = []
    low, high = model.volume_mm3
    if not low <= volume <= high:
        cautions.append(f"volume {volume / 1000:.0f} mL: {low / 1000:.0f} to {high / 1000:.0f} mL in the data")
    if unsure > model.unsure:
        cautions.append("the border is less sure than in 97.5 % of the held-out patients")
    highest = float(suv[mask].max())
    fixed = rules()["find"]["fixed_suv"]
    if highest < fixed:
        cautions.append(f"uptake is low (SUVmax {highest:.1f}): the outline rests on the box more than on the picture")
    if mode != "box":
        cautions.append("no reader gave the extent: parts without uptake may be missing, neighbouring uptake included")
    return tuple(cautions)


def _check_suv(suv: FloatArray) -> None:
    if suv.ndim != 3 or min(suv.shape) < 2:
        raise RefusedError("pet_lesion.not_a_volume", f"expected a 3D volume, got an array of shape {suv.shape}")
    if not np.isfinite(suv).all():
        raise RefusedError("pet_lesion.not_finite", "the volume holds values that are no numbers")
    limits = rules()["limits"]
    highest = float(suv.max())
    if highest < limits["least_suv"]:
        raise RefusedError("pet_lesion.no_uptake", f"the highest SUV is {highest:.2f}: there is nothing to see")
    if float(np.percentile(suv, 99)) > limits["most_suv"]:
        raise RefusedError(
            "pet_lesion.not_suv",
            f"1 % of the values exceed {limits['most_suv']:g}: they are no SUV",
            missing=["SUV by body weight in g/mL"],
            remedy="Convert the series to SUV first.",
        )


def _check_box(suv: FloatArray, spacing_mm: Triple, box: Box) -> None:
    low, high = rules()["limits"]["box_mm"]
    edges = [edge * s for edge, s in zip(box.edges, spacing_mm, strict=True)]
    if not all(low <= edge <= high for edge in edges):
        raise RefusedError(
            "pet_lesion.box_size",
            f"box of {' x '.join(f'{e:.0f}' for e in edges)} mm (z, y, x); edges from {low:g} to {high:g} mm are taken",
            missing=["a box close around one lesion"],
        )
    inside = all(
        low >= -size / 2 and high <= 1.5 * size and low < size and high > 0
        for low, high, size in zip(box.start, box.stop, suv.shape, strict=True)
    )
    if not inside:
        raise RefusedError("pet_lesion.box_outside", "the box lies outside the volume", missing=["a box in the volume"])
    part = suv[tuple(slice(max(0, int(a)), max(1, int(np.ceil(b)))) for a, b in zip(box.start, box.stop, strict=True))]
    if float(part.max()) < rules()["limits"]["least_suv"]:
        raise RefusedError("pet_lesion.no_uptake", "no uptake in the box: there is nothing to see")
