"""Import of files and folders: what `osler import` and `osler process` hand to the doors."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

from osler.common.v1.common_pb2 import Refusal

from services.clinical.identity import PatientIdentifier
from services.clinical.refusals import to_refusal
from services.ingest import fhir_stream
from services.ingest.fhir_parse import digest, patients_first
from services.ingest.receive import DOOR, Receiver
from services.ingest.records import Records
from services.platform.errors import RefusedError

Progress = Callable[[int, int], None]
Kind = Literal["dicom", "fhir", "hl7v2"]
_LARGEST_MEMBER = 4 << 30
_HIDDEN = (".", "__MACOSX")
_NDJSON = (".ndjson", ".ndjson.gz")
# FHIR files from this size on are read entry by entry.
_LARGE = 16 << 20


@dataclass
class Summary:
    """What became of the files. `refused`: (path relative to the folder, refusal)."""

    files: int = 0
    stored: int = 0
    duplicates: int = 0
    skipped: int = 0
    records: int = 0
    studies: set[str] = field(default_factory=set)
    refused: list[tuple[str, Refusal]] = field(default_factory=list)

    def reasons(self) -> Counter[str]:
        """How often each reason occurred."""
        return Counter(refusal.reason for _, refusal in self.refused)


@dataclass(frozen=True)
class Importer:
    """Feeds files to the doors of DICOM, FHIR and HL7 v2."""

    receiver: Receiver
    records: Records

    def folder(self, path: Path, progress: Progress | None = None, kind: Kind | None = None) -> Summary:
        """Imports a file, a folder (to any depth), or the files of a zip archive.

        DICOMDIR and empty or hidden files are skipped. `kind` says what the files are; None tells by the content.
        Every other file is stored, a duplicate, or quarantined with its reason. `progress(done, total)`.
        Raises RetryableError when the disk is full or the database is away: run it again, nothing is stored twice.
        """
        summary = Summary()
        root = path if path.is_dir() else path.parent
        paths = sorted(_visible(path.rglob("*"), path)) if path.is_dir() else [path]
        patients: dict[str, PatientIdentifier] = {}
        exports = [file for file in paths if kind in (None, "fhir") and _is_export(file)]
        paths = [file for file in paths if file not in set(exports)]
        paths.sort(key=patients_first)
        for done, file in enumerate(paths, start=1):
            for name, content in self._contents(file, str(file.relative_to(root)), summary, kind or DOOR):
                self._take(name, content, summary, patients, kind)
            if progress is not None:
                progress(done, len(paths) + len(exports))
        self._take_exports(exports, root, summary, patients)
        if progress is not None and exports:
            progress(len(paths) + len(exports), len(paths) + len(exports))
        return summary

    def _take_exports(
        self, files: list[Path], root: Path, summary: Summary, patients: dict[str, PatientIdentifier]
    ) -> None:
        """NDJSON and FHIR files too large to be read at once, together: a bulk export keeps each type in a file."""
        if not files:
            return
        done = fhir_stream.import_files(self.records, files, known_patients=patients)
        summary.files += done.files
        summary.records += done.records
        summary.duplicates += done.unchanged
        place = str(files[0].relative_to(root)) if len(files) == 1 else "export"
        summary.refused += [(place, refusal) for refusal in done.refused]

    def _contents(self, file: Path, name: str, summary: Summary, door: str) -> Iterator[tuple[str, bytes]]:
        if not zipfile.is_zipfile(file):
            yield name, file.read_bytes()
            return
        try:
            with zipfile.ZipFile(file) as bundle:
                for member in bundle.infolist():
                    parts = Path(member.filename).parts
                    hidden = any(part.startswith(_HIDDEN) for part in parts)
                    if not member.is_dir() and not hidden and member.file_size <= _LARGEST_MEMBER:
                        yield f"{name}/{member.filename}", bundle.read(member)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
            refused = RefusedError(
                "file.unreadable_zip",
                f"the zip archive cannot be unpacked ({type(error).__name__})",
                remedy="send its files unpacked and without a password",
            )
            content = file.read_bytes()
            self.records.quarantine.add(door, content, to_refusal(refused, subject=digest(content)))
            summary.refused.append((name, to_refusal(refused, subject=digest(content))))

    def _take(
        self,
        name: str,
        content: bytes,
        summary: Summary,
        patients: dict[str, PatientIdentifier],
        kind: Kind | None,
    ) -> None:
        summary.files += 1
        if not content or Path(name).name.upper() == "DICOMDIR":
            summary.skipped += 1
            return
        kind = kind or recognise(content)
        if kind == "dicom":
            self._take_instance(name, content, summary)
            return
        if kind == "fhir":
            taken = self.records.receive_fhir(content, patients)
            patients.update(taken.patients)
        else:
            taken = self.records.receive_messages(content)
        summary.records += len(taken.event_ids)
        summary.duplicates += not taken.event_ids and not taken.refusals
        summary.refused += [(name, refusal) for refusal in taken.refusals]

    def _take_instance(self, name: str, content: bytes, summary: Summary) -> None:
        outcome = self.receiver.receive(content)
        if outcome.refusal is not None:
            summary.refused.append((name, outcome.refusal))
        if outcome.header is not None:
            summary.stored += outcome.status == "stored"
            summary.duplicates += outcome.status == "duplicate"
            summary.studies.add(outcome.header.study_instance_uid)


def _visible(paths: Iterable[Path], root: Path) -> Iterator[Path]:
    for path in paths:
        hidden = any(part.startswith(_HIDDEN) for part in path.relative_to(root).parts)
        if path.is_file() and not hidden:
            yield path


def _is_export(file: Path) -> bool:
    """A file for the streaming import: NDJSON by its name, or a FHIR file of many megabytes."""
    if file.name.lower().endswith(_NDJSON):
        return True
    if file.stat().st_size < _LARGE:
        return False
    with file.open("rb") as stream:
        return recognise(stream.read(4096)) == "fhir"


def recognise(content: bytes) -> Kind:
    """What a file holds, by its first bytes; what is neither FHIR nor HL7 v2 goes to the DICOM door to be judged."""
    start = content[:4096]
    if start[128:132] == b"DICM":
        return "dicom"
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=BytesIO(content)) as stream:
                start = stream.read(4096)
        except (OSError, EOFError, zlib.error):
            return "fhir"
    text = start.lstrip(b"\xef\xbb\xbf\r\n\t \x0b")
    if text[:3] in (b"MSH", b"FHS", b"BHS"):
        return "hl7v2"
    return "fhir" if text[:1] in (b"{", b"[") else "dicom"
