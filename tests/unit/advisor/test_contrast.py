"""Contrast, MR and radiation safety: each rule fires on its published condition, and not beside it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from osler.advisor.v1 import advisor_pb2

from services.advisor import orders, rules
from services.advisor.facts import Fact, definitions
from services.advisor.provenance import Source
from services.platform.rpc import InvalidRequestError

NOW = datetime(2024, 5, 10, tzinfo=UTC)
SOURCE = Source("key-1", 1, "0" * 64, NOW)
CT = {"modality": "CT", "contrast": True}
IODINE = {**CT, "contrast_agent": "iodinated"}
GADOLINIUM = {"modality": "MR", "contrast": True}


def _group(number):
    return {**GADOLINIUM, "contrast_agent": f"gadolinium-group-{number}"}


def _check(order, days_old=1, **values):
    facts = {
        name: Fact(name, value, NOW - timedelta(days=days_old), (f"entry-{name}",)) for name, value in values.items()
    }
    return {item.rule_id: item for item in orders.check(advisor_pb2.DraftOrder(**order), facts, SOURCE, NOW)}


@pytest.mark.parametrize(
    ("rule", "order", "facts", "fires"),
    [
        ("contrast.iodine.egfr_below_30", CT, {"egfr": 29.9}, True),
        ("contrast.iodine.egfr_below_30", CT, {"egfr": 30.0}, False),
        ("contrast.iodine.egfr_below_30", CT, {"egfr": 20.0, "on_dialysis": True}, False),
        ("contrast.iodine.egfr_below_30", CT, {"egfr": 20.0, "on_dialysis": False}, True),
        ("contrast.iodine.egfr_30_to_44", CT, {"egfr": 30.0}, True),
        ("contrast.iodine.egfr_30_to_44", CT, {"egfr": 44.9}, True),
        ("contrast.iodine.egfr_30_to_44", CT, {"egfr": 45.0}, False),
        ("contrast.iodine.egfr_30_to_44", CT, {"egfr": 29.9}, False),
        ("contrast.iodine.acute_kidney_injury", CT, {"acute_kidney_injury": True}, True),
        ("contrast.iodine.acute_kidney_injury", CT, {"acute_kidney_injury": False}, False),
        ("contrast.iodine.dialysis", CT, {"on_dialysis": True}, True),
        ("contrast.iodine.metformin_hold", CT, {"metformin": True, "egfr": 29.0}, True),
        ("contrast.iodine.metformin_hold", CT, {"metformin": True, "egfr": 30.0}, False),
        ("contrast.iodine.metformin_hold", CT, {"metformin": True, "egfr": 80.0, "acute_kidney_injury": True}, True),
        ("contrast.iodine.metformin_hold", CT, {"metformin": False, "egfr": 20.0}, False),
        ("contrast.iodine.metformin_continue", CT, {"metformin": True, "egfr": 30.0}, True),
        ("contrast.iodine.metformin_continue", CT, {"metformin": True}, False),
        ("contrast.iodine.prior_reaction", CT, {"iodinated_contrast_allergy": True}, True),
        ("contrast.iodine.prior_reaction", GADOLINIUM, {"iodinated_contrast_allergy": True}, False),
        ("contrast.iodine.thyroid", CT, {"thyroid_disease": True}, True),
        ("contrast.iodine.kidney_function_unknown", CT, {"diabetes": True}, True),
        ("contrast.iodine.kidney_function_unknown", CT, {"metformin": True}, True),
        ("contrast.iodine.kidney_function_unknown", CT, {"diabetes": False, "metformin": False}, False),
        ("contrast.iodine.kidney_function_unknown", CT, {"diabetes": True, "egfr": 90.0}, False),
        ("contrast.iodine.kidney_function_unknown", CT, {"diabetes": True, "on_dialysis": True}, False),
        ("contrast.iodine.pregnancy", CT, {"pregnant": True}, True),
        ("contrast.gadolinium.group_1_contraindicated", _group(1), {"egfr": 29.9}, True),
        ("contrast.gadolinium.group_1_contraindicated", _group(1), {"egfr": 30.0}, False),
        ("contrast.gadolinium.group_1_contraindicated", _group(1), {"on_dialysis": True}, True),
        ("contrast.gadolinium.group_1_contraindicated", _group(2), {"egfr": 20.0}, False),
        ("contrast.gadolinium.group_2_allowed", _group(2), {"egfr": 20.0}, True),
        ("contrast.gadolinium.group_2_allowed", _group(2), {"egfr": 60.0}, False),
        ("contrast.gadolinium.group_3_limited_data", _group(3), {"acute_kidney_injury": True}, True),
        ("contrast.gadolinium.choose_group_2", GADOLINIUM, {"egfr": 29.9}, True),
        ("contrast.gadolinium.choose_group_2", GADOLINIUM, {"egfr": 30.0}, False),
        ("contrast.gadolinium.kidney_function_unknown", _group(1), {}, True),
        ("contrast.gadolinium.kidney_function_unknown", _group(2), {}, False),
        ("contrast.gadolinium.prior_reaction", _group(2), {"gadolinium_allergy": True}, True),
        ("contrast.gadolinium.prior_reaction", IODINE, {"gadolinium_allergy": True}, False),
        ("contrast.gadolinium.pregnancy", GADOLINIUM, {"pregnant": True}, True),
        ("safety.mr.cardiac_device", {"modality": "MR", "contrast": False}, {"cardiac_device": True}, True),
        ("safety.mr.cardiac_device", CT, {"cardiac_device": True}, False),
        ("safety.radiation.pregnancy", {"modality": "PT"}, {"pregnant": True}, True),
        ("safety.radiation.pregnancy", {"modality": "MR"}, {"pregnant": True}, False),
    ],
)
def test_rule(rule, order, facts, fires):
    assert (rule in _check(order, **facts)) is fires


@pytest.mark.parametrize(("days", "fires"), [(30, False), (31, True)])
def test_old_kidney_function(days, fires):
    found = _check(CT, days_old=days, egfr=60.0, diabetes=True)
    assert ("contrast.iodine.kidney_function_old" in found) is fires


def test_every_rule_of_the_file_is_tested_above():
    tested = {row[0] for row in test_rule.pytestmark[0].args[1]} | {"contrast.iodine.kidney_function_old"}
    assert tested == {rule.id for rule in rules.load("contrast.yaml")}


def test_egfr_comes_from_creatinine_age_and_sex():
    found = _check(CT, creatinine=2.6, age=70.0, sex_female=True)
    item = found["contrast.iodine.egfr_below_30"]
    assert item.summary.startswith("eGFR 19:")
    assert item.evidence[0].entry_ids == ["entry-creatinine"]


def test_no_contrast_no_contrast_advice():
    order = {"modality": "CT", "contrast": False}
    assert not _check(order, egfr=20.0, iodinated_contrast_allergy=True)


def test_an_order_that_does_not_say_is_judged_as_if_contrast_were_given_and_says_so():
    item = _check({"modality": "CT"}, egfr=20.0)["contrast.iodine.egfr_below_30"]
    assert "does not say whether contrast" in item.detail


def test_what_was_looked_for_and_not_found_is_told():
    item = _check(CT, egfr=20.0)["contrast.iodine.egfr_below_30"]
    assert any("dialysis" in text for text in item.not_found)
    assert any("acute kidney injury" in text for text in item.not_found)


def test_the_most_urgent_comes_first():
    facts = {"egfr": 20.0, "iodinated_contrast_allergy": True, "thyroid_disease": True}
    urgencies = [item.urgency for item in _check(CT, **facts).values()]
    assert urgencies == sorted(urgencies, reverse=True)
    assert urgencies[0] == advisor_pb2.URGENCY_CRITICAL


def test_an_unknown_agent_is_an_invalid_request():
    with pytest.raises(InvalidRequestError, match="contrast_agent"):
        _check({"modality": "CT", "contrast_agent": "barium"})


@pytest.mark.parametrize("rule", [*rules.load("contrast.yaml"), *rules.load("care.yaml")], ids=lambda rule: rule.id)
def test_a_rule_fits_on_a_card_and_cites_its_source(rule):
    widest = dict.fromkeys(definitions(), 12345.0)
    assert len(rule.summary.format(**widest)) <= 140
    assert all(re.search(r"\d{4}", citation) for citation in rule.citations)
    named = set(re.findall(r"{(\w+)", rule.summary))
    # A value in the summary must be one that the rule cannot fire without.
    assert named <= set(re.findall(r"'fact': '(\w+)', '(?:lt|le|gt|ge|is)'", str(rule.when)))
