"""Analysers by name: listing them, and running one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from services.imaging.analysers.cards import Card, card
from services.imaging.analysers.contract import Image, Result, refuse, require_finite
from services.platform.errors import RefusedError

#: Each is a module here with a card of the same name and a function `analyse(inputs, settings) -> Result`.
NAMES = (
    "cardiac_function",
    "ct_perfusion",
    "enhancement",
    "flow_4d",
    "lesion_change",
    "radiomics",
    "tumour_fractions",
    "vertebra",
)

Analyse = Callable[[Mapping[str, Image], Mapping[str, Any]], Result]


def cards() -> tuple[Card, ...]:
    """Cards of all analysers, by name."""
    return tuple(card(name) for name in NAMES)


def card_named(name: str) -> Card:
    """One card. Raises RefusedError `analysers.unknown`."""
    if name not in NAMES:
        raise RefusedError(
            "analysers.unknown", f"there is no analyser {name!r}", remedy=f"Analysers: {', '.join(NAMES)}."
        )
    return card(name)


def run(name: str, inputs: Mapping[str, Image], options: Mapping[str, Any] | None = None) -> Result:
    """Runs one analyser on images by role.

    Raises RefusedError `analysers.unknown`, `<name>.unknown_input`, `<name>.missing_input`, `<name>.unknown_option`,
    `<name>.bad_option`, `<name>.not_finite`, and what the analyser itself refuses.
    """
    known = card_named(name)
    for role in inputs:
        if role not in known.inputs:
            roles = ", ".join(known.inputs)
            raise refuse(name, "unknown_input", f"no input {role!r}", remedy=f"Inputs: {roles}.")
    for wanted in known.inputs.values():
        if wanted.required and wanted.name not in inputs:
            raise refuse(name, "missing_input", f"{wanted.name} is missing: {wanted.what}", wanted.name)
    for role_name, image in inputs.items():
        require_finite(name, role_name, image)
    analyse: Analyse = import_module(f"services.imaging.analysers.{name}").analyse
    return analyse(inputs, known.settings(options or {}))
