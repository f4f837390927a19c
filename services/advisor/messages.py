"""Rules that fired, and the facts behind them, as recommendations."""

from __future__ import annotations

from collections.abc import Mapping

from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2

from services.advisor import facts as fact_words
from services.advisor.facts import Facts
from services.advisor.provenance import Source, provenance, recommendation_id
from services.advisor.rules import Fired
from services.advisor.tables import table

URGENCY: Mapping[str, advisor_pb2.Urgency] = {
    "info": advisor_pb2.URGENCY_INFO,
    "warning": advisor_pb2.URGENCY_WARNING,
    "critical": advisor_pb2.URGENCY_CRITICAL,
}


def order_code(name: str) -> common_pb2.Code:
    """The procedure code of an order in imaging_steps.yaml."""
    entry = table("imaging_steps.yaml")["orders"][name]
    return common_pb2.Code(system=entry["system"], code=entry["code"], display=entry["display"])


def recommendation(fired: Fired, facts: Facts, source: Source) -> advisor_pb2.Recommendation:
    """One recommendation: the rule's words with the patient's values, the facts that made it fire, what was not found."""
    rule = fired.rule
    # `agent` and `modality` say what was ordered, which is no fact about the patient.
    used = [fact for fact in fired.used if fact.source != "order"]
    entry_ids = [entry_id for fact in used for entry_id in fact.entry_ids]
    evidence = entry_ids or [fact_words.describe(fact) for fact in used]
    return advisor_pb2.Recommendation(
        recommendation_id=recommendation_id(rule.id, source.patient_key, evidence),
        rule_id=rule.id,
        summary=fired.summary(facts),
        detail=rule.detail,
        urgency=URGENCY[rule.urgency],
        category=rule.category,
        proposed_order=order_code(rule.order) if rule.order else None,
        evidence=[advisor_pb2.Evidence(statement=fact_words.describe(fact), entry_ids=fact.entry_ids) for fact in used],
        alternatives=[advisor_pb2.Alternative(title=title, reason=reason) for title, reason in rule.alternatives],
        not_found=[fact_words.absent(name) for name in fired.not_found],
        strength=rule.strength,
        provenance=provenance(
            source,
            method=f"{rule.id}@{rule.version}",
            citations=rule.citations,
            entry_ids=entry_ids,
            references=[fact.reference for fact in used if fact.reference],
        ),
    )
