"""Building `osler.common.v1.Provenance`: how a result came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from google.protobuf.timestamp_pb2 import Timestamp
from osler.common.v1 import common_pb2


@cache
def code_version() -> str:
    """The installed version of Osler; "unknown" in a bare source tree."""
    try:
        return version("osler")
    except PackageNotFoundError:
        return "unknown"


def timestamp(at: datetime) -> Timestamp:
    """An aware time as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def input_ref(kind: str, identifier: str, sha256: str = "") -> common_pb2.InputRef:
    """Something a result was computed from; `kind` such as "dicom-series". Never a name or a record number."""
    return common_pb2.InputRef(kind=kind, id=identifier, sha256=sha256)


def provenance(
    *,
    agent: str,
    method: str,
    inputs: Sequence[common_pb2.InputRef],
    recorded_at: datetime,
    parameters: Mapping[str, str] | None = None,
    citations: Sequence[str] = (),
) -> common_pb2.Provenance:
    """A complete provenance. `method`: rule or model with its version; `recorded_at`: aware."""
    return common_pb2.Provenance(
        inputs=inputs,
        code_version=code_version(),
        method=method,
        parameters=dict(parameters or {}),
        recorded_at=timestamp(recorded_at),
        agent=agent,
        citations=citations,
    )
