"""gRPC: fitted outcome models and the glioma twin, from what the caller gives; images come and go by reference."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
from google.rpc import code_pb2, status_pb2
from osler.common.v1 import common_pb2
from osler.twin.v1 import outcomes_pb2 as pb
from osler.twin.v1 import outcomes_pb2_grpc

from services.clinical.provenance import input_ref, provenance
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError
from services.platform.rpc_errors import AbortedCallError
from services.twin import glioma_case, nifti, survival
from services.twin.glioma_fit import Visit
from services.twin.provenance import AGENT
from services.twin.survival_pet import pet_features
from services.twin.tables import table

_PROBABILITY = "1"


class OutcomeService(outcomes_pb2_grpc.OutcomeServiceServicer):
    """`osler.twin.v1.OutcomeService`. `models`: the folder of model folders. Raises RefusedError as the calculations do."""

    def __init__(self, models: Path, blobs: BlobStore) -> None:
        self._models, self._blobs = models, blobs

    def ListOutcomeModels(  # noqa: N802 - named by the contract
        self, request: pb.ListOutcomeModelsRequest, context: Any
    ) -> pb.ListOutcomeModelsResponse:
        """Every outcome model in the folder, by name."""
        return pb.ListOutcomeModelsResponse(models=listed(self._models))

    def PredictOutcome(  # noqa: N802 - named by the contract
        self, request: pb.PredictOutcomeRequest, context: Any
    ) -> pb.PredictOutcomeResponse:
        """One patient's risk."""
        model = survival.named(self._models, request.model)
        values = {item.name: survival.in_own_unit(model, item.name, item.value, item.unit) for item in request.inputs}
        if len(values) < len(request.inputs):
            raise RefusedError("survival.contradictory_input", "an input is given twice", remedy="give each input once")
        images = self._pet(request)
        if images:
            suv, outline = (nifti.read(self._blobs.get(image)) for image in images)
            values = measured(model, suv, outline) | values
        return _outcome(model, survival.predict(model, values, list(request.horizons_days) or None), images)

    def _pet(self, request: pb.PredictOutcomeRequest) -> Sequence[common_pb2.BlobRef]:
        if request.HasField("pet") != request.HasField("outline"):
            raise RefusedError(
                "pet.no_outline", "a PET and its outline are given together or not at all", missing=["pet and outline"]
            )
        return [request.pet, request.outline] if request.HasField("pet") else []

    def SimulateGlioma(  # noqa: N802 - named by the contract
        self, request: pb.SimulateGliomaRequest, context: Any
    ) -> pb.SimulateGliomaResponse:
        """Volumes over time under each course, the density maps put into the blob store."""
        tissue, tumour = (nifti.read(self._blobs.get(ref)) for ref in (request.tissue, request.tumour))
        earlier = [self._visit(item) for item in request.earlier]
        found = glioma_case.simulate(tissue, tumour, earlier, _plan(request), _until(context))
        return _glioma(found, request, self._blobs)

    def _visit(self, item: pb.EarlierVisit) -> Visit:
        if item.WhichOneof("seen") == "tumour":
            return glioma_case.earlier_visit(item.days_before, nifti.read(self._blobs.get(item.tumour)))
        flair = item.volumes.flair_mm3 if item.volumes.HasField("flair_mm3") else None
        return Visit(-item.days_before, item.volumes.t1gd_mm3, flair)


def door(models: Path, blobs: BlobStore) -> tuple[str, Callable[[grpc.aio.Server], None]]:
    """The service's full name and what adds it to a server, as a room lists its gRPC doors."""

    def add(server: grpc.aio.Server) -> None:
        outcomes_pb2_grpc.add_OutcomeServiceServicer_to_server(OutcomeService(models, blobs), server)  # type: ignore[no-untyped-call]

    return pb.DESCRIPTOR.services_by_name["OutcomeService"].full_name, add


def measured(model: survival.OutcomeModel, suv: nifti.Volume, outline: nifti.Volume) -> dict[str, float]:
    """The model's inputs that a PET and its outline give. Raises RefusedError `twin.grids_differ`, as `pet_features` does."""
    nifti.refuse_other_grid(suv, outline, "the PET and its outline")
    known = {item.name for item in model.inputs}
    found = pet_features(suv.voxels, outline.voxels, suv.spacing_mm).as_dict()
    return {name: value for name, value in found.items() if name in known}


def listed(models: Path) -> list[pb.OutcomeModel]:
    """Outcome models under a folder of models, shipped or not, by name."""
    found = []
    for file in sorted(models.glob("*/metadata.json")):
        entry = json.loads(file.read_text(encoding="utf-8"))
        if "outcome" not in entry:
            continue
        inputs = [
            pb.OutcomeInput(**{name: item[name] for name in ("name", "label", "unit", "required")})
            for item in entry.get("inputs", ())
        ]
        known = {name: entry[name] for name in ("name", "version", "title", "outcome", "status", "reason")}
        found.append(pb.OutcomeModel(inputs=inputs, **known))
    return found


def _outcome(
    model: survival.OutcomeModel, found: survival.OutcomePrediction, images: Sequence[common_pb2.BlobRef]
) -> pb.PredictOutcomeResponse:
    risks = []
    for risk in found.risks:
        interval = common_pb2.Interval(lower=risk.lower, upper=risk.upper, level=survival.LEVEL)
        uncertainty = common_pb2.Uncertainty(interval=interval)
        quantity = common_pb2.Quantity(value=risk.value, unit=_PROBABILITY, uncertainty=uncertainty)
        risks.append(pb.OutcomeRisk(horizon_days=risk.horizon_days, risk=quantity))
    drivers = [
        pb.OutcomeDriver(
            input=driver.name,
            value=driver.value,
            contribution=driver.contribution,
            risk_if_typical=driver.risk_if_typical,
        )
        for driver in found.drivers
    ]
    return pb.PredictOutcomeResponse(
        model=found.model,
        version=found.version,
        title=model.title,
        outcome=model.outcome,
        status=found.status,
        risks=risks,
        drivers=drivers,
        cautions=found.cautions,
        provenance=provenance(
            agent=AGENT,
            method=f"{found.model}@{found.version}",
            inputs=_inputs(images),
            recorded_at=datetime.now(UTC),
            parameters={
                "coefficients_sha256": str(model.metadata["coefficients_sha256"]),
                "interval": f"{100 * survival.LEVEL:.0f} % over refits on resampled patients",
            },
            citations=[str(model.metadata["source"])] if "source" in model.metadata else [],
        ),
    )


def _inputs(refs: Sequence[common_pb2.BlobRef]) -> list[common_pb2.InputRef]:
    return [input_ref("image", ref.sha256 or "without a hash", ref.sha256) for ref in refs]


def _plan(request: pb.SimulateGliomaRequest) -> glioma_case.Plan:
    asked = request.radiotherapy
    return glioma_case.Plan(
        horizon_days=request.horizon_days or glioma_case.HORIZON_DAYS,
        radiotherapy=glioma_case.Fractions(asked.fractions, asked.dose_per_fraction_gy, asked.start_day)
        if request.HasField("radiotherapy")
        else None,
        resection_day=request.resection_day if request.HasField("resection_day") else None,
        draws=request.draws or glioma_case.DRAWS,
    )


def _until(context: Any) -> Callable[[int, int], None]:
    """A checkpoint between runs that stops the work once the caller's deadline has passed."""
    left = context.time_remaining()
    end = None if left is None else time.monotonic() + float(left)

    def check(done: int, of: int) -> None:
        if end is not None and time.monotonic() > end and done < of:
            message = f"not done within the deadline: run {done} of {of}; set a longer one, or ask for fewer draws"
            raise AbortedCallError(status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message=message))

    return check


def _glioma(
    found: glioma_case.GliomaCase, request: pb.SimulateGliomaRequest, blobs: BlobStore
) -> pb.SimulateGliomaResponse:
    data = table("glioma.yaml")
    maps = [request.tissue, request.tumour, *(item.tumour for item in request.earlier if item.HasField("tumour"))]
    result = pb.SimulateGliomaResponse(
        probability_smaller_if_treated=found.probability_smaller_if_treated,
        cautions=[
            *found.cautions,
            "A model of growth, not validated on patients; it supports a discussion and decides nothing.",
        ],
        provenance=provenance(
            agent=AGENT,
            method=data["name"],
            inputs=_inputs(maps),
            recorded_at=datetime.now(UTC),
            parameters={
                "draws": str(request.draws or glioma_case.DRAWS),
                "band": "parameters; error of outlining not in it",
            },
            citations=data["citations"],
        ),
    )
    for name, rate in found.posterior.summaries().items():
        result.rates.add(name=name, median=rate.median, lower_90=rate.lower, upper_90=rate.upper)
    for name, course in found.courses.items():
        density = blobs.put(
            nifti.write(glioma_case.density_volume(course)), nifti.MEDIA_TYPE, f"twin/glioma/{name}.nii.gz"
        )
        t1gd, flair = ([pb.VisibleVolume(**band) for band in course.bands(contrast)] for contrast in ("t1gd", "flair"))
        result.courses.add(name=name, t1gd=t1gd, flair=flair, density=density)
    return result
