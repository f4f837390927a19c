"""When is a study complete?

DICOM has no end of study: an expected count when the sender tells one ((0020,1208), PS3.4 C.6), storage commitment
for all that was stored (PS3.4 annex J: the sender may delete, so it is done), else a quiet period.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from osler.ingest.v1 import ingest_pb2

from services.ingest.store import StudyState


def completion_reason(state: StudyState, now: datetime, quiet_period: timedelta, *, declared: bool = False) -> int:
    """The `osler.ingest.v1.CompletionReason` of a study, or COMPLETION_REASON_UNSPECIFIED while it is not complete.

    `declared`: the sender said that nothing more comes (end of a folder).
    """
    if state.complete or state.instances == 0:
        return ingest_pb2.COMPLETION_REASON_UNSPECIFIED
    if state.expected is not None and state.instances >= state.expected:
        return ingest_pb2.COMPLETION_REASON_EXPECTED_COUNT
    if state.committed == state.instances:
        return ingest_pb2.COMPLETION_REASON_STORAGE_COMMITMENT
    if declared:
        return ingest_pb2.COMPLETION_REASON_DECLARED
    if now - state.last_received_at >= quiet_period:
        return ingest_pb2.COMPLETION_REASON_QUIET_PERIOD
    return ingest_pb2.COMPLETION_REASON_UNSPECIFIED
