"""What a draft imaging order means: its modality, region, reason and contrast, and every rule that concerns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from osler.advisor.v1 import advisor_pb2

from services.advisor import appropriateness, duplicate_imaging, mr_safety, radiation_dose, rule_conflicts, rules
from services.advisor.facts import Fact, Facts
from services.advisor.facts_derived import complete
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


@dataclass(frozen=True)
class Record:
    """What bears on an order beside the patient's facts: earlier examinations and implants."""

    exams: Sequence[duplicate_imaging.Exam] = field(default=())
    implants: Sequence[mr_safety.Implant] = field(default=())


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
    order: advisor_pb2.DraftOrder, facts: Facts, source: Source, as_of: datetime, record: Record | None = None
) -> list[advisor_pb2.Recommendation]:
    """Every rule that concerns this order, most urgent first. Raises InvalidRequestError as `contrast_of`."""
    record = record or Record()
    contrast = contrast_of(order)
    modality = duplicate_imaging.modality_of(order.modality)
    patient = mr_safety.with_cardiac_device(complete(facts, as_of), record.implants)
    known = {**patient, **_of_order(order, contrast, modality, record, as_of)}
    loaded = [rule for name in rules.ORDER_FILES for rule in rules.load(name)]
    concerned = rules.for_order(loaded, contrast.agents, modality)
    implants = mr_safety.items(record.implants, as_of)
    found = [recommendation(fired, source) for fired in rules.fire(concerned, known, implants)]
    if not contrast.said:
        _mark_conditional(found, concerned)
    rule_conflicts.mark(found)
    return found


def _of_order(
    order: advisor_pb2.DraftOrder, contrast: Contrast, modality: str, record: Record, as_of: datetime
) -> dict[str, Fact]:
    region = duplicate_imaging.region_of(order.body_region, order.text, *(code.display for code in order.codes))
    low_dose = duplicate_imaging.is_low_dose(f"{order.text} {order.reason}")
    indication = appropriateness.indication_of(order)
    words = {"modality": modality, "region": region, "indication": indication}
    if contrast.said and contrast.agents:
        words["agent"] = contrast.agents[0]
    found = {name: Fact(name, word, None, (), "order") for name, word in words.items() if word}
    dose = radiation_dose.typical_msv(modality, region, low_dose=low_dose)
    if dose is not None:
        found["order_dose_msv"] = Fact("order_dose_msv", dose, None, (), "derived")
    return {
        **found,
        **radiation_dose.facts(record.exams, as_of),
        **duplicate_imaging.facts(record.exams, modality, region, as_of),
    }


def _mark_conditional(found: Sequence[advisor_pb2.Recommendation], concerned: Sequence[rules.Rule]) -> None:
    about_contrast = {rule.id for rule in concerned if rule.agents}
    for item in found:
        if item.rule_id in about_contrast:
            item.detail = f"{item.detail} {_UNSAID}"
