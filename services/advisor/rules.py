"""Guideline rules as data: loading, checking, and what fires for given facts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from services.advisor import conditions
from services.advisor.facts import Fact, Facts, definitions
from services.advisor.tables import table
from services.platform.errors import ConfigurationError

URGENCIES = ("info", "warning", "critical")
_REQUIRED = ("id", "sources", "when", "urgency", "strength", "summary", "detail")
_OPTIONAL = ("agents", "modalities", "standing", "category", "looks_for", "alternatives", "order")


@dataclass(frozen=True)
class Rule:
    """One published statement. `agents` and `modalities` limit it to such orders; a `standing` rule also speaks without an
    order. `summary` is a format string over fact names. `looks_for`: facts whose absence is worth telling."""

    id: str
    version: str
    citations: tuple[str, ...]
    category: str
    urgency: str
    strength: str
    summary: str
    detail: str
    when: Mapping[str, Any]
    looks_for: tuple[str, ...]
    alternatives: tuple[tuple[str, str], ...]
    agents: tuple[str, ...]
    modalities: tuple[str, ...]
    standing: bool
    order: str


@dataclass(frozen=True)
class Fired:
    """A rule that holds, the facts that made it hold, and what it looked for and did not find."""

    rule: Rule
    used: tuple[Fact, ...]
    not_found: tuple[str, ...]

    def summary(self, facts: Facts) -> str:
        """The one-line text with the patient's values, at most 140 characters."""
        return self.rule.summary.format(**{name: fact.value for name, fact in facts.items()})


@cache
def load(name: str) -> tuple[Rule, ...]:
    """The rules of a data file, checked. Raises ConfigurationError naming the file, the rule and what is wrong."""
    data = table(name)
    groups: Mapping[str, list[str]] = data.get("agent_groups", {})
    rules = tuple(_rule(name, data, groups, raw) for raw in data["rules"])
    ids = [rule.id for rule in rules]
    if len(set(ids)) != len(ids):
        raise ConfigurationError(f"{name}: rule ids must be unique")
    return rules


def _rule(name: str, data: Mapping[str, Any], groups: Mapping[str, list[str]], raw: Mapping[str, Any]) -> Rule:
    where = f"{name}: rule {raw.get('id', '?')}"
    missing = [key for key in _REQUIRED if key not in raw]
    unknown = sorted(set(raw) - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        raise ConfigurationError(f"{where}: missing {missing}, unknown {unknown}")
    if raw["urgency"] not in URGENCIES:
        raise ConfigurationError(f"{where}: urgency must be one of {', '.join(URGENCIES)}")
    conditions.check(raw["when"], definitions(), where)
    looks_for = tuple(raw.get("looks_for", ()))
    for fact in looks_for:
        conditions.check({"fact": fact, "known": True}, definitions(), where)
    agents = raw.get("agents", ())
    sources = [data["sources"][key] for key in raw["sources"]]
    return Rule(
        id=raw["id"],
        version=str(data["version"]),
        citations=tuple(f"{source['title']} ({source['date']})" for source in sources),
        category=raw.get("category", "contrast-safety" if agents else "imaging"),
        urgency=raw["urgency"],
        strength=raw["strength"],
        summary=raw["summary"],
        detail=raw["detail"],
        when=raw["when"],
        looks_for=looks_for,
        alternatives=tuple((item["title"], item["reason"]) for item in raw.get("alternatives", ())),
        agents=tuple(groups[agents] if isinstance(agents, str) else agents),
        modalities=tuple(raw.get("modalities", ())),
        standing=bool(raw.get("standing", False)),
        order=str(raw.get("order", "")),
    )


def fire(rules: Sequence[Rule], facts: Facts) -> list[Fired]:
    """The rules that hold, most urgent first, then in the order of their file. Unknown is not enough to fire."""
    fired = []
    for rule in rules:
        verdict = conditions.evaluate(rule.when, facts)
        if verdict.truth:
            absent = dict.fromkeys([*verdict.unknown, *(name for name in rule.looks_for if name not in facts)])
            fired.append(Fired(rule, tuple(facts[name] for name in verdict.used if name in facts), tuple(absent)))
    return sorted(fired, key=lambda item: -URGENCIES.index(item.rule.urgency))


def for_order(rules: Sequence[Rule], agents: Collection[str], modality: str) -> list[Rule]:
    """The rules that concern an order of this modality with one of these agents."""
    return [rule for rule in rules if set(rule.agents) & set(agents) or modality in rule.modalities]
