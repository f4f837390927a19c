"""The declarative conditions of guideline rules, with three truth values: a missing fact is unknown, not false.

Grammar (as parsed YAML): `{all: [...]}`, `{any: [...]}`, `{unless: ...}`, or `{fact: name, <op>: operand}` where op is one
of `is`, `lt`, `le`, `gt`, `ge`, `known`. `known: false` asks whether a fact is absent. Truth is Kleene's strong logic, but for
`unless`: it holds while the inner condition is not known to hold, so an exception that nobody recorded silences no warning.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.platform.errors import ConfigurationError

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "is": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class HasValue(Protocol):
    """A fact, as far as conditions care."""

    @property
    def value(self) -> float | str: ...


@dataclass(frozen=True)
class Verdict:
    """`truth` is None when it hangs on unknown facts; `used` and `unknown` name the facts that decided it, in order."""

    truth: bool | None
    used: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def check(condition: Any, names: Collection[str], where: str) -> None:
    """Raises ConfigurationError naming `where` for a malformed condition or a fact that is not in `names`."""
    if not isinstance(condition, Mapping):
        raise ConfigurationError(f"{where}: a condition must be a mapping, not {type(condition).__name__}")
    keys = set(condition)
    if keys in ({"all"}, {"any"}):
        (parts,) = condition.values()
        if not isinstance(parts, list) or not parts:
            raise ConfigurationError(f"{where}: all/any need a list of conditions")
        for part in parts:
            check(part, names, where)
    elif keys == {"unless"}:
        check(condition["unless"], names, where)
    elif "fact" in keys and len(keys) == 2 and (keys - {"fact"}) <= {*_COMPARISONS, "known"}:
        if condition["fact"] not in names:
            raise ConfigurationError(f"{where}: unknown fact {condition['fact']!r}; list it in facts.yaml")
    else:
        raise ConfigurationError(f"{where}: not a condition: keys {sorted(keys)}")


def evaluate(condition: Mapping[str, Any], facts: Mapping[str, HasValue]) -> Verdict:
    """The truth of a checked condition over `facts`."""
    if "all" in condition:
        return _join([evaluate(part, facts) for part in condition["all"]], decisive=False)
    if "any" in condition:
        return _join([evaluate(part, facts) for part in condition["any"]], decisive=True)
    if "unless" in condition:
        inner = evaluate(condition["unless"], facts)
        return Verdict(inner.truth is not True, inner.used, inner.unknown)
    return _compare(condition, facts)


def _compare(condition: Mapping[str, Any], facts: Mapping[str, HasValue]) -> Verdict:
    name = condition["fact"]
    fact = facts.get(name)
    if "known" in condition:
        held = (fact is not None) == condition["known"]
        return Verdict(held, (name,) if fact else (), () if fact else (name,))
    if fact is None:
        return Verdict(None, (), (name,))
    (op,) = set(condition) - {"fact"}
    return Verdict(_COMPARISONS[op](fact.value, condition[op]), (name,))


def _join(parts: list[Verdict], *, decisive: bool) -> Verdict:
    """`decisive`: the truth value of one part that settles the whole (True for any, False for all)."""
    settling = [part for part in parts if part.truth is decisive]
    chosen = settling or parts
    if settling:
        truth: bool | None = decisive
    else:
        truth = None if any(part.truth is None for part in parts) else not decisive
    used = dict.fromkeys(name for part in chosen for name in part.used)
    unknown = dict.fromkeys(name for part in parts for name in part.unknown)
    return Verdict(truth, tuple(used), tuple(unknown))
