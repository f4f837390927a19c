"""Typed settings: environment (`OSLER_GROUP__KEY`) over one YAML file over defaults.

The file is the one named by `OSLER_CONFIG`, else `./osler.yaml`, else `<home>/osler.yaml`. Every key is listed in
`docs/settings.md`, which `python -m services.platform.config --markdown` writes from these classes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from services.platform.errors import ConfigurationError

# Rooms in the order in which data flows through them; also the order in which they start.
ROOMS = (
    "ingest",
    "imaging",
    "registration",
    "fusion",
    "twin",
    "advisor",
    "alerts",
    "board",
    "analytics",
)
REPOSITORY = Path(__file__).resolve().parents[2]


def _split_commas(value: object) -> object:
    """Lets the environment give a list as `A,B` beside JSON."""
    if not isinstance(value, str):
        return value
    if value.strip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _from_file(value: object) -> object:
    """A secret written `file:/path` is read from that file, so that it stays out of the environment and the YAML."""
    if isinstance(value, str) and value.startswith("file:"):
        path = Path(value.removeprefix("file:"))
        try:
            return path.read_text().strip()
        except OSError as error:
            raise ValueError(f"cannot read the secret file {path}: {error.strerror}") from None
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
Secret = Annotated[SecretStr, BeforeValidator(_from_file)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BusSecurity(_Group):
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Kafka security protocol."
    )
    sasl_mechanism: str = Field(default="", description="For example `SCRAM-SHA-512`; empty without SASL.")
    username: str = Field(default="", description="SASL user name.")
    password: Secret = Field(default=SecretStr(""), description="SASL password, or `file:/path`.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the brokers' certificates."
    )


class Bus(_Group):
    """The event log."""

    backend: Literal["sqlite", "kafka"] = Field(default="sqlite", description="Embedded log, or a Kafka cluster.")
    path: Path | None = Field(
        default=None, description="File of the embedded log.", json_schema_extra={"derived": "`<home>/events.db`"}
    )
    partitions: int = Field(default=8, ge=1, le=1024, description="Partitions of a topic that Osler creates.")
    bootstrap_servers: Names = Field(default=("127.0.0.1:9092",), description="Kafka brokers, `host:port`.")
    security: BusSecurity = Field(default=BusSecurity(), description="How to reach the brokers.")


class DatabaseSettings(_Group):
    """State of the rooms."""

    url: str = Field(
        default="",
        description="SQLAlchemy URL: SQLite, or `postgresql+psycopg://user@host/osler`.",
        json_schema_extra={"derived": "`sqlite:///<home>/osler.db`"},
    )
    password: Secret = Field(
        default=SecretStr(""), description="Database password, or `file:/path`; kept out of the URL."
    )
    pool_size: int = Field(default=5, ge=1, description="Connections that one process keeps open (PostgreSQL).")


class Blobs(_Group):
    """Large objects: DICOM instances, derived objects, patient snapshots."""

    url: str = Field(
        default="",
        description="fsspec URL: `file://`, `s3://bucket/prefix`.",
        json_schema_extra={"derived": "`file://<home>/blobs`"},
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options for the fsspec file system, for example `{endpoint_url: ...}`."
    )


class Identity(_Group):
    """How a patient key is made: a keyed hash of issuer and identifier."""

    secret: Secret = Field(
        default=SecretStr(""),
        description="Key of the hash, 32 characters or more, or `file:/path`. Same for every process; never change it.",
        json_schema_extra={"derived": "generated in `<home>/identity.key` (mode 600)"},
    )
    default_issuer: str = Field(default="local", min_length=1, description="Issuer of identifiers that name none.")
    issuers: dict[str, str] = Field(
        default_factory=dict,
        description="FHIR identifier system, HL7 assigning authority or DICOM IssuerOfPatientID -> issuer name.",
    )


class Tls(_Group):
    cert_file: Path | None = Field(default=None, description="PEM certificate chain of this server.")
    key_file: Path | None = Field(default=None, description="PEM private key of this server.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the peers' certificates."
    )
    client_auth: bool = Field(default=False, description="Server: ask clients for a certificate (mutual TLS).")
    enabled: bool = Field(default=False, description="Use TLS between rooms.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.enabled and not ((self.cert_file and self.key_file) or self.ca_file):
            raise ValueError("TLS needs cert_file and key_file (server) or ca_file (client)")
        if self.client_auth and not self.ca_file:
            raise ValueError("client_auth needs ca_file, the authority of the clients' certificates")
        return self


class GrpcPorts(_Group):
    ingest: Port = Field(default=50051, description="Port; 0 picks a free one.")
    imaging: Port = Field(default=50052, description="Port; 0 picks a free one.")
    registration: Port = Field(default=50053, description="Port; 0 picks a free one.")
    fusion: Port = Field(default=50054, description="Port; 0 picks a free one.")
    twin: Port = Field(default=50055, description="Port; 0 picks a free one.")
    advisor: Port = Field(default=50056, description="Port; 0 picks a free one.")


def _default_policy() -> dict[str, tuple[str, ...]]:
    return {"*": ("clinician", "board", "admin", "service")}


class Grpc(_Group):
    """Calls between rooms."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    ports: GrpcPorts = Field(default=GrpcPorts(), description="Port of each room.")
    endpoints: dict[str, str] = Field(
        default_factory=dict, description="Room -> `host:port` to call, where it is not `host` and `ports`."
    )
    deadline_s: float = Field(default=30.0, gt=0, description="Deadline of a call that sets none, on both sides.")
    max_message_mb: int = Field(default=32, ge=1, le=1024, description="Largest message.")
    drain_s: float = Field(default=10.0, ge=0, description="Time that running calls get when a server stops.")
    public_health: bool = Field(default=True, description="Answer health checks without a token.")
    public_reflection: bool = Field(default=False, description="Answer reflection without a token.")
    policy: dict[str, tuple[str, ...]] = Field(
        default_factory=_default_policy,
        description="Method pattern (`/osler.fusion.v1.FusionService/*`) -> roles that may call it; the longest "
        "pattern that matches decides.",
    )
    tls: Tls = Field(default=Tls(), description="TLS between rooms.")

    def address(self, room: str) -> str:
        """`host:port` that the room listens on. Raises ConfigurationError for a room without a gRPC port."""
        return f"{self.host}:{_port(self.ports, room, 'grpc.ports')}"

    def endpoint(self, room: str) -> str:
        """`host:port` at which others call the room."""
        return self.endpoints.get(room) or self.address(room)


class HttpPorts(_Group):
    ingest: Port = Field(default=8042, description="DICOMweb. 0 picks a free port.")
    alerts: Port = Field(default=8081, description="CDS Hooks. 0 picks a free port.")
    board: Port = Field(default=8080, description="The tumour board's pages. 0 picks a free port.")
    analytics: Port = Field(default=8082, description="Operational figures. 0 picks a free port.")


class Http(_Group):
    """Doors that speak HTTP."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    ports: HttpPorts = Field(default=HttpPorts(), description="Port of each door.")
    max_body_mb: int = Field(
        default=64, ge=1, description="Largest request body of a page or API; DICOMweb sets its own."
    )
    secure_cookies: bool = Field(
        default=False, description="Mark cookies Secure: set it wherever TLS ends before Osler."
    )
    session_ttl_s: int = Field(default=8 * 3600, ge=60, description="How long a browser stays signed in.")
    root_path: str = Field(default="", description="Path prefix added by a reverse proxy.")

    def port(self, room: str) -> int:
        """Port of the room's door. Raises ConfigurationError for a room without one."""
        return _port(self.ports, room, "http.ports")


class StorageCommitmentPeer(_Group):
    host: str = Field(description="Host of the peer that asks for storage commitment.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="Port of that peer.")


class Dicom(_Group):
    """The DICOM listener."""

    ae_title: str = Field(default="OSLER", min_length=1, max_length=16, description="Application entity title.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=11112, description="Port; 0 picks a free one.")
    quiet_period_s: float = Field(default=20.0, ge=0, description="A study without news for this long is complete.")
    allowed_calling_aes: Names = Field(default=(), description="Calling AE titles let in; empty lets in all.")
    storage_commitment_peers: dict[str, StorageCommitmentPeer] = Field(
        default_factory=dict, description="AE title -> `{host, port}` for results of storage commitment."
    )
    max_pdu_bytes: int = Field(default=131072, ge=0, description="Largest PDU; 0 is unlimited.")
    max_waiting_events: int = Field(
        default=20_000,
        ge=0,
        description="While more events than this wait for the event bus, C-STORE answers A700 (out of resources), so that"
        " senders keep their images; 0 is no limit.",
    )
    share_port: bool = Field(
        default=False,
        description="Several processes of one machine listen on this port; the kernel spreads associations among them.",
    )
    worklist_port: Port | None = Field(
        default=None, description="Port of the Modality Worklist; 0 picks a free one, empty offers none."
    )


class Hl7(_Group):
    """The HL7 v2 MLLP listener."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=2575, description="Port; 0 picks a free one.")
    max_message_kb: int = Field(default=4096, ge=1, description="Largest message.")


class Fhir(_Group):
    """FHIR servers that Osler reads from and writes to."""

    client_id: str = Field(
        default="", description="Osler's client id there (SMART Backend Services); empty signs in nowhere."
    )
    private_key: Secret = Field(
        default=SecretStr(""),
        description="Private key of that client, JWK or PEM (RSA, or EC on P-384), or `file:/path`.",
    )
    scope: str = Field(default="system/*.rs", description="Scopes to ask for; writing back needs `system/*.cruds`.")
    token_url: str = Field(default="", description="Token endpoint; empty asks the server's SMART configuration.")
    patience_s: float = Field(default=120.0, gt=0, description="How long a call is tried again while a server is away.")
    hook_token_s: float = Field(
        default=365 * 86_400.0, gt=0, description="How long the token lasts that a followed server sends with its news."
    )


class Archive(_Group):
    """Where DICOM objects live."""

    mode: Literal["embedded", "dicomweb"] = Field(
        default="embedded", description="Osler's own archive, or an existing one."
    )
    url: str = Field(default="", description="DICOMweb base URL of the existing archive.")
    headers: dict[str, Secret] = Field(
        default_factory=dict, description="Headers for the archive, for example `{Authorization: file:/path}`."
    )

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        if self.mode == "dicomweb" and not self.url:
            raise ValueError("archive.mode dicomweb needs archive.url")
        return self


class Auth(_Group):
    """Who may come in."""

    mode: Literal["embedded", "oidc"] = Field(
        default="embedded", description="Osler's own issuer, or an OpenID provider."
    )
    issuer: str = Field(
        default="",
        description="Issuer (`iss`) of tokens.",
        json_schema_extra={"derived": "`osler` (embedded); required for oidc"},
    )
    audience: str = Field(default="osler", min_length=1, description="Audience (`aud`) that a token must carry.")
    jwks_url: str = Field(
        default="",
        description="Key set of the OpenID provider.",
        json_schema_extra={"derived": "from the issuer's discovery document"},
    )
    token_ttl_s: int = Field(default=3600, ge=30, description="Life of a token of the embedded issuer.")
    leeway_s: int = Field(default=30, ge=0, le=300, description="Clock difference that is forgiven.")
    roles_claim: str = Field(
        default="roles", description="Claim that lists roles; dots go deeper (`realm_access.roles` for Keycloak)."
    )
    client_id: str = Field(default="", description="OpenID client of Osler: sign-in of browsers and tokens of rooms.")
    client_secret: Secret = Field(default=SecretStr(""), description="Secret of that client, or `file:/path`.")

    @model_validator(mode="after")
    def _has_issuer(self) -> Self:
        if self.mode == "oidc" and not self.issuer:
            raise ValueError("auth.mode oidc needs auth.issuer, the provider's issuer URL")
        return self


class CdsClient(_Group):
    issuer: str = Field(min_length=1, description="Issuer (`iss`) of the client's tokens.")
    jwks_url: str = Field(
        min_length=1, description="The client's published key set; its tokens may name no other (`jku`)."
    )
    fhir_servers: Names = Field(
        default=(),
        description="FHIR base URLs that may be asked for missing prefetch with the token that a call brings.",
    )
    tenants: Names = Field(default=(), description="Organisations (`tenant`) let in; empty lets in all.")


class Cds(_Group):
    """The CDS Hooks door."""

    clients: dict[str, CdsClient] = Field(
        default_factory=dict,
        description="Short name -> `{issuer, jwks_url, fhir_servers, tenants}` of each EHR that may call with its own tokens.",
    )
    own_tokens: bool = Field(
        default=True, description="Also accept Osler's own tokens, which may be used several times; off in production."
    )
    public_url: str = Field(
        default="",
        description="Base URL at which EHRs call the door; their tokens' audience begins with it.",
        json_schema_extra={"derived": "`http://<http.host>:<http.ports.alerts>`"},
    )
    board_url: str = Field(
        default="",
        description="Base URL of the board in clinicians' browsers, for links on cards.",
        json_schema_extra={"derived": "`http://<http.host>:<http.ports.board>`"},
    )
    longest_token_s: int = Field(default=900, ge=60, description="A client's token that lives longer is refused.")
    fetch_s: float = Field(
        default=0.8, gt=0, description="Time for fetching missing prefetch; then what is known counts."
    )
    advisor_s: float = Field(default=2.0, gt=0, description="Time for the advisor's check of draft orders.")
    most_cards: int = Field(default=4, ge=1, le=10, description="Most cards in one answer.")
    keep_cards_days: int = Field(default=90, ge=1, description="How long feedback on a card is waited for.")


class SmartServer(_Group):
    fhir_url: str = Field(min_length=1, description="FHIR base URL (`iss` of a launch).")
    client_id: str = Field(min_length=1, description="Osler's client id at its authorization server.")
    client_secret: Secret = Field(
        default=SecretStr(""), description="Secret of that client, or `file:/path`; empty for a public client."
    )
    scope: str = Field(
        default="openid fhirUser patient/Patient.rs",
        description="Scopes to ask for, beside `launch` (from the EHR) or `launch/patient` (standalone).",
    )
    roles: Names = Field(default=("clinician",), description="Roles of the people who come in by this server.")


class Smart(_Group):
    """Launch of the board as a SMART on FHIR app."""

    servers: dict[str, SmartServer] = Field(
        default_factory=dict,
        description="Short name -> `{fhir_url, client_id, client_secret, scope, roles}` of each EHR that may launch the board.",
    )


class Compute(_Group):
    """Where heavy work runs."""

    backend: Literal["local", "ray"] = Field(default="local", description="In the room's own process, or Ray Serve.")
    num_cpus: int = Field(default=2, ge=1, description="Cores for heavy work.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs for heavy work.")
    object_store_mb: int = Field(default=512, ge=80, description="Ray's shared memory.")


class Board(_Group):
    """The tumour board's pages."""

    case_access: Literal["all", "team"] = Field(
        default="all",
        description="Who may open a case: every clinician, or only its team and the participants of its meetings. "
        "Restricted cases always ask for the team.",
    )
    break_glass_minutes: int = Field(
        default=60, ge=5, le=1440, description="How long a case stays open to someone who broke the glass."
    )
    idle_lock_s: int = Field(
        default=900, ge=30, description="A browser without activity for this long has to sign in again."
    )
    volumes_mb: int = Field(default=512, ge=16, description="Memory for volumes that the image viewer asked for.")


class Models(_Group):
    """Model bundles."""

    path: Path = Field(
        default=REPOSITORY / "models",
        description="Folder of model bundles.",
        json_schema_extra={"derived": "models/ of the repository", "example": "models"},
    )
    folders: tuple[Path, ...] = Field(default=(), description="Further folders of model packages, read only.")
    catalog_url: str = Field(
        default="https://github.com/Project-MONAI/model-zoo/releases/download/hosting_storage_v1/{name}_v{version}.zip",
        description="Where `osler models add NAME` fetches a package of models/catalog.yaml; https, or loopback.",
    )
    max_download_mb: int = Field(default=4096, ge=1, description="Largest package that is fetched.")
    memory_mb: int = Field(
        default=2048, ge=1, description="Weights that one replica keeps; the least recently used leave first."
    )
    max_batch: int = Field(default=8, ge=1, le=64, description="Requests that pass a network together.")
    batch_wait_ms: float = Field(default=0.0, ge=0, description="How long a replica waits to fill a batch.")
    max_queued: int = Field(
        default=32, ge=1, description="Requests that wait for a replica; more are told to try again later."
    )
    min_replicas: int = Field(default=0, ge=0, description="Replicas kept without work; 0 scales to zero.")
    max_replicas: int = Field(default=1, ge=1, description="Most replicas of one device class (Ray).")
    target_ongoing: float = Field(default=2.0, gt=0, description="Requests for each replica that scaling aims at.")
    idle_s: float = Field(default=300.0, ge=1, description="A replica without work leaves after this long.")
    crashes: int = Field(default=3, ge=1, description="Crashes in a row after which a model is set aside.")
    crash_pause_s: float = Field(
        default=600.0, ge=1, description="How long a model that was set aside rests before one trial."
    )


class Telemetry(_Group):
    """Traces and metrics."""

    otlp_endpoint: str = Field(
        default="", description="OTLP/HTTP base URL, for example `http://localhost:4318`; empty sends nothing."
    )
    service_name: str = Field(
        default="", description="Service name in traces.", json_schema_extra={"derived": "`osler-<room>`"}
    )
    prometheus_port: Port | None = Field(
        default=9464,
        description="First port of the operations doors (`/healthz`, `/readyz`, `/metrics`); room n listens n ports "
        "higher. 0 picks a free port, null opens none.",
    )
    console: bool = Field(default=False, description="Print finished spans.")

    def operations_port(self, room: str) -> int | None:
        """Port of the operations door of a process whose first room is `room`; None for no door."""
        if not self.prometheus_port:
            return self.prometheus_port
        return self.prometheus_port + (ROOMS.index(room) if room in ROOMS else len(ROOMS))


class Log(_Group):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written."
    )
    format: Literal["json", "text"] = Field(default="json", description="One JSON object a line, or text for people.")


def _default_home() -> Path:
    return Path(platformdirs.user_data_dir("osler", appauthor=False))


class Settings(BaseSettings):
    """All settings. The constructor reads nothing but its arguments; `load` reads environment and file."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="OSLER_", env_nested_delimiter="__", env_ignore_empty=True
    )

    home: Path = Field(
        default_factory=_default_home,
        description="Folder of everything that Osler keeps on this machine.",
        json_schema_extra={"derived": "the user's data folder + `osler`", "example": "var"},
    )
    bus: Bus = Field(default=Bus(), description="The event log.")
    database: DatabaseSettings = Field(default=DatabaseSettings(), description="State of the rooms.")
    blobs: Blobs = Field(default=Blobs(), description="Large objects.")
    identity: Identity = Field(default=Identity(), description="Patient keys.")
    grpc: Grpc = Field(default=Grpc(), description="Calls between rooms.")
    http: Http = Field(default=Http(), description="Doors that speak HTTP.")
    dicom: Dicom = Field(default=Dicom(), description="The DICOM listener.")
    hl7: Hl7 = Field(default=Hl7(), description="The HL7 v2 listener.")
    fhir: Fhir = Field(default=Fhir(), description="FHIR servers that Osler reads from and writes to.")
    archive: Archive = Field(default=Archive(), description="Where DICOM objects live.")
    auth: Auth = Field(default=Auth(), description="Who may come in.")
    cds: Cds = Field(default=Cds(), description="The CDS Hooks door.")
    smart: Smart = Field(default=Smart(), description="Launch of the board as a SMART on FHIR app.")
    compute: Compute = Field(default=Compute(), description="Where heavy work runs.")
    board: Board = Field(default=Board(), description="The tumour board's pages.")
    models: Models = Field(default=Models(), description="Model bundles.")
    telemetry: Telemetry = Field(default=Telemetry(), description="Traces and metrics.")
    log: Log = Field(default=Log(), description="Logs.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @model_validator(mode="after")
    def _derive(self) -> Self:
        """Fills what follows from `home`."""
        home = self.home.expanduser().absolute()
        derived = {
            "home": home,
            "bus": self.bus.model_copy(update={"path": (self.bus.path or home / "events.db").expanduser().absolute()}),
            "database": self.database.model_copy(update={"url": self.database.url or f"sqlite:///{home / 'osler.db'}"}),
            "blobs": self.blobs.model_copy(update={"url": self.blobs.url or (home / "blobs").as_uri()}),
            "auth": self.auth.model_copy(update={"issuer": self.auth.issuer or "osler"}),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        return self

    @classmethod
    def load(cls, path: Path | None = None, **overrides: Any) -> Settings:
        """Settings from environment over file over defaults; `overrides` (for example `home=...`) win over all.

        Raises ConfigurationError naming each unknown or wrong key.
        """
        from services.platform import settings_sources

        return settings_sources.load(cls, path, overrides)

    def ensure_home(self) -> Path:
        """Creates the home folder, open to this user only, and returns it. Raises ConfigurationError."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"home: cannot create {self.home} ({error.strerror}); set OSLER_HOME to a folder that you may write"
            ) from error
        return self.home

    def identity_key(self) -> bytes:
        """Key of the patient-key hash: `identity.secret`, else the one generated in home on first use."""
        configured = self.identity.secret.get_secret_value()
        if configured:
            if len(configured) < 32:
                raise ConfigurationError("identity.secret: needs 32 characters or more; leave it empty to generate one")
            return configured.encode()
        return create_once(self.ensure_home() / "identity.key", lambda: secrets.token_hex(32).encode()).strip()


def create_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes of a private file (mode 600), made by `make()` when absent. Safe when several processes start at once.

    Raises ConfigurationError when others may read the file.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            # Another process may have been first: then its file counts.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(f"{path} can be read by others; run: chmod 600 {path}")
    return path.read_bytes()


def _port(ports: BaseModel, room: str, group: str) -> int:
    port = getattr(ports, room, None)
    if port is None:
        raise ConfigurationError(
            f"{group}: {room!r} has no port; rooms with one: {', '.join(type(ports).model_fields)}"
        )
    return int(port)


if __name__ == "__main__":
    from services.platform.settings_sources import main

    sys.exit(main())
