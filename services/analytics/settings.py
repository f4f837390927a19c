"""Thresholds of the monitor as data (`monitor.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("monitor.yaml")


@dataclass(frozen=True)
class Monitor:
    """`false_alarm_rate` of one look over all signals; `least_patients` on each side; `least_cell` of a shown count."""

    false_alarm_rate: float
    least_patients: int
    drift_bins: int
    psi_alarm: float
    least_cell: int
    confidence: float
    calibration_bins: int


@cache
def monitor() -> Monitor:
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    drift, groups = table["drift"], table["groups"]
    return Monitor(
        drift["false_alarm_rate"],
        drift["least_patients"],
        drift["bins"],
        drift["psi_alarm"],
        groups["least_cell"],
        groups["confidence"],
        table["calibration"]["bins"],
    )
