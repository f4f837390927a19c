"""`osler process`: the whole flow in this process, without servers: the same rooms, handlers, log and stores."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from osler.imaging.v1 import imaging_pb2
from pydantic import SecretStr

from services.compose import case as cases
from services.compose.fhir_export import bundle
from services.compose.rooms import Foundations, build_room, importer, lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.errors import OslerError
from services.platform.outbox import Relay
from services.platform.worker import RetryPolicy, Step, Worker, drain_all

Kind = Literal["dicom", "fhir", "hl7v2"]
# The rooms that make a case; alerts, board and analytics only show what these announce.
CASE_ROOMS = ("ingest", "imaging", "registration", "fusion", "twin", "advisor")
# A person waits for the outcome: a fault that lasts is reported instead of waited for.
_POLICY = RetryPolicy(base_s=0.2, longest_s=2.0, deadline_s=60.0)


@dataclass(frozen=True)
class Inputs:
    """What to process; folders, files or zip archives."""

    dicom: Sequence[Path] = ()
    fhir: Sequence[Path] = ()
    hl7: Sequence[Path] = ()

    def each(self) -> list[tuple[Kind, Path]]:
        """(kind, path) of every input."""
        kinds: list[tuple[Kind, Sequence[Path]]] = [("dicom", self.dicom), ("fhir", self.fhir), ("hl7v2", self.hl7)]
        return [(kind, path) for kind, paths in kinds for path in paths]


@dataclass
class Outcome:
    """What came of it: `document` is the content of `case.json`."""

    patients: list[cases.PatientCase]
    document: dict[str, Any]
    files: list[Path] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0 complete, 2 when some input was refused, 1 when no case came of it."""
        if not self.document["complete"]:
            return 1 if not self.document["refused_input"] else 2
        return 2 if self.document["refused_input"] else 0


@dataclass(frozen=True)
class Progress:
    """Who hears of the work: `reading(path, done, total)` for files, `step` for each event handled."""

    reading: Callable[[Path, int, int], None] = lambda path, done, total: None
    step: Callable[[Step], None] = lambda step: None


def run(inputs: Inputs, out: Path, settings: Settings, progress: Progress | None = None) -> Outcome:
    """Processes the inputs into `out`: case.json, dicom/, fhir/bundle.json.

    Works in a folder of its own under `out`, which goes when it is done. Raises OslerError for missing inputs or a
    fault that lasts; refused input is no error, it is named in the document.
    """
    missing = [str(path) for _, path in inputs.each() if not path.exists()]
    if missing:
        raise OslerError(f"not found: {', '.join(missing)}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=out) as work:
        foundations = lay_foundations(_contained(settings, Path(work)))
        try:
            return _run(inputs, out, foundations, progress or Progress())
        finally:
            foundations.close()


def _contained(settings: Settings, work: Path) -> Settings:
    """The same settings, but embedded in `work`: log, state and blobs. Patient keys stay those of this installation."""
    plain = settings.model_dump(exclude={"home", "bus", "database", "blobs", "archive"})
    secret = SecretStr(settings.identity_key().decode())
    plain["identity"] = settings.identity.model_copy(update={"secret": secret})
    return Settings(**plain, home=work)


def _run(inputs: Inputs, out: Path, foundations: Foundations, progress: Progress) -> Outcome:
    migrate_all(foundations.database, CASE_ROOMS)
    rooms = [build_room(name, foundations) for name in CASE_ROOMS]
    taken = _read(inputs, foundations, progress)
    parts = (foundations.database, foundations.log)
    workers = [Worker(room, *parts, foundations.quarantine, policy=_POLICY) for room in rooms]
    relays = [Relay(*parts, room.name) for room in rooms]
    try:
        drain_all(workers, relays, on_step=progress.step)
    finally:
        for worker in workers:
            worker.close()
    found = cases.collect(foundations.log, foundations.blobs)
    files = _write_objects(found, out / "dicom", foundations)
    relative = {uid: str(path.relative_to(out)) for uid, path in files.items()}
    document = cases.to_json(found, foundations.quarantine.list(), taken, relative)
    written = [
        *files.values(),
        _write_json(out / "case.json", document),
        _write_json(out / "fhir/bundle.json", bundle(found, foundations.blobs)),
    ]
    return Outcome(found, document, written)


def _read(inputs: Inputs, foundations: Foundations, progress: Progress) -> dict[str, Any]:
    door = importer(foundations)
    summaries = []
    for kind, path in inputs.each():
        summary = door.folder(path, partial(progress.reading, path), kind)
        summaries.append(
            {
                "kind": kind,
                "name_sha256": hashlib.sha256(path.name.encode()).hexdigest()[:16],
                "files": summary.files,
                "stored": summary.stored,
                "duplicates": summary.duplicates,
                "records": summary.records,
                "refused": [{"file": name, "reason": refusal.reason} for name, refusal in summary.refused],
            }
        )
    return {"sources": summaries}


def _write_objects(found: Iterable[cases.PatientCase], folder: Path, foundations: Foundations) -> dict[str, Path]:
    """SEG, SR and REG objects as files; path by SOP instance UID."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {}
    for case in found:
        for item in case.derived_objects():
            path = folder / _file_name(item)
            path.write_bytes(foundations.blobs.get(item.content))
            written[item.sop_instance_uid] = path
    return written


def _file_name(item: imaging_pb2.DerivedObject) -> str:
    return f"{item.modality or 'OT'}-{item.sop_instance_uid}.dcm"


def _write_json(path: Path, document: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
