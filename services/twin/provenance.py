"""Provenance of the twin's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version

from google.protobuf.timestamp_pb2 import Timestamp
from osler.common.v1 import common_pb2

AGENT = "twin"


@dataclass(frozen=True)
class Source:
    """The snapshot that a prediction was made from, and when that was done."""

    patient_key: str
    revision: int
    sha256: str
    recorded_at: datetime


@cache
def code_version() -> str:
    """The installed version of Osler."""
    return version("osler")


def timestamp(at: datetime) -> Timestamp:
    """An aware time as a protobuf timestamp."""
    result = Timestamp()
    result.FromDatetime(at)
    return result


def provenance(
    source: Source,
    *,
    method: str,
    citations: Sequence[str],
    entry_ids: Iterable[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> common_pb2.Provenance:
    """Inputs (the snapshot, and its entries that were used), code and method, citations."""
    snapshot = common_pb2.InputRef(kind="patient-snapshot", id=f"revision {source.revision}", sha256=source.sha256)
    used = [common_pb2.InputRef(kind="timeline-entry", id=entry_id) for entry_id in sorted(set(entry_ids))]
    return common_pb2.Provenance(
        inputs=[snapshot, *used],
        code_version=code_version(),
        method=method,
        parameters=dict(parameters or {}),
        recorded_at=timestamp(source.recorded_at),
        agent=AGENT,
        citations=list(citations),
    )
