"""The review queue of possible duplicates: filled from what is held, emptied by what a person decides.

A decision is announced as any merge is, so that every room hears of it and it can be taken back. Nothing merges by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from osler.events.v1 import events_pb2
from sqlalchemy.orm import Session

from services.clinical.provenance import timestamp
from services.fusion import identity_store, linkage, store
from services.platform.database import Database
from services.platform.errors import RefusedError
from services.platform.events import event_id, pack

ROOM = "fusion"
_PAGE = 1_000


def refresh(database: Database, now: datetime | None = None) -> int:
    """Compares all patients and queues the pairs that may be one; how many are new."""
    with database.session() as session:
        people, said = _people(session), identity_store.stated_pairs(session)
    found = linkage.find_candidates(people, said)
    with database.transaction(ROOM) as tx:
        return identity_store.put_candidates(tx.session, found, linkage.model()["model"], now or datetime.now(UTC))


def waiting(database: Database, *, everything: bool = False) -> Sequence[identity_store.Waiting]:
    """The queue, the most probable pair first; with `everything` also what was decided."""
    decisions = ("open", "same", "different") if everything else ("open",)
    with database.session() as session:
        queue = identity_store.list_candidates(session, decisions)
        keys = {key for row in queue for key in (row.candidate.first, row.candidate.second)}
        grouping = identity_store.grouping_of(session, keys)
    return [
        row
        for row in queue
        if row.decision != "open" or grouping.survivor(row.candidate.first) != grouping.survivor(row.candidate.second)
    ]


def decide(
    database: Database, merged: str, surviving: str, *, same: bool, by: str, now: datetime | None = None
) -> Literal["announced", "already so"]:
    """Says that two patients are one (`surviving` goes on) or are not. `by`: who decided, no patient data.

    Raises RefusedError `merge.same_patient` or `merge.unknown_patient`.
    """
    at = now or datetime.now(UTC)
    if merged == surviving:
        raise RefusedError("merge.same_patient", "the two keys are the same", remedy="name two patients")
    with database.transaction(ROOM) as tx:
        for key in (merged, surviving):
            if not store.is_known(tx.session, [key]):
                raise RefusedError(
                    "merge.unknown_patient",
                    "nothing is held under one of the keys",
                    missing=("patient key",),
                    remedy="take the keys from `osler patient review`, in full",
                )
        grouping = identity_store.grouping_of(tx.session, [merged, surviving])
        identity_store.decide(tx.session, merged, surviving, same, at, by)
        together = grouping.survivor(merged) == grouping.survivor(surviving)
        if together == same and (same or _is_stated(tx.session, merged, surviving)):
            return "already so"
        stamp = timestamp(at)
        keys = {"surviving_patient_key": surviving, "merged_patient_key": merged}
        message = (
            events_pb2.PatientMerged(**keys, merged_at=stamp)
            if same
            else events_pb2.PatientUnmerged(**keys, unmerged_at=stamp)
        )
        cause = event_id(ROOM, "review", "same" if same else "different", surviving, merged, at.isoformat())
        tx.emit(pack(message, source=ROOM, key=surviving, id=cause, time=at))
    return "announced"


def _is_stated(session: Session, one: str, other: str) -> bool:
    return any(said.pair == {one, other} for said in identity_store.statements_about(session, [one]))


def _people(session: Session) -> list[linkage.Person]:
    people: list[linkage.Person] = []
    after = ""
    while page := store.list_patients(session, after, _PAGE):
        people += [linkage.person(row.patient_key, row.demographics) for row in page]
        after = page[-1].patient_key
    return people
