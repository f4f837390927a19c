"""FHIR R4 as it arrives: JSON into resources, and the small parts that every resource shares.

Tolerant of what servers leave out, strict about what would mix things up. Nothing is checked against the profiles here:
`fhir.resources` does that where Osler writes FHIR. Source: HL7 FHIR R4 4.0.1 (hl7.org/fhir/R4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.clinical.terminology import canonical_system
from services.platform.errors import RefusedError

Resource = Mapping[str, Any]
MAX_DEPTH = 64
_RELATIVE = re.compile(r"(?:^|/)([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[^/]+)?$")


@dataclass(frozen=True)
class Coding:
    """One code of a CodeableConcept; `system` is the canonical URI, or as sent when unknown, or empty."""

    system: str
    code: str
    display: str = ""


@dataclass(frozen=True)
class Entry:
    """A resource of a document. `reference` is "Type/id", or "Type/#n" (its place) when it has no id."""

    resource: Resource
    reference: str
    full_url: str
    position: int

    @property
    def type(self) -> str:
        return str(self.resource["resourceType"])


@dataclass(frozen=True)
class Document:
    """What one import held. `entries`: resources, those of a Bundle unpacked. `unreadable`: places with no resource."""

    entries: tuple[Entry, ...]
    unreadable: tuple[int, ...]
    kind: str


def read(content: bytes) -> Document:
    """Parses a Bundle, a single resource or NDJSON.

    Raises RefusedError `fhir.not_json`, `fhir.not_fhir`, `fhir.too_deep` or `fhir.empty`.
    """
    roots = _roots(content)
    for root in roots:
        _check_depth(root)
    if not roots:
        raise RefusedError("fhir.empty", "the document holds no resource", remedy="send a Bundle or a resource")
    entries: list[Entry] = []
    unreadable: list[int] = []
    kind = "ndjson" if len(roots) > 1 else ""
    position = 0
    for root in roots:
        if not isinstance(root, dict) or not isinstance(root.get("resourceType"), str):
            raise RefusedError(
                "fhir.not_fhir",
                "the JSON has no resourceType, so it is no FHIR resource",
                missing=("resourceType",),
                remedy="send a FHIR R4 Bundle or resource",
            )
        kind = kind or str(root["resourceType"])
        for full_url, resource in _unpack(root):
            if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
                entries.append(Entry(resource, _own_reference(resource, position), full_url, position))
            else:
                unreadable.append(position)
            position += 1
    return Document(tuple(entries), tuple(unreadable), kind)


def _roots(content: bytes) -> list[Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not UTF-8") from None
    try:
        return [json.loads(text)] if text.strip() else []
    except RecursionError:
        raise _too_deep() from None
    except ValueError as whole:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise _not_json(str(whole).partition(":")[0]) from None
        try:
            return [json.loads(line) for line in lines]
        except RecursionError:
            raise _too_deep() from None
        except ValueError:
            raise _not_json("neither one JSON document nor NDJSON") from None


def _check_depth(root: Any) -> None:
    stack = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(node, dict):
            stack.extend((child, depth + 1) for child in node.values() if isinstance(child, dict | list))
        elif isinstance(node, list):
            stack.extend((child, depth + 1) for child in node if isinstance(child, dict | list))


def _unpack(root: Resource) -> Iterator[tuple[str, Any]]:
    if root["resourceType"] != "Bundle":
        yield "", root
        return
    entries = root.get("entry") or []
    for entry in entries if isinstance(entries, list) else [entries]:
        inner = entry.get("resource") if isinstance(entry, dict) else None
        full_url = str(entry.get("fullUrl") or "") if isinstance(entry, dict) else ""
        if isinstance(inner, dict) and inner.get("resourceType") == "Bundle":
            yield from _unpack(inner)
        else:
            yield full_url, inner


def _own_reference(resource: Resource, position: int) -> str:
    identity = resource.get("id")
    return f"{resource['resourceType']}/{identity}" if identity else f"{resource['resourceType']}/#{position}"


def _not_json(why: str) -> RefusedError:
    return RefusedError("fhir.not_json", f"the document is not JSON: {why}", remedy="send FHIR R4 as UTF-8 JSON")


def _too_deep() -> RefusedError:
    return RefusedError(
        "fhir.too_deep",
        f"the JSON is nested deeper than {MAX_DEPTH} levels",
        remedy="send FHIR R4 as its own resources",
    )


class References:
    """Resolves references inside one document: fullUrl, relative, absolute, or contained ("#id")."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._by_url = {entry.full_url: entry for entry in entries if entry.full_url}
        self._by_reference = {entry.reference: entry for entry in entries}

    def name(self, reference: str) -> str:
        """One name for a reference, however it is written: "Type/id", or the text itself when it is neither."""
        if reference in self._by_url:
            return self._by_url[reference].reference
        match = _RELATIVE.search(reference)
        return match.group(1) if match else reference

    def find(self, reference: str, within: Resource | None = None) -> Resource | None:
        """The resource that is referred to, when the document holds it."""
        if reference.startswith("#"):
            inner = as_list((within or {}).get("contained"))
            return next((r for r in inner if isinstance(r, dict) and r.get("id") == reference[1:]), None)
        entry = self._by_url.get(reference) or self._by_reference.get(self.name(reference))
        return entry.resource if entry else None


def as_list(value: Any) -> list[Any]:
    """The value as a list: FHIR made by hand often has one object where a list belongs."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def as_dict(value: Any) -> Mapping[str, Any]:
    """The value when it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def codings(concept: Any) -> tuple[Coding, ...]:
    """The codings of a CodeableConcept (or of a bare Coding) that have a code."""
    concept = as_dict(concept)
    rows = as_list(concept.get("coding")) if "coding" in concept or "code" not in concept else [concept]
    found = []
    for row in rows:
        row = as_dict(row)
        if row.get("code"):
            system = canonical_system(str(row.get("system") or ""))
            display = str(row.get("display") or "").replace("\u200b", "").strip()
            found.append(Coding(system, str(row["code"]).strip(), display))
    return tuple(found)


def text_of(concept: Any) -> str:
    """The words of a CodeableConcept: its text, else the first display, else the first code."""
    concept = as_dict(concept)
    if concept.get("text"):
        return str(concept["text"]).replace("\u200b", "").strip()
    rows = codings(concept)
    return next((row.display for row in rows if row.display), rows[0].code if rows else "")


def reference_of(value: Any) -> str:
    """The literal reference of a Reference, or "" when it has none."""
    return str(as_dict(value).get("reference") or "")
