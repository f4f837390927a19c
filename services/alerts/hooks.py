"""Requests and responses of CDS Hooks 2.0 (https://cds-hooks.hl7.org/2.0/), as typed models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Indicator = Literal["info", "warning", "critical"]


class _Incoming(BaseModel):
    """EHRs send vendor extensions; what Osler does not know is ignored, as the specification asks."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class FhirAuthorization(_Incoming):
    """Bearer token with which the service may read from `fhirServer`."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme's name, not a secret
    expires_in: int
    scope: str
    subject: str
    patient: str | None = None


class HookContext(_Incoming):
    """Context of `patient-view` and `order-select`; the latter adds `selections` and `draftOrders`."""

    user_id: str = Field(alias="userId")
    patient_id: str = Field(alias="patientId", min_length=1)
    encounter_id: str | None = Field(default=None, alias="encounterId")
    selections: list[str] = Field(default_factory=list)
    draft_orders: dict[str, Any] | None = Field(default=None, alias="draftOrders")


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
    resource_id: list[str] | None = Field(default=None, alias="resourceId")


class Suggestion(_Outgoing):
    label: str
    uuid: str
    is_recommended: bool | None = Field(default=None, alias="isRecommended")
    actions: list[Action] = Field(default_factory=list)


class Link(_Outgoing):
    label: str
    url: str
    type: Literal["absolute", "smart"]


class Card(_Outgoing):
    uuid: str
    summary: str = Field(min_length=1, max_length=140)
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
    reason: dict[str, Any] | None = None
    user_comment: str | None = Field(default=None, alias="userComment")


class FeedbackItem(_Incoming):
    card: UUID
    outcome: Literal["accepted", "overridden"]
    outcome_timestamp: datetime = Field(alias="outcomeTimestamp")
    accepted_suggestions: list[dict[str, Any]] = Field(default_factory=list, alias="acceptedSuggestions")
    override_reason: OverrideReason | None = Field(default=None, alias="overrideReason")


class Feedback(_Incoming):
    feedback: list[FeedbackItem] = Field(min_length=1, max_length=200)
