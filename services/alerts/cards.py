"""From recommendations to cards: few, ranked, short, each with its evidence."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2

from services.alerts import snooze
from services.alerts.hooks import LONGEST_SUMMARY, Action, Card, Coding, Indicator, Link, Source, Suggestion

_NAMESPACE = uuid.UUID("b6c7a3f0-0f0e-4c0e-8f2f-5f3e7c6d1a55")
_TOPICS = "urn:osler:rule"
_INDICATORS: dict[int, Indicator] = {
    advisor_pb2.URGENCY_INFO: "info",
    advisor_pb2.URGENCY_WARNING: "warning",
    advisor_pb2.URGENCY_CRITICAL: "critical",
}
INCOMPLETE_RULE = "alerts.incomplete"
UNCHECKED_RULE = "alerts.unchecked"


@dataclass(frozen=True)
class Finding:
    """A recommendation, and the draft orders ("ServiceRequest/1") that it speaks of."""

    recommendation: advisor_pb2.Recommendation
    orders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """What all cards of one answer share.

    `patient_id`: the EHR's FHIR id. `board_url`: page of this patient's case, "" for none. `smart_url`: where the EHR launches
    the board, "" where it is not registered there. `not_known`: what this answer had to do without.
    """

    hook_instance: str
    patient_id: str
    most: int
    board_url: str = ""
    smart_url: str = ""
    not_known: Sequence[str] = field(default=())


def card_id(hook_instance: str, recommendation_id: str) -> str:
    """One card for one recommendation in one hook invocation: asking again gives the same id."""
    return str(uuid.uuid5(_NAMESPACE, f"{hook_instance}/{recommendation_id}"))


def ranked(findings: Sequence[Finding], most: int) -> list[Finding]:
    """Most urgent first, at most `most`; the order within one urgency is the advisor's."""
    return sorted(findings, key=lambda f: -f.recommendation.urgency)[:most]


def build(findings: Sequence[Finding], frame: Frame) -> list[Card]:
    """Cards for an EHR, most urgent first; the last one says how many did not fit."""
    shown = ranked(findings, frame.most)
    made = [_card(finding, frame) for finding in shown]
    left = len(findings) - len(shown)
    if left:
        more = f"*{left} more {'recommendation is' if left == 1 else 'recommendations are'} on the board.*"
        made[-1].detail = "\n\n".join(part for part in (made[-1].detail, more) if part)
    return made


def incomplete(not_known: Sequence[str], titles: Sequence[str]) -> advisor_pb2.Recommendation:
    """Says what an order could not be checked against, so that silence is not read as safety."""
    return advisor_pb2.Recommendation(
        recommendation_id=INCOMPLETE_RULE,
        rule_id=INCOMPLETE_RULE,
        summary=_cut(f"Order checked without: {', '.join(titles)}"),
        detail="What is missing here may change the advice. Check it in the chart before the examination.",
        urgency=advisor_pb2.URGENCY_INFO,
        category="completeness",
        not_found=not_known,
    )


def unchecked() -> advisor_pb2.Recommendation:
    """Says that an order was not checked at all."""
    return advisor_pb2.Recommendation(
        recommendation_id=UNCHECKED_RULE,
        rule_id=UNCHECKED_RULE,
        summary="Osler could not check this imaging order now",
        detail="The advisor did not answer in time. Check contrast, kidney function, allergies, implants and pregnancy as usual.",
        urgency=advisor_pb2.URGENCY_WARNING,
        category="completeness",
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SUMMARY else f"{text[: LONGEST_SUMMARY - 1]}…"


def _card(finding: Finding, frame: Frame) -> Card:
    r = finding.recommendation
    identifier = card_id(frame.hook_instance, r.recommendation_id)
    suggestions = _suggestions(finding, identifier, frame.patient_id)
    citations = list(r.provenance.citations)
    return Card(
        uuid=identifier,
        summary=_cut(r.summary),
        detail=_detail(r, frame.not_known) or None,
        indicator=_INDICATORS.get(r.urgency, "info"),
        source=Source(
            label=citations[0] if citations else "Osler",
            topic=Coding(code=r.rule_id, system=_TOPICS, display=r.category or None),
        ),
        suggestions=suggestions or None,
        selection_behavior=("at-most-one" if len(suggestions) > 1 else "any") if suggestions else None,
        override_reasons=list(snooze.policy().reasons),
        links=_links(frame) or None,
    )


def _links(frame: Frame) -> list[Link]:
    if frame.smart_url:
        return [Link(label="Open the case in Osler", url=frame.smart_url, type="smart")]
    return [Link(label="Open the case in Osler", url=frame.board_url, type="absolute")] if frame.board_url else []


def _detail(r: advisor_pb2.Recommendation, not_known: Sequence[str]) -> str:
    """GitHub-flavoured Markdown, as the specification asks: why, on what evidence, what else, what was not found."""
    parts = [r.detail] if r.detail else []
    parts += [_listed("Evidence", [e.statement for e in r.evidence])] if r.evidence else []
    if r.alternatives:
        parts.append(_listed("Alternatives", [f"{a.title}: {a.reason}" for a in r.alternatives]))
    if r.conflicts:
        parts.append(_listed("Other advice says otherwise", [f"{c.summary} {c.explanation}" for c in r.conflicts]))
    if r.not_found:
        parts.append(_listed("Looked for and not found", r.not_found))
    if not_known and r.rule_id != INCOMPLETE_RULE:
        parts.append(_listed("Not known for this answer", not_known))
    if r.strength:
        parts.append(f"*Strength: {r.strength}*")
    return "\n\n".join(parts)


def _listed(title: str, rows: Sequence[str]) -> str:
    # One line each: what a source sends must not become a heading or a list of its own.
    return f"**{title}**\n" + "\n".join(f"- {' '.join(row.split())}" for row in rows)


def _suggestions(finding: Finding, identifier: str, patient_id: str) -> list[Suggestion]:
    """The proposed order, in place of the draft where there is one; and for what is critical, to remove the draft."""
    r, found = finding.recommendation, []
    remove = [Action(type="delete", description="Remove the draft order", resource_id=name) for name in finding.orders]
    if r.HasField("proposed_order"):
        order = r.proposed_order
        words = order.display or order.code
        create = Action(
            type="create",
            description=f"Draft order for {words}",
            resource=_service_request(order, patient_id, r.summary),
        )
        label = f"Order instead: {words}" if remove else f"Order: {words}"
        found.append(_suggestion(identifier, "order", label, [create, *remove], True))
    if remove and r.urgency == advisor_pb2.URGENCY_CRITICAL:
        found.append(_suggestion(identifier, "remove", "Remove the draft order", remove, None))
    return found


def _suggestion(card: str, name: str, label: str, actions: list[Action], recommended: bool | None) -> Suggestion:
    identifier = str(uuid.uuid5(_NAMESPACE, f"{card}/{name}"))
    return Suggestion(label=label, uuid=identifier, is_recommended=recommended, actions=actions)


def _service_request(order: common_pb2.Code, patient_id: str, reason: str) -> dict[str, object]:
    coding = {"system": order.system, "code": order.code, "display": order.display}
    return {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "proposal",
        "subject": {"reference": f"Patient/{patient_id}"},
        "code": {"coding": [{k: v for k, v in coding.items() if v}], "text": order.display or order.code},
        "reasonCode": [{"text": reason}],
    }
