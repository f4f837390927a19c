"""One DICOM instance as the front door reads it: identity, place in the study, attributes for queries.

Source: DICOM PS3.10 section 7 (file format), PS3.3 C.2 (patient), C.7.2 (study), C.7.3 (series), C.12.1 (SOP common),
PS3.18 annex F (JSON model). Messages name attributes, never their values.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import pydicom
import pydicom.config
import yaml
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID
from pynetdicom.sop_class import _STORAGE_CLASSES

from services.clinical.identity import PatientIdentifier, issuer_from_dicom, make_identifier
from services.ingest.dicom_stream import TruncatedError, check_complete, data_set_offset, has_preamble
from services.platform.errors import RefusedError

# pydicom warns about odd values by quoting them, and warnings end up in logs.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

MEDIA_TYPE = "application/dicom"
JsonDataset = dict[str, Any]
# Digits and dots only: UIDs become parts of storage names. Leading zeros are wrong but common, and harmless here.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_USED = (
    "SOPInstanceUID",
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "NumberOfStudyRelatedInstances",
    "StudyDate",
    "StudyTime",
    "TimezoneOffsetFromUTC",
)
_MAKE_VALID = "send a complete DICOM Part 10 file"


@cache
def query_attributes() -> Mapping[str, Any]:
    """`query_attributes.yaml`, read once."""
    content: dict[str, Any] = yaml.safe_load(
        files("services.ingest").joinpath("query_attributes.yaml").read_text("utf-8")
    )
    return content


@cache
def storage_classes() -> frozenset[str]:
    """UIDs of every storage SOP class of the standard, retired ones included (PS3.4 B.5, PS3.6 A)."""
    named = {uid for uid, (name, kind, *_) in UID_dictionary.items() if kind == "SOP Class" and "Storage" in name} - {
        uid for uid, (name, *_) in UID_dictionary.items() if "Commitment" in name or "Directory" in name
    }
    return frozenset(named | set(_STORAGE_CLASSES.values()))


@dataclass(frozen=True)
class InstanceHeader:
    """What the archive needs to know of one instance.

    `attributes`: level ("study", "series", "instance") -> DICOM JSON of the attributes kept for queries; not to be changed.
    `data_set_sha256`: hash of the data set without file meta information, which differs from sender to sender.
    `expected_instances`: (0020,1208) when the sender tells how many instances the study has, else None.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    patient: PatientIdentifier
    issuer_of_patient_id: str
    patient_id: str
    study_time: datetime | None
    expected_instances: int | None
    data_set_sha256: str
    attributes: Mapping[str, JsonDataset]

    def text(self, level: str, keyword: str) -> str:
        """The first value of a kept attribute as text; "" when absent."""
        return json_text(self.attributes[level], keyword)


@cache
def tag_of(keyword: str) -> str:
    """ "00100020" for "PatientID". Raises KeyError for a keyword outside PS3.6."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return f"{tag:08X}"


@cache
def _tag(keyword: str) -> BaseTag:
    """As `tag_of`, as pydicom finds elements fastest."""
    return Tag(tag_of(keyword))


def json_text(attributes: Mapping[str, Any], keyword: str) -> str:
    """The first value of an attribute in DICOM JSON as text; "" when absent. Person names: the alphabetic form."""
    values = attributes.get(tag_of(keyword), {}).get("Value") or [""]
    value = values[0].get("Alphabetic", "") if isinstance(values[0], dict) else values[0]
    # PostgreSQL's text holds no NUL, which some senders pad with.
    return "" if value is None else str(value).replace("\x00", "").strip()


def read_header(content: bytes, issuers: Mapping[str, str], default_issuer: str) -> InstanceHeader:
    """Reads and checks one Part 10 file.

    Raises RefusedError: `dicom.not_dicom`, `dicom.directory`, `dicom.truncated`, `dicom.unreadable`,
    `dicom.missing_transfer_syntax`, `dicom.unknown_transfer_syntax`, `dicom.missing_uid`, `dicom.invalid_uid`,
    `dicom.unknown_sop_class`, `dicom.missing_patient_id`. Where (0002,0003) differs from (0008,0018), the latter counts.
    """
    dataset = _read(content)
    uids = _uids(dataset)
    if uids["SOPClassUID"] not in storage_classes():
        raise _refused("dicom.unknown_sop_class", "the SOP class is no storage class of the standard", uids)
    patient_id = _plain(dataset.get("PatientID"))
    if not patient_id:
        raise RefusedError(
            "dicom.missing_patient_id",
            "(0010,0020) PatientID is missing or empty",
            missing=["(0010,0020) PatientID"],
            remedy="set PatientID at the sender and send the study again",
            subject=uids["SOPInstanceUID"],
        )
    issuer = _plain(dataset.get("IssuerOfPatientID"))
    qualifiers = dataset.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()]
    universal = _plain(qualifiers[0].get("UniversalEntityID"))
    body = memoryview(content)[data_set_offset(content) :]
    return InstanceHeader(
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        patient=make_identifier(issuer_from_dicom(issuer, universal, issuers, default_issuer), patient_id),
        issuer_of_patient_id=issuer,
        patient_id=patient_id,
        study_time=study_time(dataset),
        expected_instances=_positive(dataset.get("NumberOfStudyRelatedInstances")),
        data_set_sha256=hashlib.sha256(body).hexdigest(),
        attributes={
            "study": _shared(dataset, "study"),
            "series": _shared(dataset, "series"),
            "instance": _kept(dataset, "instance"),
        },
    )


def _plain(value: Any) -> str:
    return str(value or "").replace("\x00", "").strip()


def _refused(
    reason: str, message: str, uids: Mapping[str, str] | None = None, remedy: str = _MAKE_VALID
) -> RefusedError:
    return RefusedError(reason, message, remedy=remedy, subject=(uids or {}).get("SOPInstanceUID", ""))


def _read(content: bytes) -> pydicom.FileDataset:
    if not has_preamble(content):
        raise _refused("dicom.not_dicom", 'the file does not begin as DICOM Part 10 ("DICM" after 128 bytes)')
    meta = _meta(content)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if meta.get("MediaStorageSOPClassUID") == _MEDIA_DIRECTORY:
        raise _refused("dicom.directory", "the file is a DICOMDIR, an index of other files", remedy="send those files")
    if not syntax:
        raise _refused("dicom.missing_transfer_syntax", "(0002,0010) TransferSyntaxUID is missing")
    if not UID(syntax).is_transfer_syntax:
        raise _refused("dicom.unknown_transfer_syntax", "(0002,0010) names a transfer syntax outside PS3.6")
    try:
        check_complete(content, syntax)
    except TruncatedError as error:
        raise _refused("dicom.truncated", str(error)) from error
    return _parsed(content)


def _meta(content: bytes) -> Dataset:
    try:
        return _parsed(content[: data_set_offset(content)]).file_meta
    except TruncatedError as error:
        raise _refused("dicom.truncated", f"{error}, in the file meta information") from error


def _parsed(content: bytes) -> pydicom.FileDataset:
    try:
        dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        # Values are converted when first used: convert those that are used here, so that a bad one shows now.
        for keyword in _USED:
            dataset.get(keyword)
        for element in dataset.file_meta.keys():  # noqa: SIM118 - a Dataset iterates over elements
            dataset.file_meta[element]
    except Exception as error:  # pydicom raises what its parsing meets: anything but a data set is unreadable
        raise _refused("dicom.unreadable", f"the data set cannot be parsed ({type(error).__name__})") from error
    return dataset


def _uids(dataset: pydicom.FileDataset) -> dict[str, str]:
    keywords = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
    uids = {keyword: str(dataset.get(keyword) or "").strip() for keyword in keywords}
    missing = [keyword for keyword, uid in uids.items() if not uid]
    if missing:
        raise RefusedError(
            "dicom.missing_uid", f"{', '.join(missing)} missing or empty", missing=missing, remedy=_MAKE_VALID
        )
    invalid = [keyword for keyword, uid in uids.items() if len(uid) > 64 or not _UID.fullmatch(uid)]
    if invalid:
        raise RefusedError(
            "dicom.invalid_uid", f"{', '.join(invalid)} is no UID (PS3.5 9.1)", missing=invalid, remedy=_MAKE_VALID
        )
    return uids


def _positive(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None


def study_time(dataset: Dataset) -> datetime | None:
    """StudyDate and StudyTime as aware UTC; times without (0008,0201) TimezoneOffsetFromUTC count as UTC."""
    date, clock = str(dataset.get("StudyDate") or "").strip(), str(dataset.get("StudyTime") or "").strip()
    digits = (clock.split(".")[0].replace(":", "") + "000000")[:6]
    try:
        local = datetime.strptime(date.replace(".", "") + digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        offset = str(dataset.get("TimezoneOffsetFromUTC") or "").strip()
        if re.fullmatch(r"[+-]\d{4}", offset):
            minutes = int(offset[1:3]) * 60 + int(offset[3:])
            local = local.replace(tzinfo=timezone((1 if offset[0] == "+" else -1) * timedelta(minutes=minutes)))
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _kept(dataset: Dataset, level: str) -> JsonDataset:
    table = query_attributes()[level]
    kept: JsonDataset = {}
    for keyword in (*table["default"], *table["optional"]):
        tag = _tag(keyword)
        if tag in dataset:
            try:
                kept[tag_of(keyword)] = dataset[tag].to_json_dict(None, 1 << 30)
            except Exception:  # noqa: S112 - a malformed optional value must not keep the image out
                continue
    return kept


def _shared(dataset: Dataset, level: str) -> JsonDataset:
    """As `_kept`, remembered for the next instance that says the same: those of a series share nearly all of it."""
    keywords = ("SpecificCharacterSet", *query_attributes()[level]["default"], *query_attributes()[level]["optional"])
    said = []
    for keyword in keywords:
        element = dataset.get_item(_tag(keyword))
        if element is None:
            continue
        if element.VR in (None, "SQ", "UN"):
            return _kept(dataset, level)
        said.append((keyword, element.VR, element.value if isinstance(element.value, bytes) else repr(element.value)))
    key = (level, dataset.is_little_endian, tuple(said))
    found = _REMEMBERED.get(key)
    if found is None:
        found = _kept(dataset, level)
        if len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.clear()
        _REMEMBERED[key] = found
    return found


_REMEMBERED: dict[tuple[Any, ...], JsonDataset] = {}
_MOST_REMEMBERED = 512
