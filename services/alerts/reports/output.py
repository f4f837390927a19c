"""A report in the form that somebody asks for: HTML, DOCX, PDF, DICOM SR, FHIR, or JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, get_args

import pydicom

from services.alerts.reports import present
from services.alerts.reports.desk import ReportDesk, Stored
from services.alerts.reports.model import to_json
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError

Form = Literal["html", "docx", "pdf", "sr", "fhir", "json"]
FORMS: tuple[Form, ...] = get_args(Form)
_SUFFIX: dict[Form, str] = {"sr": "dcm", "fhir": "fhir.json"}


@dataclass(frozen=True)
class Output:
    """`name`: a file name without patient data."""

    content: bytes
    media_type: str
    name: str


class Printer:
    """Makes outputs. Libraries of a form are imported when that form is asked for."""

    def __init__(self, desk: ReportDesk, blobs: BlobStore, organization: str = "not stated") -> None:
        self._desk, self._blobs, self._organization = desk, blobs, organization

    def make(self, stored: Stored, form: str, version: int = 0) -> Output:
        """One form of a version; 0 is the one that counts: the signed one, else the latest.

        Raises RefusedError `report.unknown_form` or `report.unknown_version`, and those of the forms.
        """
        if form not in FORMS:
            raise RefusedError("report.unknown_form", "there is no such form", remedy="use one of " + ", ".join(FORMS))
        chosen = stored.signed or stored.latest
        if version:
            found = next((v for v in stored.versions if v.version == version), None)
            if found is None:
                raise RefusedError(
                    "report.unknown_version", f"the report has no version {version}", subject=stored.row.report_id
                )
            chosen = found
        name = f"report-{chosen.report_id[:8]}-v{chosen.version}.{_SUFFIX.get(form, form)}"  # type: ignore[call-overload]
        if form == "json":
            return Output(to_json(chosen.report), "application/json", name)
        if form == "sr":
            return Output(self._sr(stored, chosen), "application/dicom", name)
        if form == "fhir":
            return Output(self._fhir(stored, chosen), "application/fhir+json", name)
        content, media_type = self._page(stored, chosen, form)
        return Output(content, media_type, name)

    def _page(self, stored: Stored, version: present.VersionRow, form: str) -> tuple[bytes, str]:
        who = self._desk.snapshot(stored.row.patient_key).demographics
        shown = present.shown(version, stored.status, who)
        if form == "docx":
            from services.alerts.reports import docx

            return docx.render(shown), docx.MEDIA_TYPE
        if form == "pdf":
            from services.alerts.reports import pdf

            return pdf.render(shown), pdf.MEDIA_TYPE
        from services.alerts.reports import html

        return html.render(shown), html.MEDIA_TYPE

    def _fhir(self, stored: Stored, version: present.VersionRow) -> bytes:
        from services.alerts.reports.fhir_report import diagnostic_report

        page, _ = self._page(stored, version, "html")
        findings = self._desk.findings(version.report.study_instance_uid).findings
        resource = diagnostic_report(version, stored.status, findings, [("text/html", page)])
        return json.dumps(resource, ensure_ascii=False, indent=1).encode()

    def _sr(self, stored: Stored, version: present.VersionRow) -> bytes:
        from services.alerts.reports import sr
        from services.clinical.dicom.derived import to_bytes

        manifest = self._desk.manifest(version.report.study_instance_uid)
        instance = next((i for s in manifest.series if not s.derived for i in s.instances), None)
        if instance is None:
            raise RefusedError("report.no_images", "the study has no images to refer to", subject=stored.row.report_id)
        file = BytesIO(self._blobs.get(instance.content))
        header = pydicom.dcmread(file, stop_before_pixels=True)
        return to_bytes(sr.build(version, stored.status, manifest, header, self._organization))
