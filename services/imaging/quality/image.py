"""Checks of the pixels of a volume: noise, motion, cut-off anatomy, the wrong region."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.imaging.quality import motion, noise, truncation
from services.imaging.quality.verdict import Evidence, Issue, Verdict, graded, issue, rules

_PHASE_AXIS = {"COL": 0, "COLUMN": 0, "ROW": 1}


def _limits(name: str) -> dict[str, Any]:
    found: dict[str, Any] = rules()["thresholds"][name]
    return found


def blank_slices(evidence: Evidence) -> list[Issue]:
    """Slices of one value between slices that show something."""
    assert evidence.array is not None
    empty = truncation.blank_slices(evidence.array)
    if not empty:
        return []
    places = ", ".join(str(k) for k in empty[:5])
    return [issue("blank_slices", f"{len(empty)} slice(s) inside the stack show nothing: {places}")]


def ct_noise(evidence: Evidence) -> list[Issue]:
    """Noise in the patient's soft tissue."""
    limits, spacing = _limits("ct_noise_hu"), evidence.spacing_mm
    if evidence.modality != "CT" or evidence.array is None or spacing is None:
        return []
    found = noise.ct_noise_hu(
        evidence.array,
        spacing[:2],
        tissue_hu=tuple(limits["tissue_hu"]),
        window_mm=limits["window_mm"],
        slices=limits["slices"],
    )
    if found is None or graded(found, limits) is Verdict.ACCEPT:
        return []
    message = f"noise in soft tissue is {found:.0f} HU (more than {limits['warn']:g} HU)"
    return [issue("noise", message, graded(found, limits))]


def mr_noise(evidence: Evidence) -> list[Issue]:
    """Signal-to-noise ratio in the bright tissue."""
    limits = _limits("mr_noise")
    if evidence.modality != "MR" or evidence.array is None:
        return []
    found = noise.signal_to_noise(evidence.array, slices=limits["slices"])
    # The share of noise in the signal, so that more is worse.
    if found is None or graded(1 / found, limits) is Verdict.ACCEPT:
        return []
    return [issue("noise", f"signal is only {found:.1f} times the noise", graded(1 / found, limits))]


def ghosting(evidence: Evidence) -> list[Issue]:
    """Ghosts along the recorded phase-encoding direction."""
    limits = _limits("ghosting")
    axis = _PHASE_AXIS.get(str(evidence.first.get("InPlanePhaseEncodingDirection", "") or "").upper())
    if evidence.modality != "MR" or evidence.array is None or axis is None:
        return []
    found = motion.ghosting_ratio(evidence.array, axis, slices=limits["slices"])
    if found is None or graded(found, limits) is Verdict.ACCEPT:
        return []
    message = f"ghosts along the phase-encoding direction carry {found:.0%} of the signal"
    return [issue("motion", message, graded(found, limits))]


def slice_jump(evidence: Evidence) -> list[Issue]:
    """A sideways step of the whole body between two slices."""
    limits, spacing = _limits("slice_jump_mm"), evidence.spacing_mm
    if evidence.array is None or spacing is None:
        return []
    found = motion.largest_jump(evidence.array, spacing, size=limits["matrix"])
    if found is None:
        return []
    # Between slices that lie far apart the patient's own shape moves, too.
    shape = max(1.0, limits["spacing_multiple"] * spacing[2] / limits["warn"])
    verdict = graded(found.mm / shape, limits)
    if verdict is Verdict.ACCEPT:
        return []
    message = f"the body steps {found.mm:.0f} mm sideways between slices {found.after} and {found.after + 1}"
    return [issue("motion", message, verdict)]


def field_of_view(evidence: Evidence) -> list[Issue]:
    """A patient wider than the field of view of a CT, unless the reconstruction was targeted on purpose."""
    limits, spacing = _limits("field_of_view"), evidence.spacing_mm
    if (
        evidence.modality != "CT"
        or evidence.array is None
        or spacing is None
        or _is_targeted(evidence, spacing, limits)
    ):
        return []
    share = truncation.border_tissue_share(
        evidence.array, tissue_hu=limits["tissue_hu"], padding_hu=limits["padding_hu"]
    )
    if graded(share, limits) is Verdict.ACCEPT:
        return []
    message = f"the patient reaches over {share:.0%} of the edge of the field of view"
    return [issue("truncated_field_of_view", message, graded(share, limits))]


def _is_targeted(evidence: Evidence, spacing: tuple[float, float, float], limits: dict[str, Any]) -> bool:
    """Whether the image shows less than was scanned, so that its edge is no limit of the scan."""
    shown = max(spacing[0] * int(evidence.first.get("Columns", 0)), spacing[1] * int(evidence.first.get("Rows", 0)))
    try:
        scanned = float(evidence.first.get("DataCollectionDiameter"))
    except (TypeError, ValueError):
        scanned = limits["usual_scanned_mm"]
    return bool(shown < limits["full_share"] * scanned)


def vertex(evidence: Evidence) -> list[Issue]:
    """A head that ends below the vertex."""
    limits, affine = _limits("vertex"), evidence.stack.affine_lps
    region = evidence.text("BodyPartExamined")
    if evidence.array is None or affine is None or evidence.modality == "PT" or region not in limits["body_parts"]:
        return []
    upward = float(affine[2, 2] / np.linalg.norm(affine[:3, 2]))
    if abs(upward) < limits["axial_cosine"]:
        return []
    share = truncation.end_share(evidence.array, top_last=upward > 0)
    if share is None or graded(share, limits) is Verdict.ACCEPT:
        return []
    message = f"the uppermost slice still shows {share:.0%} of the head's largest area: the vertex is cut off"
    return [issue("truncated_anatomy", message, graded(share, limits))]


def chest_without_lung(evidence: Evidence) -> list[Issue]:
    """A CT said to show the chest that shows no lung."""
    limits = _limits("chest")
    if (
        evidence.modality != "CT"
        or evidence.array is None
        or evidence.text("BodyPartExamined") not in limits["body_parts"]
    ):
        return []
    share = truncation.lung_share(
        evidence.array,
        tissue_hu=limits["tissue_hu"],
        lung_hu=tuple(limits["lung_hu"]),
        padding_hu=limits["padding_hu"],
    )
    if share is None or share >= limits["least_share"]:
        return []
    return [
        issue("wrong_region", f"the series is said to show the chest, but lung fills {share:.1%} of the body in it")
    ]
