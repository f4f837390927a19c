"""Builds the parts of a package's configuration that Osler allows, through MONAI's ConfigParser, without running code.

MONAI evaluates strings that start with `$` as Python and calls whatever `_target_` names. Here a `_target_` must name a
class that MONAI or torch itself defines, of a kind that belongs there (policy.yaml), and a `$` expression may hold
constants, arithmetic, references to plain values and torch data types: everything else is refused with its place.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from services.imaging.host.refusals import refused
from services.platform.errors import RefusedError

_OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_REFERENCE = "_reference_"
_LONGEST = 200
_DEEPEST = 40


@cache
def rules() -> dict[str, Any]:
    """Contents of policy.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("policy.yaml").read_text(encoding="utf-8"))
    return content


def build(inference: Mapping[str, Any], section: str, known: Mapping[str, Any]) -> Any:
    """The object that a section describes; None where there is no such section.

    Args:
        known: values that the host gives, whatever the configuration says of them ("device", "bundle_root", ...).

    Raises:
        RefusedError: `model.unsafe_config` for what is not allowed, `model.invalid_config` for what cannot be built.
    """
    from monai.bundle import ConfigParser

    if section not in inference:
        return None
    allowed: dict[str, Any] = {}
    waiting = [section]
    while waiting:
        name = waiting.pop()
        cleaner = _Cleaner(inference, known)
        allowed[name] = known[name] if name in known else cleaner.clean(inference.get(name), name, 0)
        waiting += [other for other in sorted(cleaner.needed) if other not in allowed and other not in waiting]
    try:
        return ConfigParser(allowed).get_parsed_content(section)
    except RefusedError:
        raise
    except Exception as error:  # whatever a library's constructor raises for wrong arguments
        raise refused("invalid_config", f"{section} cannot be built ({_root(error)})") from error


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error)[:_LONGEST]}"


class _Cleaner:
    """Checks one section; `needed`: other top-level keys that it refers to."""

    def __init__(self, inference: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        self._inference = inference
        self._known = known
        self.needed: set[str] = set()

    def clean(self, value: Any, place: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise _unsafe(place, "it is nested too deeply")
        if isinstance(value, Mapping):
            return self._mapping(value, place, depth)
        if isinstance(value, list):
            cleaned = [self.clean(item, f"{place}::{i}", depth + 1) for i, item in enumerate(value)]
            return [item for item in cleaned if item is not _LEFT_OUT]
        if isinstance(value, str):
            return self._text(value, place)
        return value

    def _mapping(self, value: Mapping[str, Any], place: str, depth: int) -> Any:
        for word, why in rules()["reserved"].items():
            if word in value:
                raise _unsafe(f"{place}::{word}", why)
        if "_target_" not in value:
            return {key: self.clean(item, f"{place}::{key}", depth + 1) for key, item in value.items()}
        if value.get("_disabled_") in (True, "true", "True"):
            return _LEFT_OUT
        target = _target(value["_target_"], place)
        if target.__name__ in rules()["left_out"]:
            return _LEFT_OUT
        for name, why in rules()["refused_arguments"].items():
            if value.get(name) not in (None, False):
                raise _unsafe(f"{place}::{name}", why)
        rest = {key: item for key, item in value.items() if key != "_target_"}
        cleaned = {key: self.clean(item, f"{place}::{key}", depth + 1) for key, item in rest.items()}
        return {"_target_": target, **{key: item for key, item in cleaned.items() if item is not _LEFT_OUT}}

    def _text(self, value: str, place: str) -> Any:
        if value.startswith("%"):
            raise _unsafe(place, "it reads another file")
        if value.startswith("$"):
            return self._expression(value[1:], place)
        if value.startswith("@"):
            top = value[1:].replace("#", "::").split("::")[0]
            if top in self._known and value[1:] == top:
                return self._known[top]
            if top not in self._inference:
                raise _unsafe(place, f"it refers to {value}, which is not there")
            self.needed.add(top)
        return value

    def _expression(self, text: str, place: str) -> Any:
        if len(text) > _LONGEST:
            raise _unsafe(place, "the expression is too long")
        try:
            tree = ast.parse(text.strip().replace("@", _REFERENCE), mode="eval").body
            return self._evaluate(tree, place)
        except (SyntaxError, ValueError, TypeError, ZeroDivisionError, IndexError, KeyError, RecursionError) as error:
            raise _unsafe(place, f"the expression cannot be read ({type(error).__name__})") from error

    def _evaluate(self, node: ast.expr, place: str) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._evaluate(part, place) for part in parts]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](_number(self._evaluate(operand, place)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                a, b = self._evaluate(left, place), self._evaluate(right, place)
                return _OPERATORS[type(op)](_number(a), _number(b))
            case ast.Subscript(value=inner, slice=index):
                return self._evaluate(inner, place)[self._evaluate(index, place)]
            case ast.Attribute(value=ast.Name(id="torch"), attr=name):
                return _torch_dtype(name, place)
            case ast.Name(id=name) if name.startswith(_REFERENCE):
                return self._plain(name.removeprefix(_REFERENCE), place)
        raise _unsafe(place, f"`{ast.unparse(node).replace(_REFERENCE, '@')[:60]}` would run code")

    def _plain(self, name: str, place: str) -> Any:
        """A value that another key holds outright."""
        if name in self._known:
            return self._known[name]
        value = self._inference.get(name)
        plain = isinstance(value, (int, float, bool)) or (isinstance(value, str) and value[:1] not in "@$%")
        if plain or (isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)):
            return value
        raise _unsafe(place, f"@{name} is no plain value")


_LEFT_OUT = object()


def _unsafe(place: str, why: str) -> RefusedError:
    return refused(
        "unsafe_config",
        f"{place} is refused: {why}",
        "Ask the makers for a bundle whose inference.json is plain data, or export it to TorchScript or ONNX.",
    )


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("arithmetic takes numbers")
    return value


def _torch_dtype(name: str, place: str) -> Any:
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise _unsafe(place, f"torch.{name} is no data type")
    return found


def _target(name: Any, place: str) -> type:
    """The class that a `_target_` names, if it is allowed."""
    import monai.inferers
    import monai.networks.nets
    import monai.transforms
    import torch.nn

    if not isinstance(name, str):
        raise _unsafe(place, "its _target_ is no name")
    short = name.rsplit(".", 1)[-1]
    homes = (monai.transforms, monai.networks.nets, monai.inferers, torch.nn)
    allowed = rules()["modules"]
    if "." in name and not any(name.startswith(f"{module}.") for module in allowed):
        raise _unsafe(place, f"{name} is not of {', '.join(allowed)}")
    found = _located(name) if "." in name else next((vars(home)[name] for home in homes if name in vars(home)), None)
    kinds = (monai.transforms.Transform, monai.inferers.Inferer, torch.nn.Module)
    own = isinstance(found, type) and any(f"{found.__module__}.".startswith(f"{module}.") for module in allowed)
    if not (own and isinstance(found, type) and issubclass(found, kinds)):
        raise _unsafe(place, f"{name} is no transform, network or inferer of MONAI or torch")
    for known in {short, found.__name__}:
        if known in rules()["refused_classes"]:
            raise _unsafe(place, f"{known} {rules()['refused_classes'][known]}")
    return found


def _located(name: str) -> Any:
    """What a dotted name stands for; its classes are checked by the caller, modules on the way are not run anew."""
    import sys

    module, _, rest = name.rpartition(".")
    return vars(sys.modules[module]).get(rest) if module in sys.modules else None
