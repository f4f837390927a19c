"""From a patient in an EHR to a case on the board."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from services.board import store
from services.clinical import fhir
from services.clinical.fhir_client import FhirClient, Patience
from services.clinical.identity import issuer_from_fhir, patient_key
from services.platform.http_smart import Launch, Resolve
from services.platform.room import RoomContext
from services.platform.rpc import NotFoundError

_PATIENCE = Patience(total_s=5.0, timeout_s=5.0)


def resolver(context: RoomContext) -> Resolve:
    """Finds the case of a launch's patient, by the identifiers that the EHR's FHIR server gives."""

    async def resolve(launch: Launch) -> tuple[str, str]:
        key = await asyncio.to_thread(_case_of, context, launch)
        return key, f"/case/{key}"

    return resolve


def _case_of(context: RoomContext, launch: Launch) -> str:
    """Raises NotFoundError when Osler has no case of this patient, RefusedError or RetryableError of the FHIR server."""
    http = httpx.Client(timeout=_PATIENCE.timeout_s, trust_env=False)
    with FhirClient(launch.fhir_url, token=launch.access_token, http=http, patience=_PATIENCE) as client:
        patient = client.read(f"Patient/{launch.patient_id}") or {}
    with context.database.session() as session:
        for key in _keys(context, patient):
            if store.find_case(session, key) is not None:
                return key
    raise NotFoundError("Osler has no case of this patient yet")


def _keys(context: RoomContext, patient: Mapping[str, Any]) -> list[str]:
    secret, settings = context.settings.identity_key(), context.settings.identity
    rows = [row for row in map(fhir.as_dict, fhir.as_list(patient.get("identifier"))) if row.get("value")]
    return [
        patient_key(
            secret,
            issuer_from_fhir(str(row.get("system") or ""), settings.issuers, settings.default_issuer),
            str(row["value"]),
        )
        for row in rows
    ]
