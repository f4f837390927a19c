"""Regions that people or other systems outlined (RTSTRUCT, SEG): what they are, and which series they are measured on.

Rules: regions.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from highdicom.seg import Segmentation
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from services.clinical.codes import AORTA, LIVER, SCT, Concept
from services.clinical.dicom.rtstruct import Roi, fill_roi, read_rtstruct
from services.clinical.dicom.seg import read_segmentation
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError

_REFERENCES = {"liver": LIVER, "aorta": AORTA}


class RegionKind(Enum):
    """What a region stands for."""

    LESION = "lesion"
    LIVER = "liver"
    AORTA = "aorta"
    OTHER = "other"


@dataclass(frozen=True)
class OutlinedRegion:
    """One region as stored. `referenced_series`: the images it was drawn on; `method`: how, for a reader."""

    name: str
    tracking_id: str
    kind: RegionKind
    site: Concept | None
    method: str
    referenced_series: tuple[str, ...]
    frame_of_reference_uid: str
    source_series_uid: str
    source_sop_uid: str
    roi: Roi | None = None
    segmentation: Dataset | None = None
    segment_number: int = 0


@dataclass(frozen=True)
class Filled:
    """A region on an image grid. `mask` (z, y, x): voxel centres inside; `outside_fraction`: share off the image."""

    region: OutlinedRegion
    mask: NDArray[np.bool_]
    volume_mm3: float
    outside_fraction: float


@cache
def rules() -> dict[str, Any]:
    """Contents of regions.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("regions.yaml").read_text(encoding="utf-8"))
    return content


def read_regions(dataset: Dataset) -> tuple[OutlinedRegion, ...]:
    """Regions of one RTSTRUCT or SEG instance. Raises RefusedError `rtstruct.*`, `seg.unreadable`."""
    if str(dataset.get("Modality", "")) == "RTSTRUCT":
        return _from_rtstruct(dataset)
    return _from_segmentation(dataset)


def _from_rtstruct(dataset: Dataset) -> tuple[OutlinedRegion, ...]:
    structures = read_rtstruct(dataset)
    return tuple(
        OutlinedRegion(
            name=roi.name,
            tracking_id=roi.name,
            kind=kind_of(roi.name, interpreted_type=roi.interpreted_type),
            site=site_of(roi.name),
            method="RTSTRUCT contour",
            referenced_series=structures.referenced_series_uids,
            frame_of_reference_uid=roi.frame_of_reference_uid,
            source_series_uid=structures.series_instance_uid,
            source_sop_uid=structures.sop_instance_uid,
            roi=roi,
        )
        for roi in structures.rois
    )


def _from_segmentation(dataset: Dataset) -> tuple[OutlinedRegion, ...]:
    try:
        stored = Segmentation.from_dataset(dataset)
        descriptions = [stored.get_segment_description(number) for number in stored.segment_numbers]
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise RefusedError(
            "seg.unreadable",
            f"the segmentation cannot be read ({type(error).__name__})",
            remedy="Export the segmentation again.",
            subject=str(dataset.get("SOPInstanceUID", "")),
        ) from error
    series = tuple(str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence", []))
    return tuple(
        OutlinedRegion(
            name=str(description.segment_label),
            tracking_id=str(description.tracking_id or description.segment_label),
            kind=kind_of(
                str(description.segment_label),
                category=str(description.segmented_property_category.value),
                code=str(description.segmented_property_type.value),
            ),
            site=site_of(str(description.segment_label)),
            method="DICOM SEG segment",
            referenced_series=series,
            frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
            source_series_uid=str(dataset.SeriesInstanceUID),
            source_sop_uid=str(dataset.SOPInstanceUID),
            segmentation=dataset,
            segment_number=int(description.segment_number),
        )
        for description in descriptions
    )


def kind_of(name: str, *, interpreted_type: str = "", category: str = "", code: str = "") -> RegionKind:
    """What a region is: by its codes where it has them, then by its whole name, else a lesion."""
    table = rules()
    plain = re.sub(r"[\s_\-]+", " ", name).strip().casefold()
    if interpreted_type in table["interpreted_type"]["lesion"] or category in table["segment_category"]["lesion"]:
        return RegionKind.LESION
    for reference, entry in table["references"].items():
        if code in entry["codes"] or plain in entry["names"]:
            return RegionKind(reference)
    organs = {organ.replace("_", " ") for organ in table["organs"]}
    if interpreted_type in (*table["interpreted_type"]["ignored"], "ORGAN") or plain in organs or category:
        return RegionKind.OTHER
    return RegionKind.LESION


def site_of(name: str) -> Concept | None:
    """The site that a region's name mentions as a word of its own."""
    words = set(re.split(r"[^a-z]+", name.casefold()))
    for entry in rules()["sites"].values():
        if words & set(entry["words"]):
            return Concept(SCT, entry["code"], entry["display"])
    return None


def regions_for(
    regions: Sequence[OutlinedRegion], series_uid: str, frame_of_reference_uid: str, modality: str
) -> tuple[OutlinedRegion, ...]:
    """Regions to measure on one series.

    Those drawn on it, or that name no series and share its frame of reference. PET without any lesion of its own takes
    all regions of its frame of reference, since PET and CT share the gantry.
    """
    here = [r for r in regions if r.frame_of_reference_uid == frame_of_reference_uid and frame_of_reference_uid]
    own = [r for r in regions if series_uid in r.referenced_series or (r in here and not r.referenced_series)]
    if modality != "PT":
        return tuple(own)
    if any(region.kind is RegionKind.LESION for region in own):
        return tuple(own + [r for r in here if r not in own and r.kind is not RegionKind.LESION])
    return tuple(own + [r for r in here if r not in own])


def fill(region: OutlinedRegion, volume: ImageVolume) -> Filled:
    """The region on the grid of `volume`. Raises RefusedError `rtstruct.*`, `seg.*`, `region.empty`."""
    if region.roi is not None:
        shape = (volume.array.shape[0], volume.array.shape[1], volume.array.shape[2])
        filled = fill_roi(region.roi, volume.affine_lps, shape, volume.frame_of_reference_uid)
        covered = float(filled.coverage.sum(dtype=np.float64)) * volume.voxel_volume_mm3
        result = Filled(region, filled.mask, covered, filled.outside_fraction)
    else:
        assert region.segmentation is not None
        found = {item.number: item for item in read_segmentation(region.segmentation, volume)}
        mask = found[region.segment_number].mask
        result = Filled(region, mask, float(mask.sum()) * volume.voxel_volume_mm3, 0.0)
    if not result.mask.any():
        raise RefusedError(
            "region.empty",
            "the region holds no voxel centre of the image: it is smaller than a voxel, or lies outside",
            remedy="Outline the region on this image.",
            subject=region.source_sop_uid,
        )
    return result
