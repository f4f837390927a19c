"""Runs that a caller asks for over gRPC: inputs from blobs, results to blobs."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import nibabel
import numpy as np
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.clinical.dicom.series import load_series, read_manifest_series
from services.clinical.provenance import input_ref, provenance
from services.clinical.volume import ImageVolume
from services.imaging.findings import AGENT, measurement_message
from services.imaging.host.contract import Card, Finding, Inputs, Kind, Map, Mask, Result
from services.imaging.host.files import lps_of, nifti_volume, slug
from services.platform.blobs import BlobStore
from services.platform.rpc import InvalidRequestError

NIFTI = "application/gzip"
_KINDS = {Kind.LEARNED: imaging_pb2.MODEL_KIND_LEARNED, Kind.ANALYSER: imaging_pb2.MODEL_KIND_ANALYSER}


def summary(card: Card, state: str) -> imaging_pb2.ModelSummary:
    """A card as the contract has it."""
    return imaging_pb2.ModelSummary(
        name=card.name,
        version=card.version,
        task=card.task,
        modalities=sorted({modality for role in card.roles for modality in role.modalities}),
        weights_sha256=card.weights_sha256,
        licence=card.licence,
        kind=_KINDS[card.kind],
        intended_use=card.intended_use,
        limits=card.limits,
        citations=card.citations,
        roles=[
            imaging_pb2.ModelRole(
                name=role.name, modalities=role.modalities, description=role.description, required=role.required
            )
            for role in card.roles
        ],
        state=state,
    )


def read_inputs(
    card: Card, given: Sequence[imaging_pb2.ModelInput], parameters: Mapping[str, str], blobs: BlobStore
) -> Inputs:
    """Volumes by role.

    Raises:
        InvalidRequestError: a role that the card does not name, twice one role, or a parameter that it does not know.
        RefusedError: `series.*`, `manifest.*`, `input.*`.
    """
    names = [role.name for role in card.roles]
    series: dict[str, ImageVolume] = {}
    for index, item in enumerate(given):
        role = item.role or names[0]
        if role not in names or role in series:
            raise InvalidRequestError(f"inputs[{index}].role", f"{card.name} takes one each of: {', '.join(names)}")
        series[role] = _volume(item, blobs)
    unknown = set(parameters) - set(card.parameters)
    if unknown:
        raise InvalidRequestError("parameters", f"{card.name} knows: {', '.join(card.parameters) or 'none'}")
    return Inputs(series, {name: _number_or_text(text) for name, text in parameters.items()})


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _volume(item: imaging_pb2.ModelInput, blobs: BlobStore) -> ImageVolume:
    if item.WhichOneof("source") == "nifti":
        return nifti_volume(blobs.get(item.nifti), item.nifti.sha256)
    manifest = ingest_pb2.StudyManifest.FromString(blobs.get(item.series.manifest))
    return load_series(read_manifest_series(manifest, item.series.series_instance_uid, blobs))


def response(
    card: Card, result: Result, given: Sequence[imaging_pb2.ModelInput], blobs: BlobStore
) -> imaging_pb2.InferResponse:
    """The result with its images stored."""
    return imaging_pb2.InferResponse(
        masks=[stored_image(item, blobs) for item in result.masks],
        maps=[stored_image(item, blobs) for item in result.maps],
        measurements=[
            imaging_pb2.RegionMeasurement(region=item.region, measurement=measurement_message(item.value))
            for item in result.measurements
        ],
        findings=[_finding(item) for item in result.findings],
        cautions=result.cautions,
        provenance=origin(card, given, result.parameters),
    )


def origin(card: Card, given: Sequence[imaging_pb2.ModelInput], parameters: Mapping[str, str]) -> common_pb2.Provenance:
    """Inputs with their digests, model and version, parameters, sources."""
    inputs = [
        input_ref("dicom-series", item.series.series_instance_uid, item.series.manifest.sha256)
        if item.WhichOneof("source") == "series"
        else input_ref("nifti", item.nifti.sha256, item.nifti.sha256)
        for item in given
    ]
    return provenance(
        agent=AGENT,
        method=f"{card.name}@{card.version}",
        inputs=inputs,
        recorded_at=datetime.now(UTC),
        parameters=parameters,
        citations=card.citations,
    )


def stored_image(item: Mask | Map, blobs: BlobStore) -> imaging_pb2.ResultImage:
    """A mask or map as a NIfTI blob; the same content is the same blob."""
    kind = np.uint8 if isinstance(item, Mask) else np.float32
    image = nibabel.Nifti1Image(item.array.astype(kind).transpose(2, 1, 0), lps_of(item.affine_lps))
    content = gzip.compress(image.to_bytes(), mtime=0)
    reference = blobs.put(content, NIFTI, f"derived/inference/{slug(item.name)}.nii.gz")
    return imaging_pb2.ResultImage(
        name=item.name,
        concept=item.concept.proto if item.concept else None,
        unit=item.unit if isinstance(item, Map) else "1",
        content=reference,
    )


def _finding(item: Finding) -> imaging_pb2.ModelFinding:
    return imaging_pb2.ModelFinding(
        concept=item.concept.proto,
        probability=item.probability,
        calibrated=item.calibrated,
        note=item.not_estimated,
        region=item.region,
    )
