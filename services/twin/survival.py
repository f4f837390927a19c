"""Outcome models fitted by `pipelines/survival`: the risk of an event by a horizon, with what is not known about it.

A model is a folder: `metadata.json` (inputs, ranges, status, where it comes from) and `coefficients.npz` (Cox or logistic
regression with its bootstrap refits, read without pickle, hash checked). Risks are 0..1, times days.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.clinical import units
from services.platform.errors import ConfigurationError, RefusedError

Floats = NDArray[np.float64]
Status = Literal["internally validated", "exploratory"]
LEVEL = 0.90


@dataclass(frozen=True)
class Input:
    """One input: `log` inputs enter as logarithms; `validated` is the range of the training patients.

    Outside `plausible` a value is refused as a likely unit error. `quantiles`: evenly spaced quantiles (0 to 1) of the
    training patients, which stand in for a missing value that is not `required`.
    """

    name: str
    label: str
    unit: str
    log: bool
    centre: float
    scale: float
    required: bool
    validated: tuple[float, float]
    plausible: tuple[float, float]
    quantiles: Floats

    def standardised(self, value: Floats | float) -> Floats:
        raw = np.asarray(value, dtype=np.float64)
        return (np.log(raw) if self.log else raw) / self.scale - self.centre / self.scale


@dataclass(frozen=True)
class OutcomeModel:
    """Row 0 of `coefficients` (fits, inputs) and `baseline` is the fit; the others are refits on resampled patients.

    `baseline`: cumulative hazard at `times_days` (fits, times) of a Cox model; intercepts (fits, 1) of a logistic one,
    whose `times_days` are empty because its outcome has no date.
    """

    name: str
    version: str
    title: str
    outcome: str
    status: Status
    inputs: tuple[Input, ...]
    coefficients: Floats
    baseline: Floats
    times_days: Floats
    horizons_days: tuple[float, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Risk:
    """Risk of the outcome by `horizon_days` (None: within the follow-up of the training patients), with its 90 % interval."""

    horizon_days: float | None
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Driver:
    """What one input did: its part of the log hazard (or log odds) against the mean patient, and the risk at the main horizon
    had it been the median of the training patients."""

    name: str
    value: float
    contribution: float
    risk_if_typical: float


@dataclass(frozen=True)
class OutcomePrediction:
    """Risks at each horizon, what drove them (largest first), and what to bear in mind."""

    model: str
    version: str
    status: Status
    risks: tuple[Risk, ...]
    drivers: tuple[Driver, ...]
    cautions: tuple[str, ...]


def load(folder: Path) -> OutcomeModel:
    """The model in `folder`. Raises ConfigurationError when it is absent, damaged or not shipped."""
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        if metadata["status"] == "not shipped":
            raise ConfigurationError(f"{folder.name}: the data did not allow a model; see {folder.name}/docs/README.md")
        content = (folder / "coefficients.npz").read_bytes()
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ConfigurationError(f"outcome model {folder.name}: cannot read it: {error!r}") from error
    if hashlib.sha256(content).hexdigest() != metadata["coefficients_sha256"]:
        raise ConfigurationError(
            f"outcome model {folder.name}: coefficients.npz is not the file that metadata.json names"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        coefficients, baseline, times = (arrays[name] for name in ("coefficients", "baseline", "times_days"))
    return OutcomeModel(
        name=metadata["name"],
        version=metadata["version"],
        title=metadata["title"],
        outcome=metadata["outcome"],
        status=metadata["status"],
        inputs=tuple(_input(entry) for entry in metadata["inputs"]),
        coefficients=coefficients,
        baseline=baseline,
        times_days=times,
        horizons_days=tuple(metadata["horizons_days"]),
        metadata=metadata,
    )


def named(models: Path, name: str) -> OutcomeModel:
    """The shipped model of that name under a folder of models.

    Raises RefusedError `survival.unknown_model`, `survival.not_shipped`; ConfigurationError when its files are damaged.
    """
    known = {file.parent.name: file for file in models.glob("*/metadata.json")}
    entries = {key: json.loads(file.read_text(encoding="utf-8")) for key, file in known.items()}
    outcome_models = {
        key: entry["status"] for key, entry in entries.items() if "outcome" in entry and "status" in entry
    }
    shipped = sorted(key for key, status in outcome_models.items() if status != "not shipped")
    if name not in outcome_models:
        raise RefusedError(
            "survival.unknown_model",
            "there is no outcome model of that name",
            remedy=f"use one of {', '.join(shipped)}",
        )
    if name not in shipped:
        raise RefusedError(
            "survival.not_shipped",
            f"the data did not allow {name}; its card says what was tried",
            remedy=f"use one of {', '.join(shipped)}",
        )
    return load(models / name)


def in_own_unit(model: OutcomeModel, name: str, value: float, unit: str) -> float:
    """The value in the input's unit; as it is where no unit is given. Raises RefusedError as `units.convert` does."""
    item = next((item for item in model.inputs if item.name == name), None)
    return value if item is None or not unit or unit == item.unit else units.convert(value, unit, item.unit)


def _input(entry: Mapping[str, Any]) -> Input:
    low, high = entry["validated"]
    least, most = entry["plausible"]
    return Input(
        **{name: entry[name] for name in ("name", "label", "unit", "log", "centre", "scale", "required")},
        validated=(low, high),
        plausible=(least, most),
        quantiles=np.asarray(entry["quantiles"], dtype=np.float64),
    )


def predict(
    model: OutcomeModel, values: Mapping[str, float], horizons_days: Sequence[float] | None = None
) -> OutcomePrediction:
    """Risks for one patient. A missing input that is not required is taken over the range of the training patients.

    The interval holds what refitting on other patients would change, and missing inputs; not the chance of the event itself.
    Raises RefusedError: `survival.unknown_input`, `survival.missing_input`, `survival.implausible_input`,
    `survival.horizon_beyond_follow_up`.
    """
    _refuse_unusable(model, values)
    horizons = _horizons(model, horizons_days)
    rows = _rows(model, values)
    risks = []
    for horizon in horizons:
        base = _baseline(model, horizon)
        refits = _risk(model, base[1:], np.einsum("fp,fp->f", model.coefficients[1:], rows))
        fitted = _risk(model, base[:1], rows @ model.coefficients[0])
        lower, upper = np.quantile(refits, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        value = float(fitted.mean())
        risks.append(Risk(horizon, value, min(float(lower), value), max(float(upper), value)))
    main = horizons[len(horizons) // 2]
    drivers = tuple(_drivers(model, values, rows, main))
    return OutcomePrediction(
        model.name, model.version, model.status, tuple(risks), drivers, tuple(_cautions(model, values))
    )


def _refuse_unusable(model: OutcomeModel, values: Mapping[str, float]) -> None:
    known = {item.name: item for item in model.inputs}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise RefusedError(
            "survival.unknown_input",
            f"{model.name} knows no {', '.join(unknown)}; its inputs are {', '.join(known)}",
        )
    missing = [item for item in model.inputs if item.required and item.name not in values]
    if missing:
        raise RefusedError(
            "survival.missing_input",
            f"{model.name} needs {', '.join(item.name for item in missing)}",
            missing=[f"{item.label} ({item.unit})" for item in missing],
        )
    for name, value in values.items():
        least, most = known[name].plausible
        if not math.isfinite(value) or not least <= value <= most:
            raise RefusedError(
                "survival.implausible_input",
                f"{name} must be between {least:g} and {most:g} {known[name].unit}",
                remedy=f"check the value and its unit: {known[name].label} is taken in {known[name].unit}",
            )


def _horizons(model: OutcomeModel, wanted: Sequence[float] | None) -> list[float | None]:
    if not len(model.times_days):
        return [None]
    chosen = list(wanted) if wanted else list(model.horizons_days)
    last = float(model.times_days[-1])
    if not all(0 < horizon <= last for horizon in chosen):
        raise RefusedError(
            "survival.horizon_beyond_follow_up",
            f"{model.name} was followed for {last:.0f} days; horizons must be between 0 and that",
        )
    return [float(horizon) for horizon in chosen]


def _rows(model: OutcomeModel, values: Mapping[str, float]) -> Floats:
    """One standardised row for each refit; missing inputs spread over their quantiles by an additive recurrence."""
    count = len(model.coefficients) - 1
    rows = np.zeros((count, len(model.inputs)))
    for column, item in enumerate(model.inputs):
        if item.name in values:
            rows[:, column] = item.standardised(float(values[item.name]))
            continue
        share = (0.5 + np.arange(count) * math.sqrt((2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)[column % 12])) % 1.0
        drawn = np.interp(share, np.linspace(0, 1, len(item.quantiles)), item.quantiles)
        rows[:, column] = item.standardised(drawn)
    return rows


def _baseline(model: OutcomeModel, horizon: float | None) -> Floats:
    if horizon is None:
        return model.baseline[:, 0]
    times = np.concatenate([[0.0], model.times_days])
    return np.array([np.interp(horizon, times, np.concatenate([[0.0], row])) for row in model.baseline])


def _risk(model: OutcomeModel, base: Floats, predictor: Floats) -> Floats:
    if len(model.times_days):
        return -np.expm1(-base * np.exp(predictor))
    return 1.0 / (1.0 + np.exp(-(base + predictor)))


def _drivers(model: OutcomeModel, values: Mapping[str, float], rows: Floats, horizon: float | None) -> list[Driver]:
    base = _baseline(model, horizon)[:1]
    found = []
    for column, item in enumerate(model.inputs):
        if item.name not in values:
            continue
        typical = rows.copy()
        typical[:, column] = item.standardised(float(np.median(item.quantiles)))
        instead = float(_risk(model, base, typical @ model.coefficients[0]).mean())
        part = float(model.coefficients[0, column] * rows[0, column])
        found.append(Driver(item.name, float(values[item.name]), part, instead))
    return sorted(found, key=lambda driver: -abs(driver.contribution))


def _cautions(model: OutcomeModel, values: Mapping[str, float]) -> list[str]:
    found = list(model.metadata["cautions"])
    for item in model.inputs:
        low, high = item.validated
        if item.name not in values:
            found.append(f"{item.label} is missing: the interval covers its range among the training patients.")
        elif not low <= values[item.name] <= high:
            found.append(
                f"{item.label} is outside the validated range, {low:g} to {high:g} {item.unit}: the risk is an extrapolation."
            )
    return found
