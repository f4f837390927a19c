"""Patient keys: stable, keyed, blind to padding, and silent about the identifier."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clinical import identity
from services.platform.errors import RefusedError

ISSUERS = {
    "urn:oid:1.2.3.4": "general-hospital",
    "http://hospital.example/mrn/": "general-hospital",
    "GH": "General-Hospital",
}
visible = st.text(st.characters(whitelist_categories=("L", "N")), min_size=1, max_size=20)


def test_known_answer():
    expected = hmac.new(b"secret", b"patient\x1fgeneral-hospital\x1fMRN-0042", hashlib.sha256).hexdigest()[:32]
    assert identity.patient_key("secret", "General-Hospital", " MRN-0042 ") == expected


def test_one_authority_has_one_name_whatever_the_door():
    from_dicom = identity.issuer_from_dicom("GH", "", ISSUERS, "default")
    from_hl7 = identity.issuer_from_hl7v2("OTHER", "1.2.3.4", ISSUERS, "default")
    from_fhir = identity.issuer_from_fhir("http://hospital.example/mrn", ISSUERS, "default")
    assert {from_dicom, from_hl7, from_fhir} == {"general-hospital"}


def test_nothing_named_is_the_default_and_unmapped_names_stand_for_themselves():
    assert identity.issuer_from_dicom("", "", ISSUERS, "Default") == "default"
    assert identity.issuer_from_fhir("urn:oid:9.9", ISSUERS, "default") == "9.9"
    assert identity.issuer_from_hl7v2("LAB", "9.8", {}, "default") == "9.8"


def test_case_and_leading_zeros_of_an_identifier_matter():
    keys = {identity.patient_key("s", "gh", value) for value in ("0042", "42", "a42", "A42")}
    assert len(keys) == 4


@pytest.mark.parametrize(("issuer", "value", "missing"), [("gh", " \x00 ", ("identifier",)), ("", "42", ("issuer",))])
def test_an_empty_part_is_refused_by_name(issuer, value, missing):
    with pytest.raises(RefusedError) as refused:
        identity.patient_key("s", issuer, value)
    assert refused.value.reason == "identity.missing_identifier"
    assert refused.value.missing == missing


def test_an_empty_secret_is_a_fault_of_the_installation():
    with pytest.raises(ValueError, match=r"identity\.secret"):
        identity.patient_key("", "gh", "42")


@given(visible, visible, visible, visible)
def test_different_patients_or_secrets_have_different_keys(issuer, value, other, secret):
    key = identity.patient_key(secret, issuer, value)
    assert len(key) == 32
    assert int(key, 16) >= 0
    assert key == identity.patient_key(secret, issuer, value)
    if identity.normalise_value(other) != identity.normalise_value(value):
        assert key != identity.patient_key(secret, issuer, other)
    assert key != identity.patient_key(secret + "x", issuer, value)


@given(st.text(max_size=40))
def test_normalisation_is_stable(text):
    assert identity.normalise_value(identity.normalise_value(text)) == identity.normalise_value(text)
    assert identity.normalise_issuer(identity.normalise_issuer(text)) == identity.normalise_issuer(text)


def test_an_identifier_does_not_show_itself_in_a_traceback():
    assert "0042" not in repr(identity.make_identifier("gh", "0042"))


def test_accession_numbers_are_hashed_apart_from_patients():
    assert identity.accession_number_hash("s", "gh", " ") == ""
    assert identity.accession_number_hash("s", "gh", "A1") == identity.accession_number_hash("s", "GH", "A1 ")
    assert identity.accession_number_hash("s", "gh", "A1") != identity.patient_key("s", "gh", "A1")
