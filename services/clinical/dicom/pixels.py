"""Decoding the frames of one series into a volume, slice by slice.

Source: DICOM PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT); PS3.5 8.2 (native and encapsulated pixel data).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import (
    HTJ2K,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from services.clinical.dicom.geometry import Frame, GeometryIssue
from services.platform.errors import RefusedError

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: Elements longer than this stay in their file until they are decoded.
DEFERRED_BYTES = 16 * 1024
#: Integers up to here have an exact float32 (24 bits of significand).
_EXACT_FLOAT32 = 2**24
_JPEG_FAMILY = frozenset(
    [*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL]
)
_END_OF_IMAGE = b"\xff\xd9"
_UNDECODABLE = (
    ArithmeticError, AttributeError, IndexError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def open_instance(path: str | Path) -> Dataset:
    """Reads a file's attributes; its pixel data stay in the file until `read_frames` decodes them.

    The file must stay where it is and as it is. Raises pydicom.errors.InvalidDicomError for what is no DICOM file.
    """
    return pydicom.dcmread(str(path), defer_size=DEFERRED_BYTES, force=False)


def read_frames(frames: Sequence[Frame]) -> NDArray[np.float32]:
    """The frames as (frame, row, column) float32 in physical units, in the order given.

    Each frame's own rescale slope and intercept (or modality LUT) are applied. Beside the result, memory holds the pixel
    data of one instance that `open_instance` read, and one decoded frame.

    Raises:
        RefusedError: `series.undecodable_pixel_data`.
    """
    volume = np.empty((len(frames), int(frames[0].dataset.Rows), int(frames[0].dataset.Columns)), dtype=np.float32)
    buffer = np.empty(volume.shape[1:], dtype=np.float64)
    by_instance = sorted(enumerate(frames), key=lambda entry: (id(entry[1].dataset), entry[1].index))
    for _, entries in groupby(by_instance, key=lambda entry: id(entry[1].dataset)):
        _fill(volume, buffer, tuple(entries))
    return volume


def _fill(volume: NDArray[np.float32], buffer: NDArray[np.float64], entries: Sequence[tuple[int, Frame]]) -> None:
    dataset = entries[0][1].dataset
    in_file = _deferred(dataset)
    try:
        _check_complete(dataset)
        decoded = iter_pixels(dataset, indices=[frame.index for _, frame in entries])
        for (k, frame), stored in zip(entries, decoded, strict=True):
            if stored.shape != volume.shape[1:]:
                raise _undecodable(f"slice {k + 1} decodes to a matrix of another size", dataset)
            _rescale(stored, frame, volume[k], buffer)
    except _UNDECODABLE as error:
        raise _undecodable(f"an instance's pixel data cannot be decoded ({type(error).__name__})", dataset) from error
    finally:
        for element in in_file:
            dataset[element.tag] = element


def _check_complete(dataset: Dataset) -> None:
    """JPEG decoders fill in what a cut-off stream lacks and say nothing, so its end must be there.

    Source: ITU-T T.81 B.1.1.3 (EOI), T.87 C.1.1, T.800 A.4.4 (EOC: the same two bytes); PS3.5 A.4 (padding).
    """
    if dataset.file_meta.TransferSyntaxUID not in _JPEG_FAMILY:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    for stream in generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=offsets):
        if not stream.rstrip(b"\x00").endswith(_END_OF_IMAGE):
            raise _undecodable("an instance's compressed pixel data end before the image does", dataset)


def _deferred(dataset: Dataset) -> list[RawDataElement]:
    """Pixel elements that are still in the file."""
    elements: list[Any] = [dataset.get_item(name, keep_deferred=True) for name in PIXEL_KEYWORDS if name in dataset]
    return [element for element in elements if isinstance(element, RawDataElement) and element.value is None]


def _rescale(stored: NDArray[Any], frame: Frame, out: NDArray[np.float32], buffer: NDArray[np.float64]) -> None:
    if "ModalityLUTSequence" in frame.dataset:
        out[...] = apply_modality_lut(stored, frame.dataset)
    elif _exact(stored, frame):
        np.add(stored, np.float32(frame.intercept), out=out, dtype=np.float32, casting="unsafe")
    else:
        np.multiply(stored, frame.slope, out=buffer, dtype=np.float64)
        np.add(buffer, frame.intercept, out=out, casting="unsafe")


def _exact(stored: NDArray[Any], frame: Frame) -> bool:
    """Whether float32 arithmetic gives what float64 would: 16-bit integers and a whole, small intercept."""
    return (
        frame.slope == 1
        and stored.dtype.kind in "iu"
        and stored.dtype.itemsize <= 2
        and frame.intercept == int(frame.intercept)
        and abs(frame.intercept) < _EXACT_FLOAT32 - 2**16
    )


def _undecodable(message: str, dataset: Dataset) -> RefusedError:
    issue = GeometryIssue("undecodable_pixel_data", message)
    return RefusedError(
        f"series.{issue.code}", message, remedy=issue.remedy, subject=str(dataset.get("SeriesInstanceUID", ""))
    )
