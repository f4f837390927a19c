"""NIfTI bytes to voxels and back, in the axes and the space that the twin uses: (z, y, x), LPS millimetres."""

from __future__ import annotations

import gzip
import zlib
from typing import Any, NamedTuple

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from services.platform.errors import RefusedError

Floats = NDArray[np.float64]
MEDIA_TYPE = "application/gzip"
_GZIP = b"\x1f\x8b"
_LARGEST = 2**31
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


class Volume(NamedTuple):
    """Voxels (z, y, x) and the 4x4 affine from voxel index (i = column, j = row, k = slice) to LPS mm."""

    voxels: NDArray[Any]
    affine: Floats

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edges (z, y, x)."""
        z, y, x = (float(np.linalg.norm(self.affine[:3, axis])) for axis in (2, 1, 0))
        return z, y, x


def read(content: bytes) -> Volume:
    """The volume in a NIfTI-1 file, compressed or not.

    Raises RefusedError `twin.unreadable_image`: no NIfTI, damaged, not of three axes, or larger than 2 GiB.
    """
    try:
        image: Any = nibabel.Nifti1Image.from_bytes(_plain(content))
        voxels = np.asarray(image.dataobj)
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise _unreadable("the file is no readable NIfTI image") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable("the file is damaged") from error
    if voxels.ndim != 3:
        raise _unreadable(f"the image has {voxels.ndim} axes, not three")
    return Volume(voxels.T, _FLIP @ np.asarray(image.affine, dtype=np.float64))


def _plain(content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    plain = unpacker.decompress(content, _LARGEST)
    if not unpacker.eof:
        raise _unreadable("the image is cut short, or larger than 2 GiB")
    return plain


def _unreadable(message: str) -> RefusedError:
    return RefusedError("twin.unreadable_image", message, remedy="give a three-dimensional NIfTI file")


def write(volume: Volume) -> bytes:
    """A compressed NIfTI file; the same volume gives the same bytes."""
    image: Any = nibabel.Nifti1Image(volume.voxels.T, _FLIP @ volume.affine)
    return gzip.compress(image.to_bytes(), mtime=0)


def refuse_other_grid(one: Volume, other: Volume, what: str) -> None:
    """Raises RefusedError `twin.grids_differ` where shape or affine (within 0.01 mm) differ."""
    if one.voxels.shape != other.voxels.shape or not np.allclose(one.affine, other.affine, atol=1e-2):
        raise RefusedError("twin.grids_differ", f"{what} are not on one grid", remedy="resample one to the other")
