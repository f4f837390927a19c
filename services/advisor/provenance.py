"""Provenance of advice, and ids that stay the same when the same evidence is judged again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from osler.common.v1 import common_pb2

from services.clinical.provenance import input_ref
from services.clinical.provenance import provenance as build_provenance
from services.platform.events import event_id

AGENT = "advisor"


@dataclass(frozen=True)
class Source:
    """What advice was made from: the patient (empty for an unknown one), the snapshot, and when it was done."""

    patient_key: str
    revision: int
    sha256: str
    recorded_at: datetime


def recommendation_id(rule_id: str, patient_key: str, evidence: Iterable[str]) -> str:
    """Stable for the same rule, patient and evidence (entry ids, or facts in words)."""
    return event_id(AGENT, rule_id, patient_key, *sorted(set(evidence)))


def provenance(
    source: Source,
    *,
    method: str,
    citations: Sequence[str],
    entry_ids: Iterable[str] = (),
    references: Iterable[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> common_pb2.Provenance:
    """Inputs: the snapshot, its entries that were used, and the caller's own references."""
    inputs = []
    if source.patient_key:
        inputs.append(input_ref("patient-snapshot", f"revision {source.revision}", source.sha256))
    inputs += [input_ref("timeline-entry", entry_id) for entry_id in sorted(set(entry_ids))]
    inputs += [input_ref("caller-fact", reference) for reference in sorted(set(references))]
    return build_provenance(
        agent=AGENT,
        method=method,
        inputs=inputs,
        recorded_at=source.recorded_at,
        parameters=parameters,
        citations=citations,
    )
