"""Requests about one tumour: whose measurements, which courses of treatment, and the forecasts that answer.

Every door (gRPC, command line, library) comes through these functions, so it gets the same answer for the same seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from osler.twin.v1 import twin_pb2

from services.clinical import units
from services.clinical.refusals import from_refusal
from services.platform.errors import RefusedError
from services.twin import forecasts, growth
from services.twin.forecasts import Observed
from services.twin.growth_course import Phase
from services.twin.growth_population import ANY_DISEASE
from services.twin.provenance import Source
from services.twin.snapshot import BurdenPoint
from services.twin.tables import table

#: Patient key -> the latest predictions and the SHA-256 of their snapshot.
Find = Callable[[str], tuple[twin_pb2.PatientPredictions, str]]
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)


def predict(request: twin_pb2.PredictRequest, find: Find, now: datetime) -> twin_pb2.PredictResponse:
    """The course under the present treatment. One measurement is answered with the population's course.

    Raises RefusedError: see `observe`, `growth.fit`; `growth.imaging_before_last_measurement`.
    """
    observed = observe(request.subject, find, now)
    posterior = forecasts.fit(observed, request.seed or 1)
    result = forecasts.project(observed, posterior, observed.horizon(request.horizon_days), (), _seed(request.seed))
    if request.HasField("planned_imaging"):
        planned = request.planned_imaging.ToDatetime(UTC)
        if planned <= observed.points[-1].at:
            raise RefusedError(
                "growth.imaging_before_last_measurement",
                "the planned scan is not after the last measurement",
                remedy="give the day of the next scan",
            )
        forecasts.add_imaging_values(result, observed, posterior, planned)
    if request.explain:
        forecasts.add_drivers(result, observed, posterior)
    return twin_pb2.PredictResponse(forecast=result)


def simulate_courses(
    request: twin_pb2.SimulateCoursesRequest, find: Find, now: datetime
) -> Iterator[twin_pb2.SimulateCoursesResponse]:
    """One forecast for each course, as soon as it is ready. Raises RefusedError as `predict` and `phases` do."""
    observed = observe(request.subject, find, now)
    seed = request.seed or 1
    posterior = forecasts.fit(observed, seed)
    changes = [phases(course, observed, posterior) for course in request.courses]
    horizon = observed.horizon(request.horizon_days)
    for course, change in zip(request.courses, changes, strict=True):
        said = _seed(seed) | {"course": in_words(course)}
        yield twin_pb2.SimulateCoursesResponse(
            course=course.name, forecast=forecasts.project(observed, posterior, horizon, change, said)
        )


def _seed(seed: int) -> dict[str, str]:
    return {"seed": str(seed or 1)}


def in_words(course: twin_pb2.Course) -> str:
    """A course on one line, for provenance: "own 0 from 2024-07-15 with folfox6"."""
    parts = [
        f"own {phase.own_effect:g} from {phase.start.ToDatetime(UTC):%Y-%m-%d}"
        + (f" with {phase.added_regimen}" if phase.added_regimen else "")
        for phase in course.phases
    ]
    return "; ".join(parts) or "as it is"


def observe(subject: twin_pb2.Subject, find: Find, now: datetime) -> Observed:
    """The measurements that a request speaks of.

    Raises RefusedError: `growth.unknown_quantity`, `growth.unknown_disease`, `growth.unknown_regimen`,
    `growth.unknown_unit`, `growth.implausible_size`, `growth.no_measurement`, `growth.lesions_unconfirmed`,
    `growth.future_measurement`, and `growth.fit`'s for measurements out of order, duplicated or negative.
    """
    disease = subject.disease or ANY_DISEASE
    if subject.WhichOneof("measured") == "series":
        quantity = _quantity(subject.quantity or "sum_longest_diameters")
        growth.population(quantity, disease, subject.regimen)
        points = tuple(_point(item, quantity, now) for item in subject.series.measurements)
        digest = hashlib.sha256(subject.series.SerializeToString(deterministic=True)).hexdigest()
        observed = Observed(quantity, points, Source("", 0, digest, now, "tumour-series"), disease, subject.regimen)
    else:
        observed = _known(subject, disease, find, now)
        growth.population(observed.quantity, disease, subject.regimen)
    _refuse_unusable(observed)
    return observed


def _known(subject: twin_pb2.Subject, disease: str, find: Find, now: datetime) -> Observed:
    predictions, sha256 = find(subject.patient_key)
    wanted = [item for item in predictions.forecasts if item.observed]
    if subject.quantity:
        quantity = _quantity(subject.quantity)
        wanted = [item for item in wanted if forecasts.quantity_of(item) == quantity]
    if not wanted:
        raise RefusedError(
            "growth.no_measurement",
            "no tumour of this patient was measured in this quantity",
            missing=["a measurement of the tumour"],
            remedy="measure the lesions at a visit",
        )
    chosen = next((item for item in wanted if item.curve), wanted[0])
    if chosen.refusal.reason == "growth.lesions_unconfirmed":
        raise from_refusal(chosen.refusal)
    source = Source(predictions.patient_key, predictions.snapshot_revision, sha256, now)
    points = forecasts.observed_points(chosen)
    return Observed(forecasts.quantity_of(chosen), points, source, disease, subject.regimen)


def _quantity(name: str) -> growth.Quantity:
    for quantity in growth.QUANTITIES:
        if quantity == name:
            return quantity
    raise RefusedError(
        "growth.unknown_quantity",
        "the tumour twin does not follow this quantity",
        remedy=f"use one of {', '.join(growth.QUANTITIES)}",
        subject=name[:64],
    )


def _point(item: twin_pb2.Measurement, quantity: growth.Quantity, now: datetime) -> BurdenPoint:
    entry = table("growth.yaml")["quantities"][quantity]
    if not np.isfinite(item.value):
        raise RefusedError("growth.not_a_number", "a measurement is not a finite number")
    try:
        value = units.convert(item.value, item.unit, entry["unit"]) if item.unit else item.value
    except RefusedError as refusal:
        raise RefusedError(
            "growth.unknown_unit",
            f"a measurement's unit cannot be read as {entry['unit']}",
            remedy=f"give the value in {entry['unit']}, or in a UCUM unit of the same kind",
        ) from refusal
    if value > float(entry["largest"]):
        raise RefusedError(
            "growth.implausible_size",
            f"a measurement is larger than {entry['largest']:g} {entry['unit']}",
            remedy="check the value and its unit",
        )
    at = item.at.ToDatetime(UTC)
    if at > now:
        raise RefusedError("growth.future_measurement", "a measurement lies in the future", remedy="check its date")
    return BurdenPoint(at, value, ())


def _refuse_unusable(observed: Observed) -> None:
    days = np.array([observed.day(point.at) for point in observed.points])
    sizes = np.array([point.value for point in observed.points])
    growth.refuse_unusable(days, sizes, growth.population(observed.quantity, observed.disease, observed.regimen))


def phases(course: twin_pb2.Course, observed: Observed, posterior: growth.Posterior) -> list[Phase]:
    """What a course changes, with the kill rate of each added regimen drawn for every parameter set of the posterior.

    The same regimen has the same draws in every course, so courses can be compared. Raises RefusedError:
    `growth.change_before_last_measurement`, `growth.phases_out_of_order`, `growth.unknown_regimen`.
    """
    result: list[Phase] = []
    for phase in course.phases:
        start = phase.start.ToDatetime(UTC)
        forecasts.refuse_early_change(observed, start)
        day = observed.day(start)
        if result and day <= result[-1].start_day:
            raise RefusedError(
                "growth.phases_out_of_order",
                "the phases of a course must start one after the other",
                remedy="give the phases in the order of their start",
            )
        result.append(_phase(day, phase, observed, posterior))
    return result


def _phase(day: float, phase: twin_pb2.Phase, observed: Observed, posterior: growth.Posterior) -> Phase:
    if not phase.added_regimen:
        return Phase(day, phase.own_effect)
    prior = growth.population(observed.quantity, observed.disease, phase.added_regimen)
    name = int.from_bytes(hashlib.sha256(phase.added_regimen.encode()).digest()[:4], "big")
    z = np.random.default_rng([posterior.seed, 3, name]).standard_normal((2, growth.DRAWS))
    stein = posterior.rates.stein
    kill = np.where(stein, prior.ln_d_mean + prior.ln_d_sd * z[0], prior.ln_kd_mean + prior.ln_kd_sd * z[0])
    fade = prior.ln_lambda_mean + prior.ln_lambda_sd * z[1]
    return Phase(day, phase.own_effect, np.exp(kill), np.exp(fade))


def cautions(courses: Sequence[twin_pb2.Course]) -> list[str]:
    """What to bear in mind when these courses are compared."""
    found = ["Only the tumour's size is compared: no toxicity, survival or wish of the patient enters."]
    if any(phase.added_regimen for course in courses for phase in course.phases):
        found.append(
            "Another regimen is taken to act as on patients who had none before, and independently of the first one's "
            "effect; after progression it may do less."
        )
    return found
