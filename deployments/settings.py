"""All settings of modelmux, from the command line and from `MODELMUX_…` variables.

One frozen tree, read in one place and passed from there. An unknown variable or a value out of
range is refused with its name and the reason, because a setting that silently does nothing is
worse than one that fails.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deployments.mlflow_environment import tracking_server
from gateway.admission import AdmissionLimits
from gateway.capture.journal import CaptureLimits
from gateway.http.cross_origin import EVERYBODY, ORIGIN_PATTERN
from gateway.http.placement import PREFIX_PATTERN
from registry_sync.uris import without_credentials

HEALTH_CHECK_PERIOD_S = 2.0
"""How often Ray looks whether a replica is alive: until it has looked, one that was killed isn't
replaced (Ray's default is 10 s)."""

PREFIX = "MODELMUX_"

CLIENT_VARIABLES = ("url", "key")
"""What the commands that ask a running gateway read, and `Settings` doesn't."""

# Schemes of MLflow's stores (https://mlflow.org/docs/latest/self-hosting/architecture/).
_WEB = frozenset({"http", "https"})
_REGISTRY_SCHEMES = frozenset(
    {"http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks",
     "databricks-uc", "uc"}
)  # fmt: skip

Patterns = Annotated[tuple[str, ...], NoDecode]


_NO_NETWORK = "not an address or a network, such as 10.0.0.0/8"
_REASONS = {
    "ip_v4_network": _NO_NETWORK,
    "ip_v6_network": _NO_NETWORK,
    "int_parsing": "not a whole number",
    "float_parsing": "not a number",
    "bool_parsing": "neither true nor false",
    "path_type": "not a path",
}
"""In place of a validator's own words, by its kinds of error."""


class BadSettings(ValueError):
    """Settings that can't be taken; the sentence names them and never repeats a value."""


class Settings(BaseSettings):
    """Everything that can be set; the description of each field is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    tracking_uri: str = Field(
        description="The MLflow server (or store) whose registry is served; where nothing says it, "
        "that of MLflow's own variable MLFLOW_TRACKING_URI.",
    )
    registry_uri: str | None = Field(
        default=None, description="The registry, where it isn't the tracking server's own."
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    published_host: str | None = Field(
        default=None,
        description="The address at which the port is published, where `host` is a container's.",
    )
    port: int = Field(default=8000, ge=1, le=65535, description="The port to listen on.")
    published_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The port as which it is published, where that is another one.",
    )
    grpc_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The port of the Open Inference Protocol's gRPC service; off where empty.",
    )
    grpc_host: str | None = Field(
        default=None, description="The address that it listens on, where that isn't `host`."
    )
    state_dir: Path = Field(
        default=Path(".modelmux"),
        description="Where the snapshot of the catalog, the fetched artifacts and the "
        "environments are kept.",
    )
    poll_interval_s: float = Field(
        default=10.0, ge=0.1, le=3600.0, description="Seconds between two looks at the registry."
    )
    include: Patterns = Field(
        default=(), description="Globs of model names to serve, comma-separated; all where empty."
    )
    exclude: Patterns = Field(
        default=(), description="Globs of model names not to serve, comma-separated."
    )
    ray_address: str | None = Field(
        default=None, description="A running Ray cluster to join; a local one is started without."
    )
    champion_alias: str = Field(
        default="champion",
        min_length=1,
        description="The alias that names a model's default version.",
    )
    champion_stage: str | None = Field(
        default=None,
        min_length=1,
        description="The stage, such as Production, that names the default of a model without "
        "that alias; none does where absent.",
    )
    default_version: Literal["champion_or_newest", "champion"] = Field(
        default="champion_or_newest",
        description="What a model's default is without that alias: its newest version, or, with "
        "`champion`, none: nothing goes live until somebody moves the alias.",
    )
    pin_in_registry: bool = Field(
        default=False,
        description="Whether defaults and their contracts are written to the registry as tags and "
        "read back: two gateways agree then, and one without a disk forgets nothing.",
    )
    warm: Literal["tagged", "champions"] = Field(
        default="tagged",
        description="Which models have a replica that is always there: those whose tags say so, or "
        "those that a champion is named of, too.",
    )
    compatibility: Literal["compatible", "exact"] = Field(
        default="compatible",
        description="How strict the gate is: `compatible` by the rules, or `exact` signatures.",
    )
    request_timeout_s: float = Field(
        default=60.0,
        gt=0.0,
        le=3600.0,
        description="Seconds until a request is answered with 504, where no tag says otherwise.",
    )
    max_request_timeout_s: float = Field(
        default=3600.0,
        gt=0.0,
        le=3600.0,
        description="The longest deadline in seconds that a tag can give a model.",
    )
    max_body_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="The largest request body in bytes; more is answered with 413.",
    )
    body_timeout_s: float = Field(
        default=60.0,
        gt=0.0,
        le=3600.0,
        description="Seconds in which a request's body must be there; later is answered with 408.",
    )
    max_rows: int = Field(
        default=100_000,
        ge=1,
        le=10_000_000,
        description="The most rows of one request; more is answered with 413.",
    )
    max_waiting_requests_per_model: int = Field(
        default=1024,
        ge=1,
        description="Requests of a model that may be inside at once; more are answered with 429.",
    )
    max_waiting_rows_per_model: int = Field(
        default=200_000,
        ge=1,
        description="Rows of a model that may be inside at once; more are answered with 429.",
    )
    max_waiting_rows: int = Field(
        default=800_000,
        ge=1,
        description="Rows of all models that may be inside at once; more are answered with 429.",
    )
    max_waiting_bytes: int = Field(
        default=512 * 1024 * 1024,
        ge=1024,
        description="Bytes of bodies and large answers that may be inside at once; more are 429.",
    )
    max_active_models: int | None = Field(
        default=None,
        ge=1,
        description="Applications of models that may be there at once.",
    )
    deployment: Literal["own", "shared"] = Field(
        default="own",
        description="Where models run: each in a deployment of its `own`, or in the `shared` one, "
        "where no tag says otherwise.",
    )
    shared_replicas: int = Field(
        default=1, ge=1, le=1000, description="Replicas of the shared deployment."
    )
    shared_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="What the models' processes of each of these replicas may take for themselves; "
        "half of the machine's memory, divided by these replicas, where absent.",
    )
    ingress_replicas: int = Field(
        default=1, ge=1, le=1000, description="Processes that take requests."
    )
    ingress_num_cpus: float = Field(
        default=0.0,
        ge=0.0,
        le=1024.0,
        description="Processors that Ray sets aside for each of these processes.",
    )
    ingress_max_replicas: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Up to how many of them there may be; always `ingress_replicas` where absent.",
    )
    ingress_target_requests: int = Field(
        default=64,
        ge=1,
        description="Predictions that may be inside of each before there is one more.",
    )
    idle_timeout_s: float = Field(
        default=600.0,
        ge=1.0,
        description="Seconds without a request until a model's processes are stopped.",
    )
    spare_worker: bool = Field(
        default=True,
        description="Whether a process waits, with its imports done, for the next model that is "
        "woken.",
    )
    load_retry_s: float = Field(
        default=30.0,
        ge=1.0,
        description="Seconds for which a version that failed to load, or whose calls end or hold "
        "up its processes, is not tried again; doubled with each time in a row.",
    )
    load_timeout_s: float = Field(
        default=300.0,
        gt=0.0,
        description="Seconds that putting a version into memory may take.",
    )
    environment: Literal["auto", "shared", "own"] = Field(
        default="auto",
        description="Where versions run: `shared` with the gateway's packages, `own` in "
        "environments of their own, `auto` in these where the gateway lacks what they need.",
    )
    environments_dir: Path | None = Field(
        default=None,
        description="Where environments are kept, for several gateways of one user to share; "
        "`environments` in `state_dir` where it isn't set.",
    )
    max_environments_bytes: int = Field(
        default=50 * 1024**3,
        ge=0,
        description="What all environments may take on the disk; past it those that weren't used "
        "for the longest time go, never one in use.",
    )
    environment_builds_at_once: int = Field(
        default=1, ge=1, le=64, description="Environments that may be built at once on a machine."
    )
    environment_build_timeout_s: float = Field(
        default=1800.0,
        gt=0.0,
        le=86400.0,
        description="Seconds that building an environment may take.",
    )
    max_environment_bytes: int = Field(
        default=20 * 1024**3, ge=1, description="The largest environment in bytes."
    )
    environment_wheels_only: bool = Field(
        default=False,
        description="Whether packages that have no wheel, and whose code would run to build one, "
        "are refused.",
    )
    environment_python_downloads: bool = Field(
        default=False,
        description="Whether uv downloads Pythons that versions need and that aren't here.",
    )
    keys: str | None = Field(
        default=None, description="The keys that are good, as in a keys file, semicolons between."
    )
    keys_file: Path | None = Field(
        default=None, description="A file with the keys that are good, one a line."
    )
    insecure: bool = Field(
        default=False, description="Listen beyond the loopback though no keys are set."
    )
    public: Annotated[tuple[Literal["docs", "metrics"], ...], NoDecode] = Field(
        default=(), description="What needs no key where keys are on, comma-separated."
    )
    capture_url: str | None = Field(
        default=None,
        min_length=1,
        description="The folder, or fsspec URL, for what is captured of models whose tag says so; "
        "nothing is where absent. Needs modelmux[capture].",
    )
    capture_file_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="At how many bytes in memory, before compression, what was captured of a model "
        "becomes a file.",
    )
    capture_file_age_s: float = Field(
        default=300.0,
        ge=0.1,
        le=86400.0,
        description="Seconds after its first row at which it does so at the latest.",
    )
    capture_buffer_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024 * 1024,
        description="How much of it may wait in the memory of each process that takes requests; "
        "more is dropped.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="The secret that MLflow signs its webhooks with."
    )

    root_path: str = Field(
        default="",
        description="The path that callers find the gateway below, where a proxy in front has it "
        "there: `/ml`.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Addresses or networks of proxies whose `X-Forwarded-…` headers are believed, "
        "comma-separated.",
    )
    mlflow_ui_url: str | None = Field(
        default=None,
        description="Where browsers find MLflow's web interface; the registry's URL where that is "
        "one of HTTP.",
    )
    cors_origins: Patterns = Field(
        default=(),
        description="Origins whose pages may call the gateway from a browser, comma-separated; `*` "
        "for all.",
    )

    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines as `text`, or as `json` objects, one per line."
    )
    access_log: bool = Field(
        default=True, description="Whether each request has a line in the log."
    )
    access_log_probes: bool = Field(
        default=False, description="Whether health probes have lines there, too."
    )

    tracing: bool = Field(
        default=False, description="Whether predictions are traced; needs modelmux[tracing]."
    )

    @field_validator("tracking_uri", "registry_uri")
    @classmethod
    def _has_known_scheme(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        scheme = parts.scheme.partition("+")[0].lower()
        if scheme not in _REGISTRY_SCHEMES and not value.startswith(("databricks", "/", ".")):
            raise ValueError(
                "not a URI of an MLflow server or store, such as http://127.0.0.1:5000"
            )
        if scheme in _WEB and not parts.hostname:
            raise ValueError("the URL names no host")
        if scheme in _WEB and (parts.fragment or parts.query):
            raise ValueError("leave out what a page's address has from # or ? on")
        return value

    @field_validator("tracking_uri")
    @classmethod
    def _is_no_catalog(cls, value: str) -> str:
        if value.startswith(("databricks-uc", "uc:")):
            raise ValueError("Unity Catalog is a registry: name it by registry_uri")
        return value

    @field_validator("mlflow_ui_url")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in _WEB or not parts.hostname or parts.username or parts.query:
            raise ValueError("not a URL to be shown to all, such as https://mlflow.example.com")
        return value

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, value: str) -> str:
        path = value.rstrip("/")
        if not re.fullmatch(PREFIX_PATTERN, path):
            raise ValueError("not a path, such as /ml")
        return path

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != EVERYBODY and not re.fullmatch(ORIGIN_PATTERN, origin.lower()):
                raise ValueError("not an origin, such as https://app.example.com, and not *")
            if re.fullmatch(r"http://.*:80|https://.*:443", origin.lower()):
                raise ValueError("browsers leave out the port that is the scheme's own; do so here")
        return value

    @field_validator(
        "include", "exclude", "public", "trusted_proxies", "cors_origins", mode="before"
    )
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        if isinstance(value, str):
            if _is_json_list(value):  # taken for a pattern it would match nothing, without a word
                raise ValueError("separate several by commas, without brackets and quotes")
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("state_dir", "environments_dir", "keys_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("capture_url")
    @classmethod
    def _absolute_where_here(cls, value: str | None) -> str | None:
        """Processes of the gateway have other working folders."""
        if value is None or urlsplit(value).scheme:
            return value
        return str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.grpc_port == self.port and self.grpc_host in (None, self.host):
            raise ValueError("grpc_port (MODELMUX_GRPC_PORT): it is the port of HTTP, too")
        most = self.ingress_max_replicas
        if most is not None and most < self.ingress_replicas:
            raise ValueError(
                "ingress_max_replicas (MODELMUX_INGRESS_MAX_REPLICAS): less than ingress_replicas"
            )
        return self

    @property
    def is_door_ours(self) -> bool:
        """Whether callers reach the one ingress process directly; where there may be several, or
        on a cluster that is joined, Serve's proxies are in front of them."""
        most = max(self.ingress_replicas, self.ingress_max_replicas or 1)
        return self.ray_address is None and most == 1

    @property
    def url(self) -> str:
        """Where the gateway is reached from this machine."""
        return _address(self.host, self.port)

    @property
    def published_url(self) -> str:
        """Where its users reach it, who may be on the other side of a container's wall."""
        return _address(self.published_host or self.host, self.published_port or self.port)

    @property
    def mlflow_address(self) -> str | None:
        """Where pages lead to MLflow, without user and password; None where it has no page."""
        if self.mlflow_ui_url is not None:
            return self.mlflow_ui_url
        url = self.registry_uri or self.tracking_uri
        return without_credentials(url) if urlsplit(url).scheme in _WEB else None

    @property
    def admission_limits(self) -> AdmissionLimits:
        """What an ingress process holds at once."""
        return AdmissionLimits(
            model_requests=self.max_waiting_requests_per_model,
            model_rows=self.max_waiting_rows_per_model,
            rows=self.max_waiting_rows,
            body_bytes=self.max_waiting_bytes,
        )

    @property
    def capture_limits(self) -> CaptureLimits:
        """When what is captured is written, and how much of it may wait."""
        return CaptureLimits(
            file_bytes=self.capture_file_bytes,
            file_age_s=self.capture_file_age_s,
            buffer_bytes=self.capture_buffer_bytes,
        )

    @property
    def environments_folder(self) -> Path:
        """Where environments are built."""
        return self.environments_dir or self.state_dir / "environments"

    @property
    def needs_dir(self) -> Path:
        """Where it is kept what versions' files say of their packages."""
        return self.state_dir / "needs"

    @property
    def artifact_dir(self) -> Path:
        """Where fetched artifacts are kept."""
        return self.state_dir / "artifacts"


def read_settings(given: Mapping[str, object], *, options: Collection[str] = ()) -> Settings:
    """The settings as given, and for the rest from the environment; raises BadSettings. `options`
    are the names of those that can be given on the command line here."""
    _refuse_unknown_variables()
    mlflows = None if "tracking_uri" in given or _is_set("TRACKING_URI") else tracking_server()
    if mlflows is not None:
        given = {**given, "tracking_uri": mlflows}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        told = dict.fromkeys(_reason(problem, options) for problem in found)
        if mlflows is not None and any(problem["loc"] == ("tracking_uri",) for problem in found):
            told["tracking_uri is that of MLFLOW_TRACKING_URI here"] = None
        raise BadSettings("; ".join(told)) from None


def _is_set(name: str) -> bool:
    """Whether our variable has a value, in capitals or not: pydantic takes both."""
    return any(
        value and variable.upper() == f"{PREFIX}{name}" for variable, value in os.environ.items()
    )


def _reason(problem: ErrorDetails, options: Collection[str]) -> str:
    """What is wrong with a setting, by all the names that it may be given by."""
    said = problem.get("ctx", {}).get("error")
    if not problem["loc"]:
        return str(said)  # of two that don't fit together, which it names
    name = str(problem["loc"][0])
    variable = f"{PREFIX}{name}".upper()
    option = f"--{name.replace('_', '-')}"
    if problem["type"] == "missing":
        given = f"give {option}, or set" if name in options else "set"
        return f"{name}: {given} {variable}"
    names = f"{option}, {variable}" if name in options else variable
    return f"{name} ({names}): {said or _REASONS.get(problem['type'], problem['msg'])}"


def _refuse_unknown_variables() -> None:
    known = {f"{PREFIX}{name}".upper() for name in (*Settings.model_fields, *CLIENT_VARIABLES)}
    unknown = sorted(
        name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known
    )
    if unknown:
        raise BadSettings(f"{', '.join(unknown)}: there is no such setting")


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder` (made itself where it isn't there)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _address(host: str, port: int) -> str:
    """What listens on every address is asked at the loopback's."""
    found = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{f'[{found}]' if ':' in found and found[0] != '[' else found}:{port}"
