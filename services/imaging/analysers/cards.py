"""Cards of the analysers: one YAML file beside each module, checked when read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from services.clinical.codes import DCM, IBSI, LOINC, NCIT, OSLER_MEASUREMENT, OSLER_STRUCTURE, SCT, Concept
from services.imaging.analysers.contract import refuse
from services.imaging.findings import Interval, Value

SYSTEMS = {
    "DCM": DCM,
    "SCT": SCT,
    "LN": LOINC,
    "IBSI": IBSI,
    "NCIt": NCIT,
    "measurement": OSLER_MEASUREMENT,
    "structure": OSLER_STRUCTURE,
}


@dataclass(frozen=True)
class Role:
    """One input image. `unit`: what its values must be in, empty when any signal will do; `over_time`: (t, z, y, x)."""

    name: str
    what: str
    required: bool
    unit: str
    over_time: bool


@dataclass(frozen=True)
class Option:
    """One option with its default. `unit`: UCUM, or empty."""

    name: str
    what: str
    default: Any
    unit: str


@dataclass(frozen=True)
class Measure:
    """A quantity that the analyser reports. `unit`: UCUM; `uncertainty`: how it is estimated, or why it is not."""

    concept: Concept
    unit: str
    uncertainty: str


@dataclass(frozen=True)
class Card:
    """What an analyser is. `sources`: papers and standards; `limits`: where it must not be trusted."""

    name: str
    title: str
    version: str
    what: str
    intended_use: str
    sources: tuple[str, ...]
    limits: tuple[str, ...]
    inputs: Mapping[str, Role]
    options: Mapping[str, Option]
    measures: Mapping[str, Measure]
    concepts: Mapping[str, Concept]
    constants: Mapping[str, Any]

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults with `given` over them, as the default's type.

        Raises RefusedError `<analyser>.unknown_option`, `<analyser>.bad_option`.
        """
        used = {name: option.default for name, option in self.options.items()}
        for name, value in given.items():
            if name not in used:
                raise refuse(
                    self.name, "unknown_option", f"no option {name!r}", remedy=f"Options: {', '.join(sorted(used))}."
                )
            used[name] = self._typed(name, value)
        return used

    def _typed(self, name: str, value: Any) -> Any:
        default = self.options[name].default
        problem = refuse(
            self.name, "bad_option", f"option {name} is no {type(default).__name__}", remedy=self.options[name].what
        )
        try:
            if isinstance(default, bool):
                return {"true": True, "false": False}[str(value).lower()]
            if isinstance(default, list):
                parts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
                return [float(part) for part in parts]
            typed = type(default)(value)
        except (KeyError, TypeError, ValueError) as error:
            raise problem from error
        if isinstance(typed, float) and not math.isfinite(typed):
            raise problem
        return typed

    def value(self, name: str, number: float, uncertainty: Interval | str = "", *, method: str = "") -> Value:
        """A measurement under its code; without `uncertainty` the card's reason why there is none."""
        measure = self.measures[name]
        told = uncertainty or f"not estimated: {measure.uncertainty}"
        return Value(measure.concept, float(number), measure.unit, method or f"{self.name} {self.version}", told)


@cache
def card(name: str) -> Card:
    """The card of one analyser. Raises FileNotFoundError for a name without one."""
    path = Path(__file__).with_name(f"{name}.yaml")
    return read_card(name, yaml.safe_load(path.read_text(encoding="utf-8")))


def read_card(name: str, raw: Mapping[str, Any]) -> Card:
    """A card from its YAML content. Raises KeyError, ValueError for one that is not complete."""
    if not raw["sources"] or not raw["limits"]:
        raise ValueError(f"{name}: a card names its sources and its limits")
    return Card(
        name=name,
        title=raw["title"],
        version=str(raw["version"]),
        what=raw["what"],
        intended_use=raw["intended_use"],
        sources=tuple(raw["sources"]),
        limits=tuple(raw["limits"]),
        inputs={
            role: Role(
                role,
                entry["what"],
                bool(entry.get("required", True)),
                entry.get("unit", ""),
                entry.get("over_time", False),
            )
            for role, entry in raw["inputs"].items()
        },
        options={
            option: Option(option, entry["what"], entry["default"], entry.get("unit", ""))
            for option, entry in (raw.get("options") or {}).items()
        },
        measures={
            measure: Measure(concept_of(entry["code"]), entry["unit"], entry["uncertainty"])
            for measure, entry in (raw.get("measures") or {}).items()
        },
        concepts={key: concept_of(code) for key, code in (raw.get("concepts") or {}).items()},
        constants=raw.get("constants") or {},
    )


def concept_of(code: list[str]) -> Concept:
    """[scheme, code, display] as a concept. Raises KeyError for an unknown scheme."""
    scheme, value, display = code
    return Concept(SYSTEMS[scheme], str(value), display)
