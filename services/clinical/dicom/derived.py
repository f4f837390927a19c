"""What every DICOM object that Osler makes has in common: identity, origin, and the same bytes for the same input."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO

from pydicom.dataset import Dataset

from services.clinical.provenance import code_version

MANUFACTURER = "Osler"
MODEL = "Osler imaging"
DEVICE_SERIAL = "osler"
_NAMESPACE = uuid.UUID("0b6f3c42-2d0e-5c52-9a6b-0e9c5bb1f7aa")
#: Patient and study attributes (type 2) that some senders leave out and that a derived object must carry.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID", "PositionReferenceIndicator",
)  # fmt: skip


@dataclass(frozen=True)
class ObjectIdentity:
    """Who an object is. UIDs come from `derived_uid`, `made_at` from the cause, so that a replay makes the same object."""

    series_instance_uid: str
    sop_instance_uid: str
    series_number: int
    instance_number: int
    series_description: str
    made_at: datetime


def derived_uid(*parts: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that depends on `parts` only."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(parts)).int}"


def tracking_uid(patient_key: str, tracking_id: str) -> str:
    """One UID for one tracked thing of one patient, at every visit where it has the same tracking id."""
    return derived_uid("tracking", patient_key, tracking_id)


def headers(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Copies without pixel data, with patient and study attributes (type 2) filled in, empty where absent."""
    copies = []
    for dataset in datasets:
        copy = Dataset()
        # By tag: going over the elements would read pixel data that still lie in their file.
        copy.update({tag: dataset[tag] for tag in sorted(dataset.keys()) if tag.group < 0x7FE0})
        for keyword in _TYPE_2:
            if keyword not in copy:
                setattr(copy, keyword, "")
        if hasattr(dataset, "file_meta"):
            copy.file_meta = dataset.file_meta
        copies.append(copy)
    return copies


def pin(dataset: Dataset, identity: ObjectIdentity) -> None:
    """Writes the times and names of `identity` over those that a builder takes from the clock."""
    at = identity.made_at.astimezone(UTC)
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(dataset, keyword, f"{at:%Y%m%d}")
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(dataset, keyword, f"{at:%H%M%S}")
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.SeriesDescription = identity.series_description
    for equipment in dataset.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = f"{at:%Y%m%d%H%M%S}"


def pin_organization(dataset: Dataset, identity: ObjectIdentity) -> None:
    """Gives the dimension organization (PS3.3 C.7.6.17) a UID that depends on the object only."""
    uid = derived_uid("dimension organization", identity.sop_instance_uid)
    for item in dataset.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = uid
    for item in dataset.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def to_bytes(dataset: Dataset) -> bytes:
    """The object as a DICOM file (PS3.10)."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def software() -> str:
    """Value of (0018,1020) SoftwareVersions."""
    return code_version()
