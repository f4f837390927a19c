"""Stored series to an `osler.registration.v1.Registration` with its DICOM object: thin glue around `align`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import DecodeError
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2
from pydicom.dataset import Dataset

from services.clinical.dicom.derived import ObjectIdentity, derived_uid, to_bytes
from services.clinical.dicom.series import find_series, load_series, read_manifest_series
from services.clinical.provenance import input_ref, provenance, timestamp
from services.clinical.refusals import to_refusal
from services.clinical.volume import ImageVolume
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError
from services.platform.events import event_id
from services.registration import products
from services.registration.align import Alignment, Method, accepted
from services.registration.compute import Compute
from services.registration.geometry import rotation_deg
from services.registration.plan import Pair, Purpose, Series
from services.registration.quality import Judgement, Verdict
from services.registration.rigid import SETTINGS, Progress, silent

ROOM = "registration"
_CITATIONS = (
    "Mattes D et al. IEEE Trans Med Imaging 2003;22:120",
    "Studholme C et al. Pattern Recognit 1999;32:71",
    "DICOM PS3.3 C.20.2",
)
_VERDICTS = {
    Verdict.GOOD: registration_pb2.VERDICT_GOOD,
    Verdict.REVIEW: registration_pb2.VERDICT_REVIEW,
    Verdict.FAILED: registration_pb2.VERDICT_FAILED,
}
_PURPOSES = {
    Purpose.HYBRID: registration_pb2.PAIR_PURPOSE_HYBRID,
    Purpose.FOLLOW_UP: registration_pb2.PAIR_PURPOSE_FOLLOW_UP,
}
METHODS = {
    Method.RIGID: registration_pb2.METHOD_RIGID,
    Method.AFFINE: registration_pb2.METHOD_AFFINE,
    Method.BSPLINE: registration_pb2.METHOD_BSPLINE,
    Method.DIFFEO: registration_pb2.METHOD_DIFFEO,
}
BY_NUMBER = {number: method for method, number in METHODS.items()}
# Series and instance numbers of a REG object in its study: far above what scanners use, so that it sorts last.
_SERIES_NUMBER = 9800


@dataclass(frozen=True)
class Side:
    """One series as stored: headers and pixels, its volume, and a digest of what it was read from."""

    datasets: tuple[Dataset, ...]
    volume: ImageVolume
    digest: str


def registration_id(
    pair: Pair, manifests: Mapping[str, ingest_pb2.StudyManifest], method: Method = Method.RIGID
) -> str:
    """One id for one pair of series contents: late instances make a new one, a repeated event does not.

    `manifests`: by study UID.
    """
    digests = [_digest(manifests[side.study_instance_uid], side) for side in (pair.fixed, pair.moving)]
    return event_id(ROOM, method.label, pair.fixed.series_instance_uid, pair.moving.series_instance_uid, *digests)


def register_pair(
    pair: Pair,
    manifests: Mapping[str, ingest_pb2.StudyManifest],
    blobs: BlobStore,
    compute: Compute,
    made_at: datetime,
    progress: Progress = silent,
    method: Method = Method.RIGID,
) -> registration_pb2.Registration:
    """Runs one pair; a refused or failed pair comes back with its refusal and without a transform.

    Raises RetryableError when stored bytes cannot be had now. `made_at`: aware; the DICOM object carries it.
    """
    patient_key = manifests[pair.fixed.study_instance_uid].patient_key
    result = registration_pb2.Registration(
        registration_id=registration_id(pair, manifests, method),
        patient_key=patient_key,
        pair=to_proto(pair),
        method=METHODS[method],
    )
    try:
        one_patient(manifests[side.study_instance_uid] for side in (pair.fixed, pair.moving))
        progress("load", 0.0)
        fixed, moving = (
            load_side(manifests[side.study_instance_uid], side, blobs) for side in (pair.fixed, pair.moving)
        )
        _add_times(result, pair, fixed, moving)
        alignment = compute.align(fixed.volume, moving.volume, pair.purpose, progress, method)
        result.duration_s = alignment.seconds
        result.quality.CopyFrom(_quality(alignment.judgement))
        _add_provenance(result, pair, manifests, made_at, alignment)
        _accept(result, alignment, fixed, moving, blobs, made_at)
    except RefusedError as error:
        for field in ("transform", "affine", "spatial_registration", "deformable_registration"):
            result.ClearField(field)
        result.refusal.CopyFrom(to_refusal(error, subject=pair.moving.series_instance_uid))
    if not result.HasField("provenance"):
        _add_provenance(result, pair, manifests, made_at, None)
    return result


def read_manifest(reference: common_pb2.BlobRef, blobs: BlobStore) -> ingest_pb2.StudyManifest:
    """The manifest that a reference names. Raises RefusedError `manifest.unreadable`."""
    try:
        return ingest_pb2.StudyManifest.FromString(blobs.get(reference))
    except DecodeError as error:
        raise RefusedError(
            "manifest.unreadable",
            "the blob is not a study manifest",
            remedy="announce the study again from ingest",
            subject=reference.sha256,
        ) from error


def to_proto(pair: Pair) -> registration_pb2.Pair:
    """The wire form of a pair."""
    return registration_pb2.Pair(
        fixed=_reference(pair.fixed),
        moving=_reference(pair.moving),
        purpose=_PURPOSES[pair.purpose],
        reason=pair.reason,
    )


def _reference(series: Series) -> registration_pb2.SeriesRef:
    return registration_pb2.SeriesRef(
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        modality=series.modality,
        frame_of_reference_uid=series.frame_of_reference_uid,
    )


def _accept(
    result: registration_pb2.Registration,
    alignment: Alignment,
    fixed: Side,
    moving: Side,
    blobs: BlobStore,
    made_at: datetime,
) -> None:
    """Adds transform and DICOM object. Raises RefusedError `registration.*` for a failed verdict."""
    accepted(alignment)
    if alignment.method is Method.AFFINE:
        result.affine.matrix.extend(float(value) for value in alignment.matrix.ravel())
    else:
        result.transform.matrix.extend(float(value) for value in alignment.matrix.ravel())
        result.transform.rotation_deg = rotation_deg(alignment.matrix)
        result.transform.translation_mm = alignment.judgement.measures.shift_mm
    made = store_object(result.registration_id, alignment, fixed, moving, blobs, made_at)
    target = result.spatial_registration if alignment.deformation is None else result.deformable_registration
    target.CopyFrom(made)


def store_object(
    identifier: str, alignment: Alignment, fixed: Side, moving: Side, blobs: BlobStore, made_at: datetime
) -> imaging_pb2.DerivedObject:
    """The transform as a DICOM object in the blob store."""
    names = {"PT": "PET"}
    modalities = [names.get(side.volume.modality, side.volume.modality) for side in (moving, fixed)]
    identity = ObjectIdentity(
        series_instance_uid=derived_uid("reg-series", identifier),
        sop_instance_uid=derived_uid("reg", identifier),
        series_number=_SERIES_NUMBER,
        instance_number=1,
        series_description=f"{modalities[0]} to {modalities[1]}, {alignment.method.value}",
        made_at=made_at,
    )
    if alignment.deformation is None:
        reg = products.spatial_registration(fixed.datasets, moving.datasets, alignment.matrix, identity)
    else:
        reg = products.deformable_registration(fixed.datasets, moving.datasets, alignment.deformation, identity)
    study = fixed.volume.study_instance_uid
    content = blobs.put(to_bytes(reg), "application/dicom", f"derived/{study}/{identity.sop_instance_uid}.dcm")
    return imaging_pb2.DerivedObject(
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=str(reg.SOPClassUID),
        study_instance_uid=study,
        series_instance_uid=identity.series_instance_uid,
        modality="REG",
        content=content,
    )


def load_side(manifest: ingest_pb2.StudyManifest, series: Series, blobs: BlobStore) -> Side:
    """One series of a study as stored. Raises RefusedError `series.*` for what makes no volume."""
    datasets = read_manifest_series(manifest, series.series_instance_uid, blobs)
    return Side(datasets, load_series(datasets), _digest(manifest, series))


def _digest(manifest: ingest_pb2.StudyManifest, series: Series) -> str:
    """SHA-256 over the instances of a series as stored."""
    instances = find_series(manifest, series.series_instance_uid).instances
    lines = sorted(f"{instance.sop_instance_uid} {instance.content.sha256}" for instance in instances)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _add_times(result: registration_pb2.Registration, pair: Pair, fixed: Side, moving: Side) -> None:
    result.fixed_time.CopyFrom(timestamp(fixed.volume.acquired_at or pair.fixed.study_time))
    result.moving_time.CopyFrom(timestamp(moving.volume.acquired_at or pair.moving.study_time))


def _add_provenance(
    result: registration_pb2.Registration,
    pair: Pair,
    manifests: Mapping[str, ingest_pb2.StudyManifest],
    made_at: datetime,
    alignment: Alignment | None,
) -> None:
    inputs = [
        input_ref("dicom-series", side.series_instance_uid, _digest(manifests[side.study_instance_uid], side))
        for side in (pair.fixed, pair.moving)
    ]
    measured = dataclasses.asdict(alignment.judgement.measures) if alignment else {}
    parameters = {"seed": str(SETTINGS["seed"]), **{name: f"{value:.4g}" for name, value in measured.items()}}
    result.provenance.CopyFrom(
        provenance(
            agent=ROOM,
            method=BY_NUMBER[result.method].label,
            inputs=inputs,
            recorded_at=made_at,
            parameters=parameters,
            citations=_CITATIONS,
        )
    )


def _quality(judgement: Judgement) -> registration_pb2.Quality:
    measures = judgement.measures
    quality = registration_pb2.Quality(
        verdict=_VERDICTS[judgement.verdict],
        similarity_before=measures.information_before,
        similarity_after=measures.information_after,
        seed_disagreement_mean_mm=measures.seed_mean_mm,
        seed_disagreement_max_mm=measures.seed_max_mm,
        inverse_consistency_mm=measures.inverse_mm,
        overlap_fraction=measures.overlap,
        predicted_tre_mm=measures.predicted_tre_mm,
        reasons=judgement.reasons,
        refit_mm=measures.refit_mm,
        mirror_ratio=measures.mirror,
    )
    if judgement.bent is not None:
        bent = dataclasses.asdict(judgement.bent)
        quality.deformation.CopyFrom(
            registration_pb2.DeformationQuality(inverse_consistency_mm=bent.pop("inverse_mm"), **bent)
        )
    return quality


def one_patient(manifests: Iterable[ingest_pb2.StudyManifest]) -> None:
    """Raises RefusedError `registration.different_patients` unless all studies belong to one."""
    if len({manifest.patient_key for manifest in manifests}) > 1:
        raise RefusedError(
            "registration.different_patients",
            "the studies belong to different patients",
            remedy="register series of one patient; merge the patients first when they are one",
        )
