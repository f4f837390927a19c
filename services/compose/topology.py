"""Which room listens to which events: the flow of a case, as data.

The rooms themselves say the same in their handlers; a test holds the two together, so that looking at the flow does not
need to import every room.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.platform.events import CATALOGUE

_STUDY, _RECORD = "osler.study.received.v1", "osler.record.received.v1"
_MERGED, _UNMERGED = "osler.patient.merged.v1", "osler.patient.unmerged.v1"
_FINDINGS, _REGISTRATION = "osler.findings.ready.v1", "osler.registration.ready.v1"
_UPDATED, _PREDICTION, _ADVICE = (
    "osler.patient.updated.v1",
    "osler.prediction.ready.v1",
    "osler.recommendation.ready.v1",
)

SUBSCRIPTIONS: Mapping[str, tuple[str, ...]] = {
    "ingest": (_FINDINGS, _REGISTRATION),
    "imaging": (_STUDY, _MERGED, _UNMERGED),
    "registration": (_STUDY, _MERGED, _UNMERGED),
    "fusion": (_RECORD, _STUDY, _FINDINGS, _REGISTRATION, _MERGED, _UNMERGED),
    "twin": (_UPDATED,),
    "advisor": (_PREDICTION, _MERGED),
    "alerts": (_ADVICE, _MERGED, _STUDY, _FINDINGS, _UPDATED, _RECORD),
    "board": (_STUDY, _FINDINGS, _UPDATED, _PREDICTION, _ADVICE, _REGISTRATION, _MERGED, _UNMERGED),
    "analytics": tuple(CATALOGUE),
}
