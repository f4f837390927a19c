"""Validation of the heart twin: the solver against what must hold of any circulation, and virtual patients recovered.

No public set of patients measured before and under an intervention is part of this: what is shown is that beats repeat
themselves and keep their blood, and how often the intervals hold the truth when the model holds; not that patients follow it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.platform.errors import RefusedError
from services.twin.heart.circulation import solve
from services.twin.heart.haemodynamics import summarise
from services.twin.heart.parameters import Intervention, changed, reference
from services.twin.heart.twin import compare, fit, free_parameters, vary
from services.twin.tables import table
from services.twin.validation import Estimate, coverage
from services.twin.validation_report import Report, Section

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
_MEASURED = ("systolic_bp_mmhg", "diastolic_bp_mmhg", "ejection_fraction", "lv_end_diastolic_ml")
_RATES = (55.0, 95.0)
_CHANGE = Intervention(afterload=0.8)
_EFFECTS = ("cardiac_output_l_min", "systolic_bp_mmhg", "ejection_fraction")
_SOUND_ML = 1e-3
_VARIANTS = (
    Intervention(),
    Intervention(afterload=1.6),
    Intervention(contractility=0.5),
    Intervention(preload_ml=300.0),
    Intervention(heart_rate_per_min=120.0),
)


def soundness() -> list[dict[str, Any]]:
    """For the reference adult under each of five changes: how far a beat is from repeating itself, and what blood it loses."""
    rows = []
    for variant in _VARIANTS:
        circulation = changed(reference(), variant)
        beat = solve(circulation)
        name = ", ".join(
            f"{key} {value:g}"
            for key, value in vars(variant).items()
            if isinstance(value, float) and value not in (0.0, 1.0)
        )
        blood = beat.states @ beat.volume_weights
        rows.append(
            {
                "heart": name or "reference adult",
                "beats until periodic": beat.beats,
                "largest change over the beat": float(np.abs(beat.states[-1] - beat.states[0]).max()),
                "largest change of the blood volume, mL": float(np.abs(blood - blood[0]).max()),
            }
        )
    return rows


def recover(patients: int, seed: int = 20, progress: Progress | None = None) -> dict[str, Floats]:
    """For each quantity rows of (truth, value, lower, upper): the fitted factors, and the effects of 20 % less afterload.

    Hearts are drawn from the prior of the fit, and measured with its errors; those that cannot be measured so (a pressure
    outside the accepted range) are drawn again.
    """
    random = np.random.default_rng(seed)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    done = 0
    while done < patients:
        found = _one(random)
        if found is None:
            continue
        for name, row in found.items():
            rows.setdefault(name, []).append(row)
        done += 1
        if progress is not None:
            progress(done, patients)
    return {name: np.array(values) for name, values in rows.items()}


def _one(random: np.random.Generator) -> dict[str, tuple[float, float, float, float]] | None:
    data = table("heart/parameters.yaml")["fit"]
    spreads = np.array([data["free"][name]["sd"] for name in free_parameters()])
    ln_factors = spreads * random.standard_normal(len(spreads))
    rate = float(random.uniform(*_RATES))
    noise = random.standard_normal(len(_MEASURED))
    try:
        truth = vary(replace(reference(), heart_rate_per_min=rate), ln_factors)
        before = summarise(truth, solve(truth)).as_dict()
        changed_truth = changed(truth, _CHANGE)
        after = summarise(changed_truth, solve(changed_truth)).as_dict()
        errors = [data["targets"][name]["sd"] for name in _MEASURED]
        measured = {n: before[n] + e * z for n, e, z in zip(_MEASURED, errors, noise, strict=True)}
        twin = fit(rate, measured)
        effects = compare(twin, _CHANGE).difference
    except RefusedError:
        return None
    found = {}
    for parameter, factor in zip(twin.parameters(), np.exp(ln_factors), strict=True):
        found[parameter.name] = (float(factor), parameter.factor, parameter.lower, parameter.upper)
    for name in _EFFECTS:
        effect = effects[name]
        found[f"change of {name}"] = (after[name] - before[name], effect.value, effect.lower, effect.upper)
    return found


def report(patients: int = 100, seed: int = 20, progress: Progress | None = None) -> Report:
    """The report of the heart twin."""
    sound = soundness()
    covered: dict[str, Estimate] = {}
    rows = []
    for name, values in recover(patients, seed, progress).items():
        truth, value, lower, upper = values.T
        covered[name] = coverage(lower, upper, truth)
        spread = float(np.std(truth)) or 1.0
        rows.append(
            {
                "quantity": name,
                "coverage of the 90 % interval": str(covered[name]),
                "error over the spread of the truth": f"{float(np.sqrt(np.mean((value - truth) ** 2))) / spread:.2f}",
            }
        )
    drift = max(row["largest change over the beat"] for row in sound)
    lost = max(row["largest change of the blood volume, mL"] for row in sound)
    held = "Beats repeat themselves and keep their blood"
    held = held if max(drift, lost) <= _SOUND_ML else "THE SOLVER IS OFF"
    mean = float(np.mean([one.value for one in covered.values()]))
    verdict = (
        f"{held} (to {drift:.0e}, {lost:.0e} mL); on virtual patients 90 % intervals hold the truth in {100 * mean:.0f} %; "
        "not validated on patients"
    )
    shown = [
        {key: f"{value:.1e}" if isinstance(value, float) else value for key, value in row.items()} for row in sound
    ]
    return Report(
        "heart",
        "Heart twin (closed-loop circulation)",
        verdict,
        [
            Section("Periodicity and conservation", "States are mL, mmHg and mL/s.", shown),
            Section(
                "Virtual patients",
                f"{patients} hearts drawn from the prior of the fit, measured by cuff and echo (pressures, ejection fraction, "
                "end-diastolic volume) with error; recovered are the factors and the effect of 20 % less afterload.",
                rows,
            ),
            Section("What this does not show", (__doc__ or "").split("\n\n")[1]),
        ],
        {
            "soundness": sound,
            "virtual_patients": patients,
            "coverage_90": {name: vars(estimate) for name, estimate in covered.items()},
        },
    )
