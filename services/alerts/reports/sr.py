"""A report as DICOM SR: Enhanced SR with template TID 2000 (Basic Diagnostic Imaging Report).

Source: DICOM PS3.16 TID 2000, TID 1001, TID 1204, CID 7000 to 7002; PS3.3 A.35.2 (Enhanced SR), C.17.2 (SR Document General:
Completion, Verification and Preliminary Flag).
"""

from __future__ import annotations

import highdicom as hd
from highdicom.sr import EnhancedSR
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from services.alerts.report_store import VersionRow
from services.alerts.reports.desk import Status
from services.alerts.reports.model import Section, section_rows
from services.clinical.dicom import derived

MEDIA_TYPE = "application/dicom"
_SERIES_NUMBER = 9700
_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
_HAS_CONTEXT = hd.sr.RelationshipTypeValues.HAS_OBS_CONTEXT
_HAS_MOD = hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD


def build(
    version: VersionRow, status: Status, manifest: ingest_pb2.StudyManifest, header: Dataset, organization: str
) -> EnhancedSR:
    """The document. `header`: any instance of the study, for patient and study attributes.

    A version that nobody signed is PRELIMINARY and UNVERIFIED. The same version gives the same UIDs.
    """
    signed = version.signed_at is not None
    report = version.report
    document = EnhancedSR(
        evidence=_evidence(manifest, header),
        content=_content(version),
        series_instance_uid=derived.derived_uid("report-series", version.report_id),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=derived.derived_uid("report", version.report_id, str(version.version), str(signed)),
        instance_number=version.version,
        manufacturer=derived.MANUFACTURER,
        is_complete=True,
        is_final=signed,
        is_verified=signed,
        verifying_observer_name=_person_name(version.signed_by) if signed else None,
        verifying_organization=organization if signed else None,
    )
    made = derived.ObjectIdentity(
        str(document.SeriesInstanceUID),
        str(document.SOPInstanceUID),
        _SERIES_NUMBER,
        version.version,
        f"Imaging report, {status if signed else 'preliminary'}",
        version.signed_at or version.made_at,
    )
    derived.pin(document, made)
    document.StudyInstanceUID = report.study_instance_uid
    return document


def _evidence(manifest: ingest_pb2.StudyManifest, header: Dataset) -> list[Dataset]:
    """Each image of the study by reference, with the patient and study attributes of `header`."""
    (common,) = derived.headers([header])
    found = []
    for series in manifest.series:
        for instance in () if series.derived else series.instances:
            item = Dataset()
            item.update(common)
            item.StudyInstanceUID = manifest.study_instance_uid
            item.SeriesInstanceUID = series.series_instance_uid
            item.SOPInstanceUID, item.SOPClassUID = instance.sop_instance_uid, instance.sop_class_uid
            found.append(item)
    return found


def _content(version: VersionRow) -> Dataset:
    root = hd.sr.ContainerContentItem(
        name=hd.sr.CodedConcept("18748-4", "LN", "Diagnostic Imaging Report"), template_id="2000"
    )
    language = hd.sr.CodeContentItem(
        name=hd.sr.CodedConcept("121049", "DCM", "Language of Content Item and Descendants"),
        value=hd.sr.CodedConcept("en", "RFC5646", "English"),
        relationship_type=_HAS_MOD,
    )
    items = [language, *_observer(version)]
    items += [_section(section) for section in version.report.sections if section.lines]
    root.ContentSequence = hd.sr.ContentSequence(items)
    return root


def _observer(version: VersionRow) -> list[hd.sr.ContentItem]:
    """Who says this: the person who signed or edited, else the device."""
    if version.signed_at is not None or version.author_kind == "person":
        attributes = hd.sr.PersonObserverIdentifyingAttributes(name=_person_name(version.signed_by or version.author))
        return [*hd.sr.ObserverContext(codes.DCM.Person, attributes)]
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=derived.derived_uid("device", "Osler alerts"),
        name="Osler alerts",
        manufacturer_name=derived.MANUFACTURER,
        model_name="Osler alerts",
    )
    return [*hd.sr.ObserverContext(codes.DCM.Device, device)]


def _person_name(user: str) -> str:
    """A user id as a PN of one component (PS3.5 6.2.1.2)."""
    return user if "^" in user else f"{user}^"


def _section(section: Section) -> hd.sr.ContainerContentItem:
    row = section_rows()[section.name]
    found = hd.sr.ContainerContentItem(
        name=hd.sr.CodedConcept(row["heading"], "DCM", row["heading_meaning"]), relationship_type=_CONTAINS
    )
    element = hd.sr.CodedConcept(row["element"], "DCM", row["element_meaning"])
    texts = [line.text for line in section.lines] + _cells(section)
    items = [hd.sr.TextContentItem(name=element, value=text, relationship_type=_CONTAINS) for text in texts]
    found.ContentSequence = hd.sr.ContentSequence(items)
    return found


def _cells(section: Section) -> list[str]:
    """The table as text, a line a row; the numbers themselves are in the measurement report (TID 1500)."""
    if section.table is None:
        return []
    columns = section.table.columns
    return [
        f"{row[0]}: " + "; ".join(f"{name} {cell}" for name, cell in zip(columns[1:], row[1:], strict=True))
        for row in section.table.rows
    ]
