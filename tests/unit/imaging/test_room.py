"""The imaging room on a real database and real blobs: studies in, findings and DICOM objects out."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from types import SimpleNamespace

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from osler.common.v1.common_pb2 import Refusal
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from pydicom.dataset import Dataset
from sqlalchemy import select

from services.clinical import codes
from services.imaging import store
from services.imaging.compute import open_compute
from services.imaging.host.registry import registry_of
from services.imaging.room import build
from services.imaging.service import ImagingService
from services.imaging.worker import Analyst
from services.platform.blobs import BlobStore
from services.platform.config import Compute, Models, Settings
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from services.platform.events import event_id, pack, unpack
from services.platform.quarantine import Quarantine
from services.platform.rpc import NotFoundError
from services.platform.tables import OUTBOX
from tests.unit.imaging.dicom_samples import make_series, make_structure_set, manifest_of, read_folder

RECEIVED, MERGED = "osler.study.received.v1", "osler.patient.merged.v1"
WHEN = datetime(2024, 3, 1, 12, tzinfo=UTC)
ORIGIN = (-80.0, -80.0, -45.0)


@pytest.fixture
def context(tmp_path, repository_root):
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate(database, "platform")
    migrate(database, "imaging")
    settings = Settings(home=tmp_path, compute=Compute(num_cpus=1), models=Models(path=repository_root / "models"))
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    quarantine = Quarantine(database, blobs)
    yield SimpleNamespace(database=database, blobs=blobs, quarantine=quarantine, settings=settings)
    database.close()


@pytest.fixture
def announce(context):
    """Handles a study as the worker would; returns the announced events."""
    handler = build(context).handlers[RECEIVED]

    def run(datasets, *, cause="cause-1", revision=1):
        manifest = manifest_of(datasets, context.blobs, revision=revision)
        blob = context.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf", "manifest")
        message = events_pb2.StudyReceived(
            patient_key="key-1", study_instance_uid=manifest.study_instance_uid, revision=revision, manifest=blob
        )
        event = pack(message, source="ingest", key="key-1", id=event_id(cause), time=WHEN)
        effect = handler(event, message)
        emitted = []
        with context.database.transaction("imaging") as tx:
            effect(SimpleNamespace(session=tx.session, emit=emitted.append))
        return emitted

    return run


def grid(spacing, shape):
    z, y, x = (n * s + o for n, s, o in zip(np.indices(shape), spacing[::-1], ORIGIN[::-1], strict=True))
    return x, y, z


LESION, LIVER = ((20.0, 10.0, 0.0), 20.0), ((-40.0, 0.0, 0.0), 15.0)


def sphere(spacing, shape, centre, radius):
    x, y, z = grid(spacing, shape)
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2


def pet_series(**attributes):
    """FDG PET: background SUV 1, liver 2, a lesion of SUV 8 in a patient of 75 kg, 1.85 m, one hour after 300 MBq."""
    spacing, shape = (4.0, 4.0, 3.0), (30, 40, 40)
    suv = np.ones(shape)
    suv[sphere(spacing, shape, LIVER[0], LIVER[1] + 6)] = 2
    suv[sphere(spacing, shape, LESION[0], LESION[1] + 4)] = 8
    isotope = Dataset()
    isotope.RadiopharmaceuticalStartTime = "091500"
    isotope.RadionuclideTotalDose, isotope.RadionuclideHalfLife = 300e6, 6586.2
    activity = suv * 300e6 * 2 ** (-3600 / 6586.2) / 75_000
    given = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"],
        "PatientWeight": 75.0,
        "PatientSize": 1.85,
        "RadiopharmaceuticalInformationSequence": [isotope],
    }
    return make_series(
        activity, modality="PT", spacing=spacing, origin=ORIGIN, slopes=1.0, name="pet", **(given | attributes)
    )


def ct_series():
    spacing, shape = (2.0, 2.0, 2.0), (45, 80, 80)
    noise = np.random.default_rng(0).integers(-20, 20, shape).astype(float)
    return make_series(noise, spacing=spacing, origin=ORIGIN, name="ct")


def study():
    ct = ct_series()
    structures = make_structure_set(
        ct, [("Lesion 1 liver", "GTV", *LESION), ("Liver reference", "ORGAN", *LIVER), ("PTV", "PTV", *LESION)]
    )
    return [*pet_series(), *ct, structures]


def of(findings, modality_series, name):
    (found,) = [f for f in findings if f.series_instance_uid == modality_series and f.tracking_id == name]
    return found


def value_of(finding, concept):
    (measurement,) = [m for m in finding.measurements if concept.matches(m.concept)]
    assert measurement.value.uncertainty.WhichOneof("kind")
    return measurement.value.value


def ready(events):
    (event,) = events
    return events_pb2.FindingsReady.FromString(event.data).findings


def test_pet_ct_with_contours_drawn_on_ct(announce):
    datasets = study()
    pet, ct = (datasets[0].SeriesInstanceUID, datasets[40].SeriesInstanceUID)
    findings = ready(announce(datasets))
    assert not findings.refusals
    assert len(findings.findings) == 3
    lesion = of(findings.findings, pet, "Lesion 1 liver")
    truth_ml = 4 / 3 * np.pi * 20**3 / 1000
    assert value_of(lesion, codes.SUV_MAX) == pytest.approx(8, rel=0.002)
    assert value_of(lesion, codes.SUV_PEAK) == pytest.approx(8, rel=0.002)
    assert value_of(lesion, codes.METABOLIC_VOLUME) == pytest.approx(truth_ml, rel=0.01)
    assert value_of(lesion, codes.TOTAL_LESION_GLYCOLYSIS) == pytest.approx(8 * truth_ml, rel=0.01)
    lean = 9270 / (6680 + 216 * 75 / 1.85**2)
    assert value_of(lesion, codes.SUL_PEAK) == pytest.approx(8 * lean, rel=0.002)
    np.testing.assert_allclose(lesion.centroid_lps_mm, LESION[0], atol=1)
    reference = of(findings.findings, pet, "Liver reference")
    assert reference.kind == imaging_pb2.FINDING_KIND_REFERENCE
    assert value_of(reference, codes.SUV_MEAN) == pytest.approx(2, rel=0.002)
    on_ct = of(findings.findings, ct, "Lesion 1 liver")
    assert value_of(on_ct, codes.VOLUME) == pytest.approx(truth_ml * 1000, rel=0.01)
    assert value_of(on_ct, codes.LONG_AXIS) == pytest.approx(40, abs=0.3)
    assert value_of(on_ct, codes.SHORT_AXIS) == pytest.approx(40, abs=0.3)
    assert on_ct.tracking_uid == lesion.tracking_uid
    assert lesion.observed_at.ToDatetime(UTC) == datetime(2024, 3, 1, 10, 15, tzinfo=UTC)


def test_objects_are_stored_and_point_at_each_other(announce, context):
    findings = ready(announce(study()))
    assert [o.modality for o in findings.derived_objects] == ["SEG", "SR", "KO"] * 2
    stored = {
        o.sop_instance_uid: pydicom.dcmread(BytesIO(context.blobs.get(o.content))) for o in findings.derived_objects
    }
    shown = [stored[o.sop_instance_uid] for o in findings.derived_objects if o.modality == "KO"]
    images = {dataset.SOPInstanceUID for dataset in study()}
    for selection in shown:
        (evidence,) = selection.CurrentRequestedProcedureEvidenceSequence
        named = {i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
        assert named
        assert named <= images
    for finding in findings.findings:
        seg = hd.seg.Segmentation.from_dataset(stored[finding.segmentation_sop_instance_uid])
        description = seg.get_segment_description(finding.segment_number)
        assert (description.tracking_id, description.tracking_uid) == (finding.tracking_id, finding.tracking_uid)
    for item in findings.derived_objects:
        assert stored[item.sop_instance_uid].StudyInstanceUID == findings.study_instance_uid
        assert stored[item.sop_instance_uid].SOPClassUID == item.sop_class_uid


def test_the_same_study_again_is_the_same_event_and_the_same_objects(announce, context):
    first, second = announce(study()), announce(study(), cause="cause-2")
    assert (first[0].id, first[0].data) == (second[0].id, second[0].data)
    with context.database.transaction("imaging") as tx:
        tx.session.execute(store.STUDY.delete())
    assert announce(study())[0].data == first[0].data


def test_a_late_instance_gives_a_new_revision_and_an_older_one_changes_nothing(announce, context):
    full = study()
    first = announce(full[:-1])
    second = announce(full, revision=2)
    assert first[0].id != second[0].id
    assert announce(full[:-1], cause="late") == []
    with context.database.session() as session:
        assert store.of_study(session, full[0].StudyInstanceUID)[0].study_revision == 2


def test_without_contours_candidates_are_found_and_marked(announce):
    findings = ready(announce(pet_series()))
    (candidate,) = findings.findings
    assert candidate.tracking_id == "candidate 1"
    assert value_of(candidate, codes.SUV_MAX) == pytest.approx(8, rel=0.002)
    assert any("physiological uptake" in caution for caution in candidate.cautions)
    assert candidate.measurements[0].method == "fixed threshold SUV 4"


def test_a_segmentation_serves_like_contours(announce, context):
    """Osler's own SEG, sent back as if another system had made it, gives the same region."""
    findings = ready(announce(study()))
    pet_seg = next(o for o in findings.derived_objects if o.modality == "SEG" and "PT" in _text(context, o))
    seg = pydicom.dcmread(BytesIO(context.blobs.get(pet_seg.content)))
    again = ready(announce([*pet_series(), seg], revision=2))
    lesion = of(again.findings, pet_series()[0].SeriesInstanceUID, "Lesion 1 liver")
    assert value_of(lesion, codes.SUV_MAX) == pytest.approx(8, rel=0.002)
    before = of(findings.findings, lesion.series_instance_uid, "Lesion 1 liver")
    assert lesion.tracking_uid == before.tracking_uid


def _text(context, item):
    return str(pydicom.dcmread(BytesIO(context.blobs.get(item.content))).SeriesDescription)


@pytest.mark.parametrize(
    ("attributes", "reason", "missing"),
    [
        ({"PatientWeight": None}, "suv.missing_weight", "(0010,1030) PatientWeight"),
        ({"DecayCorrection": ""}, "suv.missing_decay_correction", "(0054,1102) DecayCorrection"),
        ({"Units": "PROPCPS"}, "quality.wrong_units", None),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_reason_and_the_rest_goes_on(announce, attributes, reason, missing):
    ct = ct_series()
    structures = make_structure_set(ct, [("Mass", "GTV", *LESION)])
    findings = ready(announce([*pet_series(**attributes), *ct, structures]))
    (refusal,) = findings.refusals
    assert refusal.reason == reason
    assert refusal.remedy
    assert missing is None or list(refusal.missing) == [missing]
    assert [f.tracking_id for f in findings.findings] == ["Mass"]


def test_a_series_with_broken_attributes_does_not_cost_the_others(announce):
    ct = ct_series()
    for dataset in ct:
        del dataset.Rows
    findings = ready(announce([*pet_series(), *ct]))
    assert [f.tracking_id for f in findings.findings] == ["candidate 1"]
    assert len(findings.routing) == 2
    assert all(decision.reason for decision in findings.routing)


def test_localizers_are_set_aside_without_a_refusal(announce):
    scout = ct_series()[:2]
    for dataset in scout:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    findings = ready(announce(scout))
    assert not findings.refusals
    assert "localizer" in findings.routing[0].reason


def test_a_missing_slice_is_refused_and_named(announce):
    datasets = pet_series()
    del datasets[7]
    findings = ready(announce(datasets))
    assert findings.quality[0].verdict == imaging_pb2.QUALITY_VERDICT_REJECT
    assert [r.reason for r in findings.refusals] == ["quality.missing_slices"]
    assert "between slices 7 and 8" in findings.refusals[0].message


def test_a_refused_analysis_waits_in_quarantine_until_the_study_comes_better(announce, context):
    findings = ready(announce(pet_series(PatientWeight=None)))
    (item,) = context.quarantine.list()
    assert (item.door, item.refusal) == ("imaging", findings.refusals[0])
    with pytest.raises(RefusedError) as again:
        context.quarantine.replay(item.id)
    assert again.value.reason == "suv.missing_weight"
    assert [waiting.id for waiting in context.quarantine.list()] == [item.id]
    announce(pet_series(), revision=2)
    with pytest.raises(RefusedError, match="newer revision"):
        context.quarantine.replay(item.id)


def test_a_second_look_announces_what_an_older_version_had_not_found(announce, context):
    (first,) = announce(pet_series())
    message = unpack(first)
    manifest = manifest_of(pet_series(), context.blobs)
    reference = context.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf", "manifest")
    older = imaging_pb2.StudyFindings()
    older.CopyFrom(message.findings)
    older.ClearField("findings")
    with context.database.transaction("imaging") as tx:
        store.put(tx.session, older, reference.sha256, WHEN)
    item = context.quarantine.add("imaging", reference, Refusal(reason="suv.unknown_vendor", message="not understood"))
    context.quarantine.replay(item)
    with context.database.session() as session:
        (kept, _) = store.of_study(session, manifest.study_instance_uid)
        events = session.execute(select(OUTBOX.c.event_id, OUTBOX.c.type)).all()
    assert len(kept.findings) == len(message.findings.findings) > 0
    ((announced, kind),) = events
    assert kind == "osler.findings.ready.v1"
    assert announced != first.id


def test_merged_patients(announce, context):
    announce(pet_series())
    handler = build(context).handlers[MERGED]
    message = events_pb2.PatientMerged(surviving_patient_key="key-2", merged_patient_key="key-1")
    effect = handler(pack(message, source="ingest", key="key-2", id="merge"), message)
    with context.database.transaction("imaging") as tx:
        effect(tx)
    service = service_of(context)
    (kept,) = service.GetFindings(imaging_pb2.GetFindingsRequest(patient_key="key-2"), None).studies
    assert kept.patient_key == "key-2"
    assert not service.GetFindings(imaging_pb2.GetFindingsRequest(patient_key="key-1"), None).studies


def service_of(context):
    compute = open_compute(context.settings)
    analyst = Analyst(context.database, context.blobs, context.quarantine, compute)
    return ImagingService(context.database, analyst, compute, registry_of(context.settings), context.blobs)


def test_service(context):
    service = service_of(context)
    manifest = manifest_of(pet_series(), context.blobs)
    blob = context.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf", "manifest")
    answer = service.AnalyzeStudy(imaging_pb2.AnalyzeStudyRequest(manifest=blob), None).result
    request = imaging_pb2.GetFindingsRequest(study_instance_uid=manifest.study_instance_uid)
    assert service.GetFindings(request, None).studies[0] == answer
    with pytest.raises(NotFoundError):
        service.GetFindings(imaging_pb2.GetFindingsRequest(study_instance_uid="9.9"), None)
    models = {model.name: model for model in service.ListModels(imaging_pb2.ListModelsRequest(), None).models}
    assert len(models["hippocampus"].weights_sha256) == 64


def test_a_broken_manifest_is_refused(context):
    blob = context.blobs.put(b"\xff\xff not a manifest", "application/protobuf", "manifest")
    with pytest.raises(RefusedError, match="not a study manifest"):
        service_of(context).AnalyzeStudy(imaging_pb2.AnalyzeStudyRequest(manifest=blob), None)


def test_the_tables_of_the_migration_are_those_of_the_store(context):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with context.database.engine.connect() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name.startswith("imaging_")}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), store.metadata) == []


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("patient", ["STS_044", "STS_031"])
def test_real_sarcoma_study(announce, shared_data, patient):
    folder = shared_data / "sts-petctmr"
    datasets = [d for part in sorted((folder / "dicom" / patient).glob("*/*")) for d in read_folder(part)]
    findings = ready(announce(datasets))
    assert not findings.refusals
    nifti = folder / "nifti" / patient
    suv, mask = (nibabel.load(nifti / f"PET_{kind}.nii.gz").get_fdata() for kind in ("image", "mask"))
    found = {f.tracking_id: f for f in findings.findings}
    lesion = found["GTV_Mass_PET"]
    assert value_of(lesion, codes.SUV_MAX) == pytest.approx(suv[mask > 0].max(), rel=0.01)
    assert value_of(lesion, codes.SUV_MEAN) == pytest.approx(suv[mask > 0].mean(), rel=0.01)
    voxel = np.prod(nibabel.load(nifti / "PET_mask.nii.gz").header.get_zooms())
    assert value_of(lesion, codes.METABOLIC_VOLUME) * 1000 == pytest.approx(mask.sum() * voxel, rel=0.03)
    for name in ("CT", "MR_T1"):
        image = nibabel.load(nifti / f"{name}_mask.nii.gz")
        truth = image.get_fdata().sum() * np.prod(image.header.get_zooms())
        assert value_of(found[f"GTV_Mass_{name}"], codes.VOLUME) == pytest.approx(truth, rel=0.03)
    assert sorted(o.modality for o in findings.derived_objects) == ["KO"] * 3 + ["SEG"] * 3 + ["SR"] * 3


@pytest.mark.shared_data
@pytest.mark.slow
def test_real_glioblastoma_study(announce, shared_data):
    folders = sorted((shared_data / "glioblastoma-mr" / "PGBM-003").iterdir())
    findings = ready(announce([d for folder in folders for d in read_folder(folder)]))
    assert not findings.refusals
    (whole,) = [f for f in findings.findings if codes.HIPPOCAMPUS.matches(f.finding_type)]
    assert 2000 < value_of(whole, codes.VOLUME) < 6000
    assert whole.measurements[0].value.uncertainty.interval.level == pytest.approx(0.9)
    routed = [r for r in findings.routing if r.analyses]
    assert len(routed) == 1
    assert len(findings.routing) == 5
    assert all(r.reason for r in findings.routing)
