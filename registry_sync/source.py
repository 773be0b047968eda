"""The registry as it is now: the only client of MLflow's registry.

Owns paging, the reading of MLmodel files (once per version, side by side) and the translation of
everything MLflow may raise into `RegistryUnreachable` or a version's `problem`. What it reads is
in `registry_sync.records`; what it means is decided elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.entities.model_registry import RegisteredModel as MlflowModel
from mlflow.exceptions import MlflowException

from gateway.catalog import ModelVersion
from registry_sync.mlmodel import ModelFacts, read_example, read_mlmodel
from registry_sync.records import RegisteredModel, RegistryReading, RegistryUnreachable
from registry_sync.tags import accepts_breaking, environment_mode, version_warnings
from registry_sync.version_files import ArtifactStores, FilesUnreadable, VersionFiles

_logger = logging.getLogger(__name__)

_PAGE = 1000
_READERS = 8
_RETRY_UNREADABLE_AFTER_S = 60.0

# What a registry that is down, misconfigured or half-way through an answer makes MLflow raise.
_REGISTRY_FAILURES = (MlflowException, OSError, ValueError, KeyError)
_UNREADABLE = (*_REGISTRY_FAILURES, FilesUnreadable)


class RegistrySource(Protocol):
    """Whatever can tell what is registered."""

    def read(self) -> RegistryReading:
        """All registered models; blocks; raises RegistryUnreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamePatterns:
    """Which model names are read: glob patterns as in `fnmatch`; exclude wins over include."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def admit(self, name: str) -> bool:
        """Whether a model of that name is wanted."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)


@dataclass(slots=True)
class _Unreadable:
    facts: ModelFacts
    since: float = field(default_factory=time.monotonic)

    @property
    def is_recent(self) -> bool:
        return time.monotonic() - self.since < _RETRY_UNREADABLE_AFTER_S


class MlflowRegistry:
    """Reads an MLflow registry; keeps what can't change, so a quiet registry costs two searches.

    Not for use by several threads at once.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        registry_uri: str | None = None,
        patterns: NamePatterns | None = None,
        known: Iterable[ModelVersion] = (),
    ) -> None:
        self._tracking_uri = tracking_uri
        self._registry_uri = registry_uri or tracking_uri
        self._patterns = patterns or NamePatterns()
        self._client: MlflowClient | None = None
        # Artifacts of a version never change: its facts are read once and kept by fingerprint.
        self._known: dict[str, ModelVersion] = {
            version.fingerprint: version for version in known if version.problem is None
        }
        self._unreadable: dict[str, _Unreadable] = {}
        self._stores = ArtifactStores(tracking_uri=tracking_uri, registry_uri=self._registry_uri)

    def read(self) -> RegistryReading:
        """All registered models with their versions, ascending; raises RegistryUnreachable.

        Aliases are taken from the registered models, because a search of versions shows none.
        """
        try:
            models = [m for m in self._search_models() if self._patterns.admit(m.name)]
            versions = self._versions_by_model({m.name for m in models})
        except _REGISTRY_FAILURES as error:
            _logger.debug("the registry gave no usable answer", exc_info=error)
            raise RegistryUnreachable(
                f"The registry at {without_credentials(self._registry_uri)} gives no usable "
                f"answer ({type(error).__name__})."
            ) from error
        return tuple(_registered_model(model, versions.get(model.name, ())) for model in models)

    def read_version(self, name: str, number: int) -> ModelVersion:
        """One version with its facts; raises RegistryUnreachable, LookupError if unknown."""
        with _answers_about(f"{name} version {number}"):
            record = self._connected().get_model_version(name, str(number))
            if self._must_read(record):
                self._read_artifacts(record)
            return self._with_facts(record)

    def read_model(self, name: str) -> RegisteredModel:
        """One model without its versions; raises RegistryUnreachable, LookupError if unknown."""
        with _answers_about(f"a model {name}"):
            return _registered_model(self._connected().get_registered_model(name), ())

    def ready_versions(self, name: str) -> list[int]:
        """The numbers of a model's READY versions; raises RegistryUnreachable."""
        with _answers_about(f"a model {name}"):
            found = self._connected().search_model_versions(_named(name))
            return [int(record.version) for record in found if record.status == "READY"]

    def files_of(self, name: str, number: int) -> VersionFiles:
        """A version's files, for one thread; raises RegistryUnreachable, FilesUnreadable,
        LookupError if unknown."""
        with _answers_about(f"{name} version {number}"):
            return self._files(name, str(number))

    def _connected(self) -> MlflowClient:
        # Not in the constructor: MLflow resolves the store there, which may fail.
        if self._client is None:
            self._client = MlflowClient(self._tracking_uri, self._registry_uri)
        return self._client

    def _search_models(self) -> Iterator[MlflowModel]:
        return _all_pages(self._connected().search_registered_models)

    def _search_versions(self) -> Iterator[MlflowVersion]:
        return _all_pages(self._connected().search_model_versions)

    def _versions_by_model(self, names: set[str]) -> dict[str, list[ModelVersion]]:
        wanted = [v for v in self._search_versions() if v.name in names]
        unread = [record for record in wanted if self._must_read(record)]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="mlmodel") as readers:
            list(readers.map(self._read_artifacts, unread))
        by_model: dict[str, list[ModelVersion]] = {}
        for record in wanted:
            by_model.setdefault(record.name, []).append(self._with_facts(record))
        self._forget_all_but({_fingerprint(record) for record in wanted})
        return by_model

    def _forget_all_but(self, fingerprints: set[str]) -> None:
        self._known = {k: v for k, v in self._known.items() if k in fingerprints}
        self._unreadable = {k: v for k, v in self._unreadable.items() if k in fingerprints}

    def _must_read(self, record: MlflowVersion) -> bool:
        fingerprint = _fingerprint(record)
        if record.status != "READY" or fingerprint in self._known:
            return False
        unreadable = self._unreadable.get(fingerprint)
        return unreadable is None or not unreadable.is_recent

    def _with_facts(self, record: MlflowVersion) -> ModelVersion:
        """The version with what is known of its artifacts; the same object while nothing changes,
        so that a quiet registry costs no copies and no comparisons further on."""
        fingerprint = _fingerprint(record)
        known = self._known.get(fingerprint)
        if known is None:
            unreadable = self._unreadable.get(fingerprint)
            facts = ModelFacts() if unreadable is None else unreadable.facts
            return _version(record, fingerprint, facts, None)
        changeable = _changeable(record)
        if any(getattr(known, name) != value for name, value in changeable.items()):
            known = self._known[fingerprint] = known.model_copy(update=changeable)
        return known

    def _read_artifacts(self, record: MlflowVersion) -> None:
        """Have the facts of a version in `_known`, or why there are none in `_unreadable`."""
        fingerprint = _fingerprint(record)
        try:
            facts, example = self._fetch_facts(record)
        except _UNREADABLE as error:
            _logger.warning(
                "the MLmodel file of %s version %s can't be read", record.name, record.version,
                exc_info=error,
            )  # fmt: skip
            facts = ModelFacts(problem="Its MLmodel file can't be read from the artifact store.")
            self._unreadable[fingerprint] = _Unreadable(facts)
        else:
            self._known[fingerprint] = _version(record, fingerprint, facts, example)

    def _fetch_facts(self, record: MlflowVersion) -> tuple[ModelFacts, Any]:
        files = self._files(record.name, record.version)
        facts = read_mlmodel(_text(files, "MLmodel"))
        if facts.example_path is None or facts.signature is None or facts.problem is not None:
            return facts, None
        return facts, _example(files, facts.example_path, facts.signature)

    def _files(self, name: str, number: str) -> VersionFiles:
        # Not the client's own method, which first asks whether the name is a prompt's: a request
        # more for each version, and the search that found it lists no prompts.
        registry = self._connected()._get_registry_client()  # type: ignore[no-untyped-call]
        return self._stores.open(registry.get_model_version_download_uri(name, number))


def _text(files: VersionFiles, path: str) -> str:
    return files.read_known(path).decode("utf-8")


def _example(files: VersionFiles, path: str, signature: str) -> Any:
    try:
        return read_example(_text(files, path), signature)
    except _UNREADABLE:
        return None  # an example is a nicety: the version serves without it


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _answers_about(what: str) -> Iterator[None]:
    """MLflow's exceptions about one thing, as LookupError or RegistryUnreachable."""
    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise LookupError(f"The registry has no {what}.") from error
        raise RegistryUnreachable(f"The registry answered {error.error_code}.") from error
    except OSError as error:
        raise RegistryUnreachable(
            f"The registry gives no usable answer ({type(error).__name__})."
        ) from error


def _registered_model(model: MlflowModel, versions: Iterable[ModelVersion]) -> RegisteredModel:
    return RegisteredModel(
        name=model.name,
        description=model.description or "",
        tags=dict(model.tags or {}),
        aliases={alias: int(number) for alias, number in (model.aliases or {}).items()},
        versions=tuple(sorted(versions, key=lambda version: version.number)),
        created_at_ms=int(model.creation_timestamp or 0),
    )


def _version(
    record: MlflowVersion, fingerprint: str, facts: ModelFacts, example: Any
) -> ModelVersion:
    return ModelVersion(
        number=int(record.version),
        fingerprint=fingerprint,
        signature=facts.signature,
        problem=facts.problem,
        flavor=facts.flavor,
        ships_code=facts.ships_code,
        example=example,
        task=facts.task,
        streamable=facts.streamable,
        created_at_ms=int(record.creation_timestamp or 0),
        **_changeable(record),
    )


def _changeable(record: MlflowVersion) -> Mapping[str, Any]:
    """What the registry may say anew about the same artifacts."""
    return {
        "registry_status": record.status,
        "description": record.description or "",
        "accept_breaking": accepts_breaking(record.tags or {}),
        "environment": environment_mode(record.tags or {}),
        "warnings": version_warnings(record.tags or {}),
    }


def _named(name: str) -> str:
    """MLflow's filter for one model; its strings may be in either kind of quotes."""
    quote = '"' if "'" in name else "'"
    return f"name={quote}{name}{quote}"


def _fingerprint(record: MlflowVersion) -> str:
    return f"{record.name}/{record.version}/{record.creation_timestamp}/{record.source}"


def without_credentials(uri: str) -> str:
    """The URI as it may be shown and kept: without user and password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else uri
