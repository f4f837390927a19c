"""The DICOM door: one instance in, filed or refused with its reason, never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from osler.common.v1.common_pb2 import Refusal

from services.clinical.refusals import to_refusal
from services.ingest.archive import Archive
from services.ingest.dicom_file import InstanceHeader, read_header
from services.ingest.fhir_parse import digest
from services.platform.errors import RefusedError
from services.platform.quarantine import Quarantine

DOOR = "dicom"


@dataclass(frozen=True)
class Outcome:
    """What became of one instance. `quarantined` has a `refusal`, the others a `header`."""

    status: Literal["stored", "duplicate", "quarantined"]
    header: InstanceHeader | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Receiver:
    """Takes in instances; `issuers` and `default_issuer` as in settings.identity."""

    archive: Archive
    quarantine: Quarantine
    issuers: Mapping[str, str]
    default_issuer: str

    def header(self, content: bytes) -> InstanceHeader:
        """Reads and checks an instance without filing it. Raises RefusedError `dicom.*`."""
        return read_header(content, self.issuers, self.default_issuer)

    def take(self, content: bytes) -> Outcome:
        """Files an instance. Raises RefusedError `dicom.*`, or RetryableError when the sender must keep it."""
        header = self.header(content)
        return Outcome("stored" if self.archive.file(header, content) else "duplicate", header)

    def receive(self, content: bytes, door: str = DOOR) -> Outcome:
        """As `take`, but what is refused is quarantined. Raises RetryableError when neither is possible now."""
        try:
            return self.take(content)
        except RefusedError as error:
            refusal = to_refusal(error, subject=digest(content))
            self.quarantine.add(door, content, refusal)
            return Outcome("quarantined", refusal=refusal)

    def receive_path(self, path: Path, door: str = DOOR) -> Outcome:
        """As `receive`, for a file."""
        return self.receive(path.read_bytes(), door)

    def replay(self, content: bytes) -> None:
        """Puts quarantined content in again. Raises RefusedError when it is refused again."""
        self.take(content)
