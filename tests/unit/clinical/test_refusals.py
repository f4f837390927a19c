"""Refusals keep everything on the way to the wire and back."""

import pytest

from services.clinical.refusals import from_refusal, make_refusal, to_refusal
from services.platform.errors import RefusedError


def test_round_trip():
    wire = make_refusal(
        "suv.missing_dose", "no dose in the series", missing=["(0018,1074)"], remedy="resend", subject="1.2"
    )
    assert to_refusal(from_refusal(wire)) == wire


def test_the_subject_of_the_error_wins():
    assert to_refusal(RefusedError("a.b", "c", subject="1.2"), subject="9").subject == "1.2"
    assert to_refusal(RefusedError("a.b", "c"), subject="9").subject == "9"


@pytest.mark.parametrize(("reason", "message"), [("Bad Reason", "x"), ("", "x"), ("a.b", "")])
def test_an_unusable_refusal_is_a_fault(reason, message):
    with pytest.raises(ValueError, match="refusal"):
        make_refusal(reason, message)
