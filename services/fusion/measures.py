"""Measured values: canonical units, plausibility and reference ranges, alike for every source."""

from __future__ import annotations

import math
import re

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.clinical import terminology, units
from services.clinical.terminology import Analyte
from services.platform.errors import RefusedError

# Share of a reference population inside a reference interval (CLSI EP28-A3c).
REFERENCE_LEVEL = 0.95
_BETWEEN = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*(?:-|–|to|\^-\^)\s*([+-]?\d+(?:\.\d+)?)")
_COMPARATORS = {"<": "below_limit", "<=": "below_limit", ">": "above_limit", ">=": "above_limit"}


def analyte_of(entry: fusion_pb2.TimelineEntry) -> Analyte | None:
    """The analyte that an entry's codes name."""
    return terminology.analyte_of((code.system, code.code) for code in entry.codes)


def set_quantity(entry: fusion_pb2.TimelineEntry, value: float, unit: str, comparator: str = "") -> None:
    """Puts a number into an entry: `quantity` in the analyte's canonical unit, `original_quantity` as sent.

    Flags: "unit_assumed" (no unit came; the canonical one is taken), "unit_unknown" and "unit_mismatch" (kept as sent,
    and no feature uses it), "implausible" (outside the plausible range), "below_limit" / "above_limit" (the number is a
    bound). Raises RefusedError `observation.not_a_number` for a number that is not finite.
    """
    if not math.isfinite(value):
        raise RefusedError("observation.not_a_number", "the value is not a finite number", remedy="resend the value")
    analyte = analyte_of(entry)
    entry.original_quantity.CopyFrom(common_pb2.Quantity(value=value, unit=unit or "1"))
    if comparator in _COMPARATORS:
        entry.flags.append(_COMPARATORS[comparator])
    canonical, target = value, unit
    try:
        if not unit.strip():
            target = analyte.unit if analyte else "1"
            if target not in ("1", "{score}"):
                entry.flags.append("unit_assumed")
        elif analyte:
            canonical, target = units.convert(value, unit, analyte.unit, analyte=analyte), analyte.unit
        else:
            target = units.normalise(unit)
    except RefusedError as error:
        canonical, target = value, unit
        entry.flags.append("unit_unknown" if error.reason == "units.unknown" else "unit_mismatch")
    entry.quantity.CopyFrom(common_pb2.Quantity(value=canonical, unit=target or "1"))
    if analyte and target == analyte.unit and not analyte.plausible[0] <= canonical <= analyte.plausible[1]:
        entry.flags.append("implausible")


def set_range(entry: fusion_pb2.TimelineEntry, low: float | None, high: float | None, unit: str) -> None:
    """Puts a reference range into an entry, in the unit of its quantity. One-sided ranges are open at infinity."""
    if low is None and high is None:
        return
    analyte = analyte_of(entry)
    bounds = []
    for bound, side in ((low, -math.inf), (high, math.inf)):
        if bound is None or math.isinf(bound):
            bounds.append(side)
            continue
        try:
            unit_of_range = unit or entry.original_quantity.unit
            bounds.append(units.convert(bound, unit_of_range, entry.quantity.unit, analyte=analyte))
        except RefusedError:
            return
    interval = common_pb2.Interval(lower=bounds[0], upper=bounds[1], level=REFERENCE_LEVEL)
    entry.reference_range.CopyFrom(interval)


def parse_range(text: str) -> tuple[float | None, float | None]:
    """Reads "3.5-5.1", "3.5 to 5.1", "<200", ">= 60" (HL7 v2.5.1 OBX-7, section 7.4.2.7); anything else gives none.

    >>> parse_range("<200"), parse_range("0.7 - 1.3")
    ((None, 200.0), (0.7, 1.3))
    """
    between = _BETWEEN.fullmatch(text.strip()) or _BETWEEN.match(text)
    if between:
        return float(between.group(1)), float(between.group(2))
    one_sided = re.match(r"\s*(<=?|>=?|≤|≥)\s*(\d+(?:\.\d+)?)", text)
    if one_sided is None:
        return None, None
    bound = float(one_sided.group(2))
    return (None, bound) if one_sided.group(1) in "<=≤" else (bound, None)


def parse_number(text: str) -> tuple[str, float] | None:
    """Reads a number with an optional comparator from text: "<0.1", "1.2"; None when it is no number.

    A comma is no number here: "1,200" is twelve hundred to one sender and 1.2 to another.
    """
    match = re.fullmatch(r"\s*(<=|>=|<|>)?\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*", text)
    if match is None:
        return None
    return match.group(1) or "", float(match.group(2))
