"""DICOM Segmentation objects: writing regions, and reading them onto an image grid.

Source: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20.2 (Segmentation Image Module).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from services.clinical.codes import ARTIFICIAL_INTELLIGENCE, Concept
from services.clinical.dicom import derived
from services.clinical.dicom.geometry import Frame
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Segment:
    """One region to write. `mask` (z, y, x) on the grid of the source series; `algorithm` empty for a person's outline."""

    label: str
    mask: BoolArray
    category: Concept
    kind: Concept
    tracking_id: str
    tracking_uid: str
    site: Concept | None = None
    algorithm: str = ""
    algorithm_version: str = ""
    algorithm_family: Concept = ARTIFICIAL_INTELLIGENCE


@dataclass(frozen=True)
class SegmentRegion:
    """One region read from a segmentation. `mask` (z, y, x) on the grid asked for."""

    number: int
    label: str
    tracking_id: str
    category_code: str
    type_code: str
    mask: BoolArray


def coded(concept: Concept) -> hd.sr.CodedConcept:
    """A concept as highdicom writes it."""
    return hd.sr.CodedConcept(concept.code, concept.scheme, concept.display)


def build_segmentation(
    frames: Sequence[Frame], segments: Sequence[Segment], identity: derived.ObjectIdentity
) -> Segmentation:
    """A binary segmentation with one segment for each region, numbered from 1; regions may overlap.

    `frames`: the sorted frames of the source series (`inspect_series`), as many as each mask has slices.
    """
    used = np.flatnonzero(np.any([segment.mask.any(axis=(1, 2)) for segment in segments], axis=0))
    if not used.size:
        raise RefusedError(
            "seg.empty", "no region holds a voxel", remedy="Outline a region that covers a voxel centre."
        )
    sources, order = source_frames(frames, int(used[0]), int(used[-1]) + 1)
    pixels = np.stack([segment.mask[order] for segment in segments], axis=-1).astype(np.uint8)
    result = Segmentation(
        source_images=derived.headers(sources),
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, segment) for number, segment in enumerate(segments, start=1)],
        series_instance_uid=identity.series_instance_uid,
        series_number=identity.series_number,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=identity.instance_number,
        manufacturer=derived.MANUFACTURER,
        manufacturer_model_name=derived.MODEL,
        software_versions=derived.software(),
        device_serial_number=derived.DEVICE_SERIAL,
        content_label="FINDINGS",
        omit_empty_frames=True,
    )
    derived.pin(result, identity)
    derived.pin_organization(result, identity)
    return result


def source_frames(frames: Sequence[Frame], first: int, last: int) -> tuple[list[Dataset], NDArray[np.intp]]:
    """Source instances, and the slice of the volume that each of their frames is."""
    if any(frame.dataset is not frames[0].dataset for frame in frames):
        chosen = frames[first:last]
        return [frame.dataset for frame in chosen], np.arange(first, last)
    order = np.argsort([frame.index for frame in frames]).astype(np.intp)
    return [frames[0].dataset], order


def _description(number: int, segment: Segment) -> hd.seg.SegmentDescription:
    kind = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    identification = None
    if segment.algorithm:
        kind = hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        identification = hd.AlgorithmIdentificationSequence(
            name=segment.algorithm, family=coded(segment.algorithm_family), version=segment.algorithm_version
        )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.kind),
        algorithm_type=kind,
        algorithm_identification=identification,
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id[:64],
        anatomic_regions=[coded(segment.site)] if segment.site else None,
    )


def read_segmentation(dataset: Dataset, volume: ImageVolume) -> tuple[SegmentRegion, ...]:
    """Every segment of a binary or fractional segmentation, sampled at the voxel centres of `volume`.

    Raises:
        RefusedError: `seg.frame_of_reference`, `seg.unreadable`.
    """
    uid = str(dataset.get("SOPInstanceUID", ""))
    if (
        not volume.frame_of_reference_uid
        or str(dataset.get("FrameOfReferenceUID", "")) != volume.frame_of_reference_uid
    ):
        raise RefusedError(
            "seg.frame_of_reference",
            "the segmentation and the image lie in different frames of reference",
            missing=["(0020,0052) FrameOfReferenceUID shared by both"],
            remedy="Register the two images first, or segment this image.",
            subject=uid,
        )
    try:
        segmentation = Segmentation.from_dataset(dataset)
        return tuple(_region(segmentation, number, volume) for number in segmentation.segment_numbers)
    except (AttributeError, KeyError, ValueError, RuntimeError) as error:
        raise RefusedError(
            "seg.unreadable",
            f"the segmentation cannot be read ({type(error).__name__})",
            remedy="Export the segmentation again.",
            subject=uid,
        ) from error


def _region(segmentation: Segmentation, number: int, volume: ImageVolume) -> SegmentRegion:
    description = segmentation.get_segment_description(number)
    stored = segmentation.get_volume(segment_numbers=[number])
    values = np.asarray(stored.array)[..., 0] if stored.array.ndim == 4 else np.asarray(stored.array)
    to_source = np.linalg.inv(stored.affine) @ volume.affine_lps
    depth, rows, columns = volume.array.shape
    mask = np.zeros(volume.array.shape, dtype=bool)
    j, i = np.mgrid[:rows, :columns]
    for k in range(depth):
        index = to_source[:3] @ np.stack([i.ravel(), j.ravel(), np.full(i.size, k), np.ones(i.size)])
        nearest = np.rint(index).astype(int)
        inside = np.all((nearest >= 0) & (nearest < np.array(values.shape)[:, None]), axis=0)
        plane = np.zeros(i.size, dtype=bool)
        plane[inside] = values[tuple(nearest[:, inside])] >= 0.5
        mask[k] = plane.reshape(rows, columns)
    category, kind = description.segmented_property_category, description.segmented_property_type
    return SegmentRegion(
        number=number,
        label=str(description.segment_label),
        tracking_id=str(description.tracking_id or description.segment_label),
        category_code=str(category.value),
        type_code=str(kind.value),
        mask=mask,
    )
