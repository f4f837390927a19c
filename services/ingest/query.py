"""Matching of QIDO-RS and C-FIND, as criteria that the index understands.

Source: DICOM PS3.4 C.2.2.2 (single value, UID list, wildcard, range matching), PS3.18 10.6 (Search Transaction).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from services.ingest.dicom_file import query_attributes
from services.platform.errors import RefusedError

Level = Literal["study", "series", "instance"]
LEVELS: tuple[Level, ...] = ("study", "series", "instance")
LARGEST_PAGE = 10_000
_NAMES = {"PatientName", "ReferringPhysicianName"}
_TIMES = {"StudyTime"}
_DATES = {"StudyDate", "SeriesDate", "PatientBirthDate"}
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class Criterion:
    """One condition on a column of a level. `kind`:

    "any": equal to one of `values`; "like": `values[0]` with * and ?; "range": from `values[0]` to `values[1]`, either
    "" for open; "words": every word begins a part of the name.
    """

    level: Level
    column: str
    kind: Literal["any", "like", "range", "words"]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """What to find, at which level. `limit`: rows at most."""

    level: Level
    criteria: tuple[Criterion, ...] = ()
    limit: int = LARGEST_PAGE
    offset: int = 0
    include: tuple[str, ...] = field(default=())
    include_all: bool = False


def keyword_of(name: str) -> str:
    """The keyword of "PatientID" or "00100020". Raises RefusedError `dicom.unknown_attribute`."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        name = keyword_for_tag(int(name, 16)) or name
    if tag_for_keyword(name) is None:
        raise RefusedError("dicom.unknown_attribute", "a query names an attribute that PS3.6 does not know")
    return name


def criterion(keyword: str, value: str, *, fuzzy: bool = False) -> Criterion | None:
    """The condition for one matching key; None for universal matching (empty or "*") or a key that is not indexed.

    Raises RefusedError `dicom.invalid_query` for a malformed date or time.
    """
    text = value.strip()
    if keyword == "ModalitiesInStudy":
        return Criterion("series", "modality", "any", _listed(text)) if text.strip("*") else None
    for level in LEVELS:
        column = query_attributes()["columns"][level].get(keyword)
        if column is not None:
            return _criterion(level, column, keyword, text, fuzzy) if text.strip("*") else None
    return None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"[\\,]", text) if part.strip())


def _criterion(level: Level, column: str, keyword: str, text: str, fuzzy: bool) -> Criterion:
    if keyword in _DATES or keyword in _TIMES:
        return Criterion(level, column, "range", _range(keyword, text))
    if keyword in _NAMES:
        folded = text.casefold().rstrip("^")
        if fuzzy:
            return Criterion(level, column, "words", tuple(re.split(r"[\s^=*]+", folded.strip("^= *"))))
        return Criterion(level, column, "like", (folded,))
    if keyword.endswith("UID"):
        return Criterion(level, column, "any", _listed(text))
    if "*" in text or "?" in text:
        return Criterion(level, column, "like", (text,))
    return Criterion(level, column, "any", _listed(text) if keyword == "Modality" else (text,))


def _range(keyword: str, text: str) -> tuple[str, str]:
    pattern = _DATE if keyword in _DATES else _TIME
    plain = text.replace(":", "").replace(".", "") if keyword in _DATES else text.replace(":", "")
    low, dash, high = plain.partition("-")
    low, high = low.strip(), high.strip() if dash else low.strip()
    if not (low or high) or any(part and not pattern.fullmatch(part) for part in (low, high)):
        raise RefusedError(
            "dicom.invalid_query",
            f"{keyword} is no date, time or range of them (PS3.4 C.2.2.2.5)",
            remedy="use 20250131, 20250101-20250131, -20250131 or 20250101-",
        )
    if keyword in _DATES:
        return low, high
    return low.split(".")[0].ljust(6, "0") if low else "", high.split(".")[0].ljust(6, "9") if high else ""


def from_parameters(level: Level, parameters: Sequence[tuple[str, str]], fixed: Mapping[str, str]) -> Query:
    """The query of a QIDO-RS request. `fixed`: UIDs that the path gives.

    Raises RefusedError `dicom.unknown_attribute` or `dicom.invalid_query`.
    """
    given = dict(parameters)
    fuzzy = given.get("fuzzymatching", "false").lower() == "true"
    include = [name for key, value in parameters if key == "includefield" for name in value.split(",") if name]
    criteria = [criterion(keyword, uid) for keyword, uid in fixed.items()]
    for key, value in parameters:
        if key in ("limit", "offset", "fuzzymatching", "includefield", "accept"):
            continue
        # A path through sequences ("00400275.00400009") matches inside items, which are not indexed.
        name = keyword_of(key.split(".")[0])
        criteria.append(criterion(name, value, fuzzy=fuzzy) if "." not in key else None)
    return Query(
        level=level,
        criteria=tuple(found for found in criteria if found is not None),
        limit=min(_number(given, "limit", LARGEST_PAGE), LARGEST_PAGE),
        offset=_number(given, "offset", 0),
        include=tuple(keyword_of(name.split(".")[0]) for name in include if name.lower() != "all"),
        include_all=any(name.lower() == "all" for name in include),
    )


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal():
        raise RefusedError("dicom.invalid_query", f"{name} is no whole number")
    return int(text)
