"""Reads the YAML data files that lie beside the modules: rules, thresholds, response tables, with their citations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def table(name: str) -> Mapping[str, Any]:
    """The parsed data file `name` of this room, read once."""
    loaded: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return loaded
