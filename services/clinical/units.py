"""Units: UCUM at the edges, one canonical unit inside.

UCUM 2.1 (ucum.org) through ucumvert's grammar on pint. The registry takes about a second to build, so it is built on
the first unit that needs it; every pair of units is worked out once, as all conversions here are affine.
"""

from __future__ import annotations

import math
import re
import threading
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from services.clinical.terminology import Analyte, analyte_of, analytes
from services.platform.errors import RefusedError

_ANNOTATION = re.compile(r"\{[^}]*\}")
_ARBITRARY = re.compile(r"\[IU\]|\[iU\]|\[arb'U\]")
_EQUIVALENT = re.compile(r"(?<![A-Za-z])([munpk]?)eq(?![A-Za-z])")
_lock = threading.Lock()


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    table = yaml.safe_load(resources.files("services.clinical").joinpath("units.yaml").read_text(encoding="utf-8"))
    return {_fold(name): ucum for ucum, names in table["spellings"].items() for name in [*names, ucum]}


def _fold(text: str) -> str:
    return "".join(text.split()).replace("μ", "µ").casefold()


@lru_cache(maxsize=1)
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@lru_cache(maxsize=4096)
def _parse(ucum: str) -> Any:
    """A pint quantity of magnitude one (or a power of ten) for a UCUM code. Raises RefusedError `units.unknown`."""
    with _lock:
        try:
            return _registry().from_ucum(ucum)
        except Exception as error:
            raise _unknown() from error


def _unknown() -> RefusedError:
    return RefusedError(
        "units.unknown",
        "the unit is neither UCUM nor a spelling that units.yaml lists",
        missing=("UCUM unit",),
        remedy="send a UCUM unit, or add the spelling to services/clinical/units.yaml",
    )


@lru_cache(maxsize=4096)
def normalise(unit: str) -> str:
    """The UCUM code for a unit as sent: itself when it is UCUM, else the code its spelling stands for.

    A listed spelling is taken before UCUM's own reading, because what senders mean by "IU/L" or "mL/min/1.73m2" is
    plain while UCUM reads it otherwise or not at all. Raises RefusedError `units.unknown`.

    >>> normalise("µmol/L"), normalise("K/uL"), normalise("mm Hg")
    ('umol/L', '10*3/uL', 'mm[Hg]')
    """
    text = unit.strip()
    known = _spellings()
    if text in known.values():
        return text
    if _fold(text) in known:
        return known[_fold(text)]
    if _ANNOTATION.fullmatch(text):
        return text
    text = text.replace("µ", "u").replace("μ", "u")
    _parse(text)
    return text


def find_analyte(analyte: str | Analyte | None = None, loinc: str | None = None) -> Analyte | None:
    """The analyte by its name in analytes.yaml or by a LOINC code; None when neither is listed."""
    if isinstance(analyte, Analyte):
        return analyte
    if analyte is not None:
        return analytes().get(analyte)
    return analyte_of([("http://loinc.org", loinc)]) if loinc else None


def convert(
    value: float, from_ucum: str, to_ucum: str, *, analyte: str | Analyte | None = None, loinc: str | None = None
) -> float:
    """`value` in `from_ucum` as a number in `to_ucum`.

    `analyte` (a name of analytes.yaml) or `loinc` allows conversion between mass and amount of substance through the
    molar mass, between equivalents and moles through the valence, and between IFCC and NGSP haemoglobin A1c.
    Raises RefusedError `units.unknown`, `units.incompatible` or `units.not_finite`.

    >>> round(convert(88.4, "umol/L", "mg/dL", analyte="creatinine"), 3)
    1.0
    """
    if not math.isfinite(value):
        raise RefusedError("units.not_finite", "the value is not a finite number", remedy="resend the value")
    source, target = normalise(from_ucum), normalise(to_ucum)
    if source == target:
        return value
    slope, intercept = _affine(source, target, find_analyte(analyte, loinc))
    # Twelve digits: what is below is noise of the factors, and would make equal values differ.
    return float(f"{slope * value + intercept:.12g}")


@lru_cache(maxsize=4096)
def _affine(source: str, target: str, analyte: Analyte | None) -> tuple[float, float]:
    """(slope, intercept) of the conversion: temperatures and haemoglobin A1c have an intercept, the rest do not."""
    if analyte is not None and analyte.affine is not None:
        special = analyte.affine
        if source == special.source_unit and target == analyte.unit:
            return special.slope, special.intercept
        if target == special.source_unit and source == analyte.unit:
            return 1 / special.slope, -special.intercept / special.slope
    if analyte is not None and analyte.arbitrary_unit:
        source, target = _ARBITRARY.sub("U", source), _ARBITRARY.sub("U", target)
    factor = 1.0
    if _EQUIVALENT.search(source) or _EQUIVALENT.search(target):
        if analyte is None or analyte.valence is None:
            raise _incompatible()
        factor = analyte.valence ** (bool(_EQUIVALENT.search(target)) - bool(_EQUIVALENT.search(source)))
        source, target = _EQUIVALENT.sub(r"\1mol", source), _EQUIVALENT.sub(r"\1mol", target)
    start, end = _parse(source), _parse(target)
    with _lock:
        zero, one = _through(start, end, 0.0, analyte), _through(start, end, 1.0, analyte)
    return (one - zero) * factor, zero


def _through(start: Any, end: Any, value: float, analyte: Analyte | None) -> float:
    import pint

    registry = _registry()
    quantity = _scaled(start, value)
    dimensions = [quantity.dimensionality, end.dimensionality]
    try:
        if dimensions[0] == dimensions[1]:
            return float(quantity.to(end.units).magnitude / end.magnitude)
        if analyte is not None and analyte.molar_mass is not None:
            mass = registry.Quantity(analyte.molar_mass, "g/mol")
            for factor in (mass, 1 / mass):
                if (quantity * factor).dimensionality == dimensions[1]:
                    return float((quantity * factor).to(end.units).magnitude / end.magnitude)
    except pint.errors.PintError as error:
        raise _incompatible() from error
    raise _incompatible()


def _scaled(unit: Any, value: float) -> Any:
    # Offset units (degrees Celsius) must be made from a number and a unit, not by multiplication.
    return _registry().Quantity(value * unit.magnitude, unit.units)


def _incompatible() -> RefusedError:
    return RefusedError(
        "units.incompatible",
        "the two units measure different things, and no molar mass of the analyte joins them",
        remedy="check the unit at its source, or add the analyte's molar mass to analytes.yaml",
    )
