"""Comparison of base URLs, so that a token goes only to the server that it is meant for."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"https": 443, "http": 80}


def same_base(given: str, known: str) -> bool:
    """True when two base URLs name the same server and path; scheme and host in any case, closing slashes left out.

    User names, queries and fragments have no place in a base URL: one that has them equals none.

    >>> same_base("HTTPS://EHR.example:443/fhir/", "https://ehr.example/fhir")
    True
    >>> same_base("https://ehr.example@evil.example/fhir", "https://ehr.example/fhir")
    False
    """
    one, other = _parts(given), _parts(known)
    return one is not None and one == other


def _parts(url: str) -> tuple[str, str, int, str] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme.lower(), 0)
    except ValueError:
        return None
    unsafe = parts.query or parts.fragment or "@" in parts.netloc or ".." in parts.path.split("/")
    if not parts.hostname or unsafe or not port:
        return None
    return parts.scheme.lower(), parts.hostname.lower(), port, parts.path.rstrip("/")
