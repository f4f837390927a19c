"""The event bus: one interface, two back ends (an embedded SQLite log and Kafka)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.platform.bus.log import (
    MALFORMED_EXTENSION,
    REPLAY_EXTENSION,
    Consumer,
    EventLog,
    Partition,
    Record,
    dead_letter_topic,
)
from services.platform.bus.sqlite_log import SqliteEventLog
from services.platform.errors import ConfigurationError

if TYPE_CHECKING:
    from services.platform.bus.kafka_log import KafkaEventLog
    from services.platform.config import BusSecurity, Settings


def open_log(settings: Settings) -> EventLog:
    """The event log that the settings name (`bus.backend`)."""
    bus = settings.bus
    if bus.backend == "kafka":
        from services.platform.bus.kafka_log import KafkaEventLog

        return KafkaEventLog(bus.bootstrap_servers, partitions=bus.partitions, security=_kafka_security(bus.security))
    if bus.path is None:
        raise ConfigurationError("bus.path is not set: name the file of the embedded event log")
    return SqliteEventLog(bus.path, partitions=bus.partitions)


def _kafka_security(security: BusSecurity) -> dict[str, str]:
    """The settings in the names of kafka-python; what is empty is left out."""
    named = {
        "security_protocol": security.protocol,
        "sasl_mechanism": security.sasl_mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password.get_secret_value(),
        "ssl_cafile": str(security.ca_file or ""),
    }
    return {name: value for name, value in named.items() if value}


def __getattr__(name: str) -> type[KafkaEventLog]:
    """Imports the Kafka client only where it is used."""
    if name == "KafkaEventLog":
        from services.platform.bus.kafka_log import KafkaEventLog

        return KafkaEventLog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MALFORMED_EXTENSION",
    "REPLAY_EXTENSION",
    "Consumer",
    "EventLog",
    "KafkaEventLog",
    "Partition",
    "Record",
    "SqliteEventLog",
    "dead_letter_topic",
    "open_log",
]
