"""The demo patient: PET/CT and MR at two visits, with known lesions, misalignment and response."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cohort import acquisition, chart, dicom
from pipelines.cohort.anatomy import Lesion, Pose

# The imaginary hospital that gives out the record numbers.
ISSUER = str(dicom.uid("demo-hospital"))
PERSON = dicom.Person("SYNTHETIC^DEMO", "DEMO-0001", ISSUER, "19650214", "F", 74.0, 1.66)

# name, site, centre in mm (body frame), (diameter mm, SUV) at each visit
_LESIONS: list[tuple[str, str, tuple[float, float, float], tuple[float, float], tuple[float, float], float, float]] = [
    ("Lesion 1 liver", "liver", (-84.0, -12.0, -8.0), (34.0, 9.5), (24.0, 5.0), 38.0, 290.0),
    ("Lesion 2 lung", "lung", (78.0, -18.0, 120.0), (22.0, 7.0), (14.0, 3.4), 30.0, 330.0),
    ("Lesion 3 node", "lymph node", (34.0, 44.0, -104.0), (27.0, 8.0), (17.0, 4.2), 36.0, 320.0),
]
# 3 cm sphere in the right liver lobe, away from the metastasis (PERCIST 1.0)
LIVER_REFERENCE = Lesion("Liver reference", "reference", (-50.0, 4.0, 14.0), 30.0, 2.2, 58.0, 430.0)


def visits() -> tuple[dicom.Visit, dicom.Visit]:
    """Baseline, and twelve weeks later after six cycles of chemotherapy."""
    first, second = (
        tuple(Lesion(name, site, centre, size, suv, hu, t1) for name, site, centre, (size, suv), hu, t1 in rows)
        for rows in (
            [(n, s, c, before, hu, t1) for n, s, c, before, _, hu, t1 in _LESIONS],
            [(n, s, c, after, hu, t1) for n, s, c, _, after, hu, t1 in _LESIONS],
        )
    )
    return (
        dicom.Visit(
            "visit-1",
            datetime(2026, 6, 2, 9, 0, tzinfo=UTC),
            first,
            Pose(),
            Pose.of((2.0, -3.0, 5.0), (8.0, -6.0, 9.0)),
        ),
        dicom.Visit(
            "visit-2",
            datetime(2026, 8, 25, 9, 0, tzinfo=UTC),
            second,
            Pose.of((1.5, 2.0, -3.0), (-6.0, 4.0, 7.0)),
            Pose.of((-2.5, 1.0, 4.0), (5.0, 9.0, -8.0)),
        ),
    )


def _write_visit(visit: dicom.Visit, folder: Path, seed: int) -> int:
    lesions = list(visit.lesions)
    at = visit.start
    ct = dicom.image_series(
        PERSON, visit, "CT", "CT low dose", acquisition.ct(lesions, visit.pose, seed), acquisition.CT_GRID, at
    )
    activity = dicom.suv_to_bqml(acquisition.pet(lesions, visit.pose, seed + 1), PERSON.weight_kg)
    pet = dicom.image_series(PERSON, visit, "PT", "PET FDG", activity, acquisition.PET_GRID, at + timedelta(minutes=5))
    mr = dicom.image_series(
        PERSON,
        visit,
        "MR",
        "T1 axial",
        acquisition.mr_t1(lesions, visit.mr_pose, seed + 2),
        acquisition.MR_GRID,
        at + timedelta(minutes=40),
    )
    contours = dicom.structure_set(
        PERSON, visit, ct, acquisition.CT_GRID, [*lesions, LIVER_REFERENCE], at + timedelta(hours=2)
    )
    written = [
        dicom.save(s, folder / name) for s, name in ((ct, "CT"), (pet, "PET"), (mr, "MR"), ([contours], "RTSTRUCT"))
    ]
    return sum(map(len, written))


def _sphere_volume_ml(diameter_mm: float) -> float:
    return float(np.pi / 6 * diameter_mm**3 / 1000)


def ground_truth() -> dict[str, Any]:
    """What is true of the patient: lesions, transforms (fixed to moving, LPS mm, row-major 4x4) and response."""
    baseline, follow_up = visits()
    sums = [sum(lesion.diameter_mm for lesion in v.lesions) for v in (baseline, follow_up)]
    return {
        "synthetic": True,
        "patient": {"issuer": PERSON.issuer, "record_number": PERSON.record_number},
        "visits": [
            {
                "name": v.name,
                "study_instance_uid": dicom.uid(PERSON.record_number, v.name),
                "start": v.start.isoformat(),
                "lesions": [
                    {
                        "name": x.name,
                        "diameter_mm": x.diameter_mm,
                        "suv": x.suv,
                        "volume_ml": _sphere_volume_ml(x.diameter_mm),
                    }
                    for x in v.lesions
                ],
                "ct_to_pet": np.eye(4).ravel().tolist(),
                "ct_to_mr": v.pose.fixed_to_moving(v.mr_pose).ravel().tolist(),
            }
            for v in (baseline, follow_up)
        ],
        "follow_up_ct_to_baseline_ct": follow_up.pose.fixed_to_moving(baseline.pose).ravel().tolist(),
        "response": {
            "recist_sum_change_percent": (sums[1] / sums[0] - 1) * 100,
            "hottest_lesion_suv_change_percent": (follow_up.lesions[0].suv / baseline.lesions[0].suv - 1) * 100,
        },
    }


def write(folder: Path, on_step: Callable[[str], None] = lambda step: None) -> dict[str, Any]:
    """Writes `dicom/`, `fhir/bundle.json`, `hl7/*.hl7` and `truth.json` under `folder`; returns the ground truth."""
    for n, visit in enumerate(visits()):
        on_step(f"images of {visit.name}")
        _write_visit(visit, folder / "dicom" / visit.name, seed=100 * (n + 1))
    on_step("chart and laboratory messages")
    (folder / "fhir").mkdir(parents=True, exist_ok=True)
    (folder / "fhir" / "bundle.json").write_text(json.dumps(chart.fhir_bundle(PERSON), indent=1), encoding="utf-8")
    (folder / "hl7").mkdir(parents=True, exist_ok=True)
    for n, message in enumerate(chart.hl7_messages(PERSON)):
        (folder / "hl7" / f"{n:02d}.hl7").write_text(message, encoding="utf-8", newline="")
    truth = ground_truth()
    (folder / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
    return truth
