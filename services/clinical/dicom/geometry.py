"""Where each frame of a series lies in the patient, and whether the frames make one even stack.

Source: DICOM PS3.3 C.7.6.2.1.1 (image plane), C.7.6.16.2.3/.4 and C.7.6.16.2.9 (multi-frame functional groups).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydicom.dataset import Dataset

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One image plane. `index` counts frames in its instance; `position` is the centre of the first voxel, LPS mm."""

    dataset: Dataset
    index: int
    position: Vector
    row_cosines: Vector
    column_cosines: Vector
    row_spacing_mm: float
    column_spacing_mm: float
    thickness_mm: float | None
    slope: float
    intercept: float

    @property
    def normal(self) -> Vector:
        """Unit vector along increasing slice index of a right-handed grid."""
        normal = np.cross(self.row_cosines, self.column_cosines)
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


@dataclass(frozen=True)
class GeometryIssue:
    """Why frames do not make an even stack. `code` is a key of `remedies` in geometry.yaml."""

    code: str
    message: str
    missing: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        return str(rules()["remedies"][self.code])


@dataclass(frozen=True)
class Stack:
    """Frames sorted along the slice normal, with what is wrong about them.

    `affine_lps` maps voxel index (i = column, j = row, k = slice) to LPS mm; None where no affine can be made.
    """

    frames: tuple[Frame, ...]
    affine_lps: NDArray[np.float64] | None
    issues: tuple[GeometryIssue, ...]


@cache
def rules() -> dict[str, Any]:
    """Tolerances and remedies of geometry.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("geometry.yaml").read_text(encoding="utf-8"))
    return content


def frames_of(datasets: Sequence[Dataset]) -> tuple[tuple[Frame, ...], tuple[GeometryIssue, ...]]:
    """Frames of all instances; an instance sent twice counts once. Issues name what has no place in space."""
    unique = {str(dataset.get("SOPInstanceUID", position)): dataset for position, dataset in enumerate(datasets)}
    frames: list[Frame] = []
    absent: dict[str, int] = {}
    for dataset in unique.values():
        groups = dataset.get("PerFrameFunctionalGroupsSequence")
        readers: list[Callable[[str, str], Any]] = (
            [_group_reader(dataset, group) for group in groups] if groups else [_plain_reader(dataset)]
        )
        count = _number(dataset.get("NumberOfFrames")) or 1
        if count != len(readers):
            name = "a place for each of (0028,0008) NumberOfFrames"
            absent[name] = absent.get(name, 0) + abs(int(count) - len(readers))
        for index, read in enumerate(readers):
            frame = _frame(dataset, index, read, absent)
            if frame is not None:
                frames.append(frame)
    issues = tuple(
        GeometryIssue("missing_geometry", f"{count} frame(s) lack {name}", (name,)) for name, count in absent.items()
    )
    return tuple(frames), issues


def _plain_reader(dataset: Dataset) -> Callable[[str, str], Any]:
    return lambda _sequence, keyword: dataset.get(keyword)


def _group_reader(dataset: Dataset, group: Dataset) -> Callable[[str, str], Any]:
    shared = dataset.get("SharedFunctionalGroupsSequence")

    def read(sequence: str, keyword: str) -> Any:
        for source in (group, shared[0] if shared else None):
            items = source.get(sequence) if source is not None else None
            if items and items[0].get(keyword) is not None:
                return items[0].get(keyword)
        return None

    return read


_TAGS = {
    "ImagePositionPatient": "(0020,0032) ImagePositionPatient",
    "ImageOrientationPatient": "(0020,0037) ImageOrientationPatient",
    "PixelSpacing": "(0028,0030) PixelSpacing",
}


def _frame(dataset: Dataset, index: int, read: Callable[[str, str], Any], absent: dict[str, int]) -> Frame | None:
    position = _numbers(read("PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = _numbers(read("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = _numbers(read("PixelMeasuresSequence", "PixelSpacing"), 2)
    if spacing is not None and not (spacing > 0).all():
        spacing = None
    if orientation is not None and np.linalg.norm(np.cross(orientation[:3], orientation[3:])) < 0.5:
        orientation = None
    found = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PixelSpacing": spacing}
    for keyword, value in found.items():
        if value is None:
            absent[_TAGS[keyword]] = absent.get(_TAGS[keyword], 0) + 1
    if position is None or orientation is None or spacing is None:
        return None
    thickness = _number(read("PixelMeasuresSequence", "SpacingBetweenSlices")) or _number(
        read("PixelMeasuresSequence", "SliceThickness")
    )
    slope = _number(read("PixelValueTransformationSequence", "RescaleSlope"))
    intercept = _number(read("PixelValueTransformationSequence", "RescaleIntercept"))
    return Frame(
        dataset=dataset,
        index=index,
        position=position,
        row_cosines=orientation[:3] / np.linalg.norm(orientation[:3]),
        column_cosines=orientation[3:] / np.linalg.norm(orientation[3:]),
        row_spacing_mm=float(spacing[0]),
        column_spacing_mm=float(spacing[1]),
        thickness_mm=abs(thickness) if thickness else None,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
    )


def _numbers(value: Any, count: int) -> Vector | None:
    try:
        numbers = np.asarray([float(v) for v in value], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def stack_frames(frames: Sequence[Frame]) -> Stack:
    """Sorts frames along the slice normal by position (never by InstanceNumber) and checks that they form an even grid.

    The affine's third column is the slice normal times the mean step, so the grid is orthogonal.
    """
    if not frames:
        return Stack((), None, ())
    issues = _mixed(frames)
    if issues:
        return Stack(tuple(frames), None, tuple(issues))
    normal = frames[0].normal
    ordered = sorted(frames, key=lambda frame: float(frame.position @ normal))
    if len(ordered) == 1:
        return _single(ordered[0])
    heights = np.array([float(frame.position @ normal) for frame in ordered])
    issues, step = _spacing(heights)
    drift = _drift(ordered, normal, float(heights[-1] - heights[0]))
    issues += [drift] if drift else []
    return Stack(tuple(ordered), _affine(ordered[0], step) if step > 0 else None, tuple(issues))


def _single(frame: Frame) -> Stack:
    if frame.thickness_mm is None:
        tag = "(0018,0050) SliceThickness"
        issue = GeometryIssue("missing_geometry", f"a series of one slice lacks {tag}", (tag,))
        return Stack((frame,), None, (issue,))
    return Stack((frame,), _affine(frame, frame.thickness_mm), ())


def _affine(first: Frame, step_mm: float) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 0] = first.row_cosines * first.column_spacing_mm
    affine[:3, 1] = first.column_cosines * first.row_spacing_mm
    affine[:3, 2] = first.normal * step_mm
    affine[:3, 3] = first.position
    return affine


def _mixed(frames: Sequence[Frame]) -> list[GeometryIssue]:
    first, tolerance = frames[0], rules()["tolerances"]
    issues = []
    turned = sum(
        max(
            float(np.abs(frame.row_cosines - first.row_cosines).max()),
            float(np.abs(frame.column_cosines - first.column_cosines).max()),
        )
        > tolerance["orientation_cosine"]
        for frame in frames
    )
    if turned:
        issues.append(
            GeometryIssue("mixed_orientation", f"{turned} of {len(frames)} slices are oriented unlike the first")
        )
    sizes = {(frame.dataset.get("Rows"), frame.dataset.get("Columns")) for frame in frames}
    if len(sizes) > 1:
        issues.append(GeometryIssue("mixed_dimensions", f"the slices have {len(sizes)} different matrix sizes"))
    spacings = np.array([(frame.row_spacing_mm, frame.column_spacing_mm) for frame in frames])
    if (np.ptp(spacings, axis=0) > tolerance["pixel_spacing_relative"] * spacings[0]).any():
        issues.append(GeometryIssue("mixed_spacing", "the slices have different pixel spacings"))
    references = {str(frame.dataset.get("FrameOfReferenceUID", "")) for frame in frames}
    if len(references) > 1:
        issues.append(
            GeometryIssue("mixed_frame_of_reference", f"the slices lie in {len(references)} frames of reference")
        )
    return issues


def _spacing(heights: Vector) -> tuple[list[GeometryIssue], float]:
    """Issues of the slice positions along the normal (ascending, mm), and the mean step in mm."""
    tolerance = rules()["tolerances"]
    gaps = np.diff(heights)
    apart = gaps[gaps > 1e-3]
    if apart.size == 0:
        return [GeometryIssue("duplicate_slices", f"all {heights.size} slices lie at one position")], 0.0
    usual = float(np.median(apart))
    same = gaps < tolerance["duplicate_fraction"] * usual
    issues = []
    if same.any():
        issues.append(
            GeometryIssue("duplicate_slices", f"{int(same.sum())} slice(s) lie where another slice lies already")
        )
    distinct = heights[np.concatenate([[True], ~same])]
    gaps = np.diff(distinct)
    multiples = np.rint(gaps / usual)
    holes = (multiples >= 2) & (np.abs(gaps / usual - multiples) <= tolerance["missing_multiple"])
    if holes.any():
        count = int((multiples[holes] - 1).sum())
        places = ", ".join(f"{index + 1} and {index + 2}" for index in np.flatnonzero(holes)[:5])
        issues.append(
            GeometryIssue("missing_slices", f"{count} slice(s) of {usual:.3g} mm are missing, between slices {places}")
        )
    mean = float((distinct[-1] - distinct[0]) / multiples.clip(min=1).sum())
    grid = distinct[0] + mean * np.concatenate([[0], np.cumsum(multiples.clip(min=1))])
    off = float(np.abs(distinct - grid).max())
    if off > max(tolerance["position_mm"], tolerance["position_fraction"] * usual):
        issues.append(
            GeometryIssue("inconsistent_spacing", f"slices lie up to {off:.2f} mm off an even spacing of {mean:.3g} mm")
        )
    step = float((heights[-1] - heights[0]) / (heights.size - 1))
    return issues, step


def _drift(ordered: Sequence[Frame], normal: Vector, length_mm: float) -> GeometryIssue | None:
    tolerance = rules()["tolerances"]
    offsets = np.array([frame.position - ordered[0].position for frame in ordered])
    sideways = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    drift = float(sideways.max())
    if drift <= max(tolerance["drift_mm"], tolerance["drift_fraction"] * length_mm):
        return None
    angle = float(np.degrees(np.arctan2(drift, length_mm)))
    return GeometryIssue(
        "gantry_tilt", f"slice origins drift {drift:.1f} mm sideways over {length_mm:.0f} mm ({angle:.1f} degrees)"
    )
