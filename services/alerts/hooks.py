"""Requests and responses of CDS Hooks 2.0 (https://cds-hooks.hl7.org/2.0/), as typed models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Indicator = Literal["info", "warning", "critical"]
# FHIR R4 id (hl7.org/fhir/R4/datatypes.html#id): safe as part of a URL as it is.
# "<140-character summary message" (section "Card Attributes").
LONGEST_SUMMARY = 139
_FHIR_ID = r"^[A-Za-z0-9\-.]{1,64}$"


class _Incoming(BaseModel):
    """EHRs send vendor extensions; what Osler does not know is ignored, as the specification asks."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class FhirAuthorization(_Incoming):
    """Bearer token with which the service may read from `fhirServer`."""

    access_token: str = Field(min_length=1, repr=False)
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme's name, not a secret
    expires_in: int
    scope: str
    subject: str
    patient: str | None = None


class HookContext(_Incoming):
    """Contexts of all hooks that Osler serves; `Service.needs` says which members a hook must bring.

    `draft_orders` and `appointments` are Bundles; a bare list of resources, as some clients send, is read as one.
    """

    user_id: str = Field(alias="userId", min_length=1)
    patient_id: str = Field(alias="patientId", pattern=_FHIR_ID)
    encounter_id: str | None = Field(default=None, alias="encounterId", pattern=_FHIR_ID)
    selections: list[str] = Field(default_factory=list)
    draft_orders: dict[str, Any] | None = Field(default=None, alias="draftOrders")
    appointments: dict[str, Any] | None = None

    @field_validator("draft_orders", "appointments", mode="before")
    @classmethod
    def _bundle(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"resourceType": "Bundle", "entry": [{"resource": resource} for resource in value]}
        return value

    def value(self, name: str) -> Any:
        """A member by its name in the specification ("draftOrders")."""
        fields = {field.alias or attribute: attribute for attribute, field in type(self).model_fields.items()}
        return getattr(self, fields[name])


class HookRequest(_Incoming):
    hook: str
    hook_instance: UUID = Field(alias="hookInstance")
    context: HookContext
    fhir_server: str | None = Field(default=None, alias="fhirServer")
    fhir_authorization: FhirAuthorization | None = Field(default=None, alias="fhirAuthorization")
    prefetch: dict[str, Any] = Field(default_factory=dict)


class _Outgoing(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class Coding(_Outgoing):
    code: str
    system: str | None = None
    display: str | None = None


class Source(_Outgoing):
    label: str
    url: str | None = None
    topic: Coding | None = None


class Action(_Outgoing):
    type: Literal["create", "update", "delete"]
    description: str
    resource: dict[str, Any] | None = None
    resource_id: str | None = Field(default=None, alias="resourceId")


class Suggestion(_Outgoing):
    label: str
    uuid: str
    is_recommended: bool | None = Field(default=None, alias="isRecommended")
    actions: list[Action] = Field(default_factory=list)


class Link(_Outgoing):
    label: str
    url: str
    type: Literal["absolute", "smart"]
    app_context: str | None = Field(default=None, alias="appContext")


class Card(_Outgoing):
    uuid: str
    summary: str = Field(min_length=1, max_length=LONGEST_SUMMARY)
    detail: str | None = None
    indicator: Indicator
    source: Source
    suggestions: list[Suggestion] | None = None
    selection_behavior: Literal["at-most-one", "any"] | None = Field(default=None, alias="selectionBehavior")
    override_reasons: list[Coding] | None = Field(default=None, alias="overrideReasons")
    links: list[Link] | None = None


class HookResponse(_Outgoing):
    cards: list[Card]


class ServiceDescription(_Outgoing):
    """One entry of the discovery endpoint."""

    hook: str
    id: str
    title: str
    description: str
    prefetch: dict[str, str]
    usage_requirements: str | None = Field(default=None, alias="usageRequirements")


class Discovery(_Outgoing):
    services: list[ServiceDescription]


class OverrideReason(_Incoming):
    reason: Coding | None = None
    # Free text may name the patient: it is read and not kept.
    user_comment: str | None = Field(default=None, alias="userComment", repr=False)


class AcceptedSuggestion(_Incoming):
    id: str = Field(min_length=1, max_length=64)


class FeedbackItem(_Incoming):
    card: UUID
    outcome: Literal["accepted", "overridden"]
    outcome_timestamp: datetime = Field(alias="outcomeTimestamp")
    accepted_suggestions: list[AcceptedSuggestion] = Field(default_factory=list, alias="acceptedSuggestions")
    override_reason: OverrideReason | None = Field(default=None, alias="overrideReason")

    @model_validator(mode="after")
    def _says_what_was_accepted(self) -> Self:
        if self.outcome == "accepted" and not self.accepted_suggestions:
            raise ValueError("the outcome 'accepted' must name the acceptedSuggestions")
        return self


class Feedback(_Incoming):
    feedback: list[FeedbackItem] = Field(min_length=1, max_length=200)


@dataclass(frozen=True)
class Service:
    """One row of hooks.yaml."""

    description: ServiceDescription
    needs: tuple[str, ...]
    orders: bool
    categories: frozenset[str]

    def lacking(self, context: HookContext) -> list[str]:
        """Members that the context of this hook must bring and does not."""
        return [f"context.{name}" for name in self.needs if context.value(name) is None]


@cache
def services() -> Mapping[str, Service]:
    """Osler's CDS services by id."""
    table = _table()
    queries = {name: template["query"] for name, template in table["templates"].items()}
    return {
        identifier: Service(
            ServiceDescription(
                hook=row["hook"],
                id=identifier,
                title=row["title"],
                description=row["description"],
                prefetch={name: queries[name] for name in row["prefetch"]},
            ),
            tuple(row.get("needs", ())),
            bool(row.get("orders", False)),
            frozenset(row["categories"]),
        )
        for identifier, row in table["services"].items()
    }


def title_of(prefetch_key: str) -> str:
    """What a prefetch template asks for, in a clinician's words."""
    return str(_table()["templates"][prefetch_key]["title"])


@cache
def _table() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_name("hooks.yaml").read_text(encoding="utf-8")))
