"""What a draft imaging order means for safety: its modality, and the contrast it may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from osler.advisor.v1 import advisor_pb2

from services.advisor import rules
from services.advisor.facts import Facts, with_kidney_function
from services.advisor.messages import recommendation
from services.advisor.provenance import Source
from services.platform.rpc import InvalidRequestError

# Contrast that an examination of this modality uses where the order does not name the agent.
_USUAL_AGENT: Mapping[str, str] = {"CT": "iodinated", "XA": "iodinated", "RF": "iodinated", "MR": "gadolinium"}
_AGENTS = ("iodinated", "gadolinium", "gadolinium-group-1", "gadolinium-group-2", "gadolinium-group-3")
_UNSAID = "The order does not say whether contrast is given; this holds if it is."


@dataclass(frozen=True)
class Contrast:
    """Agents that the order may use; `said` is False where the order leaves open whether contrast is given."""

    agents: tuple[str, ...]
    said: bool


def contrast_of(order: advisor_pb2.DraftOrder) -> Contrast:
    """The contrast of a draft order. Raises InvalidRequestError for an agent that the contract does not list."""
    if order.contrast_agent and order.contrast_agent not in _AGENTS:
        raise InvalidRequestError("order.contrast_agent", f"must be empty or one of {', '.join(_AGENTS)}")
    if order.HasField("contrast") and not order.contrast:
        return Contrast((), True)
    if order.contrast_agent:
        return Contrast((order.contrast_agent,), True)
    modality = order.modality.upper()
    if order.HasField("contrast"):
        # A PET/CT with contrast gets it for its CT.
        return Contrast((_USUAL_AGENT.get(modality, "iodinated"),), True)
    return Contrast((_USUAL_AGENT[modality],) if modality in _USUAL_AGENT else (), False)


def check(
    order: advisor_pb2.DraftOrder, facts: Facts, source: Source, as_of: datetime
) -> list[advisor_pb2.Recommendation]:
    """Safety rules that concern this order, most urgent first. Raises InvalidRequestError as `contrast_of`."""
    contrast = contrast_of(order)
    complete = with_kidney_function(facts, as_of)
    concerned = rules.for_order(rules.load("contrast.yaml"), contrast.agents, order.modality.upper())
    found = [recommendation(fired, complete, source) for fired in rules.fire(concerned, complete)]
    if not contrast.said:
        _mark_conditional(found, concerned)
    return found


def _mark_conditional(found: Sequence[advisor_pb2.Recommendation], concerned: Sequence[rules.Rule]) -> None:
    about_contrast = {rule.id for rule in concerned if rule.agents}
    for item in found:
        if item.rule_id in about_contrast:
            item.detail = f"{item.detail} {_UNSAID}"
