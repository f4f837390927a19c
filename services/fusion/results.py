"""OBX segments into facts (HL7 v2.5.1 section 7.4.2): value types, statuses, units, ranges and abnormal flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.clinical.terminology import canonical_system, code_sets
from services.fusion.chart_context import set_times
from services.fusion.facts import Fact, digest, identity_of, make_code
from services.fusion.hl7 import Segment
from services.fusion.measures import parse_number, parse_range, set_quantity, set_range
from services.fusion.statuses import interpretation_flag, observation_standing
from services.platform.errors import RefusedError

if TYPE_CHECKING:
    from services.fusion.laboratory import Context

MAX_TEXT = 20_000
# A correction, deletion or wrong result is about whatever the order said before; other statuses only about their time.
_REPLACING = frozenset("CDWA")
_CODED = frozenset(("CE", "CWE", "CNE", "CF", "IS", "ID"))
_BINARY = frozenset(("ED", "RP"))


def codes_of(segment: Segment, raw: str) -> list[common_pb2.Code]:
    """The codes of a CE or CWE: the identifier and its alternates (components 1-3, 4-6 and, in CWE, 10-12)."""
    codes = []
    for at in (1, 4, 10):
        code, display = segment.part(raw, at), segment.part(raw, at + 1)
        if code:
            codes.append(make_code(canonical_system(segment.part(raw, at + 2)), code, display))
    return codes


def title_of(segment: Segment, raw: str) -> str:
    """The words of a CE or CWE: original text (component 9), text, alternate text, else the code."""
    return next((text for text in (segment.part(raw, n) for n in (2, 9, 5, 1, 4)) if text), "")


def observation_facts(segment: Segment, context: Context, where: str) -> list[Fact]:
    """The facts of one OBX: one for each repetition of its value, at least one.

    Raises RefusedError `hl7v2.no_observation_code` when OBX-3 is empty.
    """
    raw = segment.raw(3)
    codes, title = codes_of(segment, raw), title_of(segment, raw)
    if not codes and not title:
        raise RefusedError(
            "hl7v2.no_observation_code", "OBX-3 is empty", missing=("OBX-3",), remedy="send the observation's code"
        )
    status = segment.component(11).upper()
    standing = observation_standing(status)
    slot = f"{codes[0].code if codes else title}:{segment.component(4)}"
    context.ordinal[slot] += 1
    origin = f"result:{digest(context.order)}:{context.order_code}:{slot}:{context.ordinal[slot]}"
    own_time = context.moment(segment.component(14), where)
    facts: list[Fact] = []
    for index, value in enumerate(segment.repetitions(5) or [""]):
        made = fusion_pb2.TimelineEntry(
            kind=fusion_pb2.ENTRY_KIND_OBSERVATION, codes=codes, title=title, sources=[context.source(where)]
        )
        if any(code_sets()["genomic"].holds_code(code.system, code.code) for code in codes):
            made.kind = fusion_pb2.ENTRY_KIND_GENOMIC
        set_times(made, own_time or context.order_time or context.reported, None, context.received_at)
        _set_value(made, segment, value)
        facts.append(
            context.fact(
                made,
                f"{origin}:{index}" if index else origin,
                identity_of(made),
                standing,
                known=context.reported,
                replaces=status in _REPLACING,
            )
        )
    context.about, context.about_origin, context.about_standing = facts[0].entry, origin, standing
    return facts


def _set_value(made: fusion_pb2.TimelineEntry, segment: Segment, value: str) -> None:
    for flag in (interpretation_flag(segment.part(row)) for row in segment.repetitions(8)):
        if flag:
            made.flags.append(flag)
    kind = segment.component(2).upper()
    number = _number(kind, segment, value)
    if number is not None:
        unit = segment.component(6)
        set_quantity(made, number[1], unit, number[0])
        low, high = parse_range(segment.text(7))
        set_range(made, low, high, unit)
        return
    codes = codes_of(segment, value) if kind in _CODED else []
    if codes:
        made.coded.CopyFrom(codes[0])
        made.coded.display = made.coded.display or title_of(segment, value)
        return
    text = "(document attached)" if kind in _BINARY else _words(kind, segment, value)
    made.text = text[:MAX_TEXT]
    if not text:
        made.flags.append("no_value")
    elif len(text) > MAX_TEXT:
        made.flags.append("truncated")


def _number(kind: str, segment: Segment, value: str) -> tuple[str, float] | None:
    if kind in ("NM", "ST", "") and (kind == "NM" or segment.component(6)):
        return parse_number(segment.part(value))
    if kind == "SN":
        comparator, first, separator, second = (segment.part(value, n) for n in (1, 2, 3, 4))
        if first and not (separator or second):
            return parse_number(f"{comparator if comparator in ('<', '>', '<=', '>=') else ''}{first}")
    return None


def _words(kind: str, segment: Segment, value: str) -> str:
    if kind == "SN":
        return "".join(segment.part(value, n) for n in (1, 2, 3, 4))
    if kind in _CODED or kind in ("XCN", "XPN", "XAD", "XTN"):
        return title_of(segment, value)
    return (
        segment.part(value)
        if segment.separators.component not in value
        else " ".join(
            filter(None, (segment.part(value, n + 1) for n in range(value.count(segment.separators.component) + 1)))
        )
    )
