"""Pulling a patient's chart from a FHIR server: all pages, from that server only."""

import json

import httpx
import pytest

from services.ingest.fhir_door import pull_everything
from services.platform.errors import RefusedError, RetryableError

BASE = "https://ehr.example/r4"


def page(*ids, following=None):
    link = [{"relation": "next", "url": following}] if following else []
    entries = [{"resource": {"resourceType": "Observation", "id": i}} for i in ids]
    return httpx.Response(200, json={"resourceType": "Bundle", "type": "searchset", "link": link, "entry": entries})


def pull(answer, patient="p 1", token="t"):
    client = httpx.Client(transport=httpx.MockTransport(answer))
    return json.loads(pull_everything(BASE, patient, token, client))


def test_every_page_is_read_with_the_token():
    def answer(request):
        assert request.headers["authorization"] == "Bearer t"
        if request.url.params.get("page") == "2":
            return page("c")
        assert request.url.raw_path == b"/r4/Patient/p%201/$everything"
        return page("a", "b", following=f"{BASE}/Patient/p%201/$everything?page=2")

    assert [e["resource"]["id"] for e in pull(answer)["entry"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (lambda _: page("a", following="https://elsewhere.example/next"), RefusedError, "fhir.bad_page"),
        (lambda r: page("a", following=str(r.url)), RefusedError, "fhir.bad_page"),
        (lambda _: httpx.Response(404), RefusedError, "fhir.server_refused"),
        (lambda _: httpx.Response(200, text="<html>"), RefusedError, "fhir.bad_page"),
        (lambda _: httpx.Response(503), RetryableError, ""),
    ],
)
def test_what_goes_wrong_is_told(answer, error, reason):
    with pytest.raises(error) as raised:
        pull(answer)
    assert getattr(raised.value, "reason", "") == reason
