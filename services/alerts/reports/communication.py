"""Telling a critical result: who was told, when, and that they understood. Tracked until a person acknowledges.

Osler proposes, a reader confirms or rejects; from then on whoever tells notes each attempt, and the acknowledgement closes
it. Source: FHIR R4 Task (status values), ACR Practice Parameter for Communication of Diagnostic Imaging Findings.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from services.alerts import critical
from services.alerts.critical import CriticalResult
from services.platform.errors import RefusedError

State = Literal["proposed", "requested", "told", "acknowledged", "rejected"]
Action = Literal["propose", "confirm", "attempt", "acknowledge", "reject"]
_NAMESPACE = uuid.UUID("1a4a5a7e-8d4c-5f63-9f0b-0a5f7d6c2e31")
# Action -> states that it may be taken in, and the state that follows.
_MOVES: dict[Action, tuple[tuple[State, ...], State]] = {
    "confirm": (("proposed",), "requested"),
    "attempt": (("requested", "told"), "told"),
    "acknowledge": (("requested", "told"), "acknowledged"),
    "reject": (("proposed", "requested"), "rejected"),
}
FHIR_STATUS: dict[State, str] = {
    "proposed": "draft",
    "requested": "requested",
    "told": "in-progress",
    "acknowledged": "completed",
    "rejected": "rejected",
}
OPEN: tuple[State, ...] = ("proposed", "requested", "told")


@dataclass(frozen=True)
class Communication:
    """One critical result on its way to a person."""

    task_id: str
    report_id: str
    study_instance_uid: str
    patient_key: str
    category: str
    statement: str
    found_at: datetime
    state: State = "proposed"
    recipient: str = ""


@dataclass(frozen=True)
class Step:
    """What was done: by whom, when, and in words."""

    at: datetime
    by: str
    action: Action
    detail: str = ""


def propose(
    result: CriticalResult, report_id: str, study_uid: str, patient_key: str, found_at: datetime
) -> Communication:
    """A result of a draft. The same result of the same report is the same task."""
    identity = str(uuid.uuid5(_NAMESPACE, f"{report_id}/{result.rule}/{result.statement}"))
    return Communication(identity, report_id, study_uid, patient_key, result.category, result.statement, found_at)


def move(item: Communication, action: Action, *, detail: str, recipient: str = "") -> Communication:
    """The task after an action.

    Raises RefusedError `critical.wrong_state`; `critical.incomplete` when what must be documented is missing: the recipient
    at confirmation, how and whom at an attempt, who took it and read-back at the acknowledgement, the reason at a rejection.
    """
    allowed, following = _MOVES[action]
    if item.state not in allowed:
        raise RefusedError(
            "critical.wrong_state",
            f"a critical result that is {item.state} cannot be followed by {action}",
            remedy=f"{action} is for results that are {' or '.join(allowed)}",
            subject=item.task_id,
        )
    given = {"confirm": recipient, "attempt": detail, "acknowledge": detail and (recipient or item.recipient)}
    if not given.get(action, detail):
        wanted = {
            "confirm": "recipient",
            "attempt": "detail",
            "acknowledge": "detail and recipient",
            "reject": "detail",
        }
        raise RefusedError(
            "critical.incomplete",
            f"{action} needs {wanted[action]}: it is the record of what was done",
            missing=[wanted[action]],
            subject=item.task_id,
        )
    return replace(item, state=following, recipient=recipient or item.recipient)


def fhir_task(item: Communication, steps: Sequence[Step], now: datetime) -> dict[str, Any]:
    """The task as FHIR R4 Task: status, deadline, whom to ask now, and every step as a note."""
    rule = critical.categories()[item.category]
    due = critical.escalation(item.category, item.found_at, now)
    urgent = {"immediate": "stat", "hours": "urgent"}.get(item.category, "routine")
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": item.task_id,
        "identifier": [{"system": "urn:osler:critical-result", "value": item.task_id}],
        "status": FHIR_STATUS[item.state],
        "intent": "proposal" if item.state == "proposed" else "order",
        "priority": urgent,
        "code": {"text": "Communicate critical imaging result"},
        "description": item.statement,
        "focus": {"type": "DiagnosticReport", "identifier": {"system": "urn:osler:report", "value": item.report_id}},
        "for": {"type": "Patient", "identifier": {"system": "urn:osler:patient-key", "value": item.patient_key}},
        "authoredOn": item.found_at.isoformat(timespec="seconds"),
        "lastModified": (steps[-1].at if steps else item.found_at).isoformat(timespec="seconds"),
        "reasonCode": {"text": rule.title},
        "restriction": {
            "period": {
                "start": item.found_at.isoformat(timespec="seconds"),
                "end": due.deadline.isoformat(timespec="seconds"),
            }
        },
    }
    if item.recipient:
        task["owner"] = {"display": item.recipient}
    if item.state in OPEN:
        words = f"{'overdue; ' if due.overdue else ''}ask {due.to}"
        task["businessStatus"] = {"text": words}
    if item.state == "rejected" and steps:
        task["statusReason"] = {"text": steps[-1].detail}
    notes = [step for step in steps if step.action != "propose"]
    if notes:
        task["note"] = [
            {
                "authorString": step.by,
                "time": step.at.isoformat(timespec="seconds"),
                "text": f"{step.action}: {step.detail}",
            }
            for step in notes
        ]
    return task
