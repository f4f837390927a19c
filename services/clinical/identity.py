"""Patient identity: an issuer and an identifier, known outside the authorised doors only by a keyed hash.

DICOM names the issuer in (0010,0021) IssuerOfPatientID and (0010,0024) IssuerOfPatientIDQualifiersSequence
(PS3.3 C.2.3), HL7 v2 in PID-3.4 assigning authority (v2.5.1 section 2.A.14 CX, 2.A.33 HD), FHIR R4 in
Identifier.system. The same authority has a different name in each: `issuers` in the settings maps them to one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from services.platform.errors import RefusedError

KEY_LENGTH = 32
_SEPARATOR = "\x1f"
_URN = re.compile(r"^(?:urn:(?:oid|uuid):\s*)+")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, order=True)
class PatientIdentifier:
    """One identifier of a patient: `value` as given out by `issuer`, both normalised."""

    issuer: str
    value: str

    def __repr__(self) -> str:
        """Shows the issuer only: an identifier must not reach a log by way of a traceback."""
        return f"PatientIdentifier(issuer={self.issuer!r}, value=<hidden>)"


def normalise_value(value: str) -> str:
    """An identifier with insignificant differences removed: Unicode form, padding and runs of spaces.

    Case, leading zeros and punctuation are kept: some issuers tell patients apart by them.
    """
    text = "".join(c for c in unicodedata.normalize("NFKC", value) if unicodedata.category(c) != "Cc" or c.isspace())
    return _SPACE.sub(" ", text).strip()


def normalise_issuer(issuer: str) -> str:
    """An issuer's name for comparison: no padding, no `urn:oid:` prefix, no closing slash, lower case."""
    return _URN.sub("", normalise_value(normalise_value(issuer).casefold())).rstrip("/ ")


def resolve_issuer(names: tuple[str, ...], issuers: Mapping[str, str], default: str) -> str:
    """The canonical issuer for the first of `names` that is not empty, preferring one that `issuers` maps.

    `issuers`: external name (FHIR system, HL7 v2 namespace or universal id, DICOM issuer) -> canonical issuer.
    `default` serves when nothing is named, as in most DICOM.
    """
    table = {normalise_issuer(name): normalise_issuer(canonical) for name, canonical in issuers.items()}
    given = [normalise_issuer(name) for name in names if normalise_issuer(name)]
    for name in given:
        if name in table:
            return table[name]
    return given[0] if given else normalise_issuer(default)


def issuer_from_dicom(
    issuer_of_patient_id: str, universal_entity_id: str, issuers: Mapping[str, str], default: str
) -> str:
    """Issuer from (0010,0021) and, inside (0010,0024), (0040,0032) UniversalEntityID; either may be empty."""
    return resolve_issuer((universal_entity_id, issuer_of_patient_id), issuers, default)


def issuer_from_hl7v2(namespace_id: str, universal_id: str, issuers: Mapping[str, str], default: str) -> str:
    """Issuer from CX.4 assigning authority: HD.1 namespace id and HD.2 universal id; either may be empty."""
    return resolve_issuer((universal_id, namespace_id), issuers, default)


def issuer_from_fhir(system: str, issuers: Mapping[str, str], default: str) -> str:
    """Issuer from Identifier.system; may be empty."""
    return resolve_issuer((system,), issuers, default)


def make_identifier(issuer: str, value: str) -> PatientIdentifier:
    """A normalised identifier. Raises RefusedError `identity.missing_identifier` for an empty value or issuer."""
    identifier = PatientIdentifier(normalise_issuer(issuer), normalise_value(value))
    missing = [name for name, text in (("issuer", identifier.issuer), ("identifier", identifier.value)) if not text]
    if missing:
        raise RefusedError(
            "identity.missing_identifier",
            "the patient cannot be identified: " + " and ".join(missing) + " empty",
            missing=missing,
            remedy="send the patient's identifier, or set identity.default_issuer",
        )
    return identifier


def keyed_hash(secret: str | bytes, *parts: str) -> str:
    """HMAC-SHA256 (RFC 2104) of `parts`, the first 128 bits as 32 lower-case hexadecimal digits."""
    key = secret.encode() if isinstance(secret, str) else secret
    if not key:
        raise ValueError("the identity secret is empty; set identity.secret")
    return hmac.new(key, _SEPARATOR.join(parts).encode(), hashlib.sha256).hexdigest()[:KEY_LENGTH]


def patient_key(secret: str | bytes, issuer: str, identifier: str) -> str:
    """The key that stands for a patient in events, topics, logs and URLs: 32 hexadecimal digits.

    The same issuer and identifier give the same key with the same `secret`; without the secret nothing leads back.
    Raises RefusedError `identity.missing_identifier` for an empty issuer or identifier.

    >>> patient_key("s3cret", "General Hospital", " 0042 ") == patient_key("s3cret", "general hospital", "0042")
    True
    """
    known = make_identifier(issuer, identifier)
    return keyed_hash(secret, "patient", known.issuer, known.value)


def accession_number_hash(secret: str | bytes, issuer: str, accession_number: str) -> str:
    """Keyed hash of an accession number, or "" when there is none: joins a study to its order without showing it."""
    value = normalise_value(accession_number)
    return keyed_hash(secret, "accession", normalise_issuer(issuer), value) if value else ""
