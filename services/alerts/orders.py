"""Reads what a draft order asks for: modality, contrast and agent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2

from services.clinical import fhir

_DEFAULT_AGENT = {"CT": "iodinated"}
# Appointment.status (R4) of what will not take place any more.
_ENDED = frozenset({"cancelled", "noshow", "fulfilled", "entered-in-error"})


@cache
def _tables() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_name("orders.yaml").read_text(encoding="utf-8")))


def selected_orders(draft_orders: Mapping[str, Any] | None, selections: Iterable[str]) -> list[Mapping[str, Any]]:
    """Resources of the draft Bundle that `selections` ("ServiceRequest/1") name; all of them when it names none."""
    entries = _dicts((draft_orders or {}).get("entry"))
    resources = [e["resource"] for e in entries if isinstance(e.get("resource"), Mapping)]
    wanted = set(selections)
    return [r for r in resources if reference(r) in wanted] if wanted else resources


def appointments(bundle: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The Appointments of a Bundle that are still to be booked."""
    found = selected_orders(bundle, ())
    return [r for r in found if r.get("resourceType") == "Appointment" and r.get("status") not in _ENDED]


def reference(resource: Mapping[str, Any]) -> str:
    """ "Type/id" of a draft; "" for one without an id."""
    return f"{resource.get('resourceType')}/{resource['id']}" if resource.get("id") else ""


def parse(order: Mapping[str, Any]) -> advisor_pb2.DraftOrder:
    """A draft ServiceRequest or a proposed Appointment (R4) as Osler understands it.

    `modality` stays empty when nothing tells it, `contrast` absent when neither codes nor words say anything about it.
    """
    concepts = [c for name in ("code", "medicationCodeableConcept", "serviceType") for c in _dicts(order.get(name))]
    codings = [coding for concept in concepts for coding in fhir.codings(concept)]
    said = [fhir.text_of(concept) for concept in concepts] + [str(order.get("description") or "")]
    details = [fhir.text_of(detail) for detail in _dicts(order.get("orderDetail"))]
    notes = [str(note.get("text") or "") for note in _dicts(order.get("note"))]
    reasons = _dicts(order.get("reasonCode"))
    draft = advisor_pb2.DraftOrder(
        codes=[_code(coding) for coding in codings],
        text=next((text for text in said if text), ""),
        reasons=[_code(coding) for reason in reasons for coding in fhir.codings(reason)],
        reason="; ".join(text for text in map(fhir.text_of, reasons) if text),
        body_region=" ".join(fhir.text_of(site) for site in _dicts(order.get("bodySite"))),
    )
    _from_codes(draft)
    _from_words(draft, " ".join([*said, *(c.display for c in codings), *details, *notes]).lower())
    return draft


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    """One or several objects, as FHIR versions differ in it."""
    return [item for item in fhir.as_list(value) if isinstance(item, Mapping)]


def _code(coding: fhir.Coding) -> common_pb2.Code:
    return common_pb2.Code(system=coding.system or "urn:unknown", code=coding.code, display=coding.display)


def _from_codes(draft: advisor_pb2.DraftOrder) -> None:
    known = {(row["system"], row["code"]): row for row in _tables()["codes"]}
    for code in draft.codes:
        row = known.get((code.system, code.code))
        if row:
            draft.modality = row["modality"]
            if "contrast" in row:
                draft.contrast = row["contrast"]


def _from_words(draft: advisor_pb2.DraftOrder, words: str) -> None:
    tables = _tables()["words"]
    if not draft.modality:
        draft.modality = _first_match(tables["modality"], words)
    if not draft.HasField("contrast"):
        if _says(words, tables["without_contrast"]):
            draft.contrast = False
        elif _says(words, tables["with_contrast"]):
            draft.contrast = True
    draft.contrast_agent = _first_match(tables["agents"], words)
    if draft.contrast_agent and not draft.HasField("contrast"):
        draft.contrast = True
    if draft.contrast and not draft.contrast_agent:
        draft.contrast_agent = _DEFAULT_AGENT.get(draft.modality, "")


def _first_match(table: Mapping[str, list[str]], words: str) -> str:
    return next((name for name, spellings in table.items() if _says(words, spellings)), "")


def _says(words: str, spellings: list[str]) -> bool:
    """Whole words only: "ct" must not be found in "inspect"."""
    return any(re.search(rf"(?<!\w){re.escape(s)}(?!\w)", words) for s in spellings)
