"""Enhancing, necrotic and viable parts of an outlined tumour from T1 before and after contrast, FLAIR and PET.

Source: T1 subtraction after normalisation, Ellingson et al., Radiology 2014;271:200; parts as in RANO 2.0, Wen et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import (
    BoolArray,
    Image,
    Region,
    Result,
    ScalarMap,
    mask_of,
    refuse,
    require_same_grid,
)
from services.imaging.findings import Value

NAME = "tumour_fractions"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """Disjoint parts (z, y, x) of the tumour, and its viable part by PET (None without PET), which may overlap them."""

    enhancing: BoolArray
    necrotic: BoolArray
    flair_bright: BoolArray | None
    viable: BoolArray | None


def relative_enhancement(pre: Floats, post: Floats, reference: BoolArray) -> tuple[Floats, float]:
    """Rise from pre to post over that of the reference, as a share, and its standard deviation in the reference.

    Both images are scaled to a reference median of 1 first, so gains of the scanner cancel. Raises RefusedError
    `tumour_fractions.bad_reference`.
    """
    middle = [float(np.median(image[reference])) for image in (pre, post)]
    if min(middle) <= 0:
        raise refuse(NAME, "bad_reference", "the reference has no signal before or after contrast", "normal tissue")
    before, after = pre / middle[0], post / middle[1]
    rise = after - before
    spread = float(1.4826 * np.median(np.abs(rise[reference] - np.median(rise[reference]))))
    return rise, spread


def split(
    images: Mapping[str, Floats], tumour: BoolArray, reference: BoolArray, used: Mapping[str, Any]
) -> tuple[Parts, Floats, float]:
    """The parts, the map of enhancement and the threshold used. `used`: options of the card."""
    rise, spread = relative_enhancement(images["t1_pre"], images["t1_post"], reference)
    threshold = max(float(used["enhancement"]), float(used["noise_sigmas"]) * spread)
    enhancing = ndimage.binary_opening(tumour & (rise > threshold), _CROSS) | _thick(tumour & (rise > threshold))
    dark = tumour & ~enhancing & (images["t1_post"] < used["necrosis"] * np.median(images["t1_post"][reference]))
    viable = _viable(images, tumour, reference, used)
    walled = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(enhancing, 2), _CROSS, iterations=2))
    inside = walled[2:-2, 2:-2, 2:-2] | _walled_in_plane(enhancing)
    cold = inside if viable is None else inside | ndimage.binary_opening(dark & ~viable, _CROSS)
    necrotic = dark & cold
    bright = None
    if "flair" in images:
        level = used["flair"] * np.median(images["flair"][reference])
        bright = tumour & ~enhancing & ~necrotic & (images["flair"] > level)
    return Parts(enhancing, necrotic, bright, viable), rise, threshold


_CROSS = ndimage.generate_binary_structure(3, 1)


def _thick(mask: BoolArray) -> BoolArray:
    """Pieces of at least 8 voxels: an enhancing rim may be one voxel thick, speckle is smaller."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept: BoolArray = (sizes >= 8)[pieces]
    return kept


def _walled_in_plane(enhancing: BoolArray) -> BoolArray:
    return np.stack([ndimage.binary_fill_holes(plane) for plane in enhancing])


def _viable(
    images: Mapping[str, Floats], tumour: BoolArray, reference: BoolArray, used: Mapping[str, Any]
) -> BoolArray | None:
    if "pet" not in images:
        return None
    pet = images["pet"]
    if used["pet_ratio"] > 0:
        background = float(np.mean(pet[reference]))
        if background <= 0:
            raise refuse(NAME, "bad_reference", "the reference has no uptake on PET", "normal tissue with uptake")
        return tumour & (pet > used["pet_ratio"] * background)
    return tumour & (pet > used["pet_share"] * float(pet[tumour].max()))


def check(inputs: Mapping[str, Image]) -> tuple[dict[str, Floats], BoolArray, BoolArray]:
    """Images, tumour and reference on one grid.

    Raises RefusedError `tumour_fractions.grids_differ|empty_mask|too_small|overlap|no_contrast`.
    """
    limits, first = card(NAME).constants, inputs["t1_pre"]
    if first.array.ndim != 3:
        raise refuse(NAME, "not_a_volume", "T1 before contrast is no single volume", "one volume (z, y, x)")
    require_same_grid(NAME, first, **{role: image for role, image in inputs.items() if role != "t1_pre"})
    tumour, reference = (mask_of(NAME, inputs[role], role) for role in ("tumour", "reference"))
    if tumour.sum() < limits["smallest_voxels"] or reference.sum() < limits["smallest_reference"]:
        raise refuse(NAME, "too_small", f"{int(tumour.sum())} voxels of tumour, {int(reference.sum())} of reference")
    if (tumour & reference).any():
        raise refuse(NAME, "overlap", "tumour and reference share voxels", remedy="Outline normal tissue only.")
    images = {
        role: np.asarray(image.array, float) for role, image in inputs.items() if role not in ("tumour", "reference")
    }
    if np.array_equal(images["t1_pre"], images["t1_post"]):
        raise refuse(NAME, "no_contrast", "T1 before and after contrast are the same image", "T1 after contrast")
    return images, tumour, reference


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """The parts of one tumour. Refusals: see `check`, `relative_enhancement`."""
    known, first = card(NAME), inputs["t1_pre"]
    images, tumour, reference = check(inputs)
    parts, rise, threshold = split(images, tumour, reference, settings)
    swept = []
    for factor in known.constants["sweep"]:
        changed = {name: settings[name] * factor for name in ("enhancement", "noise_sigmas")}
        swept.append(split(images, tumour, reference, {**settings, **changed})[0])
    regions = {
        name: Region(known.concepts[name], mask, first.affine_lps)
        for name in ("enhancing", "necrotic", "flair_bright", "viable")
        if (mask := getattr(parts, name)) is not None
    }
    relative = ScalarMap(known.concepts["relative_enhancement"], np.asarray(rise, np.float32), first.affine_lps, "1")
    return Result(
        analyser=NAME,
        values=_values(parts, swept, tumour, first.voxel_mm3 / 1000),
        maps={"relative_enhancement": relative},
        regions=regions,
        cautions=_cautions(parts, images, tumour),
        parameters={**settings, "enhancement_used": threshold},
        citations=known.sources,
    )


def _values(parts: Parts, swept: list[Parts], tumour: BoolArray, voxel_ml: float) -> dict[str, Value]:
    known, whole = card(NAME), float(tumour.sum())
    values = {"tumour_volume": known.value("tumour_volume", whole * voxel_ml)}
    for name in ("enhancing", "necrotic", "viable"):
        mask = getattr(parts, name)
        if mask is None:
            continue
        others = [100 * getattr(each, name).sum() / whole for each in swept]
        told = f"not estimated: {known.measures[f'{name}_fraction'].uncertainty}"
        if name != "viable":
            told += f"; {min(others):.0f} to {max(others):.0f} % with the threshold a fifth lower or a quarter higher"
        values[f"{name}_volume"] = known.value(f"{name}_volume", mask.sum() * voxel_ml)
        values[f"{name}_fraction"] = known.value(f"{name}_fraction", 100 * mask.sum() / whole, told)
    if parts.flair_bright is not None:
        values["flair_volume"] = known.value("flair_volume", parts.flair_bright.sum() * voxel_ml)
    return values


def _cautions(parts: Parts, images: Mapping[str, Floats], tumour: BoolArray) -> tuple[str, ...]:
    told = []
    if parts.viable is None:
        told.append("no PET: enhancement is not proof of viable tumour; the viable part has no value")
    elif parts.viable.any():
        agree = (parts.viable & parts.enhancing).sum() / max(1, min(parts.viable.sum(), parts.enhancing.sum()))
        if agree < 0.5:
            told.append("PET and enhancement disagree about most of the tumour: treatment effect, or misregistration")
    if parts.enhancing.sum() < card(NAME).constants["least_contrast_voxels"]:
        told.append("hardly anything enhances: a tumour that does not, or no contrast was given")
    if "flair" not in images:
        told.append("no FLAIR: tissue that does not enhance is not told apart")
    return tuple(told)
