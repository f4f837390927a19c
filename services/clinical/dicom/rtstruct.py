"""Reading RT structure sets and filling their contours on an image grid.

Source: DICOM PS3.3 A.19 (RT Structure Set IOD), C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour), C.8.8.8 (observations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from services.clinical.dicom.contour_fill import fill_plane, nested_area
from services.platform.errors import RefusedError

CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR"})
#: Cosine of the largest angle (1 degree) between contour planes and slices that still counts as parallel.
PARALLEL_COSINE = 0.99985
#: Contours whose points lie within this distance along the normal share a plane (mm).
SAME_PLANE_MM = 0.05
#: Samples along each axis of a voxel when contours are oblique to the grid.
OBLIQUE_SAMPLES = 3


@dataclass(frozen=True)
class Roi:
    """One region of a structure set. `contours`: closed polygons (n, 3), LPS mm; `interpreted_type`: such as GTV."""

    number: int
    name: str
    frame_of_reference_uid: str
    interpreted_type: str
    contours: tuple[NDArray[np.float64], ...]
    skipped_contours: int = 0


@dataclass(frozen=True)
class StructureSet:
    """An RT structure set. `referenced_series_uids`: the series that its contours were drawn on."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    referenced_series_uids: tuple[str, ...]
    rois: tuple[Roi, ...]


@dataclass(frozen=True)
class ContourPlane:
    """Contours of one plane. `height_mm`: along the normal; `thickness_mm`: the slab that the plane stands for."""

    height_mm: float
    thickness_mm: float
    contours: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class RoiMask:
    """A region on an image grid.

    `mask` (z, y, x): voxel centres inside the contours. `coverage` (z, y, x): share of each voxel inside, 0 to 1.
    `volume_mm3`: area of the contours times the slab of each plane, independent of the grid. `outside_fraction`: share
    of that volume that the grid does not cover.
    """

    mask: NDArray[np.bool_]
    coverage: NDArray[np.float32]
    volume_mm3: float
    outside_fraction: float


def read_rtstruct(dataset: Dataset) -> StructureSet:
    """Parses an RT Structure Set.

    Raises:
        RefusedError: `rtstruct.wrong_sop_class`, `rtstruct.no_roi`, `rtstruct.malformed_contour`.
    """
    uid = str(dataset.get("SOPInstanceUID", ""))
    if str(dataset.get("SOPClassUID", "")) != RTStructureSetStorage:
        raise RefusedError("rtstruct.wrong_sop_class", "the object is not an RT Structure Set", subject=uid)
    types = {
        int(item.ReferencedROINumber): str(item.get("RTROIInterpretedType", "") or "")
        for item in dataset.get("RTROIObservationsSequence", [])
    }
    outlines = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence", [])}
    rois = []
    for item in dataset.get("StructureSetROISequence", []):
        number = int(item.ROINumber)
        closed, skipped = _contours(outlines.get(number), uid)
        rois.append(
            Roi(
                number=number,
                name=str(item.get("ROIName", "") or f"ROI {number}"),
                frame_of_reference_uid=str(
                    item.get("ReferencedFrameOfReferenceUID", "") or dataset.get("FrameOfReferenceUID", "")
                ),
                interpreted_type=types.get(number, "").upper(),
                contours=closed,
                skipped_contours=skipped,
            )
        )
    if not rois:
        tag = "(3006,0020) StructureSetROISequence"
        raise RefusedError(
            "rtstruct.no_roi",
            "the structure set names no region",
            missing=[tag],
            remedy="Export it again.",
            subject=uid,
        )
    return StructureSet(
        sop_instance_uid=uid,
        series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        referenced_series_uids=_referenced_series(dataset),
        rois=tuple(rois),
    )


def _referenced_series(dataset: Dataset) -> tuple[str, ...]:
    return tuple(
        str(series.SeriesInstanceUID)
        for frame in dataset.get("ReferencedFrameOfReferenceSequence", [])
        for study in frame.get("RTReferencedStudySequence", [])
        for series in study.get("RTReferencedSeriesSequence", [])
    )


def _contours(item: Dataset | None, uid: str) -> tuple[tuple[NDArray[np.float64], ...], int]:
    closed, skipped = [], 0
    for contour in item.get("ContourSequence", []) if item is not None else []:
        if str(contour.get("ContourGeometricType", "")) not in CLOSED:
            skipped += 1
            continue
        try:
            points = np.asarray(contour.ContourData, dtype=np.float64).reshape(-1, 3)
        except (AttributeError, TypeError, ValueError):
            points = np.empty((0, 3))
        if len(points) < 3 or not np.isfinite(points).all():
            raise RefusedError(
                "rtstruct.malformed_contour",
                "a closed contour has fewer than three points, or a point that is not three numbers",
                missing=["(3006,0050) ContourData"],
                remedy="Export the structure set again.",
                subject=uid,
            )
        closed.append(points)
    return tuple(closed), skipped


def plane_normal(contours: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Unit normal shared by planar contours, from the smallest principal axis of the largest ones."""
    scatter = np.zeros((3, 3))
    for points in sorted(contours, key=len)[-8:]:
        centred = points - points.mean(axis=0)
        scatter += centred.T @ centred
    normal = np.linalg.eigh(scatter)[1][:, 0]
    return np.asarray(normal * np.sign(normal[np.argmax(np.abs(normal))]))


def contour_planes(roi: Roi, normal: NDArray[np.float64], fallback_mm: float) -> tuple[ContourPlane, ...]:
    """Groups contours by plane; each plane stands for the slab half-way to its neighbours, at most the usual gap thick.

    `fallback_mm`: slab of a region drawn on one plane only.
    """
    levels: list[tuple[float, list[NDArray[np.float64]]]] = []
    for points in sorted(roi.contours, key=lambda p: float((p @ normal).mean())):
        height = float((points @ normal).mean())
        if levels and height - levels[-1][0] < SAME_PLANE_MM:
            levels[-1][1].append(points)
        else:
            levels.append((height, [points]))
    heights = np.array([height for height, _ in levels])
    gaps = np.diff(heights)
    usual = float(np.median(gaps)) if gaps.size else fallback_mm
    half = usual / 2
    below = np.concatenate([[half], np.minimum(gaps / 2, half)])
    above = np.concatenate([np.minimum(gaps / 2, half), [half]])
    return tuple(
        ContourPlane(height, float(low + high), tuple(contours))
        for (height, contours), low, high in zip(levels, below, above, strict=True)
    )


def fill_roi(
    roi: Roi, affine_lps: NDArray[np.float64], shape_zyx: tuple[int, int, int], frame_of_reference_uid: str
) -> RoiMask:
    """Fills a region on the grid of any image in the same frame of reference, whatever image it was drawn on.

    Raises:
        RefusedError: `rtstruct.no_closed_contour`, `rtstruct.frame_of_reference`, `rtstruct.outside_image`.
    """
    if not roi.contours:
        raise RefusedError(
            "rtstruct.no_closed_contour",
            "the region has no closed contour, so it encloses no volume",
            missing=["(3006,0050) ContourData with (3006,0042) ContourGeometricType CLOSED_PLANAR"],
            remedy="Draw the region as closed contours.",
        )
    if not frame_of_reference_uid or roi.frame_of_reference_uid != frame_of_reference_uid:
        raise RefusedError(
            "rtstruct.frame_of_reference",
            "the region and the image lie in different frames of reference",
            missing=["(0020,0052) FrameOfReferenceUID shared by both"],
            remedy="Register the two images first, or draw the region on this image.",
        )
    slice_step = affine_lps[:3, 2]
    spacing = float(np.linalg.norm(slice_step))
    slice_normal = slice_step / spacing
    normal = plane_normal(roi.contours)
    parallel = abs(float(normal @ slice_normal)) >= PARALLEL_COSINE
    planes = contour_planes(roi, slice_normal if parallel else normal, spacing)
    volume = _planes_volume(planes, slice_normal if parallel else normal)
    fill = _fill_parallel if parallel else _fill_oblique
    mask, coverage = fill(planes, slice_normal if parallel else normal, affine_lps, shape_zyx)
    voxel = abs(float(np.linalg.det(affine_lps[:3, :3])))
    covered = float(coverage.sum(dtype=np.float64)) * voxel
    if covered <= 0:
        raise RefusedError(
            "rtstruct.outside_image",
            "the region lies outside the image",
            remedy="Check that the region was drawn for this examination.",
        )
    return RoiMask(mask, coverage, volume, max(0.0, 1.0 - covered / volume) if volume > 0 else 0.0)


def in_plane_axes(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two orthonormal axes (2, 3) of the plane with this normal."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first)])


def _planes_volume(planes: Sequence[ContourPlane], normal: NDArray[np.float64]) -> float:
    axes = in_plane_axes(normal)
    return sum(nested_area([points @ axes.T for points in plane.contours]) * plane.thickness_mm for plane in planes)


def _fill_parallel(
    planes: Sequence[ContourPlane],
    normal: NDArray[np.float64],
    affine_lps: NDArray[np.float64],
    shape_zyx: tuple[int, int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    depth, rows, columns = shape_zyx
    to_index = np.linalg.inv(affine_lps)
    mask = np.zeros(shape_zyx, dtype=bool)
    coverage = np.zeros(shape_zyx, dtype=np.float64)
    spacing = float(np.linalg.norm(affine_lps[:3, 2]))
    origin = float(affine_lps[:3, 3] @ normal)
    # The plane whose slab holds a slice's centre gives its mask; slabs that meet by rounding only must not skip one.
    nearest: dict[int, tuple[float, int]] = {}
    fills = []
    for number, plane in enumerate(planes):
        outlines = [(points @ to_index[:3, :3].T + to_index[:3, 3])[:, :2] for points in plane.contours]
        fills.append(fill_plane(outlines, (rows, columns)))
        low = (plane.height_mm - plane.thickness_mm / 2 - origin) / spacing
        high = (plane.height_mm + plane.thickness_mm / 2 - origin) / spacing
        for k in range(max(0, int(np.floor(low - 0.5))), min(depth, int(np.ceil(high + 0.5)) + 1)):
            overlap = min(high, k + 0.5) - max(low, k - 0.5)
            if overlap <= 0:
                continue
            coverage[k] += overlap * fills[number][0]
            away = abs(plane.height_mm - origin - k * spacing)
            if away <= plane.thickness_mm / 2 + SAME_PLANE_MM and away < nearest.get(k, (np.inf, 0))[0]:
                nearest[k] = (away, number)
    for k, (_, number) in nearest.items():
        mask[k] = fills[number][1]
    return mask, np.clip(coverage, 0, 1).astype(np.float32)


def _fill_oblique(
    planes: Sequence[ContourPlane],
    normal: NDArray[np.float64],
    affine_lps: NDArray[np.float64],
    shape_zyx: tuple[int, int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    axes = in_plane_axes(normal)
    spacings = np.linalg.norm(affine_lps[:3, :3], axis=0)
    pixel = float(min(1.0, spacings.min() / 2))
    flat = np.concatenate([points @ axes.T for plane in planes for points in plane.contours])
    corner = flat.min(axis=0) - pixel
    shape = tuple(int(n) for n in np.ceil((flat.max(axis=0) + pixel - corner) / pixel).astype(int)[::-1] + 1)
    fills = np.stack(
        [
            fill_plane([(points @ axes.T - corner) / pixel for points in plane.contours], (shape[0], shape[1]))[1]
            for plane in planes
        ]
    )
    mask = np.zeros(shape_zyx, dtype=bool)
    coverage = np.zeros(shape_zyx, dtype=np.float32)
    box = _index_box(planes, affine_lps, shape_zyx)
    k, j, i = (axis.ravel() for axis in np.mgrid[box])
    if not k.size:
        return mask, coverage
    steps = (np.arange(OBLIQUE_SAMPLES) + 0.5) / OBLIQUE_SAMPLES - 0.5
    share = np.zeros(k.size, dtype=np.float32)
    for dk, dj, di in np.array(np.meshgrid(steps, steps, steps)).reshape(3, -1).T:
        inside = _lookup(np.stack([i + di, j + dj, k + dk]), affine_lps, planes, normal, axes, corner, pixel, fills)
        share += inside / OBLIQUE_SAMPLES**3
        if dk == dj == di == 0:
            mask[k, j, i] = inside
    coverage[k, j, i] = share
    return mask, coverage


def _index_box(
    planes: Sequence[ContourPlane], affine_lps: NDArray[np.float64], shape_zyx: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    points = np.concatenate([points for plane in planes for points in plane.contours])
    to_index = np.linalg.inv(affine_lps)
    index = (points @ to_index[:3, :3].T + to_index[:3, 3])[:, ::-1]
    spacing_zyx = np.linalg.norm(affine_lps[:3, :3], axis=0)[::-1]
    margin = max(plane.thickness_mm for plane in planes) / spacing_zyx + 1
    low = np.maximum(np.floor(index.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(index.max(axis=0) + margin) + 1, shape_zyx).astype(int)
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))


def _lookup(
    index: NDArray[np.float64],
    affine_lps: NDArray[np.float64],
    planes: Sequence[ContourPlane],
    normal: NDArray[np.float64],
    axes: NDArray[np.float64],
    corner: NDArray[np.float64],
    pixel: float,
    fills: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether points at voxel index (3, n) lie inside the filled planes."""
    points = (affine_lps[:3, :3] @ index + affine_lps[:3, 3:]).T
    heights = np.array([plane.height_mm for plane in planes])
    halves = np.array([plane.thickness_mm for plane in planes]) / 2
    along = points @ normal
    plane = np.abs(along[:, None] - heights[None, :]).argmin(axis=1)
    near = np.abs(along - heights[plane]) <= halves[plane] + 1e-6
    column, row = np.rint((points @ axes.T - corner) / pixel).astype(int).T
    near &= (row >= 0) & (row < fills.shape[1]) & (column >= 0) & (column < fills.shape[2])
    inside = np.zeros(len(points), dtype=bool)
    inside[near] = fills[plane[near], row[near], column[near]]
    return inside
