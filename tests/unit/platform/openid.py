"""A small OpenID provider on loopback: discovery, key set, token endpoint with PKCE. For tests."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT = base64.b64encode(b"osler-rooms:hush").decode()


class Provider:
    """`clock` gives the time of its tokens. A code is redeemed by the verifier of `challenge` for an ID token."""

    def __init__(self, clock: Any = time.time) -> None:
        self.clock = clock
        self.key = self._new_key("one")
        self.fetches: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.up = True
        self.claimed_issuer = self.nonce = self.challenge = ""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @staticmethod
    def _new_key(name: str) -> RSAKey:
        return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": name})

    def rotate(self) -> None:
        self.key = self._new_key("two")

    def token(self, **claims: Any) -> str:
        now = int(self.clock())
        base = {"iss": self.issuer, "aud": "osler", "sub": "dr-b", "iat": now, "exp": now + 60, "roles": ["board"]}
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, base | claims, self.key, algorithms=["RS256"])

    def answer(self, path: str) -> dict[str, Any] | None:
        self.fetches.append(path)
        if not self.up:
            return None
        if path == "/jwks":
            return dict(KeySet([self.key]).as_dict(private=False))
        endpoints = {"jwks_uri": "jwks", "token_endpoint": "token", "authorization_endpoint": "authorize"}
        urls = {name: f"{self.issuer}/{part}" for name, part in endpoints.items()}
        return {"issuer": self.claimed_issuer or self.issuer, **urls}

    def redeem(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        self.forms.append(form)
        if authorization != f"Basic {CLIENT}":
            return None
        if form["grant_type"] == "client_credentials":
            return {"access_token": self.token(sub="svc", roles=["service"]), "expires_in": 100}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != self.challenge:
            return None
        return {"id_token": self.token(aud="osler-rooms", nonce=self.nonce)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(provider.answer(self.path), 503)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self._send(provider.redeem(form, self.headers["authorization"] or ""), 401)

            def _send(self, value: dict[str, Any] | None, otherwise: int) -> None:
                body = json.dumps(value).encode()
                self.send_response(otherwise if value is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
