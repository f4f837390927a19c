"""Minutes as a FHIR R4 collection: for each decided case a CarePlan, Tasks, and a DocumentReference with its own PDF.

Source: HL7 FHIR R4 (4.0.1) CarePlan, Task, DocumentReference. LOINC 11488-4 is "Consult note". Patients are named by the
installation's keyed patient key only, as in Osler's other exports; the PDF inside holds the name.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from services.board import minutes as pdf
from services.board.meeting import Recorded, Task, words
from services.board.minutes import CaseMinutes, Minutes
from services.clinical.fhir_results import result_id

_KEY_SYSTEM = "urn:osler:patient-key"
_SNOMED = "http://snomed.info/sct"
_TASK_STATUS = {"open": "requested", "done": "completed", "dropped": "cancelled"}


def to_bundle(minutes: Minutes) -> str:
    """A Bundle of type collection as JSON, checked against the R4 models. Cases without a decision are left out."""
    resources = [resource for case in minutes.cases if case.discussion.decision for resource in _case(minutes, case)]
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": minutes.printed_at.isoformat(),
        "entry": [{"fullUrl": f"urn:uuid:{r['id']}", "resource": r} for r in resources],
    }
    return str(Bundle.model_validate(bundle).model_dump_json(exclude_none=True))


def _case(minutes: Minutes, case: CaseMinutes) -> list[dict[str, Any]]:
    recorded = case.discussion.decision
    assert recorded is not None
    subject = {"identifier": {"system": _KEY_SYSTEM, "value": case.discussion.item.patient_key}, "type": "Patient"}
    plan = _care_plan(minutes, case, recorded, subject)
    tasks = [_task(task, subject, plan["id"]) for task in case.discussion.tasks]
    plan["activity"] = [*_activities(recorded), *({"reference": {"reference": f"urn:uuid:{t['id']}"}} for t in tasks)]
    return [plan, *tasks, _document(minutes, case, recorded, subject, plan["id"])]


def _care_plan(minutes: Minutes, case: CaseMinutes, recorded: Recorded, subject: dict[str, Any]) -> dict[str, Any]:
    notes = [recorded.decision.rationale, recorded.decision.conditions]
    notes += [f"Dissent of {v.subject}: {v.reason}" for v in recorded.dissents]
    return {
        "resourceType": "CarePlan",
        "id": result_id("care-plan", recorded.decision_id),
        "status": "active" if recorded.final else "draft",
        "intent": "plan",
        "title": "Tumour board decision",
        "category": [{"text": f"Tumour board, {recorded.decision.intent_title}"}],
        "description": recorded.decision.summary,
        "subject": subject,
        "created": recorded.at.isoformat(),
        "contributor": [{"display": s.subject} for s in recorded.signatures],
        "note": [{"text": text} for text in notes if text],
    }


def _activities(recorded: Recorded) -> list[dict[str, Any]]:
    made = []
    for name in recorded.decision.options:
        option = words()["options"][name]
        code: dict[str, Any] = {"text": option["title"]}
        if "snomed" in option:
            code["coding"] = [{"system": _SNOMED, "code": option["snomed"], "display": option["display"]}]
        made.append({"detail": {"status": "not-started", "code": code}})
    return made


def _task(task: Task, subject: dict[str, Any], plan_id: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Task",
        "id": result_id("task", task.task_id),
        "status": _TASK_STATUS[task.status],
        "intent": "order",
        "description": task.title,
        "for": subject,
        "basedOn": [{"reference": f"urn:uuid:{plan_id}"}],
        "owner": {"display": task.owner},
        "lastModified": task.changed_at.isoformat(),
    }
    if task.due_on:
        made["restriction"] = {"period": {"end": task.due_on.isoformat()}}
    return made


def _document(
    minutes: Minutes, case: CaseMinutes, recorded: Recorded, subject: dict[str, Any], plan_id: str
) -> dict[str, Any]:
    content = pdf.to_pdf(replace(minutes, cases=[case]))
    return {
        "resourceType": "DocumentReference",
        "id": result_id("minutes", recorded.decision_id, str(recorded.version)),
        "status": "current",
        "docStatus": "final" if recorded.final else "preliminary",
        "type": {"coding": [{"system": "http://loinc.org", "code": "11488-4", "display": "Consult note"}],
                 "text": "Tumour board minutes"},
        "subject": subject,
        "date": minutes.printed_at.isoformat(),
        "author": [{"display": p.subject} for p in minutes.people],
        "content": [{"attachment": {
            "contentType": "application/pdf",
            "data": base64.b64encode(content).decode(),
            "size": len(content),
            "hash": base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode(),
            "title": "Tumour board minutes",
            "creation": minutes.printed_at.isoformat(),
        }}],
        "context": {"related": [{"reference": f"urn:uuid:{plan_id}"}]},
    }  # fmt: skip
