"""Reads settings from environment and YAML, explains what is wrong with them, and documents every key."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, SettingsError

from services.platform.config import Settings
from services.platform.errors import ConfigurationError

PREFIX = "OSLER_"
_DOCUMENTED = "docs/settings.md lists every key"


def load(settings_class: type[Settings], path: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Environment over file over defaults, `overrides` over all. Raises ConfigurationError."""
    _check_environment(os.environ)
    try:
        environment = EnvSettingsSource(settings_class)()
    except SettingsError as error:
        raise ConfigurationError(f"environment: {error}; lists and maps are written as JSON") from error
    home = overrides.get("home") or environment.get("home")
    file = find_file(path, Path(home).expanduser() if home else None)
    from_file = read_yaml(file) if file else {}
    try:
        return settings_class(**merge(merge(from_file, environment), overrides))
    except ValidationError as error:
        where = f" (file {file})" if file else ""
        raise ConfigurationError("\n".join(_explain(error)) + f"\n{_DOCUMENTED}{where}") from None


def find_file(path: Path | None, home: Path | None) -> Path | None:
    """The settings file: the one named, else OSLER_CONFIG, else ./osler.yaml, else <home>/osler.yaml; None without."""
    named = path or (Path(os.environ[f"{PREFIX}CONFIG"]) if os.environ.get(f"{PREFIX}CONFIG") else None)
    if named:
        if not named.is_file():
            raise ConfigurationError(f"settings file {named} does not exist; correct OSLER_CONFIG or the path given")
        return named
    default_home = home or Path(Settings().home)
    return next((file for file in (Path("osler.yaml"), default_home / "osler.yaml") if file.is_file()), None)


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 safe loader that refuses a key given twice, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise ConfigurationError(f"key {key!r} is given twice, line {node.value[index][0].start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a settings file; empty when the file is. Raises ConfigurationError with file and line."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{file}{line}: not valid YAML") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: must hold keys and values at the top; {_DOCUMENTED}")
    return content


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, group by group."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a settings model in dotted form, groups opened, in order of declaration."""
    for name, field in model.model_fields.items():
        group = _group(field)
        if group is not None:
            yield from keys(group, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _explain(error: ValidationError) -> Iterator[str]:
    known = [key for key, _ in keys(Settings)]
    known += list({key.rsplit(".", 1)[0] for key in known if "." in key})
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        location = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(location, known, n=3, cutoff=0.6)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            yield f"{location}: unknown key{hint}"
        else:
            yield f"{location or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"


def _check_environment(environment: Mapping[str, str]) -> None:
    """Catches OSLER_BUS_BACKEND (one underscore) and misspelt keys, which would otherwise be ignored in silence."""
    known = {key.replace(".", "__") for key, _ in keys(Settings)}
    maps = {key.replace(".", "__") for key, field in keys(Settings) if "dict" in str(field.annotation)}
    groups = {name for key in known for name in _parents(key)}
    for variable in environment:
        if not variable.upper().startswith(PREFIX):
            continue
        name = variable[len(PREFIX) :].lower()
        if name in known or name in groups or any(name.startswith(f"{key}__") for key in maps):
            continue
        belongs = any(name.startswith(f"{group}_") for group in groups)
        close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6 if belongs else 0.85)
        if belongs or (close and name not in ("config",)):
            hint = f"; did you mean {' or '.join(PREFIX + match.upper() for match in close)}?" if close else ""
            raise ConfigurationError(f"{variable}: unknown setting{hint} ({_DOCUMENTED})")


def _parents(key: str) -> Iterator[str]:
    parts = key.split("__")
    for length in range(1, len(parts)):
        yield "__".join(parts[:length])


def _type_text(field: FieldInfo) -> str:
    kind = field.annotation
    if kind is SecretStr:
        return "secret"
    if get_args(kind) and str(kind).startswith("typing.Literal"):
        return " \\| ".join(f"`{choice}`" for choice in get_args(kind))
    text = str(kind) if get_args(kind) else getattr(kind, "__name__", str(kind))
    for long, short in (("pathlib._local.", ""), ("pathlib.", ""), ("typing.", ""), ("services.platform.config.", "")):
        text = text.replace(long, short)
    if "SecretStr" in text:
        text = "map of text to secret"
    replacements = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
        "Path": "path",
        "Path | None": "path",
        "tuple[str, ...]": "list of text",
        "dict[str, str]": "map of text to text",
        "dict[str, Any]": "map",
        "dict[str, tuple[str, ...]]": "map of text to list of text",
        "dict[str, StorageCommitmentPeer]": "map of text to `{host, port}`",
    }
    if text.startswith("Optional[") or "Annotated[int" in text:
        return "whole number or null"
    return replacements.get(text, text)


def default_text(field: FieldInfo) -> str:
    """The default as written in YAML, or in words where it follows from other settings."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "derived" in extra:
        return str(extra["derived"])
    return f"`{yaml_text(field)}`"


def yaml_text(field: FieldInfo) -> str:
    """The default value as flow YAML on one line."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def markdown() -> str:
    """The text of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Written by `python -m services.platform.config --markdown`; do not edit.",
        "",
        "A setting comes from the environment, else from the settings file, else from its default. The file is the",
        "one named by `OSLER_CONFIG`, else `./osler.yaml`, else `<home>/osler.yaml`. In the environment a key is",
        "written in capitals with two underscores between group and key: `bus.backend` is `OSLER_BUS__BACKEND`. Lists",
        "may be written `A,B`; maps are JSON. A secret written `file:/path` is read from that file. An unknown key is",
        "an error.",
        "",
    ]
    group = None
    for key, field in keys(Settings):
        top = key.partition(".")[0] if "." in key else ""
        if top != group:
            group = top
            about = (Settings.model_fields[top].description or "").rstrip(".") if top else ""
            lines += [
                "",
                f"## {top}: {about}" if top else "## General",
                "",
                "| key | type | default | meaning |",
                "|---|---|---|---|",
            ]
        lines.append(f"| `{key}` | {_type_text(field)} | {default_text(field)} | {field.description} |")
    return "\n".join(line for index, line in enumerate(lines) if line or lines[index - 1]) + "\n"


def example() -> str:
    """The text of osler.example.yaml: every key with its default, commented out."""
    lines = [
        "# Every setting with its default. Copy to osler.yaml and keep what you change.",
        "",
    ]
    _example_group(Settings, 0, lines)
    return "\n".join(lines) + "\n"


def _example_group(model: type[BaseModel], depth: int, lines: list[str]) -> None:
    indent = "  " * depth
    for name, field in model.model_fields.items():
        group = _group(field)
        if group is not None:
            lines.append(f"#{indent} {name}:  # {field.description}")
            _example_group(group, depth + 1, lines)
            continue
        extra = field.json_schema_extra
        derived = f" Default: {extra['derived']}." if isinstance(extra, dict) and "derived" in extra else ""
        value = str(extra["example"]) if isinstance(extra, dict) and "example" in extra else yaml_text(field)
        lines.append(f"#{indent} {name}: {value}  # {field.description}{derived}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the documentation of settings, or checks the settings in force."""
    parser = argparse.ArgumentParser(prog="python -m services.platform.config", description=main.__doc__)
    parser.add_argument("--markdown", action="store_true", help="print docs/settings.md")
    parser.add_argument("--example", action="store_true", help="print osler.example.yaml")
    chosen = parser.parse_args(arguments)
    if chosen.markdown:
        print(markdown(), end="")
    elif chosen.example:
        print(example(), end="")
    else:
        try:
            settings = Settings.load()
        except ConfigurationError as error:
            print(error)
            return 1
        print(settings.model_dump_json(indent=2))
    return 0
