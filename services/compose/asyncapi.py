"""The AsyncAPI document of the event stream, made from the catalogue, the topics, the flow and the messages.

Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0; CloudEvents 1.0.2 in Kafka's binary content mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor

from services.compose.topology import SUBSCRIPTIONS
from services.platform.bus import dead_letter_topic
from services.platform.events import CATALOGUE, CONTENT_TYPE
from services.platform.topics import Topic, broker_settings, catalogue

_TEXT: Mapping[str, Any] = {"type": "string"}
_TIME: Mapping[str, Any] = {"type": "string", "format": "date-time"}
_HEADERS: Mapping[str, Any] = {
    "ce_specversion": {"type": "string", "const": "1.0"},
    "ce_id": {**_TEXT, "description": "Made from the cause: the same cause always announces the same id."},
    "ce_type": {**_TEXT, "description": "The topic's name."},
    "ce_source": {**_TEXT, "description": "/osler/<room>"},
    "ce_time": {**_TIME, "description": "When it happened."},
    "ce_knowntime": {**_TIME, "description": "When Osler knew it."},
    "ce_partitionkey": {**_TEXT, "description": "The patient key, as the record's key."},
    "content-type": {"type": "string", "const": CONTENT_TYPE},
    "traceparent": {**_TEXT, "description": "W3C Trace Context of the work that announced it."},
}
_SCALARS: Mapping[int, Mapping[str, Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: _TEXT,
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32"},
    # protobuf's JSON mapping writes 64-bit integers as strings
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
}


def document(version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document. `payload` is protobuf; its JSON form (as `osler events tail --json`) is its schema."""
    schemas: dict[str, Any] = {}
    for message in CATALOGUE.values():
        _add_schema(message.DESCRIPTOR, schemas)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Osler event stream",
            "version": version,
            "description": "One topic for each event type and major version. Events of one patient key stay in order. "
            "Delivery is at least once: drop an event whose ce_id was seen. No event names a patient.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            **{_name(topic.name): _channel(topic) for topic in catalogue().values()},
            **{_name(dead_letter_topic(room)): _dead_letters(room) for room in SUBSCRIPTIONS},
        },
        "operations": {**_sends(), **_receives()},
        "components": {
            "messages": {_name(type_): _message(type_) for type_ in CATALOGUE},
            "messageTraits": {"cloudEvent": {"headers": {"type": "object", "properties": dict(_HEADERS)}}},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def text(version: str) -> str:
    """The document as YAML."""
    return yaml.safe_dump(document(version), sort_keys=False, allow_unicode=True, width=120)


def _name(topic: str) -> str:
    return topic.replace(".", "_")


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "summary": topic.summary,
        "messages": {"event": {"$ref": f"#/components/messages/{_name(topic.name)}"}},
        "bindings": {"kafka": {"topic": topic.name, "topicConfiguration": _configuration(topic.name)}},
    }


def _dead_letters(room: str) -> dict[str, Any]:
    topic = dead_letter_topic(room)
    messages = {_name(type_): {"$ref": f"#/components/messages/{_name(type_)}"} for type_ in SUBSCRIPTIONS[room]}
    return {
        "address": topic,
        "summary": f"Events that {room} could not handle, with `ce_oslergroup` and `ce_oslerreason`; see `osler dlq`.",
        "messages": messages,
        "bindings": {"kafka": {"topic": topic, "topicConfiguration": _configuration(topic)}},
    }


def _configuration(topic: str) -> dict[str, Any]:
    settings = broker_settings(topic)
    return {"cleanup.policy": [settings["cleanup.policy"]], "retention.ms": int(settings["retention.ms"])}


def _sends() -> dict[str, Any]:
    return {
        f"{room}_sends_{_name(topic.name)}": {"action": "send", "channel": {"$ref": f"#/channels/{_name(topic.name)}"}}
        for topic in catalogue().values()
        for room in topic.producers
    }


def _receives() -> dict[str, Any]:
    return {
        f"{room}_receives_{_name(type_)}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{_name(type_)}"},
            "bindings": {"kafka": {"groupId": {"type": "string", "const": room}}},
        }
        for room, types in SUBSCRIPTIONS.items()
        for type_ in types
    }


def _message(type_: str) -> dict[str, Any]:
    descriptor = CATALOGUE[type_].DESCRIPTOR
    return {
        "name": type_,
        "title": descriptor.name,
        "contentType": CONTENT_TYPE,
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"$ref": f"#/components/schemas/{descriptor.full_name}"},
        "bindings": {"kafka": {"key": {**_TEXT, "description": "Patient key: a keyed hash, no identity."}}},
        "x-protobuf-message": descriptor.full_name,
    }


def _add_schema(descriptor: Any, schemas: dict[str, Any]) -> None:
    """The JSON form of a message and of all within it (protobuf's JSON mapping, names as in the .proto)."""
    if descriptor.full_name in schemas or descriptor.full_name.startswith("google.protobuf."):
        return
    properties = schemas.setdefault(descriptor.full_name, {"type": "object", "properties": {}})["properties"]
    for field in descriptor.fields:
        properties[field.name] = _field(field)
        if field.message_type is not None:
            _add_schema(field.message_type, schemas)


def _field(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(field.message_type.fields_by_name["value"])}
    return {"type": "array", "items": _value(field)} if field.is_repeated else _value(field)


def _value(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return dict(_TIME)
        if field.message_type.full_name.startswith("google.protobuf."):
            return {}
        return {"$ref": f"#/components/schemas/{field.message_type.full_name}"}
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return dict(_SCALARS[field.cpp_type])
