"""Stored registrations in use: the map they hold, and the derived series they make."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from io import BytesIO

import numpy as np
import pydicom
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2

from services.clinical.dicom.derived import ObjectIdentity, derived_uid, to_bytes
from services.clinical.dicom.series import load_series, read_manifest_series
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError
from services.registration import products
from services.registration.deformation import Deformation
from services.registration.geometry import Matrix
from services.registration.resample import resample

# Far above what scanners use, so that it sorts behind the REG object.
_SERIES_NUMBER = 9801


def mapping(registration: registration_pb2.Registration, blobs: BlobStore) -> Matrix | Deformation:
    """What a registration maps fixed points to moving points by, LPS mm.

    Raises RefusedError `registration.no_transform` for a refused one.
    """
    if registration.HasField("deformable_registration"):
        content = blobs.get(registration.deformable_registration.content)
        return products.read_deformable(pydicom.dcmread(BytesIO(content)))
    if registration.HasField("affine"):
        return np.reshape(registration.affine.matrix, (4, 4))
    if registration.HasField("transform"):
        return np.reshape(registration.transform.matrix, (4, 4))
    raise RefusedError(
        "registration.no_transform",
        "the registration was refused, so it maps no points",
        remedy="align the series by hand, or register others",
        subject=registration.registration_id,
    )


def resampled(
    registration: registration_pb2.Registration, manifests: Mapping[str, ingest_pb2.StudyManifest], blobs: BlobStore
) -> list[imaging_pb2.DerivedObject]:
    """The moving series on the fixed grid, one stored instance for each fixed slice.

    `manifests`: by study UID. Raises RefusedError `registration.no_transform`, `series.*`, `manifest.*`.
    """
    transform = mapping(registration, blobs)
    sides = (registration.pair.fixed, registration.pair.moving)
    fixed, moving = (
        read_manifest_series(manifests[side.study_instance_uid], side.series_instance_uid, blobs) for side in sides
    )
    volume = resample(load_series(moving), load_series(fixed), transform)
    series = derived_uid("resampled-series", registration.registration_id)
    identity = ObjectIdentity(
        series_instance_uid=series,
        sop_instance_uid=series,
        series_number=_SERIES_NUMBER,
        instance_number=1,
        series_description=f"{registration.pair.moving.modality} on {registration.pair.fixed.modality}",
        made_at=registration.provenance.recorded_at.ToDatetime(UTC),
    )
    study = registration.pair.fixed.study_instance_uid
    made = []
    for dataset in products.derived_series(volume, fixed, moving, identity):
        uid = str(dataset.SOPInstanceUID)
        content = blobs.put(to_bytes(dataset), "application/dicom", f"derived/{study}/{uid}.dcm")
        made.append(
            imaging_pb2.DerivedObject(
                sop_instance_uid=uid,
                sop_class_uid=str(dataset.SOPClassUID),
                study_instance_uid=study,
                series_instance_uid=series,
                modality=str(dataset.Modality),
                content=content,
            )
        )
    return made
