"""Surfaces of segmented regions for looking at, planning and printing.

STL: LPS millimetres, as the segmentation. GLB: metres, +Y up and +Z to the viewer as glTF 2.0 section 3.4 asks, with the
patient upright and facing the viewer: (x, y, z) = (left, up, front) / 1000. Marching cubes as in Lewiner et al. 2003
(scikit-image), smoothed without shrinking (Taubin 1995), decimated by quadrics (Garland and Heckbert 1997).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import fast_simplification
import highdicom as hd
import numpy as np
import trimesh
from numpy.typing import NDArray
from pydicom import dcmread
from skimage.measure import marching_cubes

from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError

LPS_TO_GLTF = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1000.0]]) / 1000.0
_MOST_FACES = 20_000
_SKIN_HU = -300.0
_COLOURS = ((226, 88, 62), (242, 178, 60), (94, 170, 236), (126, 203, 140), (190, 130, 220), (120, 200, 205))
_SKIN = (200, 170, 150, 60)


@dataclass(frozen=True)
class Surface:
    """One region. `mesh`: LPS mm, normals outward. `mask_ml`: volume of the voxels that it was made from."""

    name: str
    mesh: trimesh.Trimesh
    mask_ml: float
    see_through: bool = False

    @property
    def volume_ml(self) -> float:
        return float(self.mesh.volume) / 1000.0

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Extent along left-right, front-back and feet-head."""
        x, y, z = self.mesh.extents
        return float(x), float(y), float(z)


def from_mask(name: str, mask: NDArray[np.bool_], affine: NDArray[np.float64], *, step: int = 1) -> Surface:
    """Surface of a mask. `affine`: 4x4, maps array indices (in the order of the array's axes) to LPS mm.

    Raises RefusedError `surface.empty` for a mask without a voxel.
    """
    if not mask.any():
        raise RefusedError("surface.empty", "this region holds no voxel", remedy="outline it again")
    padded = np.pad(mask, step).astype(np.float32)
    corners, faces, _, _ = marching_cubes(padded, 0.5, step_size=step)
    points = (corners - step) @ affine[:3, :3].T + affine[:3, 3]
    mesh = trimesh.Trimesh(points, faces, process=True)
    trimesh.smoothing.filter_taubin(mesh, iterations=8)
    if len(mesh.faces) > _MOST_FACES:
        small_points, small_faces = fast_simplification.simplify(
            np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces, dtype=np.int32),
            target_count=_MOST_FACES,
        )  # fmt: skip
        mesh = trimesh.Trimesh(small_points, small_faces, process=True)
    if mesh.volume < 0:
        mesh.invert()
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    return Surface(name, mesh, float(mask.sum()) * voxel_ml)


def from_segmentation(content: bytes) -> list[Surface]:
    """A surface for each segment of a DICOM SEG. Raises RefusedError for a file that is none."""
    try:
        segmentation = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(content)))
        found = []
        for number in segmentation.segment_numbers:
            volume = segmentation.get_volume(segment_numbers=[number])
            array = np.asarray(volume.array)
            mask = (array[..., 0] if array.ndim == 4 else array) >= 0.5
            description = segmentation.get_segment_description(number)
            if mask.any():
                found.append(from_mask(str(description.segment_label), mask, np.asarray(volume.affine)))
    except (AttributeError, KeyError, ValueError, RuntimeError) as error:
        raise RefusedError(
            "surface.unreadable",
            f"the segmentation cannot be read ({type(error).__name__})",
            remedy="export the segmentation again",
        ) from error
    return found


def skin(volume: ImageVolume) -> Surface:
    """The body's outline in a CT, for orientation. Raises RefusedError for a volume that shows none."""
    affine = volume.affine_lps @ np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    made = from_mask("Body", volume.array > _SKIN_HU, affine, step=2)
    parts = made.mesh.split(only_watertight=False)
    largest = max(parts, key=lambda part: float(np.prod(part.extents))) if len(parts) else made.mesh
    return Surface("Body", largest, made.mask_ml, see_through=True)


def export(surfaces: Sequence[Surface], kind: Literal["glb", "stl"]) -> bytes:
    """All surfaces in one file. STL holds no names and no see-through surfaces: it is for printing."""
    if kind == "stl":
        solid = [surface.mesh for surface in surfaces if not surface.see_through]
        if not solid:
            raise RefusedError("surface.empty", "there is nothing to print", remedy="outline a region first")
        return bytes(trimesh.exchange.stl.export_stl(trimesh.util.concatenate(solid)))
    scene = trimesh.Scene()
    for number, surface in enumerate(surfaces):
        mesh = surface.mesh.copy()
        mesh.apply_transform(LPS_TO_GLTF)
        colour = _SKIN if surface.see_through else (*_COLOURS[number % len(_COLOURS)], 255)
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.75, doubleSided=True,
            alphaMode="BLEND" if surface.see_through else "OPAQUE",
        )  # fmt: skip
        mesh.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(mesh, node_name=surface.name, geom_name=surface.name)
    return bytes(scene.export(file_type="glb"))
