"""Statuses of FHIR and HL7 v2 in the timeline's own terms; the tables are statuses.yaml."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from services.fusion.facts import Standing

_STANDING = {
    "preliminary": Standing.PRELIMINARY,
    "final": Standing.FINAL,
    "corrected": Standing.CORRECTED,
    "retracted": Standing.RETRACTED,
}


@lru_cache(maxsize=1)
def _tables() -> Any:
    return yaml.safe_load(resources.files("services.fusion").joinpath("statuses.yaml").read_text(encoding="utf-8"))


def fhir_standing(resource_type: str, status: str) -> Standing:
    """The standing of a FHIR resource from its status (or verification status)."""
    table = _tables()["fhir"]
    return _STANDING[table.get(resource_type, table["other"]).get(status, "final")]


def observation_standing(status: str) -> Standing:
    """The standing of an OBX from OBX-11 (table 0085)."""
    return _STANDING[_tables()["hl7v2_observation"].get(status.upper(), "final")]


def report_standing(status: str) -> Standing:
    """The standing of an OBR from OBR-25 (table 0123)."""
    return _STANDING[_tables()["hl7v2_report"].get(status.upper(), "final")]


def interpretation_flag(code: str) -> str:
    """The flag for an abnormal-flag or interpretation code (table 0078); "" for normal and unknown ones."""
    return str(_tables()["interpretation"].get(code.upper(), ""))
