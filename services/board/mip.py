"""Maximum intensity projections of a volume from any side, as pictures."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from services.clinical.volume import ImageVolume


def project(volume: ImageVolume, angle_degrees: float) -> NDArray[np.float32]:
    """Brightest value along each ray, rows from head to feet, isotropic pixels of the smallest voxel edge.

    At 0 degrees the patient is seen from the front, patient right on the left of the picture (as on a radiograph); at 90 from
    the patient's left side. Rays run across the table: the volume turns about its head-to-feet axis.
    """
    turned = _head_first(volume)
    x_mm, y_mm, z_mm = volume.spacing_mm
    edge = min(x_mm, y_mm, z_mm)
    plane = ndimage.zoom(turned, (1, y_mm / edge, x_mm / edge), order=1)
    if angle_degrees % 360:
        plane = ndimage.rotate(plane, angle_degrees, axes=(2, 1), reshape=True, order=1, cval=float(turned.min()))
    projected = plane.max(axis=1)
    return np.asarray(ndimage.zoom(projected, (z_mm / edge, 1), order=1), dtype=np.float32)


def _head_first(volume: ImageVolume) -> NDArray[np.float32]:
    """(z, y, x) with z from head to feet, y from front to back, x from patient right to left."""
    axes = volume.affine_lps[:3, :3]
    # Axes of an oblique scan are taken as the nearest of the patient's: a projection is no measurement.
    order = [int(np.argmax(np.abs(axes[row]))) for row in (2, 1, 0)]
    signs = [axes[row, column] for row, column in zip((2, 1, 0), order, strict=True)]
    if sorted(order) != [0, 1, 2]:
        return volume.array
    array = np.transpose(volume.array, [2 - column for column in order])
    flips = [axis for axis, (sign, up) in enumerate(zip(signs, (True, False, False), strict=True)) if (sign > 0) == up]
    return np.flip(array, axis=tuple(flips)) if flips else array


def to_png(projected: NDArray[np.float32], top: float, bottom: float = 0.0) -> bytes:
    """Inverted grey, as PET projections are read: `bottom` white, `top` black."""
    scaled = np.clip((projected - bottom) / max(top - bottom, 1e-6), 0, 1)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(255 * (1 - scaled)).astype(np.uint8), mode="L").save(buffer, format="PNG")
    return buffer.getvalue()
