"""From recommendations to cards: few, ranked, short, each with its evidence."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2

from services.alerts.hooks import Action, Card, Coding, Indicator, Link, Source, Suggestion

# Beyond a few cards clinicians stop reading (alert fatigue).
MOST_CARDS = 4
_NAMESPACE = uuid.UUID("b6c7a3f0-0f0e-4c0e-8f2f-5f3e7c6d1a55")
_INDICATORS: dict[int, Indicator] = {
    advisor_pb2.URGENCY_INFO: "info",
    advisor_pb2.URGENCY_WARNING: "warning",
    advisor_pb2.URGENCY_CRITICAL: "critical",
}
OVERRIDE_REASONS = [
    Coding(code="already-addressed", system="urn:osler:override-reason", display="Already addressed"),
    Coding(code="benefit-outweighs-risk", system="urn:osler:override-reason", display="Benefit outweighs the risk"),
    Coding(code="data-out-of-date", system="urn:osler:override-reason", display="The data are wrong or out of date"),
    Coding(code="not-applicable", system="urn:osler:override-reason", display="Does not apply to this patient"),
]


def card_id(hook_instance: str, recommendation_id: str) -> str:
    """One card for one recommendation in one hook invocation: asking again gives the same id."""
    return str(uuid.uuid5(_NAMESPACE, f"{hook_instance}/{recommendation_id}"))


def ranked(recommendations: Iterable[advisor_pb2.Recommendation]) -> list[advisor_pb2.Recommendation]:
    """Most urgent first, at most `MOST_CARDS`; the order within one urgency is the advisor's."""
    return sorted(recommendations, key=lambda r: -r.urgency)[:MOST_CARDS]


def build(
    recommendations: Sequence[advisor_pb2.Recommendation], hook_instance: str, patient_id: str, board_url: str
) -> list[Card]:
    """Cards for an EHR. `patient_id` is the EHR's FHIR id, `board_url` the page of this patient's case ("" for none)."""
    return [_card(r, hook_instance, patient_id, board_url) for r in ranked(recommendations)]


def _card(r: advisor_pb2.Recommendation, hook_instance: str, patient_id: str, board_url: str) -> Card:
    identifier = card_id(hook_instance, r.recommendation_id)
    suggestion = _suggestion(r, identifier, patient_id)
    citations = list(r.provenance.citations)
    return Card(
        uuid=identifier,
        summary=r.summary,
        detail=_detail(r),
        indicator=_INDICATORS.get(r.urgency, "info"),
        source=Source(label=citations[0] if citations else "Osler", topic=Coding(code=r.rule_id, display=r.category)),
        suggestions=[suggestion] if suggestion else None,
        selection_behavior="any" if suggestion else None,
        override_reasons=OVERRIDE_REASONS,
        links=[Link(label="Open the case in Osler", url=board_url, type="absolute")] if board_url else None,
    )


def _detail(r: advisor_pb2.Recommendation) -> str:
    """GitHub-flavoured Markdown, as the specification asks: why, on what evidence, what else, what was not found."""
    parts = [r.detail] if r.detail else []
    parts += ["**Evidence**\n" + "\n".join(f"- {e.statement}" for e in r.evidence)] if r.evidence else []
    if r.alternatives:
        parts.append("**Alternatives**\n" + "\n".join(f"- {a.title}: {a.reason}" for a in r.alternatives))
    if r.not_found:
        parts.append("**Looked for and not found**\n" + "\n".join(f"- {n}" for n in r.not_found))
    if r.strength:
        parts.append(f"*Strength: {r.strength}*")
    return "\n\n".join(parts)


def _suggestion(r: advisor_pb2.Recommendation, identifier: str, patient_id: str) -> Suggestion | None:
    if not r.HasField("proposed_order"):
        return None
    order = r.proposed_order
    return Suggestion(
        label=f"Order: {order.display or order.code}",
        uuid=str(uuid.uuid5(_NAMESPACE, f"{identifier}/order")),
        is_recommended=True,
        actions=[
            Action(
                type="create",
                description=f"Draft order for {order.display or order.code}",
                resource=_service_request(order, patient_id, r.summary),
            )
        ],
    )


def _service_request(order: common_pb2.Code, patient_id: str, reason: str) -> dict[str, object]:
    return {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "proposal",
        "subject": {"reference": f"Patient/{patient_id}"},
        "code": {
            "coding": [{"system": order.system, "code": order.code, "display": order.display}],
            "text": order.display,
        },
        "reasonCode": [{"text": reason}],
    }
