"""The topics as data (`topics.yaml`): what each says, who says it, and how long a broker keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from services.platform.errors import ConfigurationError

TABLE = Path(__file__).with_name("topics.yaml")
_DAY_MS = 24 * 3600 * 1000

Retention = Literal["forever", "latest_per_key"]


@dataclass(frozen=True)
class Topic:
    """One topic. `kept_days`: how long every event stays where afterwards only the newest of each key must."""

    name: str
    summary: str
    producers: tuple[str, ...]
    retention: Retention
    kept_days: int | None = None

    @property
    def broker_settings(self) -> dict[str, str]:
        """Kafka's topic settings. Nothing expires by age: that would lose what no other event repeats."""
        if self.retention == "forever":
            return {"cleanup.policy": "delete", "retention.ms": "-1"}
        return {
            "cleanup.policy": "compact",
            "retention.ms": "-1",
            "min.compaction.lag.ms": str((self.kept_days or 0) * _DAY_MS),
        }


@cache
def catalogue() -> Mapping[str, Topic]:
    """Topics of the stream by name. Raises ConfigurationError naming the first malformed one."""
    table: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))["topics"]
    return {name: _topic(name, row) for name, row in table.items()}


def _topic(name: str, row: Mapping[str, Any]) -> Topic:
    retention, kept_days = row.get("retention"), row.get("kept_days")
    if retention not in ("forever", "latest_per_key") or (kept_days is None) != (retention == "forever"):
        raise ConfigurationError(
            f'{TABLE.name}: {name}: retention is "forever", or "latest_per_key" with `kept_days`; it is {retention!r}'
        )
    return Topic(name, row["summary"], tuple(row["producers"]), retention, kept_days)


def broker_settings(topic: str) -> dict[str, str]:
    """Kafka's settings of any topic; one outside the catalogue (dead letters) is kept for ever."""
    known = catalogue().get(topic)
    return known.broker_settings if known else {"cleanup.policy": "delete", "retention.ms": "-1"}
