"""New and enlarging white matter lesions between two registered visits, and change of brain volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.analysers.brain_change import (
    NAME,
    Shift,
    Spacing,
    ball_mm,
    boundary_shift,
    find_brain,
    without_differential_bias,
)
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
from services.imaging.findings import Interval, Value

Floats = NDArray[np.float64]
_PAIRS = ("flair", "t1", "t2")
_AROUND = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Change:
    """Change of normalised signal in standard deviations, and the second visit over the brain's median, (z, y, x)."""

    sigmas: Floats
    first: Floats
    second: Floats


def normalised_change(first: Floats, second: Floats, brain: BoolArray, spacing_mm: Spacing) -> Change:
    """Second less first visit after differential bias and scaling to the brain's median.

    Raises RefusedError `lesion_change.not_registered`.
    """
    limits = card(NAME).constants
    usable = brain & (first > 0) & (second > 0)
    agree = float(np.corrcoef(first[usable], second[usable])[0, 1]) if usable.sum() > 100 else 0.0
    if not agree >= limits["least_correlation"]:
        raise refuse(
            NAME,
            "not_registered",
            f"the visits correlate by {agree:.2f} only: they are not registered, or not the same contrast",
            remedy="Register the visits first (registration room); give FLAIR for both.",
        )
    matched = without_differential_bias(first, second, brain, spacing_mm)
    one, two = (image / np.median(image[usable]) for image in (first, matched))
    sigma = [limits["smoothing_mm"] / edge for edge in spacing_mm[::-1]]
    difference = ndimage.gaussian_filter(two - one, sigma)
    middle = np.median(difference[usable])
    spread = 1.4826 * np.median(np.abs(difference[usable] - middle))
    return Change((difference - middle) / max(float(spread), 1e-9), one, two)


@dataclass(frozen=True)
class Lesions:
    """Voxels of new lesions and of growth of old ones, with the number of each."""

    new: BoolArray
    enlarged: BoolArray
    new_count: int
    enlarged_count: int


def changed_lesions(
    change: Change, brain: BoolArray, spacing_mm: Spacing, used: Mapping[str, Any], confirm: Floats | None = None
) -> Lesions:
    """Connected changes that brightened. `confirm`: change of T2 in standard deviations; it must have risen too."""
    limits = card(NAME).constants
    deep = ball_mm(brain, used["margin_mm"], spacing_mm, grow=False)
    grow = deep & (change.sigmas > used["grow_sigmas"]) & (change.second > limits["grow_bright"])
    pieces, count = ndimage.label(grow, _AROUND)
    numbers = np.arange(1, count + 1)
    bright = np.where(change.second > used["bright"], change.sigmas, -np.inf)
    peak = np.atleast_1d(ndimage.maximum(bright, pieces, numbers)) if count else np.zeros(0)
    size = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * float(np.prod(spacing_mm))
    kept = (peak > used["seed_sigmas"]) & (size >= used["smallest_mm3"])
    if confirm is not None and count:
        kept &= np.atleast_1d(ndimage.mean(confirm, pieces, numbers)) > limits["t2_sigmas"]
    before = ndimage.binary_dilation(deep & (change.first > used["bright"]), _AROUND)
    touched = np.atleast_1d(ndimage.mean(before, pieces, numbers)) if count else np.zeros(0)
    old = touched > limits["overlap_share"]
    new, enlarged = (np.isin(pieces, numbers[which]) for which in (kept & ~old, kept & old))
    return Lesions(new, enlarged, int((kept & ~old).sum()), int((kept & old).sum()))


def check(inputs: Mapping[str, Image]) -> tuple[dict[str, Floats], BoolArray | None]:
    """Images by role and the brain when given.

    Raises RefusedError `lesion_change.grids_differ|not_a_volume|half_a_pair|empty_mask|same_image`.
    """
    first = inputs["flair_1"]
    if first.array.ndim != 3:
        raise refuse(NAME, "not_a_volume", "FLAIR is no single volume", "one volume (z, y, x)")
    require_same_grid(NAME, first, **{role: image for role, image in inputs.items() if role != "flair_1"})
    for pair in _PAIRS:
        held = [f"{pair}_{visit}" in inputs for visit in (1, 2)]
        if any(held) and not all(held):
            raise refuse(NAME, "half_a_pair", f"{pair} is there for one visit only", f"{pair} of the other visit")
    if np.array_equal(first.array, inputs["flair_2"].array):
        raise refuse(NAME, "same_image", "both visits are the same image", "FLAIR of the second visit")
    brain = mask_of(NAME, inputs["brain"], "brain") if "brain" in inputs else None
    return {role: np.asarray(image.array, float) for role, image in inputs.items() if role != "brain"}, brain


def cropped(
    images: Mapping[str, Floats], brain: BoolArray, reference: Image
) -> tuple[dict[str, Floats], BoolArray, Image]:
    """All on the part of the grid that holds the brain, with a margin."""
    margin = [int(np.ceil(card(NAME).constants["crop_margin_mm"] / edge)) for edge in reference.spacing_mm[::-1]]
    box = tuple(
        slice(max(0, part.start - wide), part.stop + wide)
        for part, wide in zip(ndimage.find_objects(brain.astype(np.uint8))[0], margin, strict=True)
    )
    affine = reference.affine_lps.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box[::-1]]
    small = {role: image[box] for role, image in images.items()}
    return small, brain[box], Image(reference.array[box], affine, reference.unit)


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """Change between two visits. Refusals: see `check`, `find_brain`, `normalised_change`."""
    known, reference = card(NAME), inputs["flair_1"]
    images, brain = check(inputs)
    cautions = []
    spacing = reference.spacing_mm
    if brain is None:
        brain = find_brain(images["flair_1"], spacing)
        cautions.append("the brain was found by brightness; give a mask for volumes that matter")
    images, brain, reference = cropped(images, brain, reference)
    change = normalised_change(images["flair_1"], images["flair_2"], brain, spacing)
    confirm = None
    if "t2_1" in images:
        confirm = normalised_change(images["t2_1"], images["t2_2"], brain, spacing).sigmas
    found = changed_lesions(change, brain, spacing, settings, confirm)
    values = _lesion_values(found, reference.voxel_mm3)
    if "t1_1" in images:
        matched = without_differential_bias(images["t1_1"], images["t1_2"], brain, spacing)
        shift = boundary_shift(images["t1_1"], matched, brain, spacing)
        if shift.agreement >= known.constants["least_t1_agreement"]:
            values |= _volume_values(shift)
        else:
            cautions.append(
                f"T1 of the visits correlates by {shift.agreement:.2f}: another scanner or sequence, or a poor registration; "
                "the change of brain volume has no value"
            )
    else:
        cautions.append("no T1 of both visits: change of brain volume has no value")
    if max(spacing) > 3.5:
        cautions.append(f"slices of {max(spacing):.1f} mm hide small lesions")
    affine = reference.affine_lps
    return Result(
        analyser=NAME,
        values=values,
        maps={"change": ScalarMap(known.concepts["change"], np.asarray(change.sigmas, np.float32), affine, "1")},
        regions={
            name: Region(known.concepts[name], mask, affine)
            for name, mask in (("new", found.new), ("enlarged", found.enlarged), ("brain", brain))
        },
        cautions=tuple(cautions),
        parameters=dict(settings),
        citations=known.sources,
    )


def _lesion_values(found: Lesions, voxel_mm3: float) -> dict[str, Value]:
    known = card(NAME)
    return {
        "new_volume": known.value("new_volume", found.new.sum() * voxel_mm3),
        "new_count": known.value("new_count", found.new_count),
        "enlarged_volume": known.value("enlarged_volume", found.enlarged.sum() * voxel_mm3),
        "enlarged_count": known.value("enlarged_count", found.enlarged_count),
    }


def _volume_values(shift: Shift) -> dict[str, Value]:
    known, values = card(NAME), {}
    for name, factor in (("brain_change_ml", 1.0), ("brain_change_percent", 100 / shift.brain_ml)):
        middle = shift.change_ml * factor
        half = known.constants["normal_deviate"] * shift.deviation_ml * abs(factor)
        values[name] = known.value(name, middle, Interval(middle - half, middle + half, known.constants["level"]))
    return values
