"""Frames, bulk data and metadata of one instance, as WADO-RS gives them.

Source: DICOM PS3.18 8.7.3 (media types of transfer syntaxes), 10.4 (Retrieve Transaction), annex F (JSON model);
PS3.5 8.2 and A.4 (native and encapsulated pixel data).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, JPEGTransferSyntaxes, RLELossless

from services.ingest.dicom_file import JsonDataset
from services.platform.errors import RefusedError

# Values up to this size are written into the metadata, larger ones are fetched (PS3.18 F.2.6).
INLINE_BYTES = 1024
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Frame:
    """Bytes of one frame in one transfer syntax."""

    content: bytes
    media_type: str
    transfer_syntax_uid: str

    @property
    def content_type(self) -> str:
        """Content-Type of the part."""
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"


def media_type_of(transfer_syntax_uid: str) -> str:
    """The media type of pixel data in a transfer syntax (PS3.18 table 8.7.3-2)."""
    if transfer_syntax_uid == RLELossless:
        return "image/dicom-rle"
    if transfer_syntax_uid in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"):
        return "image/jls"
    if transfer_syntax_uid in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"):
        return "image/jp2"
    if transfer_syntax_uid in ("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"):
        return "image/jpx"
    if transfer_syntax_uid.startswith("1.2.840.10008.1.2.4.20"):
        return "image/jphc"
    return "image/jpeg" if transfer_syntax_uid in JPEGTransferSyntaxes else OCTETS


def is_compressed(transfer_syntax_uid: str) -> bool:
    """True when pixel data is encapsulated in this transfer syntax."""
    syntax = pydicom.uid.UID(transfer_syntax_uid)
    return syntax.is_compressed and not syntax.is_deflated


def read(content: bytes) -> pydicom.FileDataset:
    """The data set of a stored file."""
    return pydicom.dcmread(BytesIO(content))


def frame(dataset: pydicom.FileDataset, number: int, *, as_stored: bool) -> Frame:
    """Frame `number` (from 1). `as_stored`: compressed frames stay compressed; native ones are little endian always.

    Raises RefusedError `dicom.no_such_frame`, or `dicom.undecodable` when the pixels cannot be decompressed here.
    """
    keyword = next((name for name in _PIXELS if name in dataset), None)
    count = int(dataset.get("NumberOfFrames") or 1)
    if keyword is None or not 1 <= number <= count:
        raise RefusedError("dicom.no_such_frame", f"the instance has {count if keyword else 0} frames")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if as_stored and is_compressed(syntax):
        encapsulated = get_frame(dataset.PixelData, number - 1, number_of_frames=count)
        return Frame(encapsulated, media_type_of(syntax), syntax)
    if not is_compressed(syntax) and (cut := _native(dataset, keyword, number, count)) is not None:
        return Frame(cut, OCTETS, str(ExplicitVRLittleEndian))
    try:
        native, _ = get_decoder(dataset.file_meta.TransferSyntaxUID).as_buffer(dataset, index=number - 1)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise RefusedError(
            "dicom.undecodable",
            f"the pixels cannot be decompressed ({type(error).__name__})",
            remedy="ask for them as stored: transfer-syntax=*",
        ) from error
    return Frame(bytes(native), OCTETS, str(ExplicitVRLittleEndian))


def _native(dataset: pydicom.FileDataset, keyword: str, number: int, count: int) -> bytes | None:
    """A native frame in little endian; None when frames do not begin at whole bytes (bit-packed segmentations)."""
    pixels = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1)
    bits = pixels * dataset.get("BitsAllocated", 8)
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    if bits % 8 and count > 1:
        return None
    size = (bits + 7) // 8
    value: bytes = dataset[keyword].value
    return _in_little_endian(dataset, value[(number - 1) * size : number * size])


def _in_little_endian(dataset: pydicom.FileDataset, native: bytes) -> bytes:
    word = int(dataset.get("BitsAllocated", 8)) // 8
    if dataset.original_encoding[1] or word < 2:
        return native
    return np.frombuffer(native, f">u{word}").byteswap().tobytes()


def transcode(content: bytes, wanted: str) -> bytes:
    """The file in explicit little endian. Raises RefusedError `dicom.unsupported_transfer_syntax` or `dicom.undecodable`."""
    dataset = read(content)
    if wanted != ExplicitVRLittleEndian:
        raise RefusedError(
            "dicom.unsupported_transfer_syntax",
            "instances are given as stored or in explicit little endian",
            remedy=f"ask for transfer-syntax=* or {ExplicitVRLittleEndian}",
        )
    try:
        if is_compressed(str(dataset.file_meta.TransferSyntaxUID)):
            dataset.decompress(generate_instance_uid=False)
        elif "PixelData" in dataset:
            dataset.PixelData = _in_little_endian(dataset, dataset.PixelData)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise RefusedError("dicom.undecodable", f"cannot be decompressed ({type(error).__name__})") from error
    fresh = Dataset(dataset)
    fresh.file_meta = dataset.file_meta
    fresh.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, fresh, enforce_file_format=True)
    return buffer.getvalue()


def metadata(dataset: Dataset, bulk_data_url: str) -> JsonDataset:
    """The data set in DICOM JSON; large binary values as BulkDataURI below `bulk_data_url`, pixels always."""
    return _json(dataset, bulk_data_url.rstrip("/"))


def _json(dataset: Dataset, url: str) -> JsonDataset:
    found: JsonDataset = {}
    for element in dataset:
        tag = f"{element.tag:08X}"
        if element.tag.element == 0:
            continue
        if element.VR == "SQ":
            items = [_json(item, f"{url}/{tag}/{n}") for n, item in enumerate(element.value, start=1)]
            found[tag] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        elif isinstance(element.value, bytes):
            found[tag] = _binary(element.VR, element.value, f"{url}/{tag}", element.keyword in _PIXELS)
        else:
            try:
                found[tag] = element.to_json_dict(None, 1 << 62)
            except Exception:  # a value that JSON cannot hold ("1,5" as a number) is left empty
                found[tag] = {"vr": element.VR}
    return found


def _binary(vr: str, value: bytes, url: str, pixels: bool) -> dict[str, Any]:
    if pixels or len(value) > INLINE_BYTES:
        return {"vr": vr.split(" ")[-1], "BulkDataURI": url}
    return {"vr": vr.split(" ")[-1], "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}


def bulk_data(dataset: pydicom.FileDataset, path: Sequence[str]) -> list[Frame]:
    """The value at a path of tags and item numbers, as `metadata` names it; pixel data frame by frame when compressed.

    Raises RefusedError `dicom.no_such_attribute`.
    """
    node: Any = dataset
    try:
        for n, part in enumerate(path):
            node = node[int(part, 16)] if n % 2 == 0 else node.value[int(part) - 1]
        value = node.value
    except (KeyError, ValueError, IndexError, AttributeError, TypeError):
        value = None
    if not isinstance(value, bytes):
        raise RefusedError("dicom.no_such_attribute", "the instance has no bulk data there")
    if node.keyword == "PixelData" and len(path) == 1:
        count = int(dataset.get("NumberOfFrames") or 1)
        if is_compressed(str(dataset.file_meta.TransferSyntaxUID)):
            return [frame(dataset, number, as_stored=True) for number in range(1, count + 1)]
    return [Frame(value, OCTETS, str(ExplicitVRLittleEndian))]
