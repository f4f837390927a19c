"""Real PET, CT and MR of two patients through the room: every pair gets a verdict, within the time a reader would wait."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from osler.common.v1 import common_pb2
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2

from services.clinical.dicom.reg import read_reg
from services.platform.blobs import BlobStore
from services.registration.compute import LocalCompute
from services.registration.plan import plan
from services.registration.registrar import register_pair

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]


def manifest_of(patient: Path) -> ingest_pb2.StudyManifest:
    manifest = ingest_pb2.StudyManifest(patient_key="k" * 64, revision=1)
    for folder in ("CT", "PET", "MR_T1"):
        entry = None
        for path in sorted((patient / folder / "image").glob("*.dcm")):
            content, header = path.read_bytes(), pydicom.dcmread(path, stop_before_pixels=True)
            manifest.study_instance_uid = header.StudyInstanceUID
            entry = entry or manifest.series.add(
                series_instance_uid=header.SeriesInstanceUID,
                modality=header.Modality,
                frame_of_reference_uid=header.FrameOfReferenceUID,
                series_description=header.get("SeriesDescription", ""),
                body_part_examined=header.get("BodyPartExamined", ""),
            )
            reference = common_pb2.BlobRef(
                uri=path.as_uri(), sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
            )
            entry.instances.add(
                sop_instance_uid=header.SOPInstanceUID, sop_class_uid=header.SOPClassUID, content=reference
            )
    manifest.study_time.FromDatetime(datetime(2001, 2, 22, tzinfo=UTC))
    return manifest


@pytest.mark.parametrize("patient", ["STS_044", "STS_031"])
def test_every_pair_is_judged_within_two_minutes(shared_data: Path, tmp_path: Path, patient: str) -> None:
    blobs = BlobStore(tmp_path.as_uri(), readable=[shared_data])
    manifest = manifest_of(shared_data / "sts-petctmr" / "dicom" / patient)
    manifests = {manifest.study_instance_uid: manifest}
    begun = time.process_time()
    results = [
        register_pair(pair, manifests, blobs, LocalCompute(2), datetime(2024, 1, 1, tzinfo=UTC))
        for pair in plan([manifest])
    ]
    seconds = time.process_time() - begun
    found = {(r.pair.fixed.modality, r.pair.moving.modality): r for r in results}
    for names, result in found.items():
        quality = result.quality
        verdict = registration_pb2.Verdict.Name(quality.verdict)
        motion = f"turn {result.transform.rotation_deg:.1f} deg, shift {result.transform.translation_mm:.1f} mm"
        print(patient, names, verdict, f"predicted {quality.predicted_tre_mm:.1f} mm", motion, list(quality.reasons))
    print(patient, f"{seconds:.0f} CPU s for {len(results)} pairs")
    assert set(found) == {("CT", "PT"), ("CT", "MR"), ("MR", "PT")}
    assert seconds < 120
    assert all(result.quality.verdict != registration_pb2.VERDICT_UNSPECIFIED for result in results)
    pet_ct = found["CT", "PT"]
    assert pet_ct.quality.verdict == registration_pb2.VERDICT_GOOD, pet_ct.quality
    # MR was acquired weeks before on another couch: its shared frame of reference was copied, and must not be trusted.
    assert found["CT", "MR"].quality.similarity_after > found["CT", "MR"].quality.similarity_before
    assert found["CT", "MR"].quality.verdict != registration_pb2.VERDICT_FAILED
    reg = pydicom.dcmread(BytesIO(blobs.get(pet_ct.spatial_registration.content)))
    uids = {entry.modality: [i.sop_instance_uid for i in entry.instances] for entry in manifest.series}
    stored = read_reg(reg, uids["CT"], uids["PT"])
    assert stored == pytest.approx(np.array(pet_ct.transform.matrix).reshape(4, 4), abs=1e-6)
