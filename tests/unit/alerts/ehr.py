"""An EHR for tests, over real HTTP on loopback: signs its tokens, publishes its keys, and answers FHIR reads."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

TOKEN = "read-only-token"


class Ehr:
    """`answers`: relative FHIR address up to its query -> resource. `delay_s` before each FHIR answer. `asked`: addresses."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384", "kid": "ehr-1"})
        self.answers: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.delay_s = 0.0
        self.status = 200
        ehr = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                ehr.get(self)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._http.server_port}"
        self.fhir, self.jwks = f"{self.origin}/fhir", f"{self.origin}/jwks"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/jwks":
            self._send(request, 200, dict(KeySet([self.key]).as_dict(private=False)))
            return
        self.asked.append(request.path.removeprefix("/fhir/"))
        time.sleep(self.delay_s)
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            self._send(request, 401, {})
            return
        kind = request.path.removeprefix("/fhir/").partition("?")[0]
        empty = {"resourceType": "Bundle", "type": "searchset"}
        self._send(request, self.status, self.answers.get(kind, empty))

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        request.send_response(status)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def settings(self, **more: Any) -> dict[str, Any]:
        """The `cds` settings under which this EHR may call."""
        client = {"issuer": "https://ehr.example/", "jwks_url": self.jwks, "fhir_servers": [self.fhir]}
        return {"clients": {"ward": client | more}, "public_url": "https://cds.example", "fetch_s": 0.4}

    def token(
        self,
        endpoint: str = "osler-patient-view",
        *,
        key: Any = None,
        header: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        **claims: Any,
    ) -> str:
        """A token as the specification has it; `claims` and `header` replace parts, None leaves one out."""
        now = int(clock())
        base = {
            "iss": "https://ehr.example/",
            "aud": f"https://cds.example/cds-services/{endpoint}",
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
        }
        payload = {name: value for name, value in {**base, **claims}.items() if value is not None}
        head = {"alg": "ES384", "kid": "ehr-1", "typ": "JWT", **(header or {})}
        return jwt.encode(head, payload, key or self.key, algorithms=[str(head["alg"])])

    def authorization(self, scope: str = "patient/*.rs") -> dict[str, Any]:
        """What a call brings so that Osler may read."""
        return {
            "fhirServer": self.fhir,
            "fhirAuthorization": {
                "access_token": TOKEN, "token_type": "Bearer", "expires_in": 300, "scope": scope, "subject": "osler",
            },
        }  # fmt: skip
