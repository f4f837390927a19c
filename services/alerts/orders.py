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

_DEFAULT_AGENT = {"CT": "iodinated"}


@cache
def _tables() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_name("orders.yaml").read_text(encoding="utf-8")))


def selected_orders(draft_orders: Mapping[str, Any] | None, selections: Iterable[str]) -> list[Mapping[str, Any]]:
    """Resources of the draft Bundle that `selections` ("ServiceRequest/1") name; all of them when it names none."""
    resources = [e.get("resource", {}) for e in (draft_orders or {}).get("entry", [])]
    wanted = set(selections)
    if not wanted:
        return resources
    return [r for r in resources if f"{r.get('resourceType')}/{r.get('id')}" in wanted]


def parse(order: Mapping[str, Any]) -> advisor_pb2.DraftOrder:
    """A draft ServiceRequest (R4) as Osler understands it; `modality` stays empty when nothing tells it.

    `contrast` stays absent when neither codes nor words say anything about it.
    """
    concept = order.get("code") or order.get("medicationCodeableConcept") or {}
    codings = concept.get("coding", [])
    details = [d.get("text", "") for d in order.get("orderDetail", [])]
    notes = [n.get("text", "") for n in order.get("note", [])]
    words = " ".join([concept.get("text", ""), *(c.get("display", "") for c in codings), *details, *notes])
    draft = advisor_pb2.DraftOrder(
        codes=[
            common_pb2.Code(system=c.get("system", "urn:unknown"), code=c["code"], display=c.get("display", ""))
            for c in codings
            if c.get("code")
        ],
        text=concept.get("text", "") or next((c.get("display", "") for c in codings), ""),
    )
    _from_codes(draft)
    _from_words(draft, words.lower())
    return draft


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
