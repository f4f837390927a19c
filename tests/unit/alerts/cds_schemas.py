"""JSON Schemas of CDS Hooks 2.0, written from the specification's tables and not from Osler's own models.

"Unless otherwise specified, JSON attributes SHALL NOT be null ... empty arrays and objects are omitted" (Overview).
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

_TEXT = {"type": "string", "pattern": r"\S"}
_URL = {"type": "string", "pattern": r"^https?://[^\s]+$"}


def _object(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    optional = {**optional, "extension": {"type": "object", "minProperties": 1}}
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


_CODING = _object({"code": _TEXT}, {"system": _TEXT, "display": _TEXT})
_RESOURCE = {"type": "object", "required": ["resourceType"], "properties": {"resourceType": _TEXT}}
_ACTION = {
    **_object(
        {"type": {"enum": ["create", "update", "delete"]}, "description": _TEXT},
        {"resource": _RESOURCE, "resourceId": {"type": "string", "pattern": r"^[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}$"}},
    ),
    "allOf": [
        {
            "if": {"properties": {"type": {"enum": ["create", "update"]}}},
            "then": {"required": ["resource"]},
            "else": {"required": ["resourceId"]},
        }
    ],
}
_SUGGESTION = _object(
    {"label": _TEXT},
    {
        "uuid": _TEXT,
        "isRecommended": {"type": "boolean"},
        "actions": {"type": "array", "minItems": 1, "items": _ACTION},
    },
)
_LINK = {
    **_object({"label": _TEXT, "url": _URL, "type": {"enum": ["absolute", "smart"]}}, {"appContext": _TEXT}),
    "if": {"properties": {"type": {"const": "absolute"}}},
    "then": {"not": {"required": ["appContext"]}},
}
_CARD = {
    **_object(
        {
            # "<140-character"
            "summary": {**_TEXT, "maxLength": 139},
            "indicator": {"enum": ["info", "warning", "critical"]},
            "source": _object({"label": _TEXT}, {"url": _URL, "icon": _URL, "topic": _CODING}),
        },
        {
            "uuid": {"type": "string", "format": "uuid"},
            "detail": _TEXT,
            "suggestions": {"type": "array", "minItems": 1, "items": _SUGGESTION},
            "selectionBehavior": {"enum": ["at-most-one", "any"]},
            "overrideReasons": {"type": "array", "minItems": 1, "items": _CODING},
            "links": {"type": "array", "minItems": 1, "items": _LINK},
        },
    ),
    "dependentRequired": {"suggestions": ["selectionBehavior"]},
}
_SERVICE = _object(
    {"hook": _TEXT, "description": _TEXT, "id": _TEXT},
    {
        "title": _TEXT,
        "prefetch": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
        "usageRequirements": _TEXT,
    },
)
_FEEDBACK = {
    **_object(
        {
            "card": {"type": "string", "format": "uuid"},
            "outcome": {"enum": ["accepted", "overridden"]},
            "outcomeTimestamp": {"type": "string", "format": "date-time"},
        },
        {
            "acceptedSuggestions": {"type": "array", "minItems": 1, "items": _object({"id": _TEXT}, {})},
            "overrideReason": _object({}, {"reason": _CODING, "userComment": _TEXT}),
        },
    ),
    "if": {"properties": {"outcome": {"const": "accepted"}}},
    "then": {"required": ["acceptedSuggestions"]},
}


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


DISCOVERY = _validator(_object({"services": {"type": "array", "items": _SERVICE}}, {}))
CARDS = _validator(
    _object(
        {"cards": {"type": "array", "items": _CARD}},
        {"systemActions": {"type": "array", "minItems": 1, "items": _ACTION}},
    )
)
FEEDBACK = _validator(_object({"feedback": {"type": "array", "minItems": 1, "items": _FEEDBACK}}, {}))
