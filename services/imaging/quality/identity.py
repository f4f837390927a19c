"""Checks of what could harm the wrong side or the wrong person: laterality, and text burned into the pixels."""

from __future__ import annotations

import re

import numpy as np

from services.imaging.quality import burned_in
from services.imaging.quality.verdict import Evidence, Issue, issue, rules

_SIDES = {"L": "left", "R": "right"}


def _tagged(evidence: Evidence) -> dict[str, str]:
    """Sides that attributes record, by attribute."""
    found = {}
    for tag, keyword in (
        ("(0020,0060)", "Laterality"),
        ("(0020,0062)", "ImageLaterality"),
        ("(0020,9072)", "FrameLaterality"),
    ):
        sides = {str(dataset.get(keyword, "") or "").upper() for dataset in evidence.datasets} & set(_SIDES)
        if len(sides) == 1:
            found[f"{tag} {keyword}"] = sides.pop()
        elif len(sides) == 2:
            found[f"{tag} {keyword} of one image"], found[f"{tag} {keyword} of another"] = "L", "R"
    codes = rules()["laterality"]["modifier_codes"]
    for region in evidence.first.get("AnatomicRegionSequence") or []:
        for modifier in region.get("AnatomicRegionModifierSequence") or []:
            side = codes.get(str(modifier.get("CodeValue", "")))
            if side:
                found["(0008,2220) AnatomicRegionModifierSequence"] = side
    return found


def _told(evidence: Evidence) -> str:
    """The one side that descriptions mention, or ""."""
    words = rules()["laterality"]["words"]
    found = set()
    for text in (evidence.text(keyword) for keyword in ("SeriesDescription", "ProtocolName", "StudyDescription")):
        sides = {side for side in _SIDES if re.search(rf"(?<![A-Z])({'|'.join(words[side])})(?![A-Z])", text)}
        if len(sides) == 1:
            found |= sides
    return found.pop() if len(found) == 1 else ""


def laterality_tags(evidence: Evidence) -> list[Issue]:
    """Attributes that record both sides."""
    tags = _tagged(evidence)
    if len(set(tags.values())) < 2:
        return []
    stated = ", ".join(f"{name} says {_SIDES[side]}" for name, side in sorted(tags.items()))
    return [issue("laterality_conflict", f"the images record both sides: {stated}")]


def laterality_text(evidence: Evidence) -> list[Issue]:
    """A recorded side that the description contradicts."""
    tags, told = _tagged(evidence), _told(evidence)
    if len(set(tags.values())) != 1 or not told or told in tags.values():
        return []
    name, side = next(iter(tags.items()))
    return [issue("laterality_conflict", f"{name} says {_SIDES[side]}, the description says {_SIDES[told]}")]


def laterality_position(evidence: Evidence) -> list[Issue]:
    """A side, recorded or described, and a small volume that lies on the other side of the isocentre."""
    sides = set(_tagged(evidence).values()) or ({_told(evidence)} - {""})
    if len(sides) != 1 or evidence.stack.affine_lps is None or not evidence.stack.frames:
        return []
    rule = rules()["laterality"]["position"]
    columns, rows = int(evidence.first.get("Columns", 0)), int(evidence.first.get("Rows", 0))
    ends = np.array(
        [[i, j, k, 1] for i in (0, columns - 1) for j in (0, rows - 1) for k in (0, len(evidence.stack.frames) - 1)]
    )
    across = (evidence.stack.affine_lps @ ends.T)[0]
    side, centre = sides.pop(), float(across.min() + across.max()) / 2
    # In LPS, x grows to the patient's left. Feet-first and prone scans are covered: the coordinates are the patient's.
    lies = "L" if centre > 0 else "R"
    if np.ptp(across) > rule["widest_mm"] or abs(centre) < rule["off_centre_mm"] or lies == side:
        return []
    message = (
        f"the images are marked {_SIDES[side]}, but lie {abs(centre):.0f} mm to the patient's {_SIDES[lies]} "
        "of the isocentre"
    )
    return [issue("laterality_position", message)]


def burned_in_tag(evidence: Evidence) -> list[Issue]:
    """The sender says that text is burned in."""
    if not any(str(dataset.get("BurnedInAnnotation", "") or "").upper() == "YES" for dataset in evidence.datasets):
        return []
    return [issue("burned_in_text", "(0028,0301) BurnedInAnnotation is YES")]


def burned_in_stack(evidence: Evidence) -> list[Issue]:
    """Text that stands still through all slices."""
    assert evidence.array is not None
    return _burned(burned_in.text_in_stack(evidence.array, _glyphs()))


def burned_in_picture(evidence: Evidence) -> list[Issue]:
    """Text drawn at the brightest or darkest value of a picture."""
    assert evidence.array is not None
    return _burned(max(burned_in.text_in_picture(plane, _glyphs()) for plane in evidence.array))


def _glyphs() -> burned_in.Glyphs:
    rule = rules()["thresholds"]["burned_in"]
    low, high = rule["glyph_px"]
    return burned_in.Glyphs(low, high, rule["least_in_line"])


def _burned(count: int) -> list[Issue]:
    if not count:
        return []
    return [issue("burned_in_text", f"a line of about {count} characters is drawn into the pixels")]
