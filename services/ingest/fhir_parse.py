"""FHIR R4 documents as lists of validated resources.

Source: HL7 FHIR R4 (4.0.1): JSON format (json.html), Bundle (bundle.html), NDJSON of Bulk Data Access 2.0. Models:
fhir.resources R4B, whose resources used here are those of R4. Messages name paths and rules, never values.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from services.clinical.fhir import MAX_DEPTH
from services.platform.errors import RefusedError

Resource = dict[str, Any]
DECOMPRESSED_LIMIT = 128 << 20
# Parts of JSON (members, items, nestings) of one document: a few bytes each in the text, a hundred in memory.
MOST_PARTS = 5_000_000
_SHOWN_ISSUES = 5


@dataclass(frozen=True)
class Item:
    """One resource: `path` is its place in the document, `full_url` its Bundle.entry.fullUrl or ""."""

    path: str
    full_url: str
    resource: Resource

    @property
    def type(self) -> str:
        """For example "Observation"."""
        return str(self.resource["resourceType"])

    @property
    def local_reference(self) -> str:
        """ "Observation/12", or "" without an id."""
        identity = self.resource.get("id")
        return f"{self.type}/{identity}" if identity else ""


@dataclass(frozen=True)
class RefusedItem:
    """Part of a document that was not taken in: why, and its content for a replay."""

    error: RefusedError
    content: bytes


@dataclass(frozen=True)
class Document:
    """Resources in order, those refused, and the invalid Patients whose identifier can be read all the same."""

    items: tuple[Item, ...]
    refused: tuple[RefusedItem, ...]
    invalid_patients: tuple[Item, ...] = ()


def encode(value: Any) -> bytes:
    """JSON bytes; the same value gives the same bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes) -> Document:
    """Reads a resource, a Bundle, or NDJSON of either, plain or gzip.

    Raises RefusedError `fhir.not_json` or `fhir.not_a_resource` when there is nothing to read; a bad resource inside
    is listed in `refused` and the rest goes on.
    """
    subject = digest(content)
    items: list[Item] = []
    refused: list[RefusedItem] = []
    invalid_patients: list[Item] = []
    for item in _flatten(_documents(decompressed(content, subject), subject), subject, refused):
        error = too_deep(item) or check(item)
        if error is None:
            items.append(item)
            continue
        refused.append(RefusedItem(error, _encoded(item.resource, content)))
        if item.type == "Patient" and "identifier" not in error.missing:
            invalid_patients.append(item)
    return Document(tuple(items), tuple(refused), tuple(invalid_patients))


def _encoded(resource: Any, content: bytes) -> bytes:
    """A resource for the quarantine; the whole document when it is nested too deep to be written again."""
    try:
        return encode(resource)
    except RecursionError:
        return content


def patients_first(path: Path) -> tuple[bool, str]:
    """Sort key: a bulk export keeps patients in files of their own, to which the others refer."""
    return "patient" not in path.name.lower(), str(path)


def decompressed(content: bytes, subject: str = "") -> bytes:
    """The document in a gzip file; anything else as it is. Raises RefusedError when it is damaged or too large."""
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            data = stream.read(DECOMPRESSED_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _not_json("the gzip file is damaged or cut short", subject) from error
    if len(data) > DECOMPRESSED_LIMIT:
        raise _too_large(f"the gzip file unpacks to more than {DECOMPRESSED_LIMIT >> 20} MiB", subject)
    return data


def _not_json(what: str, subject: str) -> RefusedError:
    return RefusedError("fhir.not_json", what, remedy="send FHIR R4 as JSON or NDJSON, plain or gzip", subject=subject)


def _too_large(what: str, subject: str) -> RefusedError:
    return RefusedError(
        "fhir.too_large", what, remedy="send it as NDJSON files, which are read in parts", subject=subject
    )


def _documents(data: bytes, subject: str) -> list[tuple[str, Any]]:
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_PARTS:
        raise _too_large(f"the document has more than {MOST_PARTS} parts", subject)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_json("the document is not UTF-8 text", subject) from error
    try:
        return [("", json.loads(text, parse_constant=_no_constant))]
    except (ValueError, RecursionError):
        lines = [(f"line[{n}].", line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if len(lines) < 2:
        raise _not_json("the document is no JSON", subject)
    try:
        return [(path, json.loads(line, parse_constant=_no_constant)) for path, line in lines]
    except (ValueError, RecursionError) as error:
        raise _not_json("the document is neither JSON nor NDJSON", subject) from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _flatten(documents: list[tuple[str, Any]], subject: str, refused: list[RefusedItem]) -> Iterator[Item]:
    for path, document in documents:
        if not isinstance(document, dict) or not isinstance(document.get("resourceType"), str):
            error = _not_a_resource(path or "document", subject)
            if len(documents) == 1:
                raise error
            refused.append(RefusedItem(error, encode(document)))
        elif document["resourceType"] == "Bundle":
            yield from _entries(path, document, subject, refused)
        else:
            yield Item(path + document["resourceType"], "", document)


def _not_a_resource(path: str, subject: str) -> RefusedError:
    return RefusedError(
        "fhir.not_a_resource",
        f"{path.rstrip('.')} is no FHIR resource: resourceType is missing",
        missing=["resourceType"],
        remedy="send FHIR R4 resources",
        subject=subject,
    )


def _entries(path: str, bundle: Resource, subject: str, refused: list[RefusedItem]) -> Iterator[Item]:
    entries = bundle.get("entry", [])
    for n, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        place = f"{path}Bundle.entry[{n}]"
        resource = entry.get("resource") if isinstance(entry, dict) else None
        method = _method(entry)
        if method in ("DELETE", "PATCH") or not isinstance(entry, dict):
            what = f"{place} asks for {method}; an import only adds" if method else f"{place} is no Bundle entry"
            refused.append(RefusedItem(RefusedError("fhir.unsupported_entry", what, subject=subject), encode(entry)))
        elif resource is None and method in ("GET", "HEAD"):
            continue
        elif not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            refused.append(RefusedItem(_not_a_resource(f"{place}.resource", subject), encode(entry)))
        elif resource["resourceType"] == "Bundle":
            yield from _entries(f"{place}.resource.", resource, subject, refused)
        else:
            full_url = entry.get("fullUrl")
            yield Item(f"{place}.resource", full_url if isinstance(full_url, str) else "", resource)


def _method(entry: Any) -> str:
    request = entry.get("request") if isinstance(entry, dict) else None
    return str(request.get("method", "")) if isinstance(request, dict) else ""


def too_deep(item: Item) -> RefusedError | None:
    """The refusal `fhir.too_deep` of a resource nested deeper than any reader here follows, or None."""
    level: list[Any] = [item.resource]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for node in level
            for part in (node.values() if isinstance(node, dict) else node)
            if isinstance(part, dict | list)
        ]
        if not level:
            return None
    return RefusedError(
        "fhir.too_deep",
        f"{item.path} is nested deeper than {MAX_DEPTH} levels",
        remedy="send FHIR R4 as its own resources",
    )


def check(item: Item) -> RefusedError | None:
    """The refusal of a resource that is not valid R4, or None.

    `fhir.unknown_resource_type`, `fhir.wrong_version` (valid R5), `fhir.unknown_field`, `fhir.missing_field` or
    `fhir.invalid_value`; `missing` holds the top-level elements at fault.
    """
    subject = digest(encode(item.resource))
    model = _model(item.type)
    if model is None:
        return RefusedError(
            "fhir.unknown_resource_type", f"{item.path} has a resourceType that R4 does not know", subject=subject
        )
    try:
        model.model_validate(_as_the_model_reads(item.resource))
    except ValidationError as error:
        return _later_version(item, subject) or _refusal(item, error, subject)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return RefusedError("fhir.invalid_value", f"{item.path} is not a valid {item.type}", subject=subject)
    return None


@cache
def known_type(resource_type: str) -> bool:
    """Whether R4 has a resource type of that name."""
    return _model(resource_type) is not None


def _model(resource_type: str) -> Any:
    """The model of a resource type; None when R4 has none (data types such as Coding are no resources)."""
    if not resource_type.isalpha():
        return None
    try:
        model = get_fhir_model_class(resource_type)
    except (KeyError, AttributeError, ValueError, ImportError):
        return None
    return model if "id" in model.model_fields and "meta" in model.model_fields else None


def _later_version(item: Item, subject: str) -> RefusedError | None:
    """The refusal of a resource that is no R4 and is valid R5; None when it is neither."""
    from fhir.resources import get_fhir_model_class as r5_class

    try:
        r5_class(item.type).model_validate(_as_the_model_reads(item.resource))
    except (ValidationError, KeyError, AttributeError, ValueError, TypeError, ImportError, RecursionError):
        return None
    return RefusedError(
        "fhir.wrong_version",
        f"{item.path} is written in FHIR R5, not R4",
        remedy="send FHIR R4 (4.0.1)",
        subject=subject,
    )


_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")


def _as_the_model_reads(value: Any) -> Any:
    """A resource for checking only, with two things mended that real senders write and that lose nothing.

    Extensions without `_value[x]`: R4 allows it (json.html, primitive elements), the model does not. Times of day
    without an offset, which R4 wants: the timeline flags them "zone_assumed".
    """
    if isinstance(value, list):
        return [_as_the_model_reads(part) for part in value]
    if isinstance(value, str):
        return f"{value}Z" if len(value) < 40 and _WITHOUT_ZONE.fullmatch(value) else value
    if not isinstance(value, dict):
        return value
    extension = isinstance(value.get("url"), str)
    return {k: _as_the_model_reads(v) for k, v in value.items() if not (extension and k.startswith("_value"))}


def _refusal(item: Item, error: ValidationError, subject: str) -> RefusedError:
    issues = [(_kind(issue), issue["loc"]) for issue in error.errors(include_input=False, include_url=False)]
    reason = next(kind for kind in _KINDS if any(kind == k for k, _ in issues))
    shown = [f"{_path(item, loc)}: {_KINDS[kind]}" for kind, loc in issues[:_SHOWN_ISSUES]]
    more = f", and {len(issues) - _SHOWN_ISSUES} more" if len(issues) > _SHOWN_ISSUES else ""
    return RefusedError(
        reason,
        "; ".join(shown) + more,
        missing=sorted({str(loc[0]) for _, loc in issues if loc}),
        remedy=f"send a valid R4 {item.type}",
        subject=subject,
    )


_KINDS: Mapping[str, str] = {
    "fhir.unknown_field": "R4 has no such element",
    "fhir.missing_field": "required element is missing",
    "fhir.invalid_value": "value is not valid",
}


def _kind(issue: Any) -> str:
    if issue["type"] == "extra_forbidden":
        return "fhir.unknown_field"
    required = issue["type"] == "missing" or "is required" in issue.get("msg", "")
    return "fhir.missing_field" if required else "fhir.invalid_value"


def _path(item: Item, loc: tuple[Any, ...]) -> str:
    return item.path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
