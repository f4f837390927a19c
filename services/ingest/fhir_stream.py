"""Large FHIR exports: NDJSON files and huge Bundles, in bounded memory, one record for each patient.

Two passes. The first reads resource by resource, finds whose it is and writes it to one of a few spool files; the second
reads one spool file at a time and makes the records of its patients. Memory holds the patients' identifiers, the index of
shared resources and one spool file, whatever the size of the export.

Every resource is parsed, and its type, depth and patient are checked. The whole R4 model is checked for the first of each
type and a sample of the rest; after the first that fails, for all of that type: a file of the wrong version is refused as
a whole, and a sound one costs no more than reading it.
Source: HL7 Bulk Data Access 2.0 (NDJSON, one resource a line); HL7 FHIR R4 (4.0.1) bundle.html.
"""

from __future__ import annotations

import gzip
import itertools
import re
import struct
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
from osler.common.v1 import common_pb2

from services.clinical.fhir import MAX_DEPTH
from services.clinical.identity import PatientIdentifier
from services.ingest.fhir_import import PatientRecord, compartment, patient_identifier
from services.ingest.fhir_parse import Item, check, digest, known_type, patients_first, too_deep
from services.ingest.records import FHIR_DOOR, Records
from services.platform.errors import RefusedError

LONGEST_RESOURCE = 16 << 20
LARGEST_RECORD = 8 << 20
_SPOOL_BYTES = 32 << 20
_FIRST_CHECKED, _SAMPLE = 20, 50
_BATCH_RECORDS, _BATCH_BYTES = 256, 16 << 20
_REFUSED_TOGETHER = 256 << 10
_MOST_REFUSALS = 1000
# A resource nested deeper than the limit has at least as many brackets.
_MANY_BRACKETS = 300
_HEAD = struct.Struct("<II")
_REFERENCE = re.compile(rb'"reference"\s*:\s*"([A-Za-z]+/[A-Za-z0-9\-.]{1,64})')
Progress = Callable[[int, int], None]


@dataclass
class Streamed:
    """What an import did.

    Every resource is in a record, refused (`refused_resources`), or `skipped`: one of nobody (Practitioner, Location),
    which travels with the charts that name it. `checked`: against the whole R4 model. `refused`: the first thousand.
    """

    files: int = 0
    resources: int = 0
    patients: int = 0
    records: int = 0
    unchanged: int = 0
    refused_resources: int = 0
    skipped: int = 0
    checked: int = 0
    refused: list[common_pb2.Refusal] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)


@dataclass
class _Refusals:
    """Refused resources, quarantined many at a time: one reason of an export may meet all of its resources."""

    records: Records
    summary: Streamed
    waiting: dict[str, tuple[RefusedError, list[bytes]]] = field(default_factory=dict)

    def add(self, error: RefusedError, raw: bytes) -> None:
        self.summary.refused_resources += 1
        first, lines = self.waiting.setdefault(error.reason, (error, []))
        lines.append(raw)
        if sum(map(len, lines)) > _REFUSED_TOGETHER:
            self._put(first, lines)
            del self.waiting[error.reason]

    def put(self, error: RefusedError, content: bytes) -> None:
        """Quarantines something that is no resource."""
        self._put(error, [content])

    def flush(self) -> None:
        for first, lines in self.waiting.values():
            self._put(first, lines)
        self.waiting.clear()

    def _put(self, first: RefusedError, lines: Sequence[bytes]) -> None:
        content = b"\n".join(lines)
        message = first.message + (f" (and {len(lines) - 1} more resources)" if len(lines) > 1 else "")
        error = RefusedError(first.reason, message, missing=first.missing, remedy=first.remedy, subject=digest(content))
        refusal = self.records.refuse(FHIR_DOOR, content, error)
        if len(self.summary.refused) < _MOST_REFUSALS:
            self.summary.refused.append(refusal)


@dataclass
class _Sampler:
    """Which resources are checked against the whole model."""

    seen: Counter[str] = field(default_factory=Counter)
    suspect: set[str] = field(default_factory=set)

    def wants(self, kind: str) -> bool:
        self.seen[kind] += 1
        count = self.seen[kind]
        return count <= _FIRST_CHECKED or count % _SAMPLE == 0 or kind in self.suspect


@dataclass
class _Spool:
    """Spool files of one import. `numbers`: patient -> number; `names`: "Patient/1" -> number."""

    folder: Path
    files: list[IO[bytes]]
    shared: IO[bytes]
    pending: IO[bytes]
    numbers: dict[PatientIdentifier, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def number(self, patient: PatientIdentifier) -> int:
        return self.numbers.setdefault(patient, len(self.numbers))

    def write(self, number: int, raw: bytes) -> None:
        _write(self.files[number % len(self.files)], number, raw)

    def share(self, name: str, raw: bytes) -> None:
        self.places[name.encode()] = (self.shared.tell(), len(raw))
        self.shared.write(raw)


def _write(file: IO[bytes], number: int, raw: bytes) -> None:
    file.write(_HEAD.pack(number, len(raw)))
    file.write(raw)


def _read(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    file.seek(0)
    while head := file.read(_HEAD.size):
        number, size = _HEAD.unpack(head)
        yield number, file.read(size)


def import_files(
    records: Records,
    paths: Iterable[Path],
    *,
    known_patients: Mapping[str, PatientIdentifier] | None = None,
    base_url: str = "",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Streamed:
    """Imports NDJSON files and Bundles, plain or gzip, as one export: their resources may refer to each other.

    `known_patients` as of `Records.take_fhir`. `base_url`: the server that the ids belong to, "" when unknown. `folder`
    for the spool files, which take as much room as the export. `progress(bytes read, bytes in all)`.
    Raises RetryableError; run it again then: what was kept is not kept twice.
    """
    wanted = sorted(paths, key=patients_first)
    sizes = {path: path.stat().st_size * (12 if path.suffix == ".gz" else 1) for path in wanted}
    summary = Streamed()
    with ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="osler-import-", dir=folder)))
        count = max(1, min(256, sum(sizes.values()) // _SPOOL_BYTES + 1))

        def opened(name: str) -> IO[bytes]:
            return stack.enter_context((room / name).open("w+b"))

        spool = _Spool(room, [opened(f"{n}.spool") for n in range(count)], opened("shared"), opened("pending"))
        for name, patient in (known_patients or {}).items():
            spool.names[name] = spool.number(patient)
        reader = _Reader(records, spool, summary, _Refusals(records, summary), _Sampler())
        done = 0
        for path in wanted:
            reader.file(path)
            done += sizes[path]
            if progress is not None:
                progress(done, sum(sizes.values()))
        reader.settle_pending()
        _Writer(records, spool, summary, base_url.rstrip("/")).run()
        reader.refusals.flush()
    return summary


@dataclass
class _Reader:
    """The first pass."""

    records: Records
    spool: _Spool
    summary: Streamed
    refusals: _Refusals
    sampler: _Sampler

    def file(self, path: Path) -> None:
        self.summary.files += 1
        with _open(path) as stream:
            try:
                for place, raw in _resources(stream):
                    self._take(place, raw)
            except (gzip.BadGzipFile, EOFError, zlib.error):
                # What came before the damage is taken in; the file's beginning is what the quarantine keeps.
                error = RefusedError(
                    "fhir.not_json", "the gzip file is damaged or cut short", remedy="send the file again, whole"
                )
                self.refusals.put(error, path.read_bytes()[:LONGEST_RESOURCE])

    def _take(self, place: str, raw: bytes) -> None:
        self.summary.resources += 1
        try:
            resource = _parsed(place, raw)
            kind = resource["resourceType"]
            self.summary.types[kind] += 1
            if kind in compartment()["exchange"]:
                self.summary.skipped += 1
                return
            self._check(place, kind, resource)
            self._spool(place, kind, resource, raw)
        except RefusedError as error:
            self.refusals.add(error, raw)

    def _check(self, place: str, kind: str, resource: dict[str, Any]) -> None:
        if not known_type(kind):
            raise RefusedError("fhir.unknown_resource_type", f"{place} has a resourceType that R4 does not know")
        if not self.sampler.wants(kind):
            return
        self.summary.checked += 1
        error = check(Item(f"{place}.{kind}", "", resource))
        if error is not None:
            self.sampler.suspect.add(kind)
            raise error

    def _spool(self, place: str, kind: str, resource: dict[str, Any], raw: bytes) -> None:
        identity = resource.get("id")
        name = f"{kind}/{identity}" if identity else ""
        if kind == "Patient":
            patient = patient_identifier(resource, self.records.issuers, self.records.default_issuer)
            if patient is None:
                raise RefusedError(
                    "fhir.missing_patient_identifier",
                    f"{place} is a Patient without an identifier that has a value",
                    missing=["Patient.identifier"],
                    remedy="send the patient's medical record number as Patient.identifier",
                )
            number = self.spool.number(patient)
            if name:
                self.spool.names[name] = number
            self.spool.write(number, raw)
            return
        owner = _owner_name(kind, resource)
        if not owner:
            if kind in compartment()["elements"] and kind not in compartment()["optional"]:
                raise _unresolved(place, kind)
            if name:
                self.spool.share(name, raw)
            self.summary.skipped += 1
        elif owner in self.spool.names:
            self.spool.write(self.spool.names[owner], raw)
        else:
            _write(self.spool.pending, len(owner), owner.encode() + raw)

    def settle_pending(self) -> None:
        """Resources that came before their patient."""
        for length, content in _read(self.spool.pending):
            owner, raw = content[:length].decode(), content[length:]
            if owner in self.spool.names:
                self.spool.write(self.spool.names[owner], raw)
            else:
                self.refusals.add(_unresolved("a resource", "resource"), raw)


def _unresolved(place: str, kind: str) -> RefusedError:
    return RefusedError(
        "fhir.unresolved_patient",
        f"{place} refers to no Patient of the export",
        missing=["Patient"],
        remedy=f"export the Patient beside the {kind}",
    )


def _owner_name(kind: str, resource: dict[str, Any]) -> str:
    """ "Patient/1" for the patient of a resource, "" for none."""
    for element in compartment()["elements"].get(kind, ()):
        value: Any = resource
        for part in element.split("."):
            value = [v.get(part) for v in value if isinstance(v, dict)] if isinstance(value, list) else value.get(part)
            if value is None:
                break
        for reference in value if isinstance(value, list) else (value,):
            text = reference.get("reference") if isinstance(reference, dict) else None
            if isinstance(text, str) and "Patient/" in text:
                return "Patient/" + text.rpartition("Patient/")[2].partition("/_history/")[0]
    return ""


def _parsed(place: str, raw: bytes) -> dict[str, Any]:
    if len(raw) > LONGEST_RESOURCE:
        raise RefusedError(
            "fhir.too_large",
            f"{place} is a resource of more than {LONGEST_RESOURCE >> 20} MiB",
            remedy="send attachments as references, not inside the resource",
        )
    try:
        resource = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        nested = "recursion" in str(error)
        raise (_too_deep(place) if nested else RefusedError("fhir.not_json", f"{place} is no JSON")) from None
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise RefusedError("fhir.not_a_resource", f"{place} is no FHIR resource", missing=["resourceType"])
    if raw.count(b"{") + raw.count(b"[") > _MANY_BRACKETS and (deep := too_deep(Item(place, "", resource))):
        raise deep
    return resource


def _too_deep(place: str) -> RefusedError:
    return RefusedError("fhir.too_deep", f"{place} is nested deeper than {MAX_DEPTH} levels")


def _open(path: Path) -> IO[bytes]:
    file = path.open("rb")
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return gzip.open(path, "rb")  # type: ignore[return-value]
    file.seek(0)
    return file


def _resources(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """(place, JSON bytes) of each resource: the lines of NDJSON, or the entries of one Bundle."""
    lines = _lines(stream)
    first = next(lines, None)
    if first is None:
        return
    if _is_whole(first[1]):
        for place, raw in itertools.chain([first], lines):
            yield from _unpacked(place, raw)
        return
    stream.seek(0)
    yield from _entries(stream)


def _is_whole(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return len(line) > LONGEST_RESOURCE
    return True


def _lines(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    number = 0
    while line := stream.readline(LONGEST_RESOURCE + 2):
        number += 1
        rest = line
        # The rest of a line that is too long is read and forgotten: its beginning is what the quarantine keeps.
        while len(rest) > LONGEST_RESOURCE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_RESOURCE + 2)
        if line.strip():
            yield f"line[{number}]", line.strip().removeprefix(b"\xef\xbb\xbf")


def _unpacked(place: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """A Bundle on a line of its own is taken apart; anything else stays as it is."""
    if b'"Bundle"' not in raw or len(raw) > LONGEST_RESOURCE:
        yield place, raw
        return
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        yield place, raw
        return
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        yield place, raw
        return
    entries = document.get("entry")
    for n, entry in enumerate(entries if isinstance(entries, list) else []):
        inner = entry.get("resource") if isinstance(entry, dict) else None
        yield f"{place}.entry[{n}]", orjson.dumps(inner if inner is not None else entry)


def _entries(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The entries of a Bundle that is written over several lines, one at a time."""
    import ijson

    try:
        for n, entry in enumerate(ijson.items(stream, "entry.item", use_float=True)):
            inner = entry.get("resource") if isinstance(entry, dict) else None
            yield f"Bundle.entry[{n}]", orjson.dumps(inner if inner is not None else entry)
    except (ijson.JSONError, orjson.JSONEncodeError, RecursionError):
        yield "document", b"the rest of the document is no JSON"


@dataclass
class _Writer:
    """The second pass: spool files into records."""

    records: Records
    spool: _Spool
    summary: Streamed
    base_url: str

    def run(self) -> None:
        self.spool.shared.flush()
        patients = {number: patient for patient, number in self.spool.numbers.items()}
        batch: list[PatientRecord] = []
        size = 0
        for file in self.spool.files:
            groups: dict[int, list[bytes]] = defaultdict(list)
            for number, raw in _read(file):
                groups[number].append(raw)
            self.summary.patients += len(groups)
            for number, resources in groups.items():
                for part in _parts(resources):
                    batch.append(PatientRecord(patients[number], self._bundle(part), len(part)))
                    size += len(batch[-1].content)
                    if len(batch) >= _BATCH_RECORDS or size > _BATCH_BYTES:
                        self._take(batch)
                        size = 0
        self._take(batch)

    def _take(self, batch: list[PatientRecord]) -> None:
        if batch:
            new = self.records.take_charts(batch)
            self.summary.records += len(new)
            self.summary.unchanged += len(batch) - len(new)
        batch.clear()

    def _bundle(self, resources: Sequence[bytes]) -> bytes:
        named = {name for raw in resources for name in _REFERENCE.findall(raw)}
        joined = [*self._shared(named), *resources]
        if not self.base_url:
            entries = b",".join(b'{"resource":%b}' % raw for raw in joined)
        else:
            entries = b",".join(b'{"fullUrl":"%b","resource":%b}' % (self._url(raw), raw) for raw in joined)
        return b'{"resourceType":"Bundle","type":"collection","entry":[%b]}' % entries

    def _url(self, raw: bytes) -> bytes:
        resource = orjson.loads(raw)
        return f"{self.base_url}/{resource['resourceType']}/{resource.get('id', '')}".encode()

    def _shared(self, named: set[bytes]) -> Iterator[bytes]:
        """The shared resources that are named, and those that these name."""
        waiting, given = sorted(named & self.spool.places.keys()), set[bytes]()
        while waiting:
            name = waiting.pop()
            if name in given:
                continue
            given.add(name)
            offset, size = self.spool.places[name]
            self.spool.shared.seek(offset)
            raw = self.spool.shared.read(size)
            waiting += sorted({found for found in _REFERENCE.findall(raw) if found in self.spool.places} - given)
            yield raw


def _parts(resources: Sequence[bytes]) -> Iterator[list[bytes]]:
    """A patient's resources in records of bounded size."""
    part: list[bytes] = []
    size = 0
    for raw in resources:
        if part and size + len(raw) > LARGEST_RECORD:
            yield part
            part, size = [], 0
        part.append(raw)
        size += len(raw)
    yield part
