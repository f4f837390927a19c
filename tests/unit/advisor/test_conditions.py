"""Conditions of rules: three truth values, and malformed rules refused at load."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from services.advisor.conditions import check, evaluate
from services.platform.errors import ConfigurationError

YES, NO, UNKNOWN = ({"fact": name, "is": True} for name in ("yes", "no", "unknown"))
FACTS = {"yes": SimpleNamespace(value=True), "no": SimpleNamespace(value=False), "n": SimpleNamespace(value=30.0)}


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ({"all": [YES, YES]}, True),
        ({"all": [YES, NO]}, False),
        ({"all": [YES, UNKNOWN]}, None),
        ({"all": [NO, UNKNOWN]}, False),
        ({"any": [NO, YES]}, True),
        ({"any": [NO, NO]}, False),
        ({"any": [NO, UNKNOWN]}, None),
        ({"any": [YES, UNKNOWN]}, True),
        ({"unless": YES}, False),
        ({"unless": NO}, True),
        ({"unless": UNKNOWN}, True),
        ({"fact": "n", "lt": 30}, False),
        ({"fact": "n", "le": 30}, True),
        ({"fact": "n", "gt": 30}, False),
        ({"fact": "n", "ge": 30}, True),
        ({"fact": "unknown", "known": False}, True),
        ({"fact": "n", "known": False}, False),
    ],
)
def test_truth(condition, truth):
    assert evaluate(condition, FACTS).truth is truth


def test_what_decided_and_what_was_missing_are_told():
    verdict = evaluate({"all": [YES, {"unless": UNKNOWN}]}, FACTS)
    assert (verdict.used, verdict.unknown) == (("yes",), ("unknown",))
    assert evaluate({"any": [NO, YES]}, FACTS).used == ("yes",)


@pytest.mark.parametrize(
    "condition",
    [
        "egfr < 30",
        {"fact": "nobody", "is": True},
        {"fact": "yes", "matches": "x"},
        {"fact": "yes"},
        {"fact": "yes", "lt": 1, "gt": 0},
        {"all": []},
        {"all": {"fact": "yes", "is": True}},
        {"not": YES},
        {},
    ],
)
def test_malformed_conditions_are_refused_where_they_stand(condition):
    with pytest.raises(ConfigurationError, match="contrast rule x"):
        check(condition, {"yes", "unknown"}, "contrast rule x")
