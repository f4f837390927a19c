"""The account of a folder of records: every observation in it, stored or listed with the reason why not.

The files go through the doors' and the timeline's own readers; nothing is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from services.clinical import fhir
from services.clinical.identity import PatientIdentifier
from services.fusion.chart import read_chart
from services.fusion.facts import Reading
from services.fusion.laboratory import read_message
from services.ingest import fhir_import, hl7v2
from services.ingest.fhir_parse import decompressed, patients_first
from services.ingest.folder import recognise
from services.platform.errors import RefusedError


@dataclass
class FileAccount:
    """One file. `observations` = `stored` + `listed`; `reasons` counts what was refused, observations and other things.

    `kind`: "fhir", "hl7v2", or "" for what is neither. `parts`: resources or segments.
    """

    name: str
    kind: str
    parts: int = 0
    observations: int = 0
    stored: int = 0
    listed: int = 0
    facts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def unaccounted(self) -> int:
        """Observations that are neither stored nor listed: there must be none."""
        return self.observations - self.stored - self.listed


@dataclass(frozen=True)
class _Identity:
    issuers: Mapping[str, str]
    default_issuer: str
    patients: dict[str, PatientIdentifier] = field(default_factory=dict)


def account(folder: Path, issuers: Mapping[str, str], default_issuer: str) -> Iterator[FileAccount]:
    """The account of each file of a folder (or of one file), patients' files first as in an import."""
    paths = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else [folder]
    identity = _Identity(issuers, default_issuer)
    for path in sorted(paths, key=patients_first):
        content = path.read_bytes()
        name = str(path.relative_to(folder)) if folder.is_dir() else path.name
        kind = recognise(content) if content else "dicom"
        if kind == "fhir":
            yield _fhir(FileAccount(name, "fhir"), content, identity)
        elif kind == "hl7v2":
            yield _hl7(FileAccount(name, "hl7v2"), content, identity)
        else:
            yield FileAccount(name, "", reasons=Counter(["file.not_a_record"]))


def _fhir(row: FileAccount, content: bytes, identity: _Identity) -> FileAccount:
    try:
        row.observations, row.parts = _observations(decompressed(content))
        read = fhir_import.read(content, identity.issuers, identity.default_issuer, identity.patients)
    except RefusedError as error:
        row.listed = row.observations
        row.reasons[error.reason] += 1
        return row
    identity.patients.update(read.patients)
    for item in read.refused:
        count, parts = _observations(item.content)
        row.listed += count
        row.reasons[item.error.reason] += max(1, parts)
    for record in read.records:
        try:
            reading = read_chart(record.content, received_at=datetime.now(UTC))
        except RefusedError as error:
            row.listed += _observations(record.content)[0]
            row.reasons[error.reason] += record.resources
            continue
        _count_chart(row, record.content, reading)
    return row


def _count_chart(row: FileAccount, content: bytes, reading: Reading) -> None:
    told = {source.reference.partition("#component")[0] for fact in reading.facts for source in fact.entry.sources}
    refused = {refusal.subject for refusal in reading.refusals}
    row.facts += len(reading.facts)
    row.reasons.update(refusal.reason for refusal in reading.refusals)
    for entry in fhir.read(content).entries:
        if entry.type == "Observation":
            row.stored += entry.reference in told
            row.listed += entry.reference not in told and entry.reference in refused


def _observations(content: bytes) -> tuple[int, int]:
    """(Observations, resources) of a FHIR document; (0, 0) for what is none."""
    try:
        entries = fhir.read(content).entries
    except RefusedError:
        return 0, 0
    return sum(entry.type == "Observation" for entry in entries), len(entries)


def _hl7(row: FileAccount, content: bytes, identity: _Identity) -> FileAccount:
    for message in hl7v2.split_messages(content) or [content]:
        lines = [line for line in message.replace(b"\n", b"\r").split(b"\r") if line.strip()]
        observations = sum(line.startswith(b"OBX") for line in lines)
        row.parts += len(lines)
        row.observations += observations
        try:
            parts = hl7v2.patient_parts(hl7v2.parse(message), identity.issuers, identity.default_issuer)
            readings = [read_message(part.content, received_at=datetime.now(UTC)) for part in parts]
        except RefusedError as error:
            row.listed += observations
            row.reasons[error.reason] += 1
            continue
        for reading in readings:
            _count_message(row, reading)
    return row


def _count_message(row: FileAccount, reading: Reading) -> None:
    told = {source.reference.partition("#")[2] for fact in reading.facts for source in fact.entry.sources}
    places = {refusal.subject for refusal in reading.refusals}
    row.facts += len(reading.facts)
    row.reasons.update(refusal.reason for refusal in reading.refusals)
    row.stored += sum(place.startswith("OBX[") for place in told)
    row.listed += sum(place.startswith("OBX[") for place in places - told)
