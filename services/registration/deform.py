"""Deformable registration on top of a matrix, on CPU or GPU: stationary velocity (symmetric) or B-spline displacement.

Both follow a loss down by Adam over cubic B-spline control points, coarse to fine. Symmetric diffeomorphism: the velocity v is
constant in time, and fixed and moving images are compared half way, F(exp(-v/2)) with M(exp(v/2)), so neither side is
preferred and exp(-v) is the inverse (Arsigny V et al. MICCAI 2006, LNCS 4190:924; Avants BB et al. Med Image Anal 2008;12:26).
Similarity: squared local correlation within one modality, MIND descriptors across modalities (dense.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
import torch
import yaml
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from torch import Tensor
from torch.nn import functional

from services.registration.deformation import Deformation, Field
from services.registration.dense import Correlation, Descriptors, Similarity, exponential, spread
from services.registration.geometry import IDENTITY, Matrix, index_to_lps, to_affine
from services.registration.prepare import Prepared, shrink
from services.registration.rigid import Progress, silent

SETTINGS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("deform.yaml").read_text())
_SIMILARITIES: dict[str, Callable[[Tensor, Tensor, Tensor], Similarity]] = {
    "correlation": Correlation,
    "descriptors": Descriptors,
}


@dataclass(frozen=True)
class Box:
    """The fixed image's field of view, corner voxel centre to corner voxel centre, which every grid of a run spans."""

    corner: NDArray[np.float64]
    direction: NDArray[np.float64]
    length_mm: NDArray[np.float64]

    def size(self, spacing_mm: float) -> list[int]:
        """Points (i, j, k) of a grid of about this spacing."""
        return [max(2, round(float(length) / spacing_mm) + 1) for length in self.length_mm]

    def steps_mm(self, size: list[int]) -> NDArray[np.float64]:
        """Spacing (x, y, z) of a grid of so many points."""
        return self.length_mm / (np.asarray(size) - 1.0)

    def affine(self, size: list[int]) -> Matrix:
        """4x4 from index (i, j, k) of such a grid to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction @ np.diag(self.steps_mm(size))
        matrix[:3, 3] = self.corner
        return matrix


@dataclass(frozen=True)
class _Stage:
    """One level. `bases`: control points to the field's grid, for each axis. `steps_mm`: spacing of that grid."""

    similarity: Similarity
    bases: list[Tensor]
    steps_mm: Tensor
    table: dict[str, Any]
    symmetric: bool


def deform(
    fixed: Prepared,
    moving: Prepared,
    matrix: Matrix,
    *,
    symmetric: bool = True,
    seed: int | None = None,
    levels: int | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Deformation:
    """Bends the moving series onto the fixed one, starting at `matrix` (4x4, fixed to moving, LPS mm).

    `symmetric`: stationary velocity with its inverse; else a B-spline displacement without one. `seed`: begins at a small
    random field instead of none, which tells whether the end depends on the beginning. `levels`: only the first so many.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        box = _box(fixed)
        tables = _levels(box)[:levels]
        size = box.size(tables[0]["field_mm"])
        field = torch.zeros((1, 3, *size[::-1]), device=_device())
        for number, table in enumerate(tables):
            stage = _stage(fixed, moving, matrix, box, table, symmetric)
            start = _control(stage, seed if number == 0 else None)
            done, share = number / len(tables), 1 / len(tables)
            progress("deform", done)
            size = box.size(table["field_mm"])
            field = _on_field(field, size)
            field = _follow(stage, field, start, lambda f, d=done, s=share: progress("deform", d + s * f))
        return _finished(field, matrix, box, size, symmetric)
    finally:
        torch.set_num_threads(before)


def _finished(field: Tensor, matrix: Matrix, box: Box, size: list[int], symmetric: bool) -> Deformation:
    steps = torch.tensor(box.steps_mm(size), dtype=torch.float32, device=field.device)
    squarings = SETTINGS["squarings"]

    def to_lps(displacement: Tensor) -> Field:
        along_axes = (displacement[0].movedim(0, -1) * steps).cpu().numpy()
        return np.asarray(along_axes @ box.direction.T.astype(np.float32), dtype=np.float32)

    affine = box.affine(size)
    with torch.no_grad():
        if not symmetric:
            return Deformation(np.asarray(matrix), to_lps(field), affine)
        ahead, back = (to_lps(exponential(sign * field, squarings)) for sign in (1.0, -1.0))
        return Deformation(np.asarray(matrix), ahead, affine, back)


def _on_field(field: Tensor, size: list[int]) -> Tensor:
    """The field on a grid of so many points (i, j, k) over the same box, in steps of that grid."""
    ratio = torch.tensor([(new - 1.0) / (old - 1.0) for new, old in zip(size, field.shape[:1:-1], strict=True)])
    made = functional.interpolate(field, size=size[::-1], mode="trilinear", align_corners=True)
    return made * ratio.view(1, 3, 1, 1, 1).to(field.device)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _box(fixed: Prepared) -> Box:
    affine = index_to_lps(fixed.image)
    direction = np.asarray(fixed.image.GetDirection()).reshape(3, 3)
    length = (np.asarray(fixed.image.GetSize()) - 1) * np.asarray(fixed.image.GetSpacing())
    return Box(affine[:3, 3], direction, length)


def _levels(box: Box) -> list[dict[str, Any]]:
    """The levels of the settings, the finest coarsened where the body is long."""
    least = (float(np.prod(box.length_mm)) / SETTINGS["most_voxels"]) ** (1 / 3)
    return [{**table, "image_mm": max(table["image_mm"], least)} for table in SETTINGS["levels"]]


def _stage(
    fixed: Prepared, moving: Prepared, matrix: Matrix, box: Box, table: dict[str, Any], symmetric: bool
) -> _Stage:
    spacing, device = table["image_mm"], _device()
    sides = [
        _on_grid(shrink(fixed.image, spacing), box, spacing, IDENTITY),
        _on_grid(shrink(moving.image, spacing), box, spacing, matrix),
        _on_grid(sitk.Cast(fixed.near, sitk.sitkFloat32), box, spacing, IDENTITY),
    ]
    kind = SETTINGS["same_modality" if fixed.modality == moving.modality else "other_modality"]
    similarity = _SIMILARITIES[kind["similarity"]](*(torch.from_numpy(side)[None, None].to(device) for side in sides))
    size = box.size(table["field_mm"])
    lengths = zip(size, box.length_mm, strict=True)
    bases = [torch.from_numpy(_basis(n, float(length), table["control_mm"])).to(device) for n, length in lengths]
    steps = torch.tensor(box.steps_mm(size), dtype=torch.float32, device=device)
    return _Stage(similarity, bases, steps, {**table, "smooth": kind["smooth"]}, symmetric)


def _on_grid(image: sitk.Image, box: Box, spacing_mm: float, matrix: Matrix) -> NDArray[np.float32]:
    """The image on a grid of the box, looked up through `matrix`."""
    size = box.size(spacing_mm)
    made = sitk.Resample(
        image,
        size,
        to_affine(matrix),
        sitk.sitkLinear,
        box.corner.tolist(),
        box.steps_mm(size).tolist(),
        box.direction.flatten().tolist(),
        0.0,
        sitk.sitkFloat32,
    )
    return np.asarray(sitk.GetArrayFromImage(made), dtype=np.float32)


def _basis(count: int, length_mm: float, control_mm: float) -> NDArray[np.float32]:
    """Uniform cubic B-splines (columns) at `count` points from end to end of an axis (rows)."""
    spans = max(1, round(length_mm / control_mm))
    knots = np.arange(-3, spans + 4, dtype=float)
    made = BSpline.design_matrix(np.linspace(0, spans, count), knots, 3)
    return np.asarray(made.toarray(), dtype=np.float32)


def _control(stage: _Stage, seed: int | None) -> Tensor:
    """Control points (3, z, y, x) in steps of the field's grid: none, or random with the setting's deviation."""
    shape = (3, *(basis.shape[1] for basis in stage.bases[::-1]))
    if seed is None:
        return torch.zeros(shape, device=stage.steps_mm.device)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * SETTINGS["repeat_start_mm"]
    return noise.to(stage.steps_mm.device) / stage.steps_mm.view(3, 1, 1, 1)


def _follow(stage: _Stage, field: Tensor, start: Tensor, step: Any) -> Tensor:
    """The field plus what this level finds."""
    scale = stage.steps_mm.view(3, 1, 1, 1)
    control = (start * scale).requires_grad_()
    optimiser = torch.optim.Adam([control], lr=stage.table["rate_mm"], betas=(0.8, 0.99))
    best, since = float("inf"), 0
    for number in range(stage.table["steps"]):
        step(number / stage.table["steps"])
        optimiser.zero_grad()
        loss = _loss(stage, field + spread(control / scale, stage.bases))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        value = float(loss.detach())
        since = 0 if value < best - SETTINGS["gain"] else since + 1
        best = min(best, value)
        if since >= SETTINGS["patience"]:
            break
    with torch.no_grad():
        return field + spread(control / scale, stage.bases)


def _loss(stage: _Stage, field: Tensor) -> Tensor:
    """Misfit plus roughness: the mean squared gradient of the field, which has no unit."""
    steps = stage.steps_mm
    in_mm = field * steps.view(1, 3, 1, 1, 1)
    rough = torch.stack([((in_mm.diff(dim=4 - axis) / steps[axis]) ** 2).mean() for axis in range(3)]).sum()
    if stage.symmetric:
        half = field / 2
        moved, back = (exponential(sign * half, SETTINGS["squarings"]) for sign in (1.0, -1.0))
        misfit = stage.similarity.loss(moved, back)
    else:
        misfit = stage.similarity.loss(field, None)
    return misfit + stage.table["smooth"] * rough


def misfit(fixed: Prepared, moving: Prepared, bent: Deformation) -> float:
    """How badly the two sides fit through a deformation (0..1, see dense.py), without roughness, at the finest level."""
    box = _box(fixed)
    stage = _stage(fixed, moving, bent.matrix, box, _levels(box)[-1], False)
    size = list(bent.displacement.shape[2::-1])
    along_axes = bent.displacement @ box.direction.astype(np.float32) / box.steps_mm(size).astype(np.float32)
    field = torch.from_numpy(np.ascontiguousarray(along_axes, dtype=np.float32)).movedim(-1, 0)[None]
    with torch.no_grad():
        return float(stage.similarity.loss(field.to(stage.steps_mm.device), None))
