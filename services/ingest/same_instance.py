"""Are two files the same SOP instance, whatever syntax they were sent in?

The same data set has other bytes in another transfer syntax (PS3.5 annex A) and after another sender's padding.
"""

from __future__ import annotations

from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_PIXEL_DATA = BaseTag(0x7FE00010)
# Say how the pixels are encoded, and so change with the transfer syntax.
_OF_THE_ENCODING = {
    BaseTag(tag)
    for tag in (0x00020000, 0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114, 0x7FE00001, 0x7FE00002)
}


def same_data_set(one: bytes, other: bytes) -> bool:
    """True when two Part 10 files hold the same attributes and values.

    Pixels are compared when both are native; a compressed copy of the same attributes counts as the same instance.
    Private attributes are left out when the transfer syntaxes differ: without VR their values cannot be compared.
    """
    first, second = pydicom.dcmread(BytesIO(one)), pydicom.dcmread(BytesIO(other))
    syntaxes = [dataset.file_meta.TransferSyntaxUID for dataset in (first, second)]
    same_syntax = syntaxes[0] == syntaxes[1]
    ignored = set() if same_syntax else _OF_THE_ENCODING
    native = not any(syntax.is_compressed and not syntax.is_deflated for syntax in syntaxes)
    if not same_syntax and not native:
        ignored = ignored | {_PIXEL_DATA}
    if not same_syntax and _PIXEL_DATA not in ignored and not _same_pixels(first, second):
        return False
    return _values(first, ignored, same_syntax) == _values(second, ignored, same_syntax)


def _same_pixels(first: Dataset, second: Dataset) -> bool:
    has = [_PIXEL_DATA in dataset for dataset in (first, second)]
    if has != [True, True]:
        return has == [False, False]
    return bool((first.pixel_array == second.pixel_array).all())


def _values(dataset: Dataset, ignored: set[BaseTag], same_syntax: bool) -> dict[int, object]:
    values: dict[int, object] = {}
    for element in dataset:
        skipped = element.tag in ignored or (not same_syntax and (element.tag.is_private or element.tag == _PIXEL_DATA))
        # Group lengths (gggg,0000) are retired, and differ between encodings (PS3.5 7.2).
        if skipped or element.tag.element == 0:
            continue
        if element.VR == "SQ":
            values[element.tag] = [_values(item, ignored, same_syntax) for item in element.value]
        else:
            values[element.tag] = _plain(element.value)
    return values


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.rstrip(b"\x00")
    return str(value).strip() if value is not None else ""
