"""Reads what the pages show: cases, visits, volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.board import case as cases
from services.board import findings_review, image_trouble, store, volumes
from services.clinical.dicom.series import find_series, load_series, read_manifest_series
from services.clinical.suv import suv_scale
from services.platform.errors import RefusedError
from services.platform.room import RoomContext
from services.platform.rpc import NotFoundError


@dataclass(frozen=True)
class Page:
    """One case as its page needs it."""

    case: store.Case
    view: cases.CaseView
    visits: list[dict[str, Any]]
    troubles: list[image_trouble.Trouble]


@dataclass(frozen=True)
class PlacedSeries:
    """A series and where it lies in the space of another. `placement`: 4x4 LPS; `tag`: other pixels or place, other tag."""

    manifest: ingest_pb2.StudyManifest
    series_uid: str
    placement: NDArray[np.float64]
    tag: str


# What decoders and readers raise on files that are not what they say.
_MALFORMED = (AttributeError, EOFError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


class Board:
    """Reads cases and volumes for the pages."""

    def __init__(self, context: RoomContext) -> None:
        self._database = context.database
        self._blobs = context.blobs

    def worklist(self) -> list[tuple[store.Case, cases.Summary]]:
        """Every case, most urgent first."""
        with self._database.session() as session:
            found = store.cases(session)
        today = datetime.now(UTC).date()
        return [(c, cases.summarise(self.snapshot(c), today)) for c in found]

    def summary(self, patient_key: str) -> cases.Summary:
        """Who this is. Raises NotFoundError for an unknown patient."""
        return cases.summarise(self.snapshot(self.case(patient_key)), datetime.now(UTC).date())

    def snapshot(self, case: store.Case) -> fusion_pb2.PatientSnapshot:
        return fusion_pb2.PatientSnapshot.FromString(self._blobs.get(case.snapshot))

    def case(self, patient_key: str) -> store.Case:
        """Raises NotFoundError for an unknown patient."""
        with self._database.session() as session:
            found = store.find_case(session, patient_key)
        if found is None:
            raise NotFoundError("there is no such case: it may have been merged into another patient")
        return found

    def page(self, patient_key: str) -> Page:
        """Raises NotFoundError for an unknown patient."""
        found = self.case(patient_key)
        with self._database.session() as session:
            registrations = store.registrations(session, patient_key)
            studies = store.studies(session, patient_key)
            reviews = [findings_review.from_row(row) for row in store.reviews(session, patient_key)]
            analyses = store.analyses(session, patient_key)
        snapshot = self.snapshot(found)
        original = {f.finding_id: f for study in analyses.values() for f in study.findings}
        view = cases.view(
            snapshot, found.predictions, found.advice, registrations, datetime.now(UTC),
            findings_review.standing(reviews), original,
        )  # fmt: skip
        manifests = [self.manifest(s) for s in studies]
        visits = [
            self._visit(s, m, cases.places(snapshot, s.study_instance_uid))
            for s, m in zip(studies, manifests, strict=True)
        ]
        troubles = [
            trouble
            for s, m in reversed(list(zip(studies, manifests, strict=True)))
            for trouble in image_trouble.troubles(_day(s), m, analyses.get(s.study_instance_uid))
        ]
        return Page(found, view, visits, troubles)

    def lesion(self, patient_key: str, finding_id: str) -> tuple[str, list[imaging_pb2.Finding]]:
        """The study of a finding, and what imaging found of the same lesion in it, before any review. Raises NotFoundError."""
        with self._database.session() as session:
            analyses = store.analyses(session, patient_key)
        for uid, study in analyses.items():
            for finding in study.findings:
                if finding.finding_id == finding_id:
                    return uid, findings_review.siblings(finding, study)
        raise NotFoundError("there is no such finding in this case")

    def _visit(
        self, study: store.Study, manifest: ingest_pb2.StudyManifest, places: list[cases.Place]
    ) -> dict[str, Any]:
        return {
            "study_uid": study.study_instance_uid,
            "date": _day(study),
            "series": [
                {
                    "uid": s.series_instance_uid,
                    "modality": s.modality,
                    "label": s.label,
                    "frame": s.frame_of_reference_uid,
                }
                for s in volumes.shown_series(manifest)
            ],
            "places": [{"label": p.label, "ras": p.ras_mm, "frame": p.frame_of_reference_uid} for p in places],
        }

    def manifest(self, study: store.Study) -> ingest_pb2.StudyManifest:
        return ingest_pb2.StudyManifest.FromString(self._blobs.get(study.manifest))

    def studies(self, patient_key: str) -> Sequence[store.Study]:
        """Studies of a patient, oldest first."""
        with self._database.session() as session:
            return store.studies(session, patient_key)

    def latest_visit(self, patient_key: str) -> date | None:
        """Day of the newest study."""
        times = [s.study_time for s in self.studies(patient_key) if s.study_time]
        return max(times).date() if times else None

    def placed(self, patient_key: str, series_uid: str, space_of: str) -> PlacedSeries:
        """A series in the space of series `space_of`.

        Raises NotFoundError for an unknown series, RefusedError when no good registration links the two.
        """
        with self._database.session() as session:
            studies = store.studies(session, patient_key)
            registrations = store.registrations(session, patient_key)
        held = {
            s.series_instance_uid: (m, study) for study in studies for m in [self.manifest(study)] for s in m.series
        }
        if series_uid not in held or space_of not in held:
            raise NotFoundError("there is no such series in this case")
        placement = volumes.moving_to_fixed(space_of, series_uid, registrations)
        frames = [find_series(held[uid][0], uid).frame_of_reference_uid for uid in (series_uid, space_of)]
        if placement is None and frames[0] and frames[0] == frames[1]:
            placement = np.eye(4)
        if placement is None:
            raise RefusedError(
                "board.not_aligned",
                "these two series were not aligned with confidence, so they are not shown on top of each other",
                remedy="show them side by side, or look at the registration's verdict on this page",
            )
        manifest, study = held[series_uid]
        digest = hashlib.sha256(study.manifest.sha256.encode() + series_uid.encode() + placement.tobytes())
        return PlacedSeries(manifest, series_uid, placement, digest.hexdigest()[:32])

    def volume(self, placed: PlacedSeries) -> bytes:
        """A series as NIfTI. Raises RefusedError for pixels that cannot be read as one volume."""
        try:
            datasets = read_manifest_series(placed.manifest, placed.series_uid, self._blobs)
            volume = load_series(datasets)
        except _MALFORMED as error:
            raise RefusedError(
                "board.unreadable_series",
                f"the images of this series cannot be read ({type(error).__name__})",
                remedy="send the original series again from the scanner or the archive",
                subject=placed.series_uid,
            ) from error
        scale = suv_scale(datasets).body_weight if volume.modality == "PT" else 1.0
        return volumes.to_nifti(volume, placed.placement, scale)


def _day(study: store.Study) -> str:
    return f"{study.study_time:%d %b %Y}" if study.study_time else "no date"
