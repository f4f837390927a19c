"""What must hold after a schedule, whatever happened: nothing lost, nothing doubled, everything in order.

Read from the databases and the brokers directly, past the lines that faults cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from osler.common.v1.common_pb2 import BlobRef
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.ingest.v1 import ingest_pb2
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from services.analytics import store as lake_store
from services.analytics.reconcile import reconcile
from services.analytics.room import lake_folder
from services.analytics.worker import Flusher
from services.board import tables as board
from services.compose.rooms import Foundations
from services.compose.topology import SUBSCRIPTIONS
from services.fusion import store as fusion_store
from services.ingest import store as ingest_store
from services.ingest.archive import instance_ref
from services.platform.tables import INBOX, OUTBOX
from tests.faults.modality import Study
from tests.faults.world import ROOMS

STUDY, UPDATED = "osler.study.received.v1", "osler.patient.updated.v1"
TOPICS = (STUDY, UPDATED)


@dataclass(frozen=True)
class Told:
    """One event that a room has announced, as its outbox holds it."""

    id: int
    event_id: str
    type: str
    key: str
    data: bytes


class Before:
    """Where the outbox and the stream stood when the schedule began."""

    def __init__(self, foundations: Foundations) -> None:
        with foundations.database.session() as session:
            self.outbox = session.scalar(select(func.max(OUTBOX.c.id))) or 0


def told_since(session: Session, before: Before) -> list[Told]:
    rows = session.execute(select(OUTBOX).where(OUTBOX.c.id > before.outbox).order_by(OUTBOX.c.id))
    return [Told(row.id, row.event_id, row.type, row.event_key, bytes(row.data)) for row in rows]


def outstanding(foundations: Foundations, studies: Sequence[Study]) -> str:
    """What is still to come: empty when every accepted study is announced, and all that is announced was handled by all
    who listen.
    """
    with foundations.database.session() as session:
        for study in studies:
            state = ingest_store.study_state(session, study.uid)
            if study.accepted and (state is None or not state.complete):
                return f"study {study.uid} is not announced"
        unsent = session.scalar(select(func.count()).where(OUTBOX.c.sent_at.is_(None)))
        if unsent:
            return f"{unsent} events wait in the outbox"
        for room in ROOMS:
            handled = select(INBOX.c.event_id).where(INBOX.c.consumer_group == room)
            query = select(OUTBOX.c.type).where(
                OUTBOX.c.topic.in_(SUBSCRIPTIONS[room]), OUTBOX.c.event_id.not_in(handled)
            )
            if unhandled := session.scalars(query).all():
                return f"{room} has not handled {len(unhandled)} events: {', '.join(sorted(set(unhandled)))}"
    return ""


def problems(foundations: Foundations, studies: Sequence[Study], before: Before, *, in_order: bool) -> list[str]:
    """What does not hold; empty when all does. `in_order`: deliveries were not reordered on purpose."""
    found: list[str] = []
    with foundations.database.session() as session:
        told = told_since(session, before)
        for study in studies:
            found += _study_problems(foundations, session, study, told)
        found += _patient_problems(foundations, session, told)
    found += _stream_problems(foundations, told, in_order)
    found += [f"{item.door}: {item.refusal.reason}: {item.refusal.message}" for item in foundations.quarantine.list()]
    found += _lake_problems(foundations)
    return found


def _study_problems(foundations: Foundations, session: Session, study: Study, told: Sequence[Told]) -> list[str]:
    rows = ingest_store.study_rows(session, study.uid)
    if rows is None:
        return [f"study {study.uid} was accepted and is not there"] if study.accepted else []
    row, _, instances = rows
    found = []
    held = {instance.sop_uid for instance in instances}
    if not study.accepted <= held:
        found.append(f"{study.uid}: accepted and not held: {sorted(study.accepted - held)}")
    for instance in instances:
        foundations.blobs.get(instance_ref(instance))
    events = [events_pb2.StudyReceived.FromString(event.data) for event in told if event.type == STUDY]
    revisions = [event.revision for event in events if event.study_instance_uid == study.uid]
    if revisions != list(range(1, row.revision + 1)):
        found.append(f"{study.uid}: announced revisions {revisions}, {row.revision} in the archive")
    last = next(e for e in reversed(events) if e.study_instance_uid == study.uid)
    manifest = ingest_pb2.StudyManifest.FromString(foundations.blobs.get(last.manifest))
    listed = [instance.sop_instance_uid for series in manifest.series for instance in series.instances]
    if sorted(listed) != sorted(held):
        found.append(f"{study.uid}: the last manifest lists {len(listed)} instances, {len(held)} are held")
    return found + _case_problems(foundations, session, study.uid, row)


def _case_problems(foundations: Foundations, session: Session, uid: str, row: Row[Any]) -> list[str]:
    """The study is in one case, once: on the board, and in the snapshot that the board's case refers to."""
    found = []
    shown = session.execute(select(board.STUDY).where(board.STUDY.c.study_instance_uid == uid)).all()
    if [(one.patient_key, one.revision) for one in shown] != [(row.patient_key, row.revision)]:
        found.append(f"{uid}: the board has {len(shown)} rows of it, of revisions {[one.revision for one in shown]}")
    cases = session.execute(select(board.CASE)).all()
    holding = []
    for case in cases:
        reference = BlobRef.FromString(case.snapshot_ref)
        snapshot = fusion_pb2.PatientSnapshot.FromString(foundations.blobs.get(reference))
        times = sum(
            entry.kind == fusion_pb2.ENTRY_KIND_IMAGING_STUDY
            and entry.text == uid
            and not entry.HasField("retracted_at")
            for entry in snapshot.entries
        )
        holding += [case.patient_key] * times
    if holding != [row.patient_key]:
        found.append(f"{uid}: it is in {len(holding)} cases")
    return found


def _patient_problems(foundations: Foundations, session: Session, told: Sequence[Told]) -> list[str]:
    """Each cause changed its patient once: revisions of snapshots count up without a gap, and the board shows the last."""
    found = []
    revisions: dict[str, list[int]] = {}
    for event in told:
        if event.type == UPDATED:
            revisions.setdefault(event.key, []).append(events_pb2.PatientUpdated.FromString(event.data).revision)
    for key, numbers in revisions.items():
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"patient {key[:8]}: updates {numbers}")
        case = session.execute(select(board.CASE).where(board.CASE.c.patient_key == key)).one_or_none()
        reference = fusion_store.get_snapshot(session, key)
        if case is None or reference is None or case.snapshot_ref != reference.SerializeToString():
            found.append(f"patient {key[:8]}: the board does not show the last snapshot")
    return found


def _stream_problems(foundations: Foundations, told: Sequence[Told], in_order: bool) -> list[str]:
    """Every event announced is in the stream, nothing else is, and events of one patient stand in order."""
    found = []
    expected = {event.event_id for event in told}
    first: dict[tuple[str, str], list[str]] = {}
    seen: Counter[str] = Counter()
    for record in foundations.log.read(TOPICS):
        event = record.event
        if event.id not in expected:
            continue
        seen[event.id] += 1
        if seen[event.id] == 1:
            first.setdefault((event.type, event.key), []).append(event.id)
    if expected - seen.keys():
        found.append(f"{len(expected - seen.keys())} events are not in the stream")
    if in_order:
        for (type_, key), ids in first.items():
            wanted = [event.event_id for event in told if (event.type, event.key) == (type_, key)]
            if ids != wanted:
                found.append(f"{type_} of patient {key[:8]}: not in the order announced")
    return found


def _lake_problems(foundations: Foundations) -> list[str]:
    """Count and checksum of each partition equal the stream's, after the last rows were written."""
    folder = lake_folder(foundations.settings)
    while Flusher(foundations.database, folder).flush(force=True):
        pass
    with foundations.database.session() as session:
        waiting = lake_store.waiting_ids(session)
    accounts = reconcile(foundations.log, folder, waiting)
    return [f"the lake differs from the stream in {a.topic}" for a in accounts if not a.equal or a.only_in_lake]


def accepted(studies: Iterable[Study]) -> int:
    return sum(len(study.accepted) for study in studies)
