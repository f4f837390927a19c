"""The quality gate on what the attributes say: phase, protocol, projection, side."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from services.imaging import quality
from services.imaging.quality import Verdict, assess
from tests.unit.imaging.dicom_samples import make_series

BLOCK = np.arange(6 * 5 * 5, dtype=float).reshape(6, 5, 5)


def issues_of(spacing=(1.0, 1.0, 2.0), origin=(-10.0, -20.0, 30.0), **attributes):
    return {i.code: i for i in assess(make_series(BLOCK, spacing=spacing, origin=origin, **attributes)).issues}


@pytest.mark.parametrize(
    ("description", "agent", "wrong"),
    [
        ("ABDOMEN PORTAL VENOUS 3.0", "", True),
        ("ABDOMEN PORTAL VENOUS 3.0", "IOHEXOL", False),
        ("Chest native 1mm", "IOHEXOL", True),
        ("Chest native 1mm", "", False),
        ("CT ABD W/O CONTRAST", "", False),
        ("THORAX 1.0 B31", "", False),
        ("ALTERNATIVE RECON", "IOHEXOL", False),
    ],
)
def test_contrast_phase(description, agent, wrong):
    assert ("wrong_phase" in issues_of(SeriesDescription=description, ContrastBolusAgent=agent)) is wrong


@pytest.mark.parametrize(
    ("description", "times", "wrong"),
    [
        ("AX T1 SE", {"EchoTime": 9.5, "RepetitionTime": 500}, False),
        ("AX T1 SE", {"EchoTime": 95, "RepetitionTime": 4000}, True),
        ("AX_T2_TSE", {"EchoTime": 95, "RepetitionTime": 4000}, False),
        ("AX_T2_TSE", {"EchoTime": 9, "RepetitionTime": 500}, True),
        ("AX FLAIR", {"EchoTime": 90, "RepetitionTime": 10000, "InversionTime": 2600}, False),
        ("AX FLAIR", {"EchoTime": 90, "RepetitionTime": 10000, "InversionTime": 160}, True),
        ("T2 FLAIR", {"EchoTime": 9}, False),
        ("LOCALIZER", {"EchoTime": 9}, False),
    ],
)
def test_mr_weighting(description, times, wrong):
    assert ("wrong_protocol" in issues_of(modality="MR", SeriesDescription=description, **times)) is wrong


@pytest.mark.parametrize(
    ("view", "description", "wrong"),
    [("PA", "CHEST PA", False), ("AP", "CHEST PA", True), ("LL", "THORAX LATERAL", False), ("", "CHEST AP", False)],
)
def test_projection(view, description, wrong):
    assert ("wrong_protocol" in issues_of(Modality="DX", ViewPosition=view, SeriesDescription=description)) is wrong


@pytest.mark.parametrize(
    ("tags", "description", "verdict"),
    [
        ({"Laterality": "L"}, "KNEE LEFT PD", None),
        ({"Laterality": "L"}, "KNEE RIGHT PD", Verdict.REJECT),
        ({"ImageLaterality": "R"}, "Knie links", Verdict.REJECT),
        ({"ImageLaterality": "R"}, "genou droit", None),
        ({"Laterality": "L", "ImageLaterality": "R"}, "", Verdict.REJECT),
        ({"Laterality": "L"}, "LEFT VERSUS RIGHT KNEE", None),
        ({"ImageLaterality": "L"}, "RT PLANNING", None),
        ({"ImageLaterality": "L"}, "BRIGHT SIGNAL", None),
        ({}, "KNEE RIGHT", None),
    ],
)
def test_side_recorded_against_side_described(tags, description, verdict):
    found = issues_of(SeriesDescription=description, **tags).get("laterality_conflict")
    assert (found.verdict if found else None) is verdict


def test_side_of_the_coded_region():
    region, modifier = Dataset(), Dataset()
    modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = "24028007", "SCT", "Right"
    region.AnatomicRegionModifierSequence = [modifier]
    assert "laterality_conflict" in issues_of(Laterality="L", AnatomicRegionSequence=[region])
    assert "laterality_conflict" not in issues_of(Laterality="R", AnatomicRegionSequence=[region])


@pytest.mark.parametrize(
    ("side", "x", "wrong"),
    [("L", 120, False), ("L", -120, True), ("R", -120, False), ("R", 120, True), ("R", 20, False)],
)
def test_side_against_the_place_in_the_scanner(side, x, wrong):
    """x grows to the patient's left; near the isocentre nothing can be told."""
    assert ("laterality_position" in issues_of(Laterality=side, origin=(x, 0, 0))) is wrong
    assert "laterality_position" not in issues_of(Laterality=side, origin=(-x, 0, 0), spacing=(90, 1, 2))


def test_burned_in_annotation_as_the_sender_says():
    assert issues_of(BurnedInAnnotation="YES")["burned_in_text"].verdict is Verdict.WARN
    assert "burned_in_text" not in issues_of(BurnedInAnnotation="NO")


def test_every_issue_has_a_remedy_and_is_raised_somewhere():
    raised = set()
    for path in Path(quality.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "issue":
                raised.add(node.args[0].value)
    table = quality.rules()["issues"]
    assert raised == set(table)
    assert all(len(rule["remedy"]) > 30 and rule["verdict"] in ("warn", "reject") for rule in table.values())
