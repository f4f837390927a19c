"""Lean body mass and body surface area for normalising uptake.

Sources: James, HMSO 1976; Janmahasatian, Clin Pharmacokinet 2005;44:1051; Du Bois, Arch Intern Med 1916;17:863.
"""

from __future__ import annotations


def lean_body_mass_james_kg(weight_kg: float, height_m: float, sex: str, *, multiplier: float = 120.0) -> float:
    """James lean body mass in kg. `sex`: "M" or "F"; `multiplier` 120, or 128 as some vendors write it (men).

    >>> round(lean_body_mass_james_kg(75, 1.85, "M"), 5)
    62.77757
    """
    ratio = (weight_kg / (height_m * 100)) ** 2
    return 1.10 * weight_kg - multiplier * ratio if sex == "M" else 1.07 * weight_kg - 148.0 * ratio


def lean_body_mass_janmahasatian_kg(weight_kg: float, height_m: float, sex: str) -> float:
    """Janmahasatian lean body mass in kg, which stays sound in obesity. `sex`: "M" or "F"."""
    body_mass_index = weight_kg / height_m**2
    offset, slope = (6680.0, 216.0) if sex == "M" else (8780.0, 244.0)
    return 9270.0 * weight_kg / (offset + slope * body_mass_index)


def body_surface_area_cm2(weight_kg: float, height_m: float) -> float:
    """Du Bois body surface area in cm2."""
    return float(71.84 * weight_kg**0.425 * (height_m * 100) ** 0.725)
