"""The reading desk: drafts, edits, signatures and critical results, over the room's tables and blobs.

Used by the HTTP door and the command line alike. Nothing is final without a person's signature on what that person saw.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from sqlalchemy.orm import Session

from services.alerts import critical, report_store, store, worklist_store
from services.alerts.critical import CriticalResult
from services.alerts.report_store import ReportRow, VersionRow
from services.alerts.reports import communication, drafting
from services.alerts.reports.communication import Action, Communication, Step
from services.alerts.reports.differences import Difference, between
from services.alerts.reports.model import Report, digest, edited
from services.clinical.snapshots import read_snapshot
from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import RefusedError

ROOM = "alerts"
MACHINE = "osler"
Status = Literal["preliminary", "final", "amended"]
_NAMESPACE = uuid.UUID("3d1f27b6-33a8-57d3-9f0a-6d0b5c8a2e44")


@dataclass(frozen=True)
class Stored:
    """A report with all its versions, oldest first."""

    row: ReportRow
    versions: tuple[VersionRow, ...]

    @property
    def latest(self) -> VersionRow:
        return self.versions[-1]

    @property
    def signed(self) -> VersionRow | None:
        """The version that counts: the last that somebody signed."""
        return next((v for v in reversed(self.versions) if v.signed_at is not None), None)

    @property
    def status(self) -> Status:
        """FHIR R4 diagnostic-report-status: preliminary until a signature; amended when a later version is signed."""
        count = sum(version.signed_at is not None for version in self.versions)
        return ("preliminary", "final", "amended")[min(count, 2)]  # type: ignore[return-value]


@dataclass(frozen=True)
class Told:
    """A critical result with what was done about it."""

    item: Communication
    steps: tuple[Step, ...]


class ReportDesk:
    """Everything that may be done with reports. `by` is a pseudonymous user id or a login name."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def draft(self, study_uid: str, *, redraft: bool = False) -> Stored:
        """The report of a study, drafted when there is none; with `redraft`, drafted anew from what is known now.

        Raises RefusedError `report.unknown_study`, `report.no_record`, or `report.edited` for a redraft over a person's
        work.
        """
        with self._database.session() as session:
            known = report_store.report_of_study(session, study_uid)
            if known is not None and not redraft:
                return _stored(session, known)
            if known is not None and (stored := _stored(session, known)).latest.author_kind == "person":
                raise RefusedError(
                    "report.edited",
                    "a person has edited or signed this report; a new draft would lose that work",
                    remedy="edit the report, or read the new findings with `osler worklist`",
                    subject=stored.row.report_id,
                )
            case = self._case(session, study_uid)
        made = drafting.draft(case, datetime.now(UTC).date())
        return self._append(made, known, MACHINE, "machine")

    def _append(self, report: Report, known: ReportRow | None, author: str, kind: str) -> Stored:
        now = datetime.now(UTC)
        identity = known.report_id if known else str(uuid.uuid5(_NAMESPACE, report.study_instance_uid))
        number = (known.latest_version if known else 0) + 1
        version = VersionRow(identity, number, author, kind, now, report, digest(report), "", None)
        with self._database.transaction(ROOM) as tx:
            if known is None and report_store.find_report(tx.session, identity) is None:
                report_store.add_report(tx.session, identity, report, now)
            if not report_store.add_version(tx.session, version):
                raise _stale(identity)
            for result in report.critical if kind == "machine" else ():
                self._propose(tx.session, result, identity, report, now)
            row = report_store.find_report(tx.session, identity)
            assert row is not None
            return _stored(tx.session, row)

    def _propose(
        self, session: Session, result: CriticalResult, report_id: str, report: Report, now: datetime
    ) -> Communication:
        item = communication.propose(result, report_id, report.study_instance_uid, report.patient_key, now)
        report_store.add_communication(session, item, Step(now, MACHINE, "propose", result.rule))
        return item

    def _case(self, session: Session, study_uid: str) -> drafting.Case:
        study = _announced(session, study_uid)
        patient = worklist_store.find_patient(session, study.patient_key)
        if patient is None:
            raise RefusedError(
                "report.no_record",
                "the record of this patient has not been put together yet",
                remedy="try again when fusion has spoken",
                subject=study_uid,
            )
        others = worklist_store.studies_of(session, study.patient_key)
        earlier = [other for other in others if _before(other, study)]
        return drafting.Case(
            self._visit(study),
            read_snapshot(self._blobs, patient.snapshot),
            store.load_advice(session, study.patient_key),
            [self._visit(other) for other in reversed(earlier)],
            superseded=any(_before(study, other) for other in others),
        )

    def _visit(self, study: worklist_store.Study) -> drafting.Visit:
        manifest = ingest_pb2.StudyManifest.FromString(self._blobs.get(study.manifest))
        return drafting.Visit(manifest, study.findings, study.study_time)

    def get(self, report_id: str) -> Stored:
        """Raises RefusedError `report.unknown`."""
        with self._database.session() as session:
            row = report_store.find_report(session, report_id)
            if row is None:
                raise RefusedError(
                    "report.unknown", "there is no such report", remedy="`osler report list`", subject=report_id
                )
            return _stored(session, row)

    def recent(self, limit: int = 200) -> list[Stored]:
        """The reports that changed last, newest first."""
        with self._database.session() as session:
            return [_stored(session, row) for row in report_store.reports(session, limit)]

    def edit(
        self,
        report_id: str,
        base_version: int,
        changes: Mapping[str, Sequence[str]],
        *,
        by: str,
        drop_tables: Sequence[str] = (),
    ) -> Stored:
        """A person's version after `base_version`; of a signed report, an amendment that waits for a signature.

        Raises RefusedError `report.stale` when somebody else edited meanwhile, `report.not_a_person`, and those of
        `model.edited`.
        """
        _a_person(by)
        stored = self.get(report_id)
        if stored.latest.version != base_version:
            raise _stale(report_id)
        changed = edited(stored.latest.report, changes, drop_tables=drop_tables)
        if changed == stored.latest.report:
            return stored
        return self._append(changed, stored.row, by, "person")

    def sign(self, report_id: str, version: int, body_sha256: str, *, by: str) -> Stored:
        """Makes a version final: the latest one, exactly as the person saw it (`body_sha256`).

        Closes the reading task. Raises RefusedError `report.stale`, `report.not_a_person`, or
        `report.critical_undecided` while a proposed critical result is neither confirmed nor rejected.
        """
        _a_person(by)
        stored = self.get(report_id)
        seen = stored.latest
        if seen.version != version or seen.body_sha256 != body_sha256:
            raise _stale(report_id)
        if seen.signed_at is not None:
            return stored
        now = datetime.now(UTC)
        with self._database.transaction(ROOM) as tx:
            undecided = report_store.communications(tx.session, states=["proposed"], report_id=report_id)
            if undecided:
                raise RefusedError(
                    "report.critical_undecided",
                    f"{len(undecided)} proposed critical result(s) of this report are neither confirmed nor rejected",
                    missing=[item.task_id for item in undecided],
                    remedy="confirm (who is to be told) or reject (why not) each with `osler critical`",
                    subject=report_id,
                )
            if not report_store.sign(tx.session, report_id, version, by, now):
                raise _stale(report_id)
            for item in worklist_store.workitems(
                tx.session, kinds=["reading"], study_uid=seen.report.study_instance_uid
            ):
                if item.open:
                    done = replace(
                        item, state="COMPLETED", performer=by, ended_at=now, started_at=item.started_at or now
                    )
                    worklist_store.save_workitem(tx.session, done)
        return self.get(report_id)

    def differences(self, report_id: str) -> Difference:
        """What people changed between the last draft that the machine made and the version that counts now."""
        stored = self.get(report_id)
        drafted = next(v for v in reversed(stored.versions) if v.author_kind == "machine")
        return between(drafted.report, (stored.signed or stored.latest).report)

    def snapshot(self, patient_key: str) -> fusion_pb2.PatientSnapshot:
        """The newest snapshot of a patient: who it is, for what is shown to people.

        Raises RefusedError `report.no_record`.
        """
        with self._database.session() as session:
            patient = worklist_store.find_patient(session, patient_key)
        if patient is None:
            raise RefusedError("report.no_record", "the record of this patient has not been put together yet")
        return read_snapshot(self._blobs, patient.snapshot)

    def manifest(self, study_uid: str) -> ingest_pb2.StudyManifest:
        """The images of a study. Raises RefusedError `report.unknown_study`."""
        return self._visit(self._study(study_uid)).manifest

    def findings(self, study_uid: str) -> imaging_pb2.StudyFindings:
        """What was found on a study. Raises RefusedError `report.unknown_study`."""
        return self._study(study_uid).findings

    def _study(self, study_uid: str) -> worklist_store.Study:
        with self._database.session() as session:
            return _announced(session, study_uid)

    def communications(self, *, states: Sequence[str] = communication.OPEN, report_id: str = "") -> list[Told]:
        """Critical results with what was done, the one whose deadline comes first at the top."""
        with self._database.session() as session:
            found = report_store.communications(session, states=states, report_id=report_id)
            told = [Told(item, tuple(report_store.steps(session, item.task_id))) for item in found]
        now = datetime.now(UTC)
        return sorted(told, key=lambda t: critical.escalation(t.item.category, t.item.found_at, now).deadline)

    def communication(self, task_id: str) -> Told:
        """Raises RefusedError `critical.unknown`."""
        with self._database.session() as session:
            item = report_store.find_communication(session, task_id)
            if item is None:
                raise RefusedError("critical.unknown", "there is no such critical result", subject=task_id)
            return Told(item, tuple(report_store.steps(session, task_id)))

    def act(self, task_id: str, action: Action, *, by: str, detail: str = "", recipient: str = "") -> Told:
        """Confirms, tells, acknowledges or rejects; refusals as in `communication.move`, and `report.not_a_person`."""
        _a_person(by)
        before = self.communication(task_id).item
        after = communication.move(before, action, detail=detail, recipient=recipient)
        words = "; ".join(part for part in (recipient and f"to {recipient}", detail) if part)
        with self._database.transaction(ROOM) as tx:
            step = Step(datetime.now(UTC), by, action, words)
            if not report_store.move_communication(tx.session, before, after, step):
                raise RefusedError(
                    "critical.wrong_state", "somebody else changed this result meanwhile", remedy="look again"
                )
        return self.communication(task_id)

    def add_critical(self, report_id: str, category: str, statement: str, *, by: str) -> Told:
        """A critical result that a reader found: a task at once, still to be confirmed with whom to tell.

        Raises RefusedError `critical.unknown_category` or `report.unknown`.
        """
        _a_person(by)
        if category not in critical.categories() or not statement.strip():
            raise RefusedError(
                "critical.unknown_category",
                "a critical result needs a statement and a known category",
                missing=["category", "statement"],
                remedy="use one of " + ", ".join(critical.categories()),
            )
        report = self.get(report_id).latest.report
        result = CriticalResult("reader", category, " ".join(statement.split()), by)
        now = datetime.now(UTC)
        with self._database.transaction(ROOM) as tx:
            item = communication.propose(result, report_id, report.study_instance_uid, report.patient_key, now)
            report_store.add_communication(tx.session, item, Step(now, by, "propose", "found by the reader"))
        return self.communication(item.task_id)


def _announced(session: Session, study_uid: str) -> worklist_store.Study:
    study = worklist_store.find_study(session, study_uid)
    if study is None or not study.revision:
        raise RefusedError(
            "report.unknown_study",
            "no study with this UID has been announced to the alerts room",
            remedy="`osler worklist` lists the studies; `osler up` lets the room hear of new ones",
            subject=study_uid,
        )
    return study


def _before(other: worklist_store.Study, study: worklist_store.Study) -> bool:
    if not other.revision or other.study_instance_uid == study.study_instance_uid:
        return False
    return other.study_time is not None and study.study_time is not None and other.study_time < study.study_time


def _stored(session: Session, row: ReportRow) -> Stored:
    return Stored(row, tuple(report_store.versions(session, row.report_id)))


def _a_person(by: str) -> None:
    if not by or by == MACHINE or by.startswith("room:"):
        raise RefusedError(
            "report.not_a_person", "only a person may edit, sign or decide", remedy="sign in as a clinician"
        )


def _stale(report_id: str) -> RefusedError:
    return RefusedError(
        "report.stale",
        "the report has changed since this version was read",
        remedy="read the latest version and try again",
        subject=report_id,
    )
