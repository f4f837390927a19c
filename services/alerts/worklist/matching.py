"""Matching of worklist queries against datasets that are small and made on the spot.

Source: DICOM PS3.4 C.2.2.2: universal, single value, list of UID, wildcard, range and sequence matching.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from services.clinical.timestamps import parse_dicom_dt
from services.platform.errors import RefusedError

_RANGED = ("DA", "TM", "DT")
_NO_WILDCARD = ("UI", "IS", "DS", "US", "UL", "FD", "FL", "SS", "SL")
# A minus before four digits up to 1459 is an offset from UTC (PS3.5 table 6.2-1, DT), else it parts a range.
_DT = r"\d{4,14}(?:\.\d+)?(?:[+-](?:0\d|1[0-4])[0-5]\d)?"
_DT_RANGE = re.compile(rf"(?P<low>{_DT})?(?P<dash>-)?(?P<high>{_DT})?")
_RANGE = re.compile(r"(?P<low>[\d.]+)?(?P<dash>-)?(?P<high>[\d.]+)?")
_CONTROL = ("SpecificCharacterSet", "TimezoneOffsetFromUTC")


def matches(dataset: Dataset, query: Dataset) -> bool:
    """Whether every key of the query fits; keys without a value fit everything."""
    for wanted in query:
        keyword = keyword_for_tag(wanted.tag)
        if not keyword or keyword in _CONTROL:
            continue
        have = dataset.get(wanted.tag)
        if wanted.VR == "SQ":
            if wanted.value and len(wanted.value[0]) and not _in_sequence(have, wanted.value[0]):
                return False
        elif (text := _text(wanted.value)) and not _fits(_values(have), text, wanted.VR):
            return False
    return True


def _in_sequence(have: object, query: Dataset) -> bool:
    items = getattr(have, "value", None) or [Dataset()]
    return any(matches(item, query) for item in items)


def _text(value: object) -> str:
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue | list) else str(value)


def _values(element: object) -> list[str]:
    value = getattr(element, "value", None)
    if value is None or value == "":
        return []
    return [str(part) for part in value] if isinstance(value, MultiValue | list) else [str(value)]


def _fits(values: Iterable[str], wanted: str, vr: str) -> bool:
    if wanted == "*":
        return True
    if vr in _RANGED:
        low, high = _range(wanted, vr)
        return any(low <= _padded(value, vr, "0") <= high for value in values)
    if vr == "UI":
        return any(value in re.split(r"[\\,]", wanted) for value in values)
    if vr == "PN":
        pattern = wanted.casefold().rstrip("^")
        return any(fnmatch.fnmatchcase(value.casefold().rstrip("^"), _escaped(pattern)) for value in values)
    if vr not in _NO_WILDCARD and ("*" in wanted or "?" in wanted):
        return any(fnmatch.fnmatchcase(value, _escaped(wanted)) for value in values)
    return wanted in values


def _escaped(pattern: str) -> str:
    """Square brackets mean nothing in DICOM."""
    return pattern.replace("[", "[[]")


def _range(text: str, vr: str) -> tuple[str, str]:
    """Both ends, inclusive, as `_padded` writes them. Raises RefusedError `dicom.invalid_query`."""
    found = (_DT_RANGE if vr == "DT" else _RANGE).fullmatch(text.replace(":", ""))
    if found is None or not (found["low"] or found["high"]):
        raise RefusedError(
            "dicom.invalid_query", "a date, time or range of the query cannot be read", remedy="use 20250101-20250131"
        )
    low, high = found["low"] or "", found["high"] or ("" if found["dash"] else found["low"])
    return _padded(low, vr, "0") if low else "", _padded(high, vr, "9") if high else "9" * 14


def _padded(text: str, vr: str, filler: str) -> str:
    """A DA or TM to full length, a DT as its first or last second in UTC: text order is time order."""
    if vr == "DT":
        moment = parse_dicom_dt(text)
        return f"{moment.at if filler == '0' else moment.latest:%Y%m%d%H%M%S}"
    return text.replace(":", "").split(".")[0].ljust({"DA": 8, "TM": 6}[vr], filler)


def query_dataset(parameters: Iterable[tuple[str, str]]) -> Dataset:
    """Query parameters of a UPS-RS search as keys: keyword or tag, nested ones joined by dots (PS3.18 8.3.4.1).

    Raises RefusedError `dicom.unknown_attribute`.
    """
    query = Dataset()
    for name, value in parameters:
        *path, leaf = [_tag(part) for part in name.split(".")]
        here = query
        for sequence in path:
            if sequence not in here:
                here.add_new(sequence, "SQ", [Dataset()])
            here = here[sequence].value[0]
        here.add_new(leaf, dictionary_VR(leaf), value)
    return query


def _tag(name: str) -> int:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name) and keyword_for_tag(int(name, 16)):
        return int(name, 16)
    tag = tag_for_keyword(name)
    if tag is None:
        raise RefusedError("dicom.unknown_attribute", "a query names an attribute that PS3.6 does not know")
    return tag
