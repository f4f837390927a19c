"""The demo patient's chart: a FHIR R4 bundle and HL7 v2 laboratory messages that tell one consistent story.

A woman of 61 with metastatic colorectal cancer, treated hypertension and type 2 diabetes starts chemotherapy between
two imaging visits. The metastases respond while her kidney function falls below the limit for iodinated contrast.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from pipelines.cohort.dicom import Person

HTEST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST", "display": "test health data"}
_NAMESPACE = uuid.UUID("0f6a2f3f-9a1b-4a6f-8f0c-0b6e0f1a7c11")

# LOINC, name, UCUM unit, [(day, value)], reference range
CHART_OBSERVATIONS: list[tuple[str, str, str, list[tuple[str, float]]]] = [
    ("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", [("2026-05-11", 212.0)]),
    ("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL", [("2026-05-11", 47.0)]),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", [("2026-05-11", 7.4)]),
    ("29463-7", "Body weight", "kg", [("2026-05-11", 74.0), ("2026-08-20", 71.0)]),
    ("8302-2", "Body height", "cm", [("2026-05-11", 166.0)]),
    ("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", [("2026-05-11", 26.9)]),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", [("2026-05-11", 1.05)]),
]
# message time, [(LOINC, name, value, UCUM unit, range, flag)]
LABORATORY: list[tuple[str, list[tuple[str, str, str, str, str, str]]]] = [
    (
        "20260601083000",
        [
            ("2160-0", "Creatinine", "1.08", "mg/dL", "0.5-1.1", ""),
            ("2039-6", "CEA", "48.2", "ng/mL", "0-5", "H"),
            ("718-7", "Hemoglobin", "12.1", "g/dL", "12-16", ""),
            ("777-3", "Platelets", "268", "10*3/uL", "150-400", ""),
        ],
    ),
    (
        "20260714090000",
        [
            ("2160-0", "Creatinine", "1.46", "mg/dL", "0.5-1.1", "H"),
            ("2039-6", "CEA", "21.7", "ng/mL", "0-5", "H"),
            ("718-7", "Hemoglobin", "11.2", "g/dL", "12-16", "L"),
            ("777-3", "Platelets", "182", "10*3/uL", "150-400", ""),
        ],
    ),
    (
        "20260824084500",
        [
            ("14682-9", "Creatinine", "186", "umol/L", "45-97", "H"),
            ("2039-6", "CEA", "9.4", "ng/mL", "0-5", "H"),
            ("718-7", "Hemoglobin", "10.8", "g/dL", "12-16", "L"),
            ("777-3", "Platelets", "171", "10*3/uL", "150-400", ""),
        ],
    ),
]


def _id(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(parts)))


def _resource(kind: str, name: str, subject: str | None, body: dict[str, Any]) -> dict[str, Any]:
    resource = {"resourceType": kind, "id": _id(kind, name), "meta": {"tag": [HTEST]}, **body}
    if subject:
        resource["patient" if kind == "AllergyIntolerance" else "subject"] = {"reference": f"urn:uuid:{subject}"}
    return resource


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


SNOMED, LOINC, RXNORM = "http://snomed.info/sct", "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"


def _patient(person: Person) -> dict[str, Any]:
    family, given = person.name.split("^")[:2]
    identifier_type = _concept("http://terminology.hl7.org/CodeSystem/v2-0203", "MR", "Medical record number")
    return _resource(
        "Patient",
        "patient",
        None,
        {
            "identifier": [
                {"type": identifier_type, "system": f"urn:oid:{person.issuer}", "value": person.record_number}
            ],
            "name": [{"family": family.title(), "given": [given.title()]}],
            "gender": {"F": "female", "M": "male"}[person.sex],
            "birthDate": f"{person.birth_date[:4]}-{person.birth_date[4:6]}-{person.birth_date[6:]}",
        },
    )


def _conditions(subject: str) -> list[dict[str, Any]]:
    active = _concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active")
    confirmed = _concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed", "Confirmed")
    rows = [
        (SNOMED, "363406005", "Malignant neoplasm of colon", "2026-05-18"),
        (ICD10, "C78.7", "Secondary malignant neoplasm of liver and intrahepatic bile duct", "2026-06-03"),
        (SNOMED, "59621000", "Essential hypertension", "2014-03-02"),
        (SNOMED, "44054006", "Type 2 diabetes mellitus", "2017-09-21"),
    ]
    return [
        _resource(
            "Condition",
            code,
            subject,
            {
                "clinicalStatus": active,
                "verificationStatus": confirmed,
                "code": _concept(system, code, display),
                "onsetDateTime": onset,
                "recordedDate": onset,
            },
        )
        for system, code, display, onset in rows
    ]


def _medications(subject: str) -> list[dict[str, Any]]:
    rows = [
        ("860975", "metformin hydrochloride 500 MG Extended Release Oral Tablet", "2017-10-02"),
        ("314076", "lisinopril 10 MG Oral Tablet", "2014-04-01"),
        ("617311", "atorvastatin 40 MG Oral Tablet", "2018-01-15"),
        ("32592", "oxaliplatin", "2026-06-09"),
        ("4492", "fluorouracil", "2026-06-09"),
    ]
    return [
        _resource(
            "MedicationRequest",
            code,
            subject,
            {
                "status": "active",
                "intent": "order",
                "medicationCodeableConcept": _concept(RXNORM, code, display),
                "authoredOn": day,
            },
        )
        for code, display, day in rows
    ]


def _observations(subject: str) -> list[dict[str, Any]]:
    found = [
        _resource(
            "Observation",
            f"{code}-{day}",
            subject,
            {
                "status": "final",
                "code": _concept(LOINC, code, name),
                "effectiveDateTime": f"{day}T09:00:00Z",
                "issued": f"{day}T12:00:00Z",
                "valueQuantity": {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
            },
        )
        for code, name, unit, series in CHART_OBSERVATIONS
        for day, value in series
    ]
    pressure = [("8480-6", "Systolic blood pressure", 142.0), ("8462-4", "Diastolic blood pressure", 84.0)]
    found.append(
        _resource(
            "Observation",
            "blood-pressure",
            subject,
            {
                "status": "final",
                "code": _concept(LOINC, "85354-9", "Blood pressure panel with all children optional"),
                "effectiveDateTime": "2026-05-11T09:00:00Z",
                "issued": "2026-05-11T09:05:00Z",
                "component": [
                    {
                        "code": _concept(LOINC, code, name),
                        "valueQuantity": {
                            "value": value,
                            "unit": "mmHg",
                            "system": "http://unitsofmeasure.org",
                            "code": "mm[Hg]",
                        },
                    }
                    for code, name, value in pressure
                ],
            },
        )
    )
    found.append(
        _resource(
            "Observation",
            "smoking",
            subject,
            {
                "status": "final",
                "code": _concept(LOINC, "72166-2", "Tobacco smoking status"),
                "effectiveDateTime": "2026-05-11T09:00:00Z",
                "issued": "2026-05-11T09:05:00Z",
                "valueCodeableConcept": _concept(SNOMED, "266919005", "Never smoked tobacco"),
            },
        )
    )
    return found


def fhir_bundle(person: Person) -> dict[str, Any]:
    """The chart as one FHIR R4 collection Bundle; every resource carries the HTEST tag."""
    patient = _patient(person)
    subject = patient["id"]
    procedure = _resource(
        "Procedure",
        "biopsy",
        subject,
        {
            "status": "completed",
            "code": _concept(SNOMED, "73761001", "Colonoscopy"),
            "performedDateTime": "2026-05-15",
        },
    )
    resources = [patient, *_conditions(subject), *_medications(subject), *_observations(subject), procedure]
    entries = [{"fullUrl": f"urn:uuid:{r['id']}", "resource": r} for r in resources]
    stamp = datetime(2026, 8, 25, 6, 0, tzinfo=UTC).isoformat()
    return {
        "resourceType": "Bundle",
        "id": _id("bundle"),
        "meta": {"tag": [HTEST]},
        "type": "collection",
        "timestamp": stamp,
        "entry": entries,
    }


def hl7_messages(person: Person) -> list[str]:
    """One ADT^A08 and the laboratory's ORU^R01 messages (HL7 v2.5.1), segments separated by carriage returns."""
    family, given = person.name.split("^")[:2]
    identity = (
        f"PID|1||{person.record_number}^^^&{person.issuer}&ISO^MR||{family}^{given}||{person.birth_date}|{person.sex}"
    )
    header = "MSH|^~\\&|DEMOLAB|DEMOHOSPITAL|OSLER|OSLER|{time}||{type}|{control}|T|2.5.1"
    messages = [
        "\r".join(
            [
                header.format(time="20260511080000", type="ADT^A08^ADT_A01", control="DEMO-ADT-1"),
                "EVN|A08|20260511080000",
                identity,
                "PV1|1|O",
            ]
        )
        + "\r"
    ]
    for n, (time, results) in enumerate(LABORATORY, start=1):
        segments = [
            header.format(time=time, type="ORU^R01^ORU_R01", control=f"DEMO-LAB-{n}"),
            identity,
            f"OBR|1|||24323-8^Comprehensive metabolic panel^LN|||{time}|||||||||||||||{time}|||F",
        ]
        segments += [
            f"OBX|{k}|NM|{code}^{name}^LN||{value}|{unit}^{unit}^UCUM|{interval}|{flag}|||F|||{time}"
            for k, (code, name, value, unit, interval, flag) in enumerate(results, start=1)
        ]
        messages.append("\r".join(segments) + "\r")
    return messages
