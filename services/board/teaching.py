"""A case as a teaching file without identity: what happened in days since the first visit, lesions, responses, pictures.

Left out or coarsened by the safe harbour list of 45 CFR 164.514(b)(2): names, numbers, dates (days since the first image
instead), ages over 89, places, free text of people. Titles of the record are kept only where they are coded: a title that a
person typed may name somebody. Pictures are made anew from voxels, so they carry no header and nothing burnt in by a scanner.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from osler.fusion.v1 import fusion_pb2

from services.board import mip
from services.board.case import CaseView
from services.clinical.dicom.series import load_series, read_manifest_series
from services.clinical.suv import suv_scale
from services.platform.errors import RefusedError

if TYPE_CHECKING:
    from services.board.pages import Pages

OLDEST_AGE = 89
_KINDS = (
    fusion_pb2.ENTRY_KIND_CONDITION,
    fusion_pb2.ENTRY_KIND_MEDICATION,
    fusion_pb2.ENTRY_KIND_PROCEDURE,
    fusion_pb2.ENTRY_KIND_GENOMIC,
)


def describe(view: CaseView, snapshot: fusion_pb2.PatientSnapshot) -> dict[str, Any]:
    """The case as plain data, without identity."""
    first = view.lesions.visits[0] if view.lesions else None
    age = view.summary.age
    return {
        "age": f"over {OLDEST_AGE}" if age is not None and age > OLDEST_AGE else age,
        "sex": view.summary.sex,
        "visits_day": [(day - first).days for day in view.lesions.visits] if view.lesions and first else [],
        "lesions": _lesions(view),
        "responses": [
            {"criterion": r.criterion, "label": r.label, "change_percent": round(r.change_percent, 1)}
            for r in view.responses
            if not r.HasField("refusal")
        ],
        "history": _history(snapshot, first),
    }


def _lesions(view: CaseView) -> list[dict[str, Any]]:
    if view.lesions is None:
        return []
    return [
        {
            "lesion": f"Lesion {number}",
            "site": row.site,
            "kind": row.kind,
            "measurements": {
                f"{name} ({unit})": cell.values
                for (name, unit), cell in zip(view.lesions.columns, row.cells, strict=True)
            },
        }
        for number, row in enumerate(view.lesions.rows, start=1)
    ]


def _history(snapshot: fusion_pb2.PatientSnapshot, first: date | None) -> list[dict[str, Any]]:
    told = []
    for entry in snapshot.entries:
        words = next((c.display for c in entry.codes if c.display and c.code), "")
        if entry.kind not in _KINDS or entry.status == fusion_pb2.ENTRY_STATUS_RETRACTED or not words:
            continue
        at = entry.effective_at.ToDatetime(UTC).date() if entry.HasField("effective_at") else None
        told.append({"what": words, "day": (at - first).days if at and first else None})
    return sorted(told, key=lambda item: item["day"] if item["day"] is not None else 0)


def key_images(pages: Pages, patient_key: str) -> dict[str, bytes]:
    """Frontal and lateral projections of each PET, by day since the first study; none for a patient without PET."""
    made: dict[str, bytes] = {}
    studies = [s for s in pages.board.studies(patient_key) if s.study_time]
    first: datetime | None = studies[0].study_time if studies else None
    for study in studies:
        manifest = pages.board.manifest(study)
        day = (study.study_time - first).days if study.study_time and first else 0
        for series in manifest.series:
            if series.modality != "PT" or series.derived:
                continue
            try:
                datasets = read_manifest_series(manifest, series.series_instance_uid, pages.context.blobs)
                volume = load_series(datasets)
                volume.array[...] *= suv_scale(datasets).body_weight
            except RefusedError:
                continue
            for name, angle in (("front", 0.0), ("side", 90.0)):
                made[f"pet-day-{day:04d}-{name}.png"] = mip.to_png(mip.project(volume, angle), 8.0)
    return made


def export(view: CaseView, snapshot: fusion_pb2.PatientSnapshot, pictures: Mapping[str, bytes]) -> bytes:
    """A ZIP with case.json and the pictures. Its files carry no dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        content = json.dumps(describe(view, snapshot), indent=2).encode()
        for name, data in {"case.json": content, **pictures}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()
