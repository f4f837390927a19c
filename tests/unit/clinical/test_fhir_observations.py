"""Findings as FHIR Observations that the R4 models accept."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from fhir.resources.R4B.observation import Observation
from osler.imaging.v1 import imaging_pb2

from services.clinical import codes
from services.clinical.fhir_observations import finding_to_observation
from services.clinical.provenance import input_ref, provenance, timestamp

AT = datetime(2024, 3, 1, 10, 15, tzinfo=UTC)


@pytest.fixture
def finding():
    message = imaging_pb2.Finding(
        finding_id="2.25.1",
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        kind=imaging_pb2.FINDING_KIND_LESION,
        finding_type=codes.NEOPLASM.proto,
        site=codes.LIVER.proto,
        tracking_id="Lesion 1",
        tracking_uid="2.25.7",
        observed_at=timestamp(AT),
        provenance=provenance(
            agent="imaging",
            method="pet-quantification@1",
            inputs=[input_ref("dicom-series", "1.2.3.4")],
            recorded_at=AT,
        ),
        cautions=["candidate only"],
    )
    suv = message.measurements.add(concept=codes.SUV_MAX.proto, method="RTSTRUCT contour")
    suv.value.value, suv.value.unit = 7.25, codes.UNIT_SUV_BW
    suv.value.uncertainty.interval.lower, suv.value.uncertainty.interval.upper = 5.5, 9.0
    suv.value.uncertainty.interval.level = 0.95
    volume = message.measurements.add(concept=codes.METABOLIC_VOLUME.proto)
    volume.value.value, volume.value.unit = 12.5, "mL"
    volume.value.uncertainty.not_estimated = "not estimated"
    return message


def test_a_finding_is_a_valid_observation(finding):
    observation = finding_to_observation(finding, "key-1")
    model = Observation.model_validate(json.loads(json.dumps(observation)))
    assert model.effectiveDateTime == AT
    assert model.subject.identifier.value == "key-1"
    assert model.bodySite.coding[0].code == "10200004"
    assert {identifier.value for identifier in model.identifier} == {"Lesion 1", "urn:oid:2.25.7"}


def test_components_carry_value_unit_and_standard_code(finding):
    first, second = finding_to_observation(finding)["component"]
    assert first["valueQuantity"] == {
        "value": 7.25,
        "unit": "g/ml{SUVbw}",
        "system": "http://unitsofmeasure.org",
        "code": "g/ml{SUVbw}",
    }
    assert [coding["code"] for coding in first["code"]["coding"]] == ["suv-max", "126401"]
    assert [coding["code"] for coding in second["code"]["coding"]] == ["126032"]


def test_notes_state_cautions_and_uncertainty(finding):
    notes = [note["text"] for note in finding_to_observation(finding)["note"]]
    assert notes[0] == "candidate only"
    assert "5.5 to 9 g/ml{SUVbw} (95% interval)" in notes[1]
    assert "not estimated" in notes[2]


def test_a_bare_finding_is_valid_too():
    bare = imaging_pb2.Finding(
        finding_id="a/b c", study_instance_uid="1", series_instance_uid="2", kind=imaging_pb2.FINDING_KIND_ORGAN
    )
    observation = finding_to_observation(bare)
    assert observation["id"] == "a-b-c"
    assert Observation.model_validate({k: v for k, v in observation.items() if v != []}).status == "preliminary"
