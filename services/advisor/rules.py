"""Guideline rules as data: loading, checking, and what fires for given facts.

A rule file (`guidelines/*.yaml`) has a `version`, `sources` (title and date; `transcribed` where the wording was not copied
from the publication), and `rules`. Everything is checked when it is loaded, so that a rule that could not fire, could not be
cited or would quote a fact that it does not have never reaches a patient.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from services.advisor import conditions
from services.advisor.facts import Fact, Facts, Item, definitions
from services.advisor.tables import table
from services.platform.errors import ConfigurationError

URGENCIES = ("info", "warning", "critical")
ITEMS = ("nodule", "implant")
#: Files whose rules are asked about an order.
ORDER_FILES = (
    "contrast.yaml",
    "pregnancy.yaml",
    "mr_safety.yaml",
    "radiation_dose.yaml",
    "duplicate_imaging.yaml",
    "appropriateness.yaml",
)
#: Every rule file, in the order in which `osler rules list` shows them.
FILES = (
    *ORDER_FILES,
    "fleischner.yaml",
    "lung_rads.yaml",
    "care.yaml",
)
LONGEST_SUMMARY = 140
# Longest word that a free text fact may put into a summary; messages.py cuts what is longer.
_LONGEST_WORD = 44
_REQUIRED = ("id", "sources", "when", "urgency", "strength", "summary", "detail")
_OPTIONAL = (
    "agents",
    "modalities",
    "standing",
    "category",
    "looks_for",
    "alternatives",
    "order",
    "each",
    "months",
    "weeks",
    "conflicts_with",
    "version",
)
_PLACEHOLDER = re.compile(r"{(\w+)")


@dataclass(frozen=True)
class Rule:
    """One published statement.

    `agents` and `modalities` limit it to such orders; a `standing` rule also speaks without an order. `summary` and `detail`
    are format strings over fact names. `looks_for`: facts whose absence is worth telling. `each`: the kind of item it is
    judged for, one at a time. `window_days`: when to act, counted from the examination. `conflicts_with`: other rules that
    may hold for the same patient and say otherwise, and how they differ.
    """

    id: str
    file: str
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
    each: str
    window_days: tuple[int, int] | None
    conflicts_with: Mapping[str, str]


@dataclass(frozen=True)
class Fired:
    """A rule that holds, the facts that made it hold, what it looked for and did not find, and what it found in order."""

    rule: Rule
    facts: Facts
    used: tuple[Fact, ...]
    not_found: tuple[str, ...]
    checked: tuple[Fact, ...] = ()
    item: Item | None = None

    def words(self, text: str) -> str:
        """A text of the rule with the patient's values."""
        return text.format(**{name: _told(self.facts[name]) for name in _PLACEHOLDER.findall(text)})


def _told(fact: Fact) -> float | str:
    if isinstance(fact.value, str):
        return fact.value.replace("_", " ")
    return math.floor(fact.value) if definitions()[fact.name].get("floor") else fact.value


@cache
def load(name: str) -> tuple[Rule, ...]:
    """The rules of a data file, checked. Raises ConfigurationError naming the file, the rule and what is wrong."""
    return parse(name, table(f"guidelines/{name}"))


@cache
def every() -> tuple[Rule, ...]:
    """The rules of all files. Raises ConfigurationError as `load`, and for an id or a conflict that does not exist once."""
    found = tuple(rule for name in FILES for rule in load(name))
    ids = [rule.id for rule in found]
    repeated = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
    if repeated:
        raise ConfigurationError(f"rule ids must be unique; repeated: {', '.join(repeated)}")
    for rule in found:
        unknown = sorted(set(rule.conflicts_with) - set(ids))
        if unknown:
            raise ConfigurationError(f"{rule.file}: rule {rule.id}: conflicts_with names no rule: {', '.join(unknown)}")
    return found


def parse(name: str, data: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a parsed file. Raises ConfigurationError."""
    for key in ("version", "sources", "rules"):
        if not data.get(key):
            raise ConfigurationError(f"{name}: needs {key}")
    for key, source in data["sources"].items():
        if not isinstance(source, Mapping) or not source.get("title") or not source.get("date"):
            raise ConfigurationError(f"{name}: source {key}: needs title and date")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(source["date"])):
            raise ConfigurationError(f"{name}: source {key}: the date must be YYYY-MM-DD")
    named = data.get("conditions", {})
    for condition_name, condition in named.items():
        conditions.check(condition, definitions(), f"{name}: condition {condition_name}")
    rules = tuple(_rule(name, data, named, raw) for raw in data["rules"])
    ids = [rule.id for rule in rules]
    if len(set(ids)) != len(ids):
        raise ConfigurationError(f"{name}: rule ids must be unique")
    return rules


def _rule(name: str, data: Mapping[str, Any], named: Mapping[str, Any], raw: Mapping[str, Any]) -> Rule:
    where = f"{name}: rule {raw.get('id', '?')}"
    when = conditions.expand(raw.get("when"), named, where)
    _check(where, raw, when, data)
    agents, groups = raw.get("agents", ()), data.get("agent_groups", {})
    sources = [data["sources"][key] for key in raw["sources"]]
    return Rule(
        id=raw["id"],
        file=name,
        version=str(raw.get("version", data["version"])),
        citations=tuple(citation(source) for source in sources),
        category=raw.get("category", data.get("category", "contrast-safety" if agents else "imaging")),
        urgency=raw["urgency"],
        strength=raw["strength"],
        summary=raw["summary"],
        detail=raw["detail"],
        when=when,
        looks_for=tuple(raw.get("looks_for", ())),
        alternatives=tuple((item["title"], item["reason"]) for item in raw.get("alternatives", ())),
        agents=tuple(groups[agents] if isinstance(agents, str) else agents),
        modalities=tuple(raw.get("modalities", ())),
        standing=bool(raw.get("standing", False)),
        order=str(raw.get("order", "")),
        each=str(raw.get("each", data.get("each", ""))),
        window_days=_window(raw),
        conflicts_with=dict(raw.get("conflicts_with", {})),
    )


def citation(source: Mapping[str, Any]) -> str:
    """A source as it is cited: title, date, and whether the wording was transcribed rather than copied."""
    words = f"{source['title']} ({source['date']})"
    return f"{words} [{source['transcribed']}]" if source.get("transcribed") else words


def _window(raw: Mapping[str, Any]) -> tuple[int, int] | None:
    for unit, days in (("weeks", 7.0), ("months", 30.4375)):
        if unit in raw:
            first, last = raw[unit]
            return round(first * days), round(last * days)
    return None


def _check(where: str, raw: Mapping[str, Any], when: Any, data: Mapping[str, Any]) -> None:
    missing = [key for key in _REQUIRED if not raw.get(key)]
    unknown = sorted(set(raw) - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        raise ConfigurationError(f"{where}: missing {missing}, unknown {unknown}")
    if raw["urgency"] not in URGENCIES:
        raise ConfigurationError(f"{where}: urgency must be one of {', '.join(URGENCIES)}")
    uncited = [key for key in raw["sources"] if key not in data["sources"]]
    if uncited:
        raise ConfigurationError(f"{where}: sources {uncited} are not listed in the file")
    each = raw.get("each", data.get("each", ""))
    if each and each not in ITEMS:
        raise ConfigurationError(f"{where}: each must be one of {', '.join(ITEMS)}")
    conditions.check(when, definitions(), where)
    for fact in raw.get("looks_for", ()):
        conditions.check({"fact": fact, "known": True}, definitions(), where)
    _check_words(where, raw, when, each)


def _check_words(where: str, raw: Mapping[str, Any], when: Mapping[str, Any], each: str) -> None:
    """What a rule quotes, it must not be able to fire without; and the summary must fit on a card."""
    quotable = conditions.needed(when) | ({each} if each else set())
    for key in ("summary", "detail"):
        loose = sorted(set(_PLACEHOLDER.findall(raw[key])) - quotable)
        if loose:
            raise ConfigurationError(f"{where}: {key} quotes {loose}, without which the rule can fire")
    widest = {name: 12345.0 if "unit" in row else _widest(row) for name, row in definitions().items()}
    if len(raw["summary"].format(**widest)) > LONGEST_SUMMARY:
        raise ConfigurationError(f"{where}: the summary may become longer than {LONGEST_SUMMARY} characters")


def _widest(definition: Mapping[str, Any]) -> str:
    return max((str(value) for value in definition.get("values", ())), key=len, default="x" * _LONGEST_WORD)


def fire(rules: Sequence[Rule], facts: Facts, items: Iterable[Item] = ()) -> list[Fired]:
    """The rules that hold, most urgent first, then in the order of their file. Unknown is not enough to fire.

    A rule for items is judged for each of them, over the item's facts and the patient's.
    """
    held = list(items)
    fired = []
    for rule in rules:
        about: list[Item | None] = [item for item in held if item.kind == rule.each] if rule.each else [None]
        for item in about:
            known = {**facts, **item.facts} if item else facts
            verdict = conditions.evaluate(rule.when, known)
            if verdict.truth:
                fired.append(_fired(rule, known, verdict, item))
    return sorted(fired, key=lambda result: -URGENCIES.index(result.rule.urgency))


def _fired(rule: Rule, facts: Facts, verdict: conditions.Verdict, item: Item | None) -> Fired:
    """Reasons are the facts that the condition asks for; what it only rules out, and what was looked for and is not so, was
    checked."""
    asked = conditions.asked(rule.when)
    quoted = [name for name in _PLACEHOLDER.findall(f"{rule.summary} {rule.detail}") if name in facts]
    reasons = dict.fromkeys([*quoted, *(name for name in verdict.used if name in asked and name in facts)])
    ruled_out = [name for name in verdict.used if name not in reasons and name in facts]
    looked_at = [name for name in rule.looks_for if name in facts and facts[name].value is False]
    checked = [name for name in dict.fromkeys([*ruled_out, *looked_at]) if name not in reasons]
    absent = dict.fromkeys([*verdict.unknown, *(name for name in rule.looks_for if name not in facts)])
    return Fired(
        rule,
        facts,
        tuple(facts[name] for name in reasons),
        tuple(absent),
        tuple(facts[name] for name in checked if facts[name].value != "unknown"),
        item,
    )


def for_order(rules: Sequence[Rule], agents: Collection[str], modality: str) -> list[Rule]:
    """The rules that concern an order of this modality with one of these agents."""
    return [rule for rule in rules if set(rule.agents) & set(agents) or modality in rule.modalities]
