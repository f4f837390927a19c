"""The gRPC client kit: channels whose calls carry a deadline, a token and the trace, and are retried when that helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from services.platform import telemetry
from services.platform.config import Settings
from services.platform.errors import ConfigurationError

TokenProvider = Callable[[], str]

# gRFC A6: the library waits a random time around the backoff, and retries only while nothing of the answer has arrived.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": False,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "loadBalancingConfig": [{"round_robin": {}}],
}


def channel(target: str, settings: Settings, token_provider: TokenProvider | None = None) -> grpc.aio.Channel:
    """An asyncio channel to `host:port`. Must be made inside a running event loop."""
    dresser = _Dresser(settings.grpc.deadline_s, token_provider)
    interceptors: list[grpc.aio.ClientInterceptor] = [
        _UnaryUnary(dresser),
        _UnaryStream(dresser),
        _StreamUnary(dresser),
        _StreamStream(dresser),
    ]
    credentials = _credentials(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_options(settings), interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=_options(settings), interceptors=interceptors)


def sync_channel(target: str, settings: Settings, token_provider: TokenProvider | None = None) -> grpc.Channel:
    """The same for code without an event loop."""
    credentials = _credentials(settings)
    options = _options(settings)
    plain = (
        grpc.insecure_channel(target, options=options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options=options)
    )
    return grpc.intercept_channel(plain, _Sync(_Dresser(settings.grpc.deadline_s, token_provider)))


def _options(settings: Settings) -> list[tuple[str, Any]]:
    size = settings.grpc.max_message_mb * 1024 * 1024
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]


def _credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    tls = settings.grpc.tls
    if not tls.enabled:
        return None
    try:
        own = tls.client_auth and tls.cert_file and tls.key_file
        return grpc.ssl_channel_credentials(
            root_certificates=tls.ca_file.read_bytes() if tls.ca_file else None,
            private_key=tls.key_file.read_bytes() if own and tls.key_file else None,
            certificate_chain=tls.cert_file.read_bytes() if own and tls.cert_file else None,
        )
    except OSError as error:
        raise ConfigurationError(f"grpc.tls: cannot read {error.filename} ({error.strerror})") from error


class _Dresser(NamedTuple):
    """Adds what a call lacks: deadline, token, trace context."""

    deadline_s: float
    token_provider: TokenProvider | None

    def metadata(self, given: Any) -> list[tuple[str, str | bytes]]:
        pairs = list(given or ())
        present = {key.lower() for key, _ in pairs}
        carrier: dict[str, str] = {}
        telemetry.inject(carrier)
        if self.token_provider is not None and "authorization" not in present:
            carrier["authorization"] = f"Bearer {self.token_provider()}"
        return pairs + [(key, value) for key, value in carrier.items() if key not in present]

    def asynchronous(self, details: Any) -> grpc.aio.ClientCallDetails:
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=self.deadline_s if details.timeout is None else details.timeout,
            metadata=grpc.aio.Metadata(*self.metadata(details.metadata)),
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, dresser: _Dresser) -> None:
        self._dresser = dresser

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._dresser.asynchronous(client_call_details), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, dresser: _Dresser) -> None:
        self._dresser = dresser

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._dresser.asynchronous(client_call_details), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, dresser: _Dresser) -> None:
        self._dresser = dresser

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._dresser.asynchronous(client_call_details), request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, dresser: _Dresser) -> None:
        self._dresser = dresser

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._dresser.asynchronous(client_call_details), request_iterator)


class _SyncDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Sync(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, dresser: _Dresser) -> None:
        self._dresser = dresser

    def _dressed(self, details: Any) -> Any:
        return _SyncDetails(
            details.method,
            self._dresser.deadline_s if details.timeout is None else details.timeout,
            self._dresser.metadata(details.metadata),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._dressed(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._dressed(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._dressed(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._dressed(client_call_details), request_iterator)
