"""Parametric maps: one value for each voxel (perfusion, saliency, uncertainty), readable by viewers and dcmqi.

Source: DICOM PS3.3 A.75 (Parametric Map IOD), C.7.6.24 (Floating Point Image Pixel), C.7.6.16.2.11 (Real World Value
Mapping); IHE Radiology AI Results (AIR) Rev. 1.2: parametric maps for saliency and other per-voxel results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from services.clinical.codes import SCT, UCUM, Concept
from services.clinical.dicom import derived
from services.clinical.dicom.geometry import Frame
from services.clinical.dicom.seg import coded, source_frames
from services.platform.errors import RefusedError

#: Value of voxels without one: below everything that a map can mean, and recorded as (0028,0122) FloatPixelPaddingValue.
PADDING = float(np.finfo(np.float32).min)

#: CID 4031 (common anatomic regions).
ENTIRE_BODY = Concept(SCT, "38266002", "Entire body")


@dataclass(frozen=True)
class ValueMap:
    """A map to write. `values` (z, y, x) float32 on the grid of the source series, NaN where there is none.

    `unit`: UCUM code; `label`: at most 16 characters, for a viewer's list; `explanation`: one sentence; `site`: the anatomy
    shown, as closely as it is known.
    """

    values: NDArray[np.float32]
    quantity: Concept
    unit: str
    label: str
    explanation: str
    site: Concept = ENTIRE_BODY


def build_map(frames: Sequence[Frame], made: ValueMap, identity: derived.ObjectIdentity) -> hd.pm.ParametricMap:
    """A parametric map on the slices of the source series.

    `frames`: the sorted frames of the source series (`inspect_series`), as many as the map has slices.

    Raises:
        RefusedError: `map.wrong_grid`, `map.no_values`.
    """
    rows, columns = int(frames[0].dataset.Rows), int(frames[0].dataset.Columns)
    if made.values.shape != (len(frames), rows, columns):
        raise RefusedError(
            "map.wrong_grid",
            f"a map of shape {made.values.shape} does not fit {len(frames)} slices of {rows} x {columns}",
            remedy="Resample the map onto the series that it is shown on.",
        )
    known = np.isfinite(made.values)
    if not known.any():
        raise RefusedError(
            "map.no_values", "no voxel of the map has a value", remedy="Check what the map was made from."
        )
    low, high = float(made.values[known].min()), float(made.values[known].max())
    sources, order = source_frames(frames, 0, len(frames))
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=made.label[:16],
        lut_explanation=made.explanation[:64],
        unit=coded(Concept(UCUM, made.unit, made.unit)),
        value_range=(low, high if high > low else low + 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(made.quantity),
    )
    result = hd.pm.ParametricMap(
        source_images=derived.headers(sources),
        pixel_array=np.where(known, made.values, PADDING).astype(np.float32)[order],
        series_instance_uid=identity.series_instance_uid,
        series_number=identity.series_number,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=identity.instance_number,
        manufacturer=derived.MANUFACTURER,
        manufacturer_model_name=derived.MODEL,
        software_versions=derived.software(),
        device_serial_number=derived.DEVICE_SERIAL,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            hd.VOILUTTransformation(window_center=(low + high) / 2, window_width=max(high - low, 1e-6))
        ],
        content_label="MAP",
        content_description=made.explanation[:64],
    )
    result.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(made.site)]
    _sort_frames(result, frames[0].normal)
    if not known.all():
        result.FloatPixelPaddingValue = PADDING
    derived.pin(result, identity)
    derived.pin_organization(result, identity)
    return result


def _sort_frames(result: Dataset, normal: NDArray[np.float64]) -> None:
    """Stores frames along the slice normal: readers that go by their order, such as dcmqi, turn the map over otherwise."""
    groups = list(result.PerFrameFunctionalGroupsSequence)
    heights = [np.dot(group.PlanePositionSequence[0].ImagePositionPatient, normal) for group in groups]
    order = np.argsort(heights)
    stored = np.frombuffer(result.FloatPixelData, np.float32).reshape(len(groups), result.Rows, result.Columns)
    result.FloatPixelData = stored[order].tobytes()
    result.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    for number, group in enumerate(result.PerFrameFunctionalGroupsSequence, start=1):
        group.FrameContentSequence[0].DimensionIndexValues = number


def _anatomy(site: Concept) -> Dataset:
    """Frame Anatomy functional group (PS3.3 C.7.6.16.2.8), without which dcmqi reads no map; "U": not one of a pair."""
    group = Dataset()
    group.FrameLaterality = "U"
    group.AnatomicRegionSequence = [coded(site)]
    return group
