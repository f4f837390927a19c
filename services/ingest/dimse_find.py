"""C-FIND, C-GET and C-MOVE identifiers: what is asked, and how it is answered.

Source: DICOM PS3.4 C.4.1 (C-FIND), C.6.1 (patient root), C.6.2 (study root).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from services.ingest.dicom_file import JsonDataset
from services.ingest.query import Level, Query, criterion
from services.platform.errors import RefusedError

LEVELS: dict[str, Level] = {"PATIENT": "study", "STUDY": "study", "SERIES": "series", "IMAGE": "instance"}
_CONTROL = {"QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle"}
_OF_A_PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
)


def query_of(identifier: Dataset, *, instances: bool = False) -> Query:
    """The query of an identifier; for its instances when they are to be sent.

    Raises RefusedError `dicom.invalid_query` without a known (0008,0052) QueryRetrieveLevel.
    """
    level = LEVELS.get(str(identifier.get("QueryRetrieveLevel", "")).strip().upper())
    if level is None:
        raise RefusedError("dicom.invalid_query", "(0008,0052) QueryRetrieveLevel is missing or unknown")
    criteria = [
        criterion(keyword_for_tag(element.tag), _text(element.value))
        for element in identifier
        if element.VR != "SQ" and keyword_for_tag(element.tag) and keyword_for_tag(element.tag) not in _CONTROL
    ]
    found = tuple(one for one in criteria if one is not None)
    if instances and not found:
        raise RefusedError("dicom.invalid_query", "a retrieve request names nothing to send")
    return Query("instance" if instances else level, found, include_all=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "\\".join(str(part) for part in value) if isinstance(value, MultiValue | list) else str(value)


def answers(found: Iterable[JsonDataset], identifier: Dataset, ae_title: str) -> Iterator[Dataset]:
    """One response identifier for each match, with the attributes that were asked for; unknown ones are empty."""
    level = str(identifier.QueryRetrieveLevel).strip().upper()
    seen = set()
    for match in found:
        known = Dataset.from_json(match)
        if level == "PATIENT":
            patient = tuple(str(known.get(keyword, "")) for keyword in _OF_A_PATIENT)
            if patient in seen:
                continue
            seen.add(patient)
        answer = Dataset()
        for element in identifier:
            if keyword_for_tag(element.tag) not in _CONTROL:
                answer.add_new(element.tag, element.VR, known[element.tag].value if element.tag in known else None)
        answer.SpecificCharacterSet = "ISO_IR 192"
        answer.QueryRetrieveLevel = level
        answer.RetrieveAETitle = ae_title
        yield answer
